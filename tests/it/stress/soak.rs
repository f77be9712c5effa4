//! A soak test: ten minutes of mixed traffic through one server process.
//!
//! Clients of all kinds connect all the time. The test compares every byte they
//! receive, and every screen message with the request it belongs to. It samples the
//! resources of the process, which must not grow with the number of clients.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use threadsocks::auth::users_file_line;
use threadsocks::client;
use threadsocks::client::socks4::Binding;
use threadsocks::net::Deadline;
use threadsocks::protocol::socks5::Credentials;
use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    CLOSED, Origin, accept, by_address, by_name, dial, dial_from, read_all, read_exactly, request,
    reset, shutdown_write, write,
};
use crate::support::faulty_link::Fault;
use crate::support::faulty_session::{Direction, FaultySession, Side};
use crate::support::netns::in_own_network;
use crate::support::plot::{self, Curve};
use crate::support::proxy::{Proxy, Setup};
use crate::support::random::{self, Rng};
use crate::support::scripted_peer::Step::{HalfClose, Meanwhile, Receive, ReceiveAll, Reset, Send};
use crate::support::scripted_peer::{End, MEGABYTE, Outcome, Pacing, Peer, exchange};
use crate::support::server_output::parse_screen;
use crate::support::wait::{TIMEOUT, until};

/// The last octets of the clients' source addresses, 127.0.0.2 to 127.0.0.49. One
/// address would run out of local ports, because of TIME_WAIT.
const SOURCES: std::ops::Range<u8> = 2..50;

/// The source address of clients that reset their connection at once. The server may or
/// may not have read the request, so a screen message is optional.
const RESET_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 60);

/// The source address of all logins, with right and with wrong passwords.
const LOGIN_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 61);

/// A destination that the rules deny.
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

const RULES: &str = "deny - - - 127.9.\npermit - 127.\n";

const ACCEPTED: &str = "CONNECT Accept";

/// Runs one client to its end.
type ClientFn = fn(&Soak, &mut Rng);

/// The mixed traffic: how many clients of a kind at a time, the average pause between
/// two of them in milliseconds, and the client itself.
const WORKLOAD: [(usize, u64, ClientFn); 17] = [
    (6, 30, connect_by_address),
    (3, 40, connect_by_name),
    (2, 60, refused_request),
    (2, 60, malformed_request),
    (2, 60, bind_accepted),
    (2, 300, bind_rejected),
    (2, 300, bulk_transfer),
    (3, 60, udp_associate),
    (2, 50, half_close),
    (30, 100, idle_session),
    (4, 100, slow_client),
    (2, 100, reset_midway),
    (6, 200, faulty_network),
    (1, 2000, announce_to_many_names),
    (2, 100, known_user),
    (1, 4000, wrong_password),
    (1, 3000, killed_process),
];

/// The hosts file of the test: loopback under many names.
fn hosts() -> String {
    let names: Vec<String> = (0..TRACKERS).map(tracker).collect();
    format!("127.0.0.1 localhost {}\n", names.join(" "))
}

/// The names to which one association sends at once.
const TRACKERS: u8 = 40;

fn tracker(number: u8) -> String {
    format!("tracker{number}.example")
}

/// The users whom the server knows, with their passwords.
const USERS: [(&str, &str); 2] = [("alice", "secret"), ("bob", "other")];

/// The state that all clients share. Relaxed suffices for its atomics: two counters, and
/// a flag on which no other data depends.
struct Soak {
    proxy: SocketAddr,
    echo: Destination,
    connections: AtomicU64,
    /// Clients from [`RESET_SOURCE`] so far.
    early_resets: AtomicU64,
    ledger: MessageLedger,
    is_over: AtomicBool,
}

impl Soak {
    /// Connects to the proxy, from one source address after the other.
    fn dial(&self) -> TcpStream {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let source = SOURCES.start + (number % SOURCES.len() as u64) as u8;
        dial_from((Ipv4Addr::new(127, 0, 0, source), 0).into(), self.proxy)
    }

    /// Opens a session to this destination.
    fn connect(&self, destination: &Destination) -> TcpStream {
        let client = self.dial();
        self.ledger.expect(&client, ACCEPTED);
        client::socks4::connect(client, destination, b"soak").expect("granted")
    }

    /// Opens a session and returns the sockets of both sides: client, remote.
    fn relayed_pair(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let client = self.connect(&by_address(listener.local_addr().unwrap()));
        (client, accept(&listener))
    }

    /// Sends a BIND request and returns the binding and its listening address.
    /// `message` is the screen message that the request will lead to.
    fn bind(&self, message: &str) -> (Binding<TcpStream>, SocketAddr) {
        let client = self.dial();
        self.ledger.expect(&client, message);
        let expected = by_address((LOCALHOST, 21).into());
        let binding = client::socks4::bind(client, &expected, b"").expect("listening");
        let listener = (LOCALHOST, binding.address.port()).into();
        (binding, listener)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Sleeps this long, or until the test is over.
    fn sleep(&self, pause: Duration) {
        let began = Instant::now();
        while began.elapsed() < pause && !self.is_over() {
            thread::sleep(Duration::from_millis(100).min(pause));
        }
    }
}

/// Compares the screen messages with the requests of all clients.
#[derive(Default)]
struct MessageLedger {
    /// Expected messages minus printed ones, by client address and by command and reply.
    /// Entries that reach zero are removed, so in the end the map is empty. A negative
    /// count is a message without a request.
    open: Mutex<HashMap<(SocketAddr, String), i64>>,
    printed: AtomicU64,
    /// The printed messages of clients from [`RESET_SOURCE`].
    printed_early_resets: AtomicU64,
}

impl MessageLedger {
    fn expect(&self, client: &TcpStream, message: &str) {
        self.count(client.local_addr().unwrap(), message.to_owned(), 1);
    }

    fn record_printed(&self, client: SocketAddr, text: String) {
        self.printed.fetch_add(1, Ordering::Relaxed);
        if client.ip() == RESET_SOURCE {
            self.printed_early_resets.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.count(client, text, -1);
    }

    fn count(&self, client: SocketAddr, message: String, change: i64) {
        let mut open = self.open.lock().unwrap();
        let key = (client, message);
        let count = open.get(&key).unwrap_or(&0) + change;
        match count {
            0 => open.remove(&key),
            count => open.insert(key, count),
        };
    }

    /// Reads the server's stdout until EOF, message by message.
    fn read(&self, screen: PipeReader) {
        let mut lines = BufReader::new(screen).lines();
        loop {
            let message: Vec<String> = lines.by_ref().take(7).map(Result::unwrap).collect();
            match parse_screen(&message).first() {
                Some(message) => {
                    let text = format!("{} {}", message.command, message.reply);
                    self.record_printed(message.source, text);
                }
                None => return assert_eq!(message, [""; 0], "an incomplete message"),
            }
        }
    }

    /// Reads the JSON log until EOF. Each session ends once, and none that was granted is left.
    fn read_json(&self, log: PipeReader) {
        let (mut granted, mut closed) = (HashSet::new(), HashSet::new());
        for line in BufReader::new(log).lines() {
            let object: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let text = |key: &str| object[key].as_str().unwrap();
            match text("event") {
                "answered" => {
                    let port = object["client_port"].as_u64().unwrap() as u16;
                    let client = (text("client").parse::<IpAddr>().unwrap(), port).into();
                    let command = match text("command") {
                        "connect" => "CONNECT",
                        "bind" => "BIND",
                        _ => "UDP ASSOCIATE",
                    };
                    let is_granted = object["granted"].as_bool().unwrap();
                    let reply = if is_granted { "Accept" } else { "Reject" };
                    self.record_printed(client, format!("{command} {reply}"));
                    if is_granted {
                        granted.insert(object["session"].as_u64().unwrap());
                    }
                }
                "closed" => {
                    let session = object["session"].as_u64().unwrap();
                    assert!(closed.insert(session), "session {session} has two ends");
                }
                _ => {}
            }
        }
        let open: Vec<&u64> = granted.difference(&closed).collect();
        assert!(open.is_empty(), "granted, and no end: {open:?}");
        assert!(!granted.is_empty());
    }

    /// Waits until every request has its message.
    fn wait_until_complete(&self) {
        let deadline = Deadline::after(TIMEOUT);
        while !self.open.lock().unwrap().is_empty() {
            let open = self.open.lock().unwrap();
            assert!(
                !deadline.is_over(),
                "missing (1) and unexpected (-1) messages: {open:?}"
            );
            drop(open);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends up to 3,000 bytes and receives them back.
fn check_echo(client: &TcpStream, rng: &mut Rng) {
    let count = 1 + rng.below(3000) as usize;
    let bytes = rng.bytes(count);
    write(client, &bytes);
    assert!(read_exactly(client, bytes.len()) == bytes);
}

/// Ends the session in one of three ways: half-close, reset, close.
fn end_session(client: TcpStream, rng: &mut Rng) {
    match rng.below(3) {
        0 => {
            shutdown_write(&client);
            assert_eq!(read_all(&client), b"");
        }
        1 => reset(client),
        _ => drop(client),
    }
}

fn connect_by_address(soak: &Soak, rng: &mut Rng) {
    let client = soak.connect(&soak.echo);
    check_echo(&client, rng);
    end_session(client, rng);
}

fn connect_by_name(soak: &Soak, rng: &mut Rng) {
    let client = soak.connect(&by_name("localhost", soak.echo.port));
    check_echo(&client, rng);
    end_session(client, rng);
}

fn refused_request(soak: &Soak, rng: &mut Rng) {
    let (command, destination) = match rng.below(4) {
        0 => (Command::Connect, by_address(CLOSED.into())),
        1 => (Command::Connect, by_address((DENIED, 80).into())),
        2 => (Command::Connect, by_name("localhost", CLOSED.port())),
        _ => (Command::Bind, by_address((DENIED, 21).into())),
    };
    let client = soak.dial();
    soak.ledger.expect(&client, &format!("{command} Reject"));
    write(&client, &request(command, &destination, b"soak"));
    assert_eq!(read_all(&client)[..2], [0, 91], "{destination:?}");
}

/// Sends bytes that are no complete, valid request. The server prints no message.
fn malformed_request(soak: &Soak, rng: &mut Rng) {
    let whole = request(Command::Connect, &soak.echo, b"soak");
    let long = [&whole[..8], &[b'u'; 600]].concat();
    let cut = rng.below(whole.len() as u64) as usize;
    let bytes: &[u8] = match rng.below(6) {
        0 => b"GET http://localhost/ HTTP/1.1\r\n\r\n",
        1 => b"\x05\x01\x00",
        2 => b"\x04\x09\x00\x50\x7f\x00\x00\x01soak\x00",
        3 => &long,
        _ => &whole[..cut],
    };
    let client = soak.dial();
    write(&client, bytes);
    if rng.below(3) == 0 {
        return reset(client);
    }
    // The server may have closed the connection already.
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = (&client).read_to_end(&mut answer);
    // At most a SOCKS5 method selection (2 bytes) and a refusal (10 bytes), or a reply to
    // HTTP.
    let is_http = answer.starts_with(b"HTTP/1.0 501 ");
    assert!(is_http || answer.len() <= 12, "{answer:?}");
}

fn bind_accepted(soak: &Soak, rng: &mut Rng) {
    let (binding, listener) = soak.bind("BIND Accept");
    let count = rng.below(20_000);
    let peer = Peer::remote(dial(listener), exchange(count, Pacing::Steady));
    let (client, _) = binding.wait().expect("granted");
    let client = Peer::client(client, exchange(count, Pacing::Steady));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(peer.outcome(), Outcome::whole(count));
}

fn bind_rejected(soak: &Soak, rng: &mut Rng) {
    let (binding, listener) = soak.bind("BIND Reject");
    match rng.below(3) {
        // The client closes at once.
        0 => return,
        // Another peer than the expected one connects.
        1 => drop(dial_from((Ipv4Addr::new(127, 8, 0, 1), 0).into(), listener)),
        // No peer connects.
        _ => {}
    }
    binding.wait().expect_err("no expected peer");
}

fn bulk_transfer(soak: &Soak, rng: &mut Rng) {
    let count = MEGABYTE + rng.below(3 * MEGABYTE);
    let pacings = [Pacing::Steady, Pacing::Choppy, Pacing::Stalling(count / 2)];
    let pacing = pacings[rng.below(3) as usize];
    let (client, remote) = soak.relayed_pair();
    let client = Peer::client(client, exchange(count, pacing));
    let remote = Peer::remote(remote, exchange(count, Pacing::Steady));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(remote.outcome(), Outcome::whole(count));
}

/// Sends datagrams through an association and receives them back. One datagram at a
/// time is in transit, so no buffer overflows and none may be lost.
fn udp_associate(soak: &Soak, rng: &mut Rng) {
    let control = soak.dial();
    soak.ledger.expect(&control, "UDP ASSOCIATE Accept");
    let socket_on = |ip| {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    };
    let client = socket_on(control.local_addr().unwrap().ip());
    let origin = socket_on(LOCALHOST.into());
    let client_address = client.local_addr().unwrap();
    let origin_address = origin.local_addr().unwrap();
    let association =
        client::socks5::associate(control, None, soak.proxy.ip(), client_address).expect("granted");
    let mut buffer = vec![0; 65_536];
    for _ in 0..rng.below(20) {
        let destination = match rng.below(2) {
            0 => by_address(origin_address),
            _ => by_name("localhost", origin_address.port()),
        };
        let size = rng.below(9000) as usize;
        let data = rng.bytes(size);
        association
            .send(&client, &data, &destination)
            .expect("sent");
        let (count, relay) = origin.recv_from(&mut buffer).expect("relayed");
        assert!(buffer[..count] == data);
        origin.send_to(&data, relay).unwrap();
        let (from, answer) = association.receive(&client, &mut buffer).expect("relayed");
        assert_eq!(from, by_address(origin_address));
        assert!(answer == data);
    }
}

/// Sends a datagram to many names at once, as clients of BitTorrent do. Each must arrive.
fn announce_to_many_names(soak: &Soak, _: &mut Rng) {
    let control = soak.dial();
    soak.ledger.expect(&control, "UDP ASSOCIATE Accept");
    let socket = UdpSocket::bind((control.local_addr().unwrap().ip(), 0)).unwrap();
    let origin = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    origin.set_read_timeout(Some(TIMEOUT)).unwrap();
    let from = socket.local_addr().unwrap();
    let association =
        client::socks5::associate(control, None, soak.proxy.ip(), from).expect("granted");
    let port = origin.local_addr().unwrap().port();
    for number in 0..TRACKERS {
        let destination = by_name(&tracker(number), port);
        let sent = association.send(&socket, &[number], &destination);
        sent.expect("sent");
    }
    let mut received: Vec<u8> = (0..TRACKERS)
        .map(|_| {
            let mut byte = [0];
            origin.recv_from(&mut byte).expect("relayed");
            byte[0]
        })
        .collect();
    received.sort_unstable();
    assert_eq!(received, (0..TRACKERS).collect::<Vec<_>>());
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials {
        user: user.into(),
        password: password.into(),
    }
}

/// Logs in with the right password, from the address of the wrong logins.
fn known_user(soak: &Soak, rng: &mut Rng) {
    let (user, password) = USERS[rng.below(2) as usize];
    let client = dial_from((LOGIN_SOURCE, 0).into(), soak.proxy);
    soak.connections.fetch_add(1, Ordering::Relaxed);
    soak.ledger.expect(&client, ACCEPTED);
    let credentials = credentials(user, password);
    let client = client::socks5::connect(client, Some(&credentials), &soak.echo);
    let (client, _) = client.expect("granted");
    check_echo(&client, rng);
    end_session(client, rng);
}

/// Guesses the password of a user that exists, or of one that does not.
fn wrong_password(soak: &Soak, rng: &mut Rng) {
    let user = ["alice", "carol"][rng.below(2) as usize];
    let client = dial_from((LOGIN_SOURCE, 0).into(), soak.proxy);
    soak.connections.fetch_add(1, Ordering::Relaxed);
    let credentials = credentials(user, "guess");
    let result = client::socks5::connect(client, Some(&credentials), &soak.echo);
    result.expect_err("the password is wrong");
}

/// Kills a second server amid transfers: each of their ends must be reset.
fn killed_process(_: &Soak, rng: &mut Rng) {
    let mut server = Proxy::open();
    let steady = Pacing::Steady;
    let endless = || vec![Meanwhile(vec![Send(u64::MAX, steady)]), ReceiveAll(steady)];
    let peers: Vec<Peer> = (0..4)
        .flat_map(|_| {
            let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
            let destination = by_address(listener.local_addr().unwrap());
            let client = client::socks4::connect(dial(server.address()), &destination, b"");
            let client = Peer::client(client.expect("granted"), endless());
            [client, Peer::remote(accept(&listener), endless())]
        })
        .collect();
    let enough = rng.below(2 * MEGABYTE);
    until("all transfers to run", || {
        peers.iter().all(|peer| peer.sent() > enough).then_some(())
    });
    server.signal(Signal::SIGKILL);
    server.wait();
    for peer in peers {
        assert_eq!(peer.outcome().end, End::Reset);
    }
}

/// One side sends everything and half-closes before the other side begins to send.
fn half_close(soak: &Soak, rng: &mut Rng) {
    let count = rng.below(200_000);
    let all = ReceiveAll(Pacing::Steady);
    let send = Send(count, Pacing::Steady);
    let first = vec![send.clone(), HalfClose, all.clone()];
    let second = vec![all, send, HalfClose];
    let (up, down) = match rng.below(2) {
        0 => (first, second),
        _ => (second, first),
    };
    let (client, remote) = soak.relayed_pair();
    let (client, remote) = (Peer::client(client, up), Peer::remote(remote, down));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(remote.outcome(), Outcome::whole(count));
}

fn idle_session(soak: &Soak, rng: &mut Rng) {
    let client = soak.connect(&soak.echo);
    check_echo(&client, rng);
    soak.sleep(rng.duration_up_to(Duration::from_secs(12)));
    check_echo(&client, rng);
    end_session(client, rng);
}

/// Sends the request byte by byte, and receives the data with pauses.
fn slow_client(soak: &Soak, rng: &mut Rng) {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let destination = by_address(listener.local_addr().unwrap());
    let client = soak.dial();
    soak.ledger.expect(&client, ACCEPTED);
    for byte in request(Command::Connect, &destination, b"soak") {
        write(&client, &[byte]);
        thread::sleep(rng.duration_up_to(Duration::from_millis(10)));
    }
    assert_eq!(read_exactly(&client, 8)[..2], [0, 90]);
    let count = rng.below(MEGABYTE);
    let remote = Peer::remote(accept(&listener), exchange(count, Pacing::Steady));
    let client = Peer::client(client, exchange(count, Pacing::Stalling(count / 4 + 1)));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(remote.outcome(), Outcome::whole(count));
}

/// One side resets amid a transfer: the other side receives a reset. Then a client
/// resets right after its request.
fn reset_midway(soak: &Soak, rng: &mut Rng) {
    let position = rng.below(2 * MEGABYTE);
    let steady = Pacing::Steady;
    let resets = vec![
        Meanwhile(vec![Send(position / 2, steady)]),
        Receive(position, steady),
        Reset,
    ];
    let continues = vec![Meanwhile(vec![Send(u64::MAX, steady)]), ReceiveAll(steady)];
    let (client, remote) = soak.relayed_pair();
    let (resetting, other) = match rng.below(2) {
        0 => (
            Peer::client(client, resets),
            Peer::remote(remote, continues),
        ),
        _ => (
            Peer::remote(remote, resets),
            Peer::client(client, continues),
        ),
    };
    resetting.outcome();
    assert_eq!(other.outcome().end, End::Reset);

    soak.connections.fetch_add(1, Ordering::Relaxed);
    soak.early_resets.fetch_add(1, Ordering::Relaxed);
    let client = dial_from((RESET_SOURCE, 0).into(), soak.proxy);
    write(&client, &request(Command::Connect, &soak.echo, b"soak"));
    thread::sleep(rng.duration_up_to(Duration::from_micros(500)));
    reset(client);
}

/// Transfers data through a faulty link between proxy and remote.
fn faulty_network(soak: &Soak, rng: &mut Rng) {
    let count = 50_000 + rng.below(200_000);
    let delay = rng.duration_up_to(Duration::from_millis(100));
    let position = rng.below(count);
    let fault = match rng.below(8) {
        0 => Fault::Latency(delay),
        1 => Fault::Bandwidth(MEGABYTE),
        2 => Fault::SlowClose(delay),
        3 => Fault::Stall(position, delay),
        4 => Fault::Slicing,
        5 => Fault::Reset(position),
        6 => Fault::LimitedData(position),
        _ => Fault::Down(position),
    };
    let count = match fault {
        Fault::Slicing => count / 50,
        _ => count,
    };
    let session = FaultySession {
        command: [Command::Connect, Command::Bind][rng.below(2) as usize],
        direction: [Direction::Up, Direction::Down][rng.below(2) as usize],
        side: Side::Remote,
        seed: rng.next(),
    };
    let client = soak.dial();
    soak.ledger
        .expect(&client, &format!("{} Accept", session.command));
    let (client, remote) = session.open(client, fault);
    let client = Peer::client(client, exchange(count, Pacing::Steady));
    let remote = Peer::remote(remote, exchange(count, Pacing::Steady));
    let outcomes = [client.outcome(), remote.outcome()];
    match fault {
        Fault::LimitedData(_) | Fault::Down(_) => {}
        Fault::Reset(_) => assert!(outcomes.iter().any(|outcome| outcome.end == End::Reset)),
        _ => assert_eq!(outcomes, [Outcome::whole(count); 2], "{fault:?}"),
    }
}

/// Replaces the rules file by an equivalent one.
fn replace_rules_once(proxy: &Proxy, round: u32) {
    let draft = proxy.folder().join("draft");
    fs::write(&draft, format!("{RULES}# {round}\n")).unwrap();
    fs::rename(&draft, proxy.config()).unwrap();
}

/// The same every two seconds, until the test is over.
fn replace_rules(soak: &Soak, proxy: &Proxy) {
    for round in 1.. {
        replace_rules_once(proxy, round);
        if round % 3 == 0 {
            proxy.signal(Signal::SIGHUP);
        }
        soak.sleep(Duration::from_secs(2));
        if soak.is_over() {
            return;
        }
    }
}

/// The resources of the process at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    /// Resident memory in MiB.
    memory: f64,
    threads: f64,
    descriptors: f64,
    /// Connections opened so far.
    connections: f64,
}

impl Sample {
    fn take(proxy: &Proxy, soak: &Soak, began: Instant) -> Sample {
        let process = PathBuf::from(format!("/proc/{}", proxy.pid()));
        Sample {
            seconds: began.elapsed().as_secs_f64(),
            memory: proxy.status("VmRSS") as f64 / 1024.0,
            threads: proxy.status("Threads") as f64,
            descriptors: fs::read_dir(process.join("fd")).unwrap().count() as f64,
            connections: soak.connections.load(Ordering::Relaxed) as f64,
        }
    }
}

/// Runs the workload for this time, or until a client fails, and samples the process
/// every second.
fn run(soak: &Soak, proxy: &Proxy, lasts: Duration) -> Vec<Sample> {
    /// Ends the test early when a client fails.
    struct StopOnPanic<'a>(&'a Soak);
    impl Drop for StopOnPanic<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.is_over.store(true, Ordering::Relaxed);
            }
        }
    }

    let mut rng = Rng::new(random::seed());
    let began = Instant::now();
    let mut samples = vec![Sample::take(proxy, soak, began)];
    thread::scope(|scope| {
        for (count, pause, run_client) in WORKLOAD {
            for _ in 0..count {
                let mut rng = Rng::new(rng.next());
                scope.spawn(move || {
                    let _stop = StopOnPanic(soak);
                    while !soak.is_over() {
                        run_client(soak, &mut rng);
                        soak.sleep(rng.duration_up_to(Duration::from_millis(2 * pause)));
                    }
                });
            }
        }
        scope.spawn(|| replace_rules(soak, proxy));
        while began.elapsed() < lasts && !soak.is_over() {
            thread::sleep(Duration::from_secs(1));
            samples.push(Sample::take(proxy, soak, began));
        }
        soak.is_over.store(true, Ordering::Relaxed);
    });
    samples
}

/// The growth of memory over these samples in MiB, by linear regression (least squares).
fn memory_growth(samples: &[Sample]) -> f64 {
    let mean = |value: &dyn Fn(&Sample) -> f64| -> f64 {
        samples.iter().map(value).sum::<f64>() / samples.len() as f64
    };
    let time = mean(&|sample| sample.seconds);
    let memory = mean(&|sample| sample.memory);
    let covariance = mean(&|sample| (sample.seconds - time) * (sample.memory - memory));
    let variance = mean(&|sample| (sample.seconds - time).powi(2));
    let lasts = samples[samples.len() - 1].seconds - samples[0].seconds;
    covariance / variance * lasts
}

/// Checks that memory does not grow with the number of clients: at most 8 MiB after the
/// first tenth of the time, and 2 MiB by regression over the second half.
fn assert_memory_flat(samples: &[Sample]) {
    let warm = samples[samples.len() / 10];
    let last = samples[samples.len() - 1];
    let grown = memory_growth(&samples[samples.len() / 2..]);
    println!("warm: {warm:?}");
    println!("last: {last:?}; the second half grew by {grown:.2} MiB");
    assert!(last.memory < warm.memory + 8.0, "{warm:?}, {last:?}");
    assert!(grown < 2.0, "{grown} MiB");
}

/// Waits until idle threads have exited, and checks that all resources are released and
/// that stderr reports no panic and no dropped message.
fn assert_all_released(proxy: &Proxy, soak: &Soak, start: Sample) {
    until("idle threads to exit", || {
        (proxy.status("Threads") as f64 == start.threads).then_some(())
    });
    proxy.assert_resources_released();
    let end = Sample::take(proxy, soak, Instant::now());
    println!("at the start: {start:?}\nat the end: {end:?}");
    // At the start a check of the new rules file can hold one more.
    assert!(end.descriptors <= start.descriptors);
    let is_failure = |line: &String| line.contains("panic") || line.contains("dropped");
    assert!(
        !proxy.stderr_lines().iter().any(is_failure),
        "{:#?}",
        proxy.stderr_lines()
    );
}

/// Draws the samples: those of a full run into `docs/soak.svg`, those of a shorter run
/// into cargo's folder for temporary files.
fn draw(samples: &[Sample], lasts: Duration) {
    let curve = |title, unit, value: fn(&Sample) -> f64| Curve {
        title,
        unit,
        points: samples
            .iter()
            .map(|sample| (sample.seconds, value(sample)))
            .collect(),
    };
    let curves = [
        curve("Memory", "MiB resident", |sample| sample.memory),
        curve("Connections", "so far", |sample| sample.connections),
        curve("Threads", "", |sample| sample.threads),
        curve("Descriptors", "", |sample| sample.descriptors),
    ];
    let title = "One threadsocks process under mixed traffic";
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let last = samples[samples.len() - 1];
    let caption = format!(
        "One process, {} connections of all kinds in {:.0} seconds on loopback, {cores} cores; \
         make soak.",
        last.connections, last.seconds
    );
    let path = match lasts < FULL {
        true => PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("soak.svg"),
        false => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/soak.svg"),
    };
    fs::write(&path, plot::svg(title, &caption, &curves)).unwrap();
    println!("{}", path.display());
}

/// The duration of a full run.
const FULL: Duration = Duration::from_secs(600);

#[test]
#[ignore = "takes ten minutes, or SOAK_SECONDS"]
fn s09_r16_everything_at_once_leaves_no_resources_and_memory_stays_flat() {
    in_own_network(|network| {
        network.write_hosts(&hosts());
        let seconds = std::env::var("SOAK_SECONDS").ok();
        let seconds = seconds.map(|text| text.parse().expect("a number of seconds"));
        let lasts = seconds.map_or(FULL, Duration::from_secs);
        soak(lasts, "screen", MessageLedger::read, |samples| {
            draw(samples, lasts);
            assert_memory_flat(samples);
        });
    });
}

/// The duration of the run with the JSON log.
const JSON_LASTS: Duration = Duration::from_secs(8);

#[test]
#[ignore = "belongs to the soak test"]
fn l19_in_the_json_log_of_everything_at_once_each_granted_request_has_an_end() {
    in_own_network(|network| {
        network.write_hosts(&hosts());
        soak(JSON_LASTS, "json", MessageLedger::read_json, |_| ());
    });
}

/// Runs everything for this time, and checks that all resources are released and that each
/// request has its message. `read` reads stdout in this format.
fn soak(
    lasts: Duration,
    format: &str,
    read: fn(&MessageLedger, PipeReader),
    check: impl Fn(&[Sample]),
) {
    let users = tempfile::NamedTempFile::new().unwrap();
    let lines = USERS.map(|(user, password)| users_file_line(user, password.as_bytes()).unwrap());
    fs::write(users.path(), lines.concat()).unwrap();
    let (screen, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::with(Setup {
        rules: RULES,
        options: &[
            "--bind-timeout",
            "1s",
            "--half-closed-timeout",
            "3s",
            "--users",
            users.path().to_str().unwrap(),
            "--allow-anonymous",
            "--log",
            format,
        ],
        stdout: Some(Stdio::from(writer)),
        ..Setup::default()
    });
    let soak = Soak {
        proxy: proxy.address(),
        echo: Origin::echo().destination(),
        connections: AtomicU64::new(0),
        early_resets: AtomicU64::new(0),
        ledger: MessageLedger::default(),
        is_over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        scope.spawn(|| read(&soak.ledger, screen));
        // Moved into the scope: after a panic the server is dropped here, and the thread
        // that reads its stdout ends.
        let proxy = proxy;
        // The thread that reads changed files starts with the first change, and stays.
        replace_rules_once(&proxy, 0);
        proxy.signal(Signal::SIGHUP);
        proxy.wait_for_thread("files");
        let samples = run(&soak, &proxy, lasts);
        assert_all_released(&proxy, &soak, samples[0]);
        check(&samples);
        soak.ledger.wait_until_complete();
        proxy.finish();
    });
    let printed = soak.ledger.printed.into_inner();
    let early_resets = soak.early_resets.into_inner();
    let answered = soak.ledger.printed_early_resets.into_inner();
    let connections = soak.connections.into_inner();
    println!(
        "{connections} connections, {printed} messages; \
         {answered} for {early_resets} clients that reset at once"
    );
    assert!(answered <= early_resets, "{answered} of {early_resets}");
    let least = 100_000 * lasts.as_secs() / FULL.as_secs();
    assert!(connections >= least, "only {connections} connections");
}
