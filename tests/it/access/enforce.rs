//! Sessions that the rules no longer permit.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use nix::sys::signal::Signal;
use threadsocks::client::{self, ClientError};
use threadsocks::local_time::LocalClock;
use threadsocks::logger::{self, OutputConfig, Verbosity};
use threadsocks::protocol::{Command, Destination, ReplyError};
use threadsocks::rules::{RulesFile, WeekTime};
use threadsocks::server::{Control, Server, Settings, ShutdownKind};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{
    Origin, by_address, by_name, connect_through, dial, dial_from, read_all, read_exactly,
    relayed_pair, request, write,
};
use crate::support::ident_server::Identd;
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::wait::until;

/// Does it still relay?
fn goes_on(client: &TcpStream) {
    write(client, b"x");
    assert_eq!(read_exactly(client, 1), b"x");
}

/// A connection to an origin that echoes, at this address of loopback.
fn to(proxy: &Proxy, host: u8, user: &[u8]) -> TcpStream {
    let origin = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("a port");
    let target = by_address(origin.local_addr().expect("an address"));
    thread::spawn(move || {
        let (stream, _) = origin.accept().expect("a connection");
        // Ends when the proxy does.
        let _ = io::copy(&mut &stream, &mut &stream);
    });
    client::socks4::connect(dial(proxy.address()), &target, user).expect("granted")
}

/// It is ended, with a reset if something has moved lately.
fn is_over(mut client: &TcpStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

/// Puts new rules into force, all at once.
fn change(proxy: &Proxy, rules: &str) {
    let new = proxy.folder().join("new");
    std::fs::write(&new, rules).expect("written");
    std::fs::rename(new, proxy.config()).expect("renamed");
}

/// The lines on stderr about sessions that were ended, sorted.
fn wait_for_session_ends(proxy: &Proxy, count: usize) -> Vec<String> {
    let words = "no longer permitted";
    proxy.wait_for_stderr(words, count);
    let said = proxy.stderr_lines();
    let mut told: Vec<_> = said.into_iter().filter(|it| it.contains(words)).collect();
    assert_eq!(told.len(), count, "{told:#?}");
    told.sort();
    told
}

#[test]
fn changed_rules_end_exactly_what_they_deny() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let stays = to(&proxy, 1, b"");
    let stays_by_user = to(&proxy, 3, b"alice");
    let goes = to(&proxy, 2, b"");
    let goes_by_user = to(&proxy, 1, b"bob");
    let origin = Origin::echo();
    let goes_by_name = connect_through(proxy.address(), &by_name("localhost", origin.port()));
    change(
        &proxy,
        "deny c localhost\ndeny c 127.0.0.2\ndeny c - user=bob\npermit c 127.0.0.1\n\
         permit c - user=alice\n",
    );
    // Nobody asks for anything meanwhile.
    for gone in [&goes, &goes_by_user, &goes_by_name] {
        assert_eq!(read_all(gone), b"");
    }
    goes_on(&stays);
    goes_on(&stays_by_user);
    let told = wait_for_session_ends(&proxy, 3);
    let line = |client: &TcpStream, rule| {
        let own = client.local_addr().unwrap();
        let found = told
            .iter()
            .find(|it| it.contains(&format!("{own} CONNECT")));
        let why = format!("no longer permitted: rule on line {rule} denies it");
        assert!(
            found.is_some_and(|it| it.ends_with(&why)),
            "{why} {told:#?}"
        );
    };
    line(&goes_by_name, 1);
    line(&goes, 2);
    line(&goes_by_user, 3);
    // What no rule permits is denied as well; the signal only saves a second.
    change(&proxy, "permit c 127.0.0.3\n");
    proxy.signal(Signal::SIGHUP);
    is_over(&stays);
    goes_on(&stays_by_user);
    assert!(
        wait_for_session_ends(&proxy, 4)
            .iter()
            .any(|it| it.ends_with("no rule permits it"))
    );
    drop(stays_by_user);
    proxy.finish();
}

#[test]
fn without_the_option_everybody_stays() {
    let proxy = Proxy::start(PERMIT_ALL, &[]);
    let client = to(&proxy, 1, b"");
    change(&proxy, "deny - -\n");
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_stderr("1 rule in force", 2);
    // Whatever it does about the first signal is done before the second.
    proxy.signal(Signal::SIGHUP);
    proxy.stderr_line("nothing has changed");
    goes_on(&client);
    drop(client);
    proxy.finish();
}

#[test]
fn rules_with_a_mistake_end_nobody() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let client = to(&proxy, 1, b"");
    change(&proxy, "deny - -\ndeny\n");
    for count in 1..=2 {
        proxy.signal(Signal::SIGHUP);
        proxy.wait_for_stderr("the last good rules stay", count);
    }
    goes_on(&client);
    drop(client);
    proxy.finish();
}

#[test]
fn a_transfer_that_is_ended_is_reset() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let (client, remote) = relayed_pair(proxy.address());
    let sending = thread::spawn(move || {
        let bytes = [7; 64 << 10];
        while (&remote).write_all(&bytes).is_ok() {}
    });
    let mut buffer = vec![0; 64 << 10];
    (&client).read_exact(&mut buffer).expect("it moves");
    change(&proxy, "");
    let error = loop {
        match (&client).read(&mut buffer) {
            Ok(0) => panic!("a cut looks like an end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    sending.join().expect("sent");
    wait_for_session_ends(&proxy, 1);
    proxy.finish();
}

#[test]
fn bind_is_ended_while_it_waits_and_while_it_relays() {
    let proxy = Proxy::start(PERMIT_ALL, &["--enforce"]);
    let anybody = by_address(([0, 0, 0, 0], 0).into());
    let bind =
        |target: &Destination| client::socks4::bind(dial(proxy.address()), target, b"").unwrap();
    let from = |host| by_address(([127, 0, 0, host], 0).into());
    let peer_of = |port| dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    // One that waits for somebody, two for anybody, and two that have a peer.
    let waits_in_vain = bind(&from(2));
    let waits_on = bind(&anybody);
    let relays = [&anybody, &from(1)].map(|target| {
        let binding = bind(target);
        let peer = peer_of(binding.address.port());
        (binding.wait().expect("granted").0, peer)
    });
    change(&proxy, "permit b 127.0.0.3\n");
    for (client, peer) in &relays {
        assert_eq!(read_all(client), b"");
        assert_eq!(read_all(peer), b"");
    }
    let port = waits_in_vain.address.port();
    match waits_in_vain.wait() {
        Err(ClientError::Refused(ReplyError::Rejected)) => {}
        other => panic!("{other:?}"),
    }
    until("the listener's end", || {
        (!proxy.listens_on(port)).then_some(())
    });
    wait_for_session_ends(&proxy, 3);
    let rejected = proxy
        .screen_messages(3)
        .into_iter()
        .filter(|it| it.reply == "Reject");
    assert_eq!(rejected.count(), 1, "the one that waited");
    // Somebody who is permitted may still come.
    let port = waits_on.address.port();
    let peer = dial_from(
        ([127, 0, 0, 3], 0).into(),
        (Ipv4Addr::LOCALHOST, port).into(),
    );
    let (client, _) = waits_on.wait().expect("granted");
    write(&peer, b"x");
    assert_eq!(read_exactly(&client, 1), b"x");
    drop((relays, peer, client));
    proxy.finish();
}

#[test]
fn who_was_never_confirmed_is_ended_when_identd_is_wanted() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let rules = "permit c 127.0.0.1 user=alice ident\npermit c 127.0.0.2\n";
        let proxy = Proxy::start(rules, &["--enforce"]);
        let confirmed = to(&proxy, 1, b"alice");
        let unasked = to(&proxy, 2, b"alice");
        change(&proxy, "permit c - user=alice ident\n");
        assert_eq!(read_all(&unasked), b"");
        goes_on(&confirmed);
        let told = wait_for_session_ends(&proxy, 1);
        assert!(
            told[0].ends_with("line 1 permits it if identd confirms the user"),
            "{told:?}"
        );
        assert_eq!(identd.queries().len(), 1);
        drop(confirmed);
        proxy.finish();
    });
}

/// Rules change while a name is looked up. The request was judged by the old
/// ones: that counts, unless the new ones are enforced.
#[test]
fn a_change_during_the_lookup() {
    in_own_network(|_| {
        let (answer, may_answer) = bounded::<()>(0);
        let _server = NameServer::start(move |asked| {
            if asked.before == 0 && !asked.v6 {
                may_answer.recv().expect("told to go on");
            }
            addresses(&["127.0.0.1"])
        });
        for (options, name, code) in [(&["--enforce"][..], "a.test", 91), (&[], "b.test", 90)] {
            let proxy = Proxy::start(PERMIT_ALL, options);
            let origin = Origin::echo();
            let client = dial(proxy.address());
            let target = by_name(name, origin.port());
            write(&client, &request(Command::Connect, &target, b""));
            proxy.wait_for_thread("s1-name");
            change(&proxy, "deny - -\n");
            proxy.signal(Signal::SIGHUP);
            proxy.wait_for_stderr("1 rule in force", 2);
            answer.send(()).expect("awaited");
            assert_eq!(read_exactly(&client, 8)[1], code, "{options:?}");
            drop(client);
            proxy.finish();
        }
    });
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server in this process, whose clock the test turns.
#[test]
fn the_end_of_an_hour_ends_what_it_permitted() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("socks.conf");
    std::fs::write(
        &rules,
        "permit c 127.0.0.1 time=fri/22:00-06:00\npermit c 127.0.0.2\n",
    )
    .expect("written");
    let said = Kept::default();
    let output = OutputConfig {
        screen: None,
        diagnostics: Box::new(said.clone()),
        detail: Verbosity::Normal,
    };
    let (_logger, log) = logger::start(output).expect("a thread");
    let is_late = Arc::new(AtomicBool::new(false));
    let clock = LocalClock::showing({
        let is_late = Arc::clone(&is_late);
        move || {
            let late = is_late.load(Ordering::SeqCst);
            let shown = if late { "sat/06:00" } else { "sat/05:59" };
            WeekTime::parse(shown).expect("a moment")
        }
    });
    let settings = Settings {
        enforce: true,
        grace: Duration::ZERO,
        ..Settings::default()
    };
    let rules_file = RulesFile::open(&rules).expect("good rules");
    let server = Server::new(settings, rules_file, clock, log);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (operator, orders) = unbounded();
    let serving = thread::spawn(move || server.run(listener, &orders));

    let connect = |host: u8| {
        let remote = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("a port");
        let target = by_address(remote.local_addr().expect("an address"));
        let client = client::socks4::connect(dial(address), &target, b"")?;
        let (remote, _) = remote.accept().expect("a connection");
        Ok::<_, ClientError>((client, remote))
    };
    let (at_night, _remote) = connect(1).expect("within the hours");
    let (always, remote) = connect(2).expect("at any hour");
    is_late.store(true, Ordering::SeqCst);
    assert_eq!(read_all(&at_night), b"");
    assert!(connect(1).is_err(), "too late");
    write(&always, b"x");
    assert_eq!(read_exactly(&remote, 1), b"x");
    until("the line", || {
        let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        said.contains("no longer permitted: no rule permits it")
            .then_some(())
    });
    operator.send(Control::Stop).expect("it runs");
    assert_eq!(
        serving.join().expect("no panic").expect("served"),
        ShutdownKind::Drained
    );
}
