//! `--enforce`: the server ends sessions that the rules no longer permit.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use nix::sys::signal::Signal;
use threadsocks::client::{self, ClientError};
use threadsocks::config::Settings;
use threadsocks::local_time::LocalClock;
use threadsocks::logger::{self, LogFormat, OutputConfig, Verbosity};
use threadsocks::net::Listeners;
use threadsocks::protocol::{Command, Destination, ReplyError};
use threadsocks::rules::{RulesFile, WeekTime};
use threadsocks::server::{Control, Server, ShutdownKind};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{
    Origin, by_address, by_name, connect_through, dial, dial_from, read_exactly, read_until_reset,
    relayed_pair, request, write,
};
use crate::support::ident_server::Identd;
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::wait::until;

/// Asserts that the session still relays to its echoing remote.
fn assert_relays(client: &TcpStream) {
    write(client, b"x");
    assert_eq!(read_exactly(client, 1), b"x");
}

/// Connects as `user` through the proxy to an echoing remote at 127.0.0.`host`.
fn connect_to_echo(proxy: &Proxy, host: u8, user: &[u8]) -> TcpStream {
    let origin = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("a free port");
    let destination = by_address(origin.local_addr().expect("an address"));
    thread::spawn(move || {
        let (stream, _) = origin.accept().expect("a connection");
        // Returns when the proxy closes or resets the connection.
        let _ = io::copy(&mut &stream, &mut &stream);
    });
    client::socks4::connect(dial(proxy.address()), &destination, user).expect("granted")
}

/// Replaces the rules file atomically, by rename(2).
fn replace_rules(proxy: &Proxy, rules: &str) {
    let new_file = proxy.folder().join("new");
    std::fs::write(&new_file, rules).expect("the rules are written");
    std::fs::rename(new_file, proxy.config()).expect("the file is renamed");
}

/// Waits until stderr reports `count` sessions as ended by the rules, and returns these
/// lines sorted. Fails if there are more.
fn wait_for_session_ends(proxy: &Proxy, count: usize) -> Vec<String> {
    let words = "no longer permitted";
    proxy.wait_for_stderr(words, count);
    let mut lines = proxy.stderr_lines();
    lines.retain(|line| line.contains(words));
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.sort();
    lines
}

#[test]
fn changed_rules_end_exactly_the_sessions_that_they_deny() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let permitted = connect_to_echo(&proxy, 1, b"");
    let permitted_by_user = connect_to_echo(&proxy, 3, b"alice");
    let denied = connect_to_echo(&proxy, 2, b"");
    let denied_by_user = connect_to_echo(&proxy, 1, b"bob");
    let origin = Origin::echo();
    let denied_by_name = connect_through(proxy.address(), &by_name("localhost", origin.port()));
    replace_rules(
        &proxy,
        "deny c localhost\ndeny c 127.0.0.2\ndeny c - user=bob\npermit c 127.0.0.1\n\
         permit c - user=alice\n",
    );
    // The server has to notice the change by itself: no request and no signal arrives.
    for client in [&denied, &denied_by_user, &denied_by_name] {
        assert_eq!(read_until_reset(client), b"");
    }
    assert_relays(&permitted);
    assert_relays(&permitted_by_user);
    let lines = wait_for_session_ends(&proxy, 3);
    let assert_reported = |client: &TcpStream, rule| {
        let own = client.local_addr().unwrap();
        let found = lines
            .iter()
            .find(|line| line.contains(&format!("{own} CONNECT")));
        let why = format!("no longer permitted: rule on line {rule} denies it");
        assert!(
            found.is_some_and(|line| line.ends_with(&why)),
            "{why} {lines:#?}"
        );
    };
    assert_reported(&denied_by_name, 1);
    assert_reported(&denied, 2);
    assert_reported(&denied_by_user, 3);
    // A session that no rule matches is denied too. SIGHUP only saves the wait for the
    // next check.
    replace_rules(&proxy, "permit c 127.0.0.3\n");
    proxy.signal(Signal::SIGHUP);
    assert_eq!(read_until_reset(&permitted), b"");
    assert_relays(&permitted_by_user);
    assert!(
        wait_for_session_ends(&proxy, 4)
            .iter()
            .any(|line| line.ends_with("no rule permits it"))
    );
    drop(permitted_by_user);
    proxy.finish();
}

#[test]
fn without_enforce_changed_rules_end_no_session() {
    let proxy = Proxy::start(PERMIT_ALL, &[]);
    let client = connect_to_echo(&proxy, 1, b"");
    replace_rules(&proxy, "deny - -\n");
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr("1 rule in force", 2);
    // The server has completed its reaction to the first signal when it handles the
    // second.
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("nothing has changed");
    assert_relays(&client);
    drop(client);
    proxy.finish();
}

#[test]
fn rules_with_a_syntax_error_end_no_session() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let client = connect_to_echo(&proxy, 1, b"");
    replace_rules(&proxy, "deny - -\ndeny\n");
    for count in 1..=2 {
        proxy.signal(Signal::SIGHUP);
        proxy.wait_for_stderr("the last valid rules stay", count);
    }
    assert_relays(&client);
    drop(client);
    proxy.finish();
}

#[test]
fn a_session_ended_during_a_transfer_is_reset() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let (client, remote) = relayed_pair(proxy.address());
    let sender = thread::spawn(move || {
        let bytes = [7; 64 << 10];
        while (&remote).write_all(&bytes).is_ok() {}
    });
    read_exactly(&client, 64 << 10);
    replace_rules(&proxy, "");
    read_until_reset(&client);
    sender.join().expect("the sender does not panic");
    wait_for_session_ends(&proxy, 1);
    proxy.finish();
}

#[test]
fn a_denied_bind_ends_while_it_waits_and_while_it_relays() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let any_peer = by_address(([0, 0, 0, 0], 0).into());
    let bind = |destination: &Destination| {
        client::socks4::bind(dial(proxy.address()), destination, b"").unwrap()
    };
    let peer_at = |host| by_address(([127, 0, 0, host], 0).into());
    let connect_peer = |port| dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    // Four BINDs: one waits for 127.0.0.2, one waits for any peer, and two relay.
    let denied_while_waiting = bind(&peer_at(2));
    let still_permitted = bind(&any_peer);
    let relays = [&any_peer, &peer_at(1)].map(|destination| {
        let binding = bind(destination);
        let peer = connect_peer(binding.address.port());
        (binding.wait().expect("granted").0, peer)
    });
    replace_rules(&proxy, "permit b 127.0.0.3\n");
    for (client, peer) in &relays {
        assert_eq!(read_until_reset(client), b"");
        assert_eq!(read_until_reset(peer), b"");
    }
    let port = denied_while_waiting.address.port();
    match denied_while_waiting.wait() {
        Err(ClientError::Refused(ReplyError::Rejected)) => {}
        other => panic!("{other:?}"),
    }
    until("the listener is closed", || {
        (!proxy.listens_on(port)).then_some(())
    });
    wait_for_session_ends(&proxy, 3);
    let rejected = proxy
        .screen_messages(3)
        .into_iter()
        .filter(|message| message.reply == "Reject");
    assert_eq!(rejected.count(), 1, "only the BIND that was waiting");
    // The new rules permit a peer at 127.0.0.3, so the BIND for any peer still waits.
    let port = still_permitted.address.port();
    let peer = dial_from(
        ([127, 0, 0, 3], 0).into(),
        (Ipv4Addr::LOCALHOST, port).into(),
    );
    let (client, _) = still_permitted.wait().expect("granted");
    write(&peer, b"x");
    assert_eq!(read_exactly(&client, 1), b"x");
    drop((relays, peer, client));
    proxy.finish();
}

#[test]
fn an_unconfirmed_session_is_ended_when_the_rules_now_require_ident() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let rules = "permit c 127.0.0.1 user=alice ident\npermit c 127.0.0.2\n";
        let proxy = Proxy::start(rules, &["--enforce"]);
        let confirmed = connect_to_echo(&proxy, 1, b"alice");
        let unconfirmed = connect_to_echo(&proxy, 2, b"alice");
        replace_rules(&proxy, "permit c - user=alice ident\n");
        assert_eq!(read_until_reset(&unconfirmed), b"");
        assert_relays(&confirmed);
        let lines = wait_for_session_ends(&proxy, 1);
        assert!(
            lines[0].ends_with("line 1 permits it if identd confirms the user"),
            "{lines:?}"
        );
        assert_eq!(identd.queries().len(), 1, "the new rules cause no query");
        drop(confirmed);
        proxy.finish();
    });
}

/// The old rules permitted the request before the lookup of its name. That verdict stays,
/// unless `--enforce` applies the new rules when the lookup ends.
#[test]
fn a_rule_change_during_a_lookup_counts_only_with_enforce() {
    in_own_network(|_| {
        let (allow_answer, answer_allowed) = bounded::<()>(0);
        let _server = NameServer::start(move |query| {
            // Only the first IPv4 query waits for the test.
            if query.before == 0 && !query.v6 {
                answer_allowed.recv().expect("the test allows the answer");
            }
            addresses(&["127.0.0.1"])
        });
        for (options, name, code) in [(&["--enforce"][..], "a.test", 91), (&[], "b.test", 90)] {
            let proxy = Proxy::start(PERMIT_ALL, options);
            let origin = Origin::echo();
            let client = dial(proxy.address());
            let destination = by_name(name, origin.port());
            write(&client, &request(Command::Connect, &destination, b""));
            proxy.wait_for_thread("lookup");
            replace_rules(&proxy, "deny - -\n");
            proxy.signal(Signal::SIGHUP);
            proxy.wait_for_stderr("1 rule in force", 2);
            allow_answer.send(()).expect("the name server waits");
            assert_eq!(read_exactly(&client, 8)[1], code, "{options:?}");
            drop(client);
            proxy.finish();
        }
    });
}

/// A writer that stores what the logger writes. Its clones share one buffer; the mutex
/// guards that buffer.
#[derive(Clone, Default)]
struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

impl Write for CapturedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The server runs in this process, because the test sets its clock.
#[test]
fn a_session_is_ended_when_its_permitted_hours_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("socks.conf");
    std::fs::write(
        &rules,
        "permit c 127.0.0.1 time=fri/22:00-06:00\npermit c 127.0.0.2\n",
    )
    .expect("the rules are written");
    let stderr = CapturedOutput::default();
    let output = OutputConfig {
        screen: Box::new(std::io::sink()),
        format: LogFormat::None,
        diagnostics: Box::new(stderr.clone()),
        verbosity: Verbosity::Normal,
        has_priorities: false,
        queued_events: logger::MAX_QUEUED_EVENTS,
    };
    let (_logger, log) = logger::start(output).expect("a thread");
    // The flag publishes no other data, so any atomic ordering would do.
    let hours_are_over = Arc::new(AtomicBool::new(false));
    let clock = LocalClock::from_fn({
        let hours_are_over = Arc::clone(&hours_are_over);
        move || {
            let is_over = hours_are_over.load(Ordering::SeqCst);
            let time = if is_over { "sat/06:00" } else { "sat/05:59" };
            WeekTime::parse(time).expect("a valid time")
        }
    });
    let settings = Settings {
        enforce: true,
        grace: Duration::ZERO,
        ..Settings::default()
    };
    let rules_file = RulesFile::open(&rules).expect("valid rules");
    let server = Server::new(settings, rules_file, clock, log);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (control, orders) = unbounded();
    let server_thread = thread::spawn(move || server.run(Listeners::own(listener), &orders));

    let connect = |host: u8| {
        let remote = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("a free port");
        let destination = by_address(remote.local_addr().expect("an address"));
        let client = client::socks4::connect(dial(address), &destination, b"")?;
        let (remote, _) = remote.accept().expect("a connection");
        Ok::<_, ClientError>((client, remote))
    };
    let (at_night, _remote) = connect(1).expect("permitted within the hours");
    let (at_any_time, remote) = connect(2).expect("permitted at any time");
    hours_are_over.store(true, Ordering::SeqCst);
    assert_eq!(read_until_reset(&at_night), b"");
    assert!(connect(1).is_err(), "the hours are over");
    write(&at_any_time, b"x");
    assert_eq!(read_exactly(&remote, 1), b"x");
    until("a line about the session that was ended", || {
        let text = String::from_utf8(stderr.0.lock().unwrap().clone()).unwrap();
        text.contains("no longer permitted: no rule permits it")
            .then_some(())
    });
    control.send(Control::Stop).expect("the server runs");
    assert_eq!(
        server_thread.join().expect("no panic").expect("no error"),
        ShutdownKind::Graceful
    );
}
