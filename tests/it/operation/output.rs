//! Output: messages on stdout, lines on stderr, and a server that never waits for either.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid};
use threadsocks::client;

use crate::support::endpoints::{
    CLOSED, Origin, by_address, connect_through, dial, free_ports, read_all, read_exactly,
    shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};
use crate::support::server_output::parse_screen;
use crate::support::tools::is_installed;
use crate::support::wait::until;

/// Sends a request that is refused at once: port 0 is no destination.
fn send_refused_request(proxy: SocketAddr) {
    let port_zero = by_address((Ipv4Addr::LOCALHOST, 0).into());
    client::socks4::connect(dial(proxy), &port_zero, b"").expect_err("refused");
}

#[test]
fn a_message_has_six_lines_and_an_empty_one() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::with(Setup {
        stdout: Some(Stdio::from(writer)),
        ..Setup::default()
    });
    let client = dial(proxy.address());
    let own = client.local_addr().unwrap().port();
    client::socks4::connect(client, &by_address(CLOSED.into()), b"").expect_err("refused");
    proxy.finish();
    let mut screen = String::new();
    reader.read_to_string(&mut screen).unwrap();
    assert_eq!(
        screen,
        format!(
            "<S_IP>: 127.0.0.1\n<S_PORT>: {own}\n<D_IP>: 127.0.0.1\n<D_PORT>: 1\n\
             <Command>: CONNECT\n<Reply>: Reject\n\n"
        )
    );
}

#[test]
fn verbose_logs_each_session_in_one_line() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    write(&client, b"hello");
    shutdown_write(&client);
    assert_eq!(read_all(&client), b"hello");
    let line = proxy.stderr_line("ending=\"finished\"");
    let own = client.local_addr().unwrap();
    for part in [
        &format!(" s1 client={own} language=SOCKS4 command=CONNECT target=127.0.0.1:"),
        " address=127.0.0.1 user=\"test\" rule=1 up=5 down=5 lasted=\"",
    ] {
        assert!(line.contains(part), "{line}");
    }
    client::socks4::connect(dial(proxy.address()), &by_address(CLOSED.into()), b"")
        .expect_err("refused");
    let line = proxy.stderr_line("refused: 127.0.0.1:1: Connection refused");
    assert!(line.contains("up=0 down=0"), "{line}");
    proxy.finish();
}

#[test]
fn quiet_and_log_none_print_nothing() {
    // With -q the server does not report a port from its command line, so the test waits
    // until a connection succeeds.
    let port = crate::support::endpoints::free_ports(1);
    let mut server = crate::support::proxy::binary()
        .args(["-q", "--log", "none", "-b", "127.0.0.1", &port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    crate::support::wait::until("the server", || std::net::TcpStream::connect(address).ok());
    send_refused_request(address);
    let pid = nix::unistd::Pid::from_raw(server.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(server.wait().unwrap().success());
    for stream in [
        &mut server.stdout.take().unwrap() as &mut dyn Read,
        &mut server.stderr.take().unwrap(),
    ] {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    }
}

#[test]
fn l02_a_closed_stdout_does_not_stop_the_server() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let proxy = Proxy::with(Setup {
        stdout: Some(Stdio::from(writer)),
        ..Setup::default()
    });
    for _ in 0..20 {
        send_refused_request(proxy.address());
    }
    let line = proxy.stderr_line("screen messages are lost");
    assert!(line.contains("Broken pipe"), "{line}");
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.finish();
}

#[test]
fn l03_an_unread_stdout_does_not_stop_the_server_and_dropped_messages_are_counted() {
    let (reader, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::with(Setup {
        stdout: Some(Stdio::from(writer)),
        ..Setup::default()
    });
    // More messages than the pipe (some 600) and the queue (8192) hold.
    let requests = 12_000;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..requests / 4 {
                    send_refused_request(proxy.address());
                }
            });
        }
    });
    let began = Instant::now();
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    assert!(began.elapsed() < Duration::from_secs(2));
    proxy.assert_resources_released();

    // From now on a thread reads: every message is printed or counted as dropped.
    let reader_thread = thread::spawn(move || {
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<String>>()
    });
    let line = proxy.stderr_line("screen messages dropped");
    let dropped = line.split_whitespace().nth(1).unwrap();
    let dropped: usize = dropped.parse().expect("a count");
    proxy.finish();
    let printed = parse_screen(&reader_thread.join().unwrap()).len();
    // The refused requests, and the one that was granted.
    assert_eq!(
        printed + dropped,
        requests + 1,
        "{printed} printed, {dropped} dropped"
    );
    assert!(printed > 8192 / 2, "{printed} printed");
}

#[test]
fn l04_s11_a_full_disk_does_not_stop_the_server() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let proxy = Proxy::with(Setup {
        stdout: Some(Stdio::from(full)),
        ..Setup::default()
    });
    send_refused_request(proxy.address());
    proxy.stderr_line("No space left on device");
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.finish();
}

#[test]
fn l04_a_file_at_its_size_limit_does_not_stop_the_server() {
    if !is_installed("prlimit", "util-linux") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let screen = folder.path().join("screen");
    // RLIMIT_FSIZE in bytes. A write beyond it raises SIGXFSZ, which kills a process that
    // does not block the signal.
    let proxy = Proxy::with(Setup {
        wrapper: &["prlimit", "--fsize=1000", "--"],
        stdout: Some(Stdio::from(File::create(&screen).unwrap())),
        ..Setup::default()
    });
    for _ in 0..30 {
        send_refused_request(proxy.address());
    }
    proxy.stderr_line("File too large");
    drop(connect_through(
        proxy.address(),
        &Origin::echo().destination(),
    ));
    proxy.finish();
    assert_eq!(screen.metadata().unwrap().len(), 1000);
}

#[test]
fn l05_o09_closed_standard_streams_do_not_stop_the_server() {
    let port = crate::support::endpoints::free_ports(1);
    let command = format!(
        "exec {} -v -b 127.0.0.1 {port} <&- >&- 2>&-",
        env!("CARGO_BIN_EXE_threadsocks")
    );
    let mut server = std::process::Command::new("sh")
        .args(["-c", &command])
        .spawn()
        .unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    crate::support::wait::until("the server", || std::net::TcpStream::connect(address).ok());
    for _ in 0..50 {
        send_refused_request(address);
    }
    let echo = connect_through(address, &Origin::echo().destination());
    write(&echo, b"alive");
    shutdown_write(&echo);
    assert_eq!(read_all(&echo), b"alive");
    let pid = nix::unistd::Pid::from_raw(server.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
}

#[test]
fn refusals_are_explained_at_most_once_a_second_and_counted() {
    let proxy = Proxy::open();
    let began = Instant::now();
    for _ in 0..300 {
        send_refused_request(proxy.address());
    }
    proxy.screen_messages(300);
    proxy.stderr_line(" more requests refused (");
    let took = began.elapsed();
    let lines = proxy.stderr_lines();
    let explained = lines.iter().filter(|line| line.contains("refused")).count();
    let max = 3 + 2 * took.as_secs() as usize;
    assert!(
        explained <= max,
        "{explained} lines in {took:?}: {lines:#?}"
    );
    proxy.finish();
}

#[test]
fn l09_relayed_data_is_never_printed() {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let origin = Origin::echo();
    let client = connect_through(proxy.address(), &origin.destination());
    write(&client, b"PASS hunter2\r\n");
    assert_eq!(read_exactly(&client, 14), b"PASS hunter2\r\n");
    let own = client.local_addr().unwrap();
    drop(client);
    proxy.stderr_line("ending=");
    proxy.screen_message_for(own);
    for line in proxy.stderr_lines() {
        assert!(!line.contains("hunter2"), "{line}");
    }
    // finish() checks that stdout has nothing but messages.
    proxy.finish();
}

/// Sets or clears O_NONBLOCK of the open file description, which all processes share that
/// have inherited it.
fn set_blocking(output: &impl AsFd, blocks: bool) {
    let flag = if blocks {
        OFlag::empty()
    } else {
        OFlag::O_NONBLOCK
    };
    fcntl(output, FcntlArg::F_SETFL(flag)).expect("set");
}

#[test]
fn l11_no_message_is_lost_on_an_output_that_does_not_block() {
    let (reader, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::with(Setup {
        stdout: Some(Stdio::from(writer.try_clone().unwrap())),
        ..Setup::default()
    });
    // More than the pipe (some 600 messages) holds, less than the queue (8192).
    let requests = 3000;
    for number in 0..requests {
        if number % 100 == 0 {
            // Another process may set the flag at any time, and clear it.
            set_blocking(&writer, number % 500 == 400);
        }
        send_refused_request(proxy.address());
    }
    set_blocking(&writer, false);
    drop(writer);
    let reading = thread::spawn(move || {
        BufReader::new(reader)
            .lines()
            .map_while(Result::ok)
            .collect()
    });
    let lines = proxy.stderr_lines();
    proxy.finish();
    let screen: Vec<String> = reading.join().unwrap();
    assert_eq!(parse_screen(&screen).len(), requests, "{lines:#?}");
}

/// A server on a port of its own, whose stderr the test reads later or never.
pub(super) struct UnreadServer {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
}

impl UnreadServer {
    pub(super) fn start(stderr: PipeWriter, rules: &str, options: &[&str]) -> UnreadServer {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("socks.conf");
        std::fs::write(&config, rules).unwrap();
        let port = free_ports(1);
        let child = binary()
            .args(["-b", "127.0.0.1", "-c"])
            .arg(config)
            .args(options)
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = UnreadServer { child, address };
        until("the server", || TcpStream::connect(address).ok());
        server
    }

    /// Sends SIGTERM, and waits for the exit.
    pub(super) fn terminate(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        until("the exit of the server", || self.child.try_wait().unwrap())
    }
}

impl Drop for UnreadServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn l11_no_line_is_lost_on_a_stderr_that_does_not_block() {
    let (reader, writer) = std::io::pipe().unwrap();
    set_blocking(&writer, false);
    let server = UnreadServer::start(writer, PERMIT_ALL, &["-v"]);
    // More lines than the pipe holds (some 400), fewer than the queue (4096).
    let requests = 1500;
    for _ in 0..requests {
        send_refused_request(server.address);
    }
    let reading = thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        lines.collect::<Vec<String>>()
    });
    assert!(server.terminate().success());
    let lines = reading.join().unwrap();
    let sessions = lines
        .iter()
        .filter(|line| line.contains("ending=\"refused"));
    assert_eq!(sessions.count(), requests, "{:#?}", lines.last());
}

/// A pipe without room.
pub(super) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    set_blocking(&writer, false);
    while unistd::write(&writer, b"x").is_ok() {}
    (reader, writer)
}

#[test]
fn l12_a_stderr_that_is_never_read_delays_neither_the_start_nor_a_signal() {
    let denials: String = (0..1500)
        .map(|it| format!("deny - ads{it}.example\n"))
        .collect();
    let rules = format!("{denials}{PERMIT_ALL}");
    for blocks in [true, false] {
        let (_reader, writer) = full_pipe();
        set_blocking(&writer, blocks);
        let server = UnreadServer::start(writer, &rules, &[]);
        let destination = Origin::echo().destination();
        drop(connect_through(server.address, &destination));
        let began = Instant::now();
        assert!(server.terminate().success());
        // The logger gets a second.
        assert!(began.elapsed() < Duration::from_secs(4), "{began:?}");
    }
}

#[test]
fn l12_a_failed_start_ends_although_stderr_is_never_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    std::fs::write(&config, "nonsense\n".repeat(1000)).unwrap();
    let in_use = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = in_use.local_addr().unwrap().port().to_string();
    let valid = folder.path().join("valid");
    std::fs::write(&valid, PERMIT_ALL).unwrap();
    for (config, users, status) in [
        (&config, None, 2),
        (&valid, Some(&config), 2),
        (&valid, None, 1),
    ] {
        let (_reader, writer) = full_pipe();
        set_blocking(&writer, true);
        let mut command = binary();
        command
            .args(["-b", "127.0.0.1", "-c"])
            .arg(config)
            .arg(&port);
        if let Some(users) = users {
            command.arg("--users").arg(users);
        }
        let mut server = command.stderr(writer).spawn().unwrap();
        let ended = until("the exit", || server.try_wait().unwrap());
        assert_eq!(ended.code(), Some(status));
    }
}

#[test]
fn l13_check_writes_all_of_a_long_report_to_a_slow_pipe_that_does_not_block() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    std::fs::write(&config, "permit c 10. - - 80\n".repeat(20_000)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    set_blocking(&writer, false);
    let mut command = binary();
    command.arg("--check").arg("-c").arg(&config).stdout(writer);
    let mut check = command.spawn().unwrap();
    drop(command);
    let lines = BufReader::new(reader).lines().map_while(Result::ok).count();
    // A line for each rule, the number of rules, and a warning: all are equal.
    assert_eq!(lines, 20_002);
    assert!(check.wait().unwrap().success());
}

#[test]
fn l13_a_reader_that_has_read_enough_is_no_error_and_a_full_disk_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    let rules = "permit c 10. - - 80\n".repeat(20_000) + "permit c 10. - - 81\n";
    std::fs::write(&config, rules).unwrap();
    let config = config.to_str().unwrap();
    let actions = [
        &["--check", "-c", config][..],
        &["--explain", "c 10.0.0.1 10.0.0.2 81", "-c", config],
        &["--help"],
        &["--version"],
    ];
    let run =
        |action: &[&str], stdout: Stdio| Command::output(binary().args(action).stdout(stdout));
    for action in actions {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(action, Stdio::from(writer)).unwrap();
        assert!(output.status.success(), "{action:?} {output:?}");
        assert_eq!(output.stderr, b"", "{action:?}");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = run(action, Stdio::from(full)).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{action:?} {stderr}");
        assert!(
            stderr.contains("cannot write the output: No space left"),
            "{stderr}"
        );
    }
}
