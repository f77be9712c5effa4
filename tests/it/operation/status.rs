//! The tables of sessions and threads that SIGUSR1 prints.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{self, Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use threadsocks::client;
use threadsocks::protocol::Command;

use super::output::{UnreadServer, full_pipe};
use crate::support::endpoints::{
    CLOSED, Origin, UnresponsiveListener, accept, by_address, connect_through, dial, read_all,
    read_exactly, read_until_reset, request, reset, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, binary};
use crate::support::udp_client::UdpClient;
use crate::support::wait::{TIMEOUT, until};

/// Rows of each table at most, as the manual says.
const MAX_ROWS: usize = 1000;

/// A table: its headings and its rows.
#[derive(Debug)]
struct Table {
    headings: String,
    rows: Vec<String>,
}

impl Table {
    /// The cell of a row below this heading.
    fn cell<'a>(&self, row: &'a str, heading: &str) -> &'a str {
        let start = self.headings.find(heading).expect(heading);
        let after = &self.headings[start + heading.len()..];
        let blanks = after.len() - after.trim_start().len();
        let end = match after.trim_start() {
            "" => row.len(),
            _ => start + heading.len() + blanks,
        };
        assert!(start == 0 || row[..start].ends_with("  "), "{self:#?}");
        row[start..end].trim_end()
    }

    /// The row with this text in its first cell.
    fn row(&self, name: &str) -> Option<&str> {
        let first = self.headings.split(' ').next().unwrap();
        let mut rows = self.rows.iter().map(String::as_str);
        rows.find(|row| self.cell(row, first) == name)
    }

    /// The cells of this row below these headings.
    fn cells<const N: usize>(&self, name: &str, headings: [&str; N]) -> [&str; N] {
        let row = self.row(name).unwrap_or_else(|| panic!("{name} {self:#?}"));
        headings.map(|heading| self.cell(row, heading))
    }
}

/// What one signal prints.
#[derive(Debug)]
struct Status {
    summary: String,
    sessions: Table,
    threads: Table,
}

/// All complete pairs of tables. Fails if a line comes between two of their lines.
fn parse(lines: &[String]) -> Vec<Status> {
    let is_summary = |line: &&String| line.starts_with("threadsocks: ") && line.contains(" of ");
    let starts = (0..lines.len()).filter(|&at| is_summary(&&lines[at]));
    starts.filter_map(|at| parse_one(&lines[at..])).collect()
}

fn parse_one(lines: &[String]) -> Option<Status> {
    let (summary, lines) = lines.split_first()?;
    let words: Vec<&str> = summary.split(' ').collect();
    let (sessions, lines) = table(lines, "SESSION", words[1].parse().unwrap())?;
    let (count, lines) = lines.split_first()?;
    let count = count.strip_suffix(" threads").expect("a number of threads");
    let (threads, _) = table(lines, "NAME", count.parse().unwrap())?;
    Some(Status {
        summary: summary.clone(),
        sessions,
        threads,
    })
}

/// A table with this many rows, some of which may be left out, and the lines after it.
fn table<'a>(lines: &'a [String], heading: &str, count: usize) -> Option<(Table, &'a [String])> {
    let (headings, lines) = lines.split_first()?;
    assert!(headings.starts_with(heading), "{headings}");
    let shown = count.min(MAX_ROWS);
    let rows = lines.get(..shown)?.to_vec();
    let mut rest = &lines[shown..];
    if count > shown {
        let (more, after) = rest.split_first()?;
        let start = format!("{} more ", count - shown);
        assert!(more.starts_with(&start) && more.ends_with(" are not shown"));
        rest = after;
    }
    let headings = headings.clone();
    Some((Table { headings, rows }, rest))
}

impl Proxy {
    /// Requests tables until a pair of them satisfies the condition, and returns it.
    fn wait_for_tables(&self, is_expected: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        let mut seen = parse(&self.stderr_lines()).len();
        loop {
            self.signal(Signal::SIGUSR1);
            let mut all = until("tables", || {
                let all = parse(&self.stderr_lines());
                (all.len() > seen).then_some(all)
            });
            seen = all.len();
            let last = all.pop().unwrap();
            if is_expected(&last) {
                return last;
            }
            assert!(began.elapsed() < TIMEOUT, "{last:#?}");
        }
    }
}

#[test]
fn o16_each_session_has_a_row_whatever_its_state() {
    let proxy = Proxy::open();
    let unresponsive = UnresponsiveListener::new();
    let silent = dial(proxy.address());
    let connecting = dial(proxy.address());
    let to = by_address(unresponsive.address());
    write(&connecting, &request(Command::Connect, &to, b"alice"));
    let binding = dial(proxy.address());
    client::socks4::bind(
        binding.try_clone().unwrap(),
        &by_address(CLOSED.into()),
        b"",
    )
    .unwrap();
    let echo = Origin::echo();
    let relayed = connect_through(proxy.address(), &echo.destination());
    write(&relayed, b"hello");
    assert_eq!(read_exactly(&relayed, 5), b"hello");
    let associated = UdpClient::new(&proxy);
    let status = proxy.wait_for_tables(|status| {
        let expected = ": 1 handshake, 1 connect, 1 bind, 1 relay, 1 association";
        // The bytes are counted after they are sent.
        status.summary.ends_with(expected)
            && status.sessions.cells("s4", ["UP", "DOWN"]) == ["5", "5"]
    });
    assert!(status.summary.starts_with("threadsocks: 5 of "));
    let clients = [
        &silent,
        &connecting,
        &binding,
        &relayed,
        &associated.control,
    ];
    for (row, client) in status.sessions.rows.iter().zip(clients) {
        let address = client.local_addr().unwrap().to_string();
        assert_eq!(status.sessions.cell(row, "CLIENT"), address);
    }
    let cells = |name| {
        let headings = ["STATE", "VERSION", "COMMAND", "TARGET", "ADDRESS", "USER"];
        status.sessions.cells(name, headings)
    };
    let target = |address: SocketAddr| address.to_string();
    assert_eq!(cells("s1"), ["handshake", "-", "-", "-", "-", "-"]);
    let address = target(unresponsive.address());
    let expected = ["connect", "SOCKS4", "CONNECT", &address, "-", "\"alice\""];
    assert_eq!(cells("s2"), expected);
    let address = target(CLOSED.into());
    let expected = ["bind", "SOCKS4", "BIND", &address, "-", "-"];
    assert_eq!(cells("s3"), expected);
    let address = target(echo.address());
    let expected = [
        "relay",
        "SOCKS4",
        "CONNECT",
        &address,
        "127.0.0.1",
        "\"test\"",
    ];
    assert_eq!(cells("s4"), expected);
    let expected = ["association", "SOCKS5", "UDP ASSOCIATE", "0.0.0.0:0"];
    assert_eq!(cells("s5")[..4], expected);
    let headings = ["RULE", "UP", "DOWN"];
    assert_eq!(status.sessions.cells("s4", headings), ["1", "5", "5"]);
    assert_eq!(status.sessions.cells("s1", headings), ["-", "0", "0"]);
    for (name, is_relaying) in [("s1", false), ("s4", true)] {
        let [age, idle] = status.sessions.cells(name, ["AGE", "IDLE"]);
        assert!(age.ends_with('s'), "{status:#?}");
        assert_eq!(idle.ends_with('s'), is_relaying, "{status:#?}");
    }
    // A mere end of the client is no reason to give up: it may still read.
    reset(connecting);
    drop((silent, binding, relayed, associated));
    proxy.finish();
}

#[test]
fn o17_hostile_names_and_users_stay_in_their_columns() {
    let proxy = Proxy::open();
    let echo = Origin::echo();
    let user = [&b"x\x1b[2J\n s9 \xff"[..], &b"\"".repeat(400)].concat();
    let relayed = dial(proxy.address());
    write(
        &relayed,
        &request(Command::Connect, &echo.destination(), &user),
    );
    assert_eq!(read_exactly(&relayed, 2), [0, 90]);
    // This name is refused. Its session waits two seconds for the client's close.
    let name = format!("a\tb\n{}", "c ".repeat(120));
    let named = [&[4, 1, 1, 187, 0, 0, 0, 1, 0], name.as_bytes(), &[0]].concat();
    let mut status = None;
    for number in 2..20 {
        let refused = dial(proxy.address());
        write(&refused, &named);
        assert_eq!(read_exactly(&refused, 2), [0, 91]);
        let last = proxy.wait_for_tables(|_| true);
        let row = last.sessions.row(&format!("s{number}"));
        if row.is_some_and(|row| last.sessions.cell(row, "STATE") == "closing") {
            status = Some((format!("s{number}"), last));
            break;
        }
    }
    let (refused, status) = status.expect("a session that is closing");
    let [target] = status.sessions.cells(&refused, ["TARGET"]);
    assert!(target.starts_with(r#""a\tb\nc c "#), "{target}");
    assert!(target.ends_with(":443") && target.contains("..."));
    assert_eq!(target.len(), 59);
    let [user, state] = status.sessions.cells("s1", ["USER", "STATE"]);
    assert!(user.starts_with(r#""x\x1b[2J\x0a s9 \xff\""#), "{user}");
    assert_eq!(state, "relay");
    for row in status.sessions.rows.iter().chain(&status.threads.rows) {
        assert!(row.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
    drop(relayed);
    proxy.finish();
}

#[test]
fn o17_of_more_than_a_thousand_sessions_the_oldest_are_shown() {
    const CLIENTS: usize = 1100;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let proxy = Proxy::start(
        PERMIT_ALL,
        &["--max-unheard", "2000", "--max-sessions", "2000"],
    );
    let clients: Vec<_> = (0..CLIENTS).map(|_| dial(proxy.address())).collect();
    let expected = format!("threadsocks: {CLIENTS} of 2000 sessions: {CLIENTS} handshake");
    let status = proxy.wait_for_tables(|status| status.summary == expected);
    assert_eq!(status.sessions.rows.len(), MAX_ROWS);
    assert_eq!(status.threads.rows.len(), MAX_ROWS);
    for (number, row) in (1..).zip(&status.sessions.rows) {
        assert_eq!(status.sessions.cell(row, "SESSION"), format!("s{number}"));
    }
    drop(clients);
    proxy.finish();
}

#[test]
fn o18_each_thread_has_a_row_that_says_what_it_waits_for() {
    let proxy = Proxy::open();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let remote = listener.local_addr().unwrap();
    let client = connect_through(proxy.address(), &by_address(remote));
    let accepted = accept(&listener);
    let own = client.local_addr().unwrap();
    let (up, down) = (format!("to read {own}"), format!("to read {remote}"));
    let wait = |status: &Status, name: &str| {
        let row = status.threads.row(name);
        row.map(|row| status.threads.cell(row, "WAITS FOR").to_owned())
    };
    let status = proxy.wait_for_tables(|status| {
        wait(status, "s1") == Some(up.clone()) && wait(status, "s1-down") == Some(down.clone())
    });
    for (name, expected) in [
        ("accept", "for an event on sockets (poll)"),
        ("signals", "for a signal"),
        ("threadsocks", "for a lock or a notification (futex)"),
    ] {
        assert_eq!(wait(&status, name).as_deref(), Some(expected));
    }
    assert!(wait(&status, "logger").is_some());
    for row in &status.threads.rows {
        let since = status.threads.cell(row, "SINCE");
        assert!(since.ends_with('s') || since.ends_with('m'), "{since}");
    }
    drop((client, accepted));
    proxy.finish();
}

#[test]
fn o16_the_tables_are_printed_during_the_grace_period_too() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", "60s"]);
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    proxy.signal(Signal::SIGTERM);
    proxy.stderr_line("stopping: ");
    let status = proxy.wait_for_tables(|status| status.threads.row("accept").is_none());
    assert!(status.summary.ends_with(": 1 relay"), "{status:#?}");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(130));
    read_until_reset(&client);
}

#[test]
fn o16_quiet_does_not_hide_the_tables() {
    let mut proxy = Proxy::start(PERMIT_ALL, &["--quiet"]);
    let status = proxy.wait_for_tables(|status| status.threads.row("accept").is_some());
    assert!(status.summary.starts_with("threadsocks: 0 of "));
    assert!(status.sessions.rows.is_empty());
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// A storm of signals disturbs no transfer, fills no memory and loses no SIGTERM.
#[test]
fn o19_a_storm_of_requests_for_tables_is_one_table_a_second() {
    const SIZE: usize = 32 << 20;
    let mut proxy = Proxy::open();
    let memory = proxy.status("VmRSS");
    let pid = Pid::from_raw(proxy.pid() as i32);
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            // The signal fails when the process has ended.
            while !is_over.load(Ordering::Relaxed) && kill(pid, Signal::SIGUSR1).is_ok() {
                std::hint::spin_loop();
            }
        });
        let echo = Origin::echo();
        let client = connect_through(proxy.address(), &echo.destination());
        let bytes = vec![7; SIZE];
        thread::scope(|scope| {
            scope.spawn(|| write(&client, &bytes));
            assert!(read_exactly(&client, SIZE) == bytes);
        });
        drop(client);
        proxy.wait_for_stderr(" sessions", 3);
        let grown = proxy.status("VmRSS").saturating_sub(memory);
        assert!(grown < 16 << 10, "{grown} kB");
        proxy.signal(Signal::SIGTERM);
        assert_eq!(proxy.wait().code(), Some(0));
        is_over.store(true, Ordering::Relaxed);
    });
    let tables = parse(&proxy.stderr_lines()).len();
    let seconds = began.elapsed().as_secs() as usize;
    assert!(
        (2..=seconds + 2).contains(&tables),
        "{tables} in {seconds} s"
    );
}

#[test]
fn o19_a_stderr_that_is_not_read_delays_no_session_and_no_stop() {
    let (mut reader, writer) = full_pipe();
    let server = UnreadServer::start(writer, PERMIT_ALL, &[]);
    let pid = Pid::from_raw(server.child.id() as i32);
    let echo = Origin::echo();
    for _ in 0..100 {
        kill(pid, Signal::SIGUSR1).unwrap();
        let client = connect_through(server.address, &echo.destination());
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
    }
    let began = Instant::now();
    assert!(server.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(4), "{began:?}");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
}

/// Starts 50 servers, one after the other. Each gets the signals as soon as `is_ready` says so of
/// its process. Then they stop: after its first tables, each takes a pause of a second, at the same
/// time as the others.
fn assert_all_survive(command: fn() -> process::Command, is_ready: fn(u32) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    std::fs::write(&config, PERMIT_ALL).unwrap();
    let servers = [(); 50].map(|()| {
        let server = command()
            .args(["-b", "127.0.0.1", "-c"])
            .arg(&config)
            .arg("0")
            .stderr(Stdio::piped())
            .spawn();
        let server = KilledAtLast(server.unwrap());
        let pid = server.0.id();
        until("the moment for the signals", || is_ready(pid).then_some(()));
        kill(Pid::from_raw(pid as i32), Signal::SIGUSR2).unwrap();
        kill(Pid::from_raw(pid as i32), Signal::SIGUSR1).unwrap();
        server
    });
    for mut server in servers {
        assert_survives(&mut server.0);
    }
}

/// If the test fails, the servers end with it.
struct KilledAtLast(Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first statement of `main` blocks the signals. Before that, in the loader, the action
/// holds that the process has from its parent: no program can change that itself.
#[test]
fn o20_usr1_and_usr2_end_no_server_that_has_just_begun() {
    assert_all_survive(binary, blocks_user_signals);
}

/// If the parent ignores the signals, they do not end the server in the loader either; afterwards
/// it receives USR1 as usual.
#[test]
fn o20_a_server_whose_parent_ignores_the_signals_survives_them_from_the_first_moment() {
    let ignoring = || {
        let mut shell = process::Command::new("sh");
        shell.args(["-c", "trap '' USR1 USR2; exec \"$@\"", "sh"]);
        shell.arg(env!("CARGO_BIN_EXE_threadsocks"));
        shell
    };
    assert_all_survive(ignoring, |pid| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|path| path.ends_with("threadsocks"))
    });
}

/// Sends USR1 until the server, which has had both signals, prints its tables, and then stops it.
fn assert_survives(server: &mut Child) {
    let pid = Pid::from_raw(server.id() as i32);
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut next = |text: &str| {
        let mut lines = lines.by_ref().map_while(Result::ok);
        lines.find(|line| line.contains(text)).expect(text)
    };
    // A signal that was ignored before `main` prints nothing.
    next("listening on ");
    kill(pid, Signal::SIGUSR1).unwrap();
    next("0 of ");
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

/// Does the first thread of this process block SIGUSR1 and SIGUSR2?
fn blocks_user_signals(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    let bit = |signal: Signal| 1 << (signal as i32 - 1);
    let both = bit(Signal::SIGUSR1) | bit(Signal::SIGUSR2);
    mask & both == both
}

/// The signals do not disturb a session that is relayed.
#[test]
fn o20_usr2_changes_nothing() {
    let proxy = Proxy::open();
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    for _ in 0..100 {
        proxy.signal(Signal::SIGUSR2);
    }
    write(&client, b"x");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"x");
    drop(client);
    proxy.finish();
}
