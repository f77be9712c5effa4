//! Clients that have not sent their request cannot take all sessions.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use threadsocks::auth::users_file_line;
use threadsocks::client;
use threadsocks::protocol::ident::PORT as IDENT_PORT;
use threadsocks::protocol::socks5::Credentials;
use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    CLOSED, Origin, accept, by_address, dial, dial_from, read_all, read_exactly, request, reset,
    write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::wait::until;

/// Permits 127.0.0.1 everything, and all other clients nothing.
const PERMIT_ONE: &str = "permit - 127.0.0.1 - - -\n";

/// What a client reads that is rejected without a session, or dropped.
const REJECTED: &[u8] = b"\x00\x5b\0\0\0\0\0\0";

/// What dropped clients have sent: nothing, or a part of what a request needs.
const PARTS: [&[u8]; 9] = [
    b"",
    b"\x04",
    b"\x04\x01\0\x50\x7f\0\0\x01user",
    b"\x04\x01\0\x50\0\0\0\x01user\0a.exam",
    b"\x05",
    b"\x05\x02\0",
    b"\x05\x01\0",
    b"\x05\x01\0\x05\x01\0\x03\x09a.ex",
    b"GE",
];

fn loopback(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))
}

/// A client from 127.0.0.`host` that has sent this.
fn client_of(proxy: &Proxy, host: u8, sent: &[u8]) -> TcpStream {
    let client = dial_from(loopback(host), proxy.address());
    // The client may be dropped already.
    let _ = (&client).write_all(sent);
    client
}

fn silent_clients(proxy: &Proxy, host: u8, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| client_of(proxy, host, b"")).collect()
}

/// Everything that the client receives until its connection ends, in whatever way.
fn received(mut client: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = client.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    bytes
}

/// Sends a request with this client, which has sent nothing so far, and tests the session.
fn assert_served(client: TcpStream, destination: &Destination) -> TcpStream {
    let client = client::socks4::connect(client, destination, b"").expect("granted");
    write(&client, b"x");
    assert_eq!(read_exactly(&client, 1), b"x");
    client
}

fn assert_is_served(proxy: &Proxy, host: u8, origin: &Origin) {
    drop(assert_served(
        client_of(proxy, host, b""),
        &origin.destination(),
    ));
}

#[test]
fn s24_s25_an_address_without_a_permit_keeps_no_other_client_out() {
    let proxy = Proxy::start(PERMIT_ONE, &["--max-sessions", "200"]);
    let origin = Origin::echo();
    for part in PARTS {
        let began = Instant::now();
        let held: Vec<_> = (0..220).map(|_| client_of(&proxy, 66, part)).collect();
        assert_is_served(&proxy, 1, &origin);
        let seconds = began.elapsed().as_secs_f64();
        assert!(seconds < 6.0, "{seconds}");
        drop(held);
    }
    proxy.finish();
}

#[test]
fn s24_clients_that_send_byte_by_byte_keep_no_other_client_out() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "60"]);
    let origin = Origin::echo();
    const REQUEST: &[u8] = b"\x04\x01\0\x50\x7f\0\0\x01a-user";
    // From eight addresses, so that no address has much more than the others.
    let mut slow = Vec::new();
    for number in 0..12 {
        let more = (0..12).map(|it| (client_of(&proxy, 2 + it % 8, b""), REQUEST.iter()));
        slow.extend(more);
        for (client, rest) in &mut slow {
            // Some are dropped already.
            let _ = client.write_all(&[*rest.next().unwrap()]);
        }
        assert_is_served(&proxy, 100 + number, &origin);
    }
    drop(slow);
    proxy.finish();
}

#[test]
fn s24_logins_that_are_not_complete_keep_no_other_client_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, users_file_line("alice", b"secret").unwrap()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let options = ["--max-sessions", "60", "--users", file.to_str().unwrap()];
    let proxy = Proxy::start("permit c - - - auth\n", &options);
    let origin = Origin::echo();
    for part in [
        &b"\x05\x01\x02"[..],
        b"\x05\x01\x02\x01\x05al",
        b"\x05\x01\x02\x01\x05alice\x06secr",
        // The login is complete and right, the request is not.
        b"\x05\x01\x02\x01\x05alice\x06secret",
        b"\x05\x01\x02\x01\x05alice\x06secret\x05\x01\0\x01\x7f",
        // Wrong logins wait for the rate limit, and the request waits after them.
        b"\x05\x01\x02\x01\x05alice\x05wrong\x05\x01\0\x01\x7f\0\0\x01\0\x50",
    ] {
        let began = Instant::now();
        let held: Vec<_> = (0..130).map(|_| client_of(&proxy, 66, part)).collect();
        let alice = Credentials {
            user: b"alice".to_vec(),
            password: b"secret".to_vec(),
        };
        let client = dial(proxy.address());
        let client = client::socks5::connect(client, Some(&alice), &origin.destination());
        let (client, _) = client.expect("granted");
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        // No new client waits for a login that waits.
        let seconds = began.elapsed().as_secs_f64();
        assert!(seconds < 6.0, "{seconds}");
        drop((client, held));
    }
    proxy.finish();
}

/// One login computes an expensive hash, and the others wait for their turn.
#[test]
fn s45_dropped_logins_hold_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let hash = "$argon2id$v=19$m=16384,t=60,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA";
    fs::write(&file, format!("alice:{hash}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let users = file.to_str().unwrap();
    let options = ["--max-sessions", "20", "--users", users];
    let proxy = Proxy::start("permit c - - - -\n", &options);
    let origin = Origin::echo();
    let guess = |host| {
        let name = format!("{host:05}");
        let login = [b"\x05\x01\x02\x01\x05", name.as_bytes(), b"\x01x"].concat();
        let client = client_of(&proxy, host, &login);
        // The thread of the session has read the greeting.
        let _ = (&client).read(&mut [0; 2]);
        client
    };
    let guessers: Vec<_> = (10..60).map(guess).collect();
    drop(assert_served(dial(proxy.address()), &origin.destination()));
    let sessions = proxy.threads();
    let sessions = sessions.iter().filter(|name| name.starts_with('s'));
    let sessions = sessions.filter(|name| name[1..].parse::<u32>().is_ok());
    let count = sessions.count();
    // Ten have not sent their request, and one may compute a hash.
    assert!(count <= 12, "{count}");
    drop(guessers);
    proxy.finish();
}

#[test]
fn s25_a_client_without_a_permit_has_five_seconds_for_its_request() {
    let proxy = Proxy::start(PERMIT_ONE, &[]);
    let origin = Origin::echo();
    let permitted = client_of(&proxy, 1, b"");
    let began = Instant::now();
    let unpermitted = [client_of(&proxy, 66, b""), client_of(&proxy, 66, b"\x04")];
    assert_eq!(received(&unpermitted[0]), b"");
    assert_eq!(received(&unpermitted[1]), REJECTED);
    let seconds = began.elapsed().as_secs_f64();
    // The longer limit of the others is 30 s.
    assert!((4.9..15.0).contains(&seconds), "{seconds}");
    drop(assert_served(permitted, &origin.destination()));
    proxy.finish();
}

#[test]
fn s25_clients_without_a_permit_are_dropped_first_and_drop_no_other() {
    let proxy = Proxy::start(PERMIT_ONE, &["--max-unheard", "4"]);
    let origin = Origin::echo();
    let unpermitted = silent_clients(&proxy, 66, 1);
    let permitted = silent_clients(&proxy, 1, 3);
    // A new client takes the place of the unpermitted one, although its source has less.
    let last = client_of(&proxy, 1, b"");
    assert_eq!(received(&unpermitted[0]), REJECTED);
    // Of an unpermitted one, no client takes the place.
    for _ in 0..10 {
        assert_eq!(received(&client_of(&proxy, 67, b"")), REJECTED);
    }
    for client in permitted.into_iter().chain([last]) {
        drop(assert_served(client, &origin.destination()));
    }
    proxy.finish();
}

#[test]
fn s26_the_oldest_client_of_the_source_with_the_most_is_dropped() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-unheard", "10"]);
    let origin = Origin::echo();
    let mut others = silent_clients(&proxy, 3, 2);
    others.extend(silent_clients(&proxy, 4, 1));
    let mut larger = silent_clients(&proxy, 2, 7);
    // Five new clients: 127.0.0.2 has two then, like 127.0.0.3.
    others.extend((5..10).map(|host| client_of(&proxy, host, b"")));
    for dropped in larger.drain(..5) {
        assert_eq!(received(&dropped), REJECTED);
    }
    // The next client of 127.0.0.2 drops the oldest client of 127.0.0.2.
    larger.push(client_of(&proxy, 2, b""));
    assert_eq!(received(&larger.remove(0)), REJECTED);
    for client in larger.into_iter().chain(others) {
        drop(assert_served(client, &origin.destination()));
    }
    proxy.finish();
}

#[test]
fn s26_with_one_place_each_new_client_drops_the_one_before() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-unheard", "1"]);
    let origin = Origin::echo();
    let mut last = client_of(&proxy, 1, b"\x05");
    for number in 2..40 {
        let next = client_of(&proxy, number, b"");
        assert_eq!(received(&last), REJECTED);
        last = next;
    }
    // Clients that send their requests one after the other are served.
    let held: Vec<_> = (0..40)
        .map(|_| assert_served(dial(proxy.address()), &origin.destination()))
        .collect();
    assert_eq!(received(&last), REJECTED);
    drop(held);
    proxy.finish();
}

#[test]
fn s27_the_networks_of_one_ipv6_customer_are_one_source() {
    in_own_network(|network| {
        network.own_documentation_prefix();
        let options = ["--bind", "::", "--max-unheard", "8"];
        let proxy = Proxy::start(PERMIT_ALL, &options);
        let server = SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.port()));
        let origin = Origin::echo();
        let client = |site: u16, network: u16, host: u16| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, site, network, 0, 0, 0, host);
            dial_from((address, 0).into(), server)
        };
        // Another host of the same /64 each, and the oldest client of all.
        let oldest = client(9, 0, 1);
        let of_one: Vec<_> = (1..=7).map(|host| client(7, 0, host)).collect();
        let newest = client(8, 0, 1);
        assert_eq!(received(&of_one[0]), REJECTED);
        drop(of_one);
        until("the clients that left are not counted", || {
            let threads = proxy.threads();
            // The threads of the oldest and of the newest client are left: s1 and s9.
            let number = |name: &String| name.strip_prefix('s')?.parse::<u64>().ok();
            (threads.iter().filter_map(number).count() <= 2).then_some(())
        });
        // Another /64 of the same /56 each: six weigh more than one client.
        let of_customer: Vec<_> = (0..6).map(|network| client(7, network, 1)).collect();
        let last = client(6, 0, 1);
        assert_eq!(received(&of_customer[0]), REJECTED);
        for client in [oldest, newest, last]
            .into_iter()
            .chain(of_customer.into_iter().skip(1))
        {
            drop(assert_served(client, &origin.destination()));
        }
        proxy.finish();
    });
}

#[test]
fn s28_when_all_sessions_are_in_use_clients_of_a_source_with_more_are_dropped() {
    for (rules, larger_count) in [(PERMIT_ALL, 5), (PERMIT_ONE, 1)] {
        let proxy = Proxy::start(rules, &["--max-sessions", "20"]);
        let origin = Origin::echo();
        let connect = || assert_served(dial(proxy.address()), &origin.destination());
        let mut held: Vec<_> = (0..20 - larger_count).map(|_| connect()).collect();
        let larger = silent_clients(&proxy, 66, larger_count);
        // The first ones after the other, until the address has no more than a new client.
        for dropped in &larger[..larger_count.div_ceil(2)] {
            held.push(connect());
            assert_eq!(received(dropped), REJECTED);
        }
        drop((held, larger));
        proxy.finish();
    }
}

#[test]
fn s28_clients_with_requests_drop_no_client_that_has_just_come() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "10"]);
    let origin = Origin::echo();
    let connect = || assert_served(dial(proxy.address()), &origin.destination());
    let held: Vec<_> = (0..9).map(|_| connect()).collect();
    let waiting = client_of(&proxy, 2, b"");
    for host in [1, 2, 3] {
        for _ in 0..10 {
            assert_eq!(received(&client_of(&proxy, host, b"")), REJECTED);
        }
    }
    proxy.stderr_line("at capacity: all 10 sessions are in use");
    drop(assert_served(waiting, &origin.destination()));
    drop(held);
    proxy.finish();
}

#[test]
fn s29_sessions_whose_request_is_complete_are_not_dropped() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-unheard", "2"]);
    let origin = Origin::echo();
    let connect = || assert_served(dial(proxy.address()), &origin.destination());
    let held: Vec<_> = (0..30).map(|_| connect()).collect();
    // A request whose answer takes long has left its place, too.
    let any_peer = by_address(([0, 0, 0, 0], 0).into());
    let binding = client::socks4::bind(dial(proxy.address()), &any_peer, b"").expect("listening");
    let silent = silent_clients(&proxy, 2, 30);
    for client in &silent[..28] {
        assert_eq!(received(client), REJECTED);
    }
    for client in &held {
        write(client, b"y");
        assert_eq!(read_exactly(client, 1), b"y");
    }
    drop((held, silent, binding));
    proxy.finish();
}

#[test]
fn s30_a_request_is_refused_with_its_reply_and_its_message_while_many_clients_wait() {
    // No rule permits anything.
    let proxy = Proxy::start("", &["--max-unheard", "16"]);
    let destination = by_address(CLOSED.into());
    let mut silent = silent_clients(&proxy, 66, 40);
    for _ in 0..20 {
        silent.extend(silent_clients(&proxy, 66, 1));
        assert_eq!(proxy.refusal_of(&destination), "127.0.0.1:1 CONNECT Reject");
    }
    silent.extend(silent_clients(&proxy, 66, 16));
    thread::scope(|scope| {
        for host in 10..18 {
            let (proxy, destination) = (&proxy, &destination);
            scope.spawn(move || {
                for _ in 0..10 {
                    let client = client_of(proxy, host, b"");
                    let own = client.local_addr().unwrap();
                    write(&client, &request(Command::Connect, destination, b"user"));
                    // Bytes that the server does not read must not destroy the reply.
                    write(&client, &[b'x'; 3000]);
                    let reply = read_all(&client);
                    assert_eq!((reply.len(), &reply[..4]), (8, &[0, 91, 0, 1][..]));
                    let message = proxy.screen_message_for(own);
                    assert_eq!(message.summary(), "127.0.0.1:1 CONNECT Reject");
                }
            });
        }
    });
    // SOCKS5: the method, then "not allowed by a rule".
    let client = client_of(&proxy, 20, b"\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01\0\x01");
    assert_eq!(received(&client), b"\x05\0\x05\x02\0\x01\0\0\0\0\0\0");
    drop(silent);
    proxy.finish();
}

#[test]
fn s31_refused_clients_that_stay_cannot_take_all_sessions() {
    let options = ["--max-sessions", "40", "--max-unheard", "8"];
    let proxy = Proxy::start(PERMIT_ONE, &options);
    let origin = Origin::echo();
    let refused_request = request(Command::Connect, &by_address(CLOSED.into()), b"");
    let mut stayed = Vec::new();
    for number in 0..200 {
        // A refused request, an invalid one, and HTTP.
        let sent = [
            &refused_request[..],
            b"\x05\x01\x80",
            b"GET / HTTP/1.1\r\n\r\n",
        ][number % 3];
        let client = client_of(&proxy, 66, sent);
        let reply = received(&client);
        let expected: &[u8] = [&b"\0\x5b\0\x01"[..], b"\x05\xff", b"HTTP/1.0 501"][number % 3];
        assert!(reply.starts_with(expected), "{reply:?}");
        stayed.push(client);
    }
    assert_is_served(&proxy, 1, &origin);
    proxy.screen_messages(67 + 1);
    let lines = proxy.stderr_lines();
    assert!(
        !lines.iter().any(|it| it.contains("at capacity")),
        "{lines:#?}"
    );
    drop(stayed);
    proxy.finish();
}

/// The owner of an identd that never answers needs no permit.
#[test]
fn s43_an_identd_that_does_not_answer_cannot_take_all_sessions() {
    in_own_network(|_| {
        // Connections are accepted by the system, and never by this listener.
        let _identd = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 66), IDENT_PORT)).unwrap();
        let rules = "permit - 127.0.0.1 - - -\npermit - - - - - ident\n";
        let limits = "--max-sessions 40 --max-unheard 8 --ident-timeout 3s -v";
        let options: Vec<&str> = limits.split(' ').collect();
        let proxy = Proxy::start(rules, &options);
        let origin = Origin::echo();
        let invented = request(Command::Connect, &by_address(CLOSED.into()), b"invented");
        let clients: Vec<_> = (0..60).map(|_| client_of(&proxy, 66, &invented)).collect();
        // Two of them wait for the identd, the others are refused at once.
        proxy.wait_for_stderr("too many queries of identd are going on", 58);
        assert_is_served(&proxy, 1, &origin);
        drop(clients);
        proxy.finish();
    });
}

/// The server accepts clients faster than their threads read.
#[test]
fn s35_a_burst_of_clients_that_have_sent_their_requests_is_served() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "100", "--max-unheard", "5"]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let destination = by_address(listener.local_addr().unwrap());
    let socks4 = request(Command::Connect, &destination, b"");
    let [high, low] = destination.port.to_be_bytes();
    let socks5 = [b"\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01", &[high, low][..]].concat();
    for _ in 0..3 {
        // All of them are in the backlog before the server accepts the first one.
        proxy.signal(Signal::SIGSTOP);
        let clients: Vec<_> = (0..90)
            .map(|number| client_of(&proxy, 1, [&socks4, &socks5][number % 2]))
            .collect();
        proxy.signal(Signal::SIGCONT);
        for (number, client) in clients.iter().enumerate() {
            let expected: &[u8] = [&b"\0\x5a"[..], b"\x05\0\x05\0"][number % 2];
            assert_eq!(read_exactly(client, expected.len()), expected);
        }
        // Both sides of each session are closed.
        drop(clients);
        for _ in 0..90 {
            drop(accept(&listener));
        }
        proxy.assert_resources_released();
    }
    proxy.finish();
}

/// The place of each client is free again however its connection ends.
#[test]
fn s32_no_place_is_lost() {
    const PLACES: usize = 8;
    let options = ["--max-sessions", "24", "--max-unheard", "8"];
    let proxy = Proxy::start("deny - - - 127.0.0.1 1\npermit - - - - -\n", &options);
    let origin = Origin::echo();
    let granted = request(Command::Connect, &origin.destination(), b"");
    let refused = request(Command::Connect, &by_address(CLOSED.into()), b"");
    thread::scope(|scope| {
        for host in 2..8 {
            let (proxy, granted, refused) = (&proxy, &granted, &refused);
            scope.spawn(move || {
                let mut held = Vec::new();
                for number in 0..120 {
                    let sent = match number % 12 {
                        9 => granted,
                        10 => refused,
                        11 => &b"\x05\x01\x80"[..],
                        part => PARTS[part],
                    };
                    let client = client_of(proxy, host, sent);
                    match number / 12 % 5 {
                        0 => drop(client),
                        1 => reset(client),
                        // Fails if the client is dropped already.
                        2 => drop(client.shutdown(Shutdown::Write)),
                        // Until it is dropped, or others of this test end.
                        _ => held.push(client),
                    }
                }
            });
        }
    });
    proxy.assert_resources_released();
    let connect = |host| client_of(&proxy, host, b"");
    let waiting: Vec<_> = (100..100 + PLACES as u8).map(connect).collect();
    for client in waiting {
        drop(assert_served(client, &origin.destination()));
    }
    proxy.assert_resources_released();
    // And there are no more places than before.
    let waiting: Vec<_> = (100..=100 + PLACES as u8).map(connect).collect();
    assert_eq!(received(&waiting[0]), REJECTED);
    drop(waiting);
    proxy.finish();
}

#[test]
fn s33_more_places_than_sessions_count_as_all_sessions_with_a_warning() {
    let options = ["--max-sessions", "10", "--max-unheard", "20"];
    let proxy = Proxy::start(PERMIT_ALL, &options);
    proxy.stderr_line("--max-unheard 20 is more than the number of sessions, and counts as 10");
    let origin = Origin::echo();
    let silent = silent_clients(&proxy, 66, 10);
    assert_is_served(&proxy, 1, &origin);
    assert_eq!(received(&silent[0]), REJECTED);
    drop(silent);
    proxy.finish();
    let proxy = Proxy::start(PERMIT_ALL, &["--max-sessions", "10", "--max-unheard", "10"]);
    let lines = proxy.stderr_lines();
    assert!(
        !lines.iter().any(|it| it.contains("--max-unheard")),
        "{lines:#?}"
    );
    proxy.finish();
}

#[test]
fn s34_each_dropped_client_is_counted_once() {
    let proxy = Proxy::start(PERMIT_ALL, &["--max-unheard", "1", "-v"]);
    let mut last = client_of(&proxy, 2, b"\x04\x01");
    for _ in 0..50 {
        let next = client_of(&proxy, 2, b"\x04\x01");
        assert_eq!(received(&last), REJECTED);
        last = next;
    }
    drop(last);
    let line = proxy.stderr_line("was dropped");
    assert!(
        line.contains("127.0.0.2 was dropped: too many clients have not sent their request"),
        "{line}"
    );
    let count = proxy.wait_for_stderr("ending=\"dropped: too many clients", 50);
    assert_eq!(count, 50);
    // One line per second, which has the number of the others.
    until("all of them are reported", || {
        let lines = proxy.stderr_lines();
        let counted: usize = lines.iter().map(|line| dropped_in(line)).sum();
        assert!(counted <= 50, "{lines:#?}");
        (counted == 50).then_some(())
    });
    assert!(proxy.screen_messages(0).is_empty());
    proxy.finish();
}

/// The number of dropped clients that this line on stderr reports.
fn dropped_in(line: &str) -> usize {
    let number_before = |words: &str| {
        let (before, _) = line.split_once(words)?;
        before.rsplit([' ', '(']).next()?.parse::<usize>().ok()
    };
    usize::from(line.contains("was dropped"))
        + number_before(" more since the last line").unwrap_or(0)
        + number_before(" more clients rejected").unwrap_or(0)
}
