//! Ten minutes of everything at once, through one server.
//!
//! Clients of all kinds come all the time. What they move is compared byte for
//! byte, what the screen shows is compared with what they asked, and what the
//! process holds is written down: it must not grow with the number of clients.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use threadsocks::client;
use threadsocks::client::socks4::Binding;
use threadsocks::net::Deadline;
use threadsocks::protocol::{Command, Destination};

use crate::stress::faulty_networks::{Case, Place, Way};
use crate::support::endpoints::{
    CLOSED, Origin, accept, by_address, by_name, dial, dial_from, read_all, read_exactly, request,
    reset, shutdown_write, write,
};
use crate::support::faulty_link::Fault;
use crate::support::plot::{self, Curve};
use crate::support::proxy::{Proxy, ScreenMessage, Setup, parse_screen};
use crate::support::random::{self, Rng};
use crate::support::scripted_peer::Step::{HalfClose, Meanwhile, Receive, ReceiveAll, Reset, Send};
use crate::support::scripted_peer::{End, MEGABYTE, Outcome, Pacing, Peer, exchange};
use crate::support::wait::TIMEOUT;
use crate::support::wait::until;

/// Clients come from these addresses of loopback, lest ports run out.
const SOURCES: std::ops::Range<u8> = 2..50;

/// Those of whom nobody knows how far their request came.
const HASTY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 60);

/// Whom nobody may reach.
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

const RULES: &str = "deny - - - 127.9.\npermit - 127.\n";

const ACCEPTED: &str = "CONNECT Accept";

type Visit = fn(&Soak, &mut Rng);

/// One visit after the other: how many at a time, how long each of them pauses
/// in between, in milliseconds, and what it does.
const VISITORS: [(usize, u64, Visit); 13] = [
    (6, 30, connect_by_address),
    (3, 40, connect_by_name),
    (2, 60, refused),
    (2, 60, malformed),
    (2, 60, bind_met),
    (2, 300, bind_unmet),
    (2, 300, bulk),
    (3, 60, datagrams),
    (2, 50, half_closed),
    (30, 100, idle),
    (4, 100, slow),
    (2, 100, broken),
    (6, 200, faulty),
];

/// What all visitors share.
struct Soak {
    proxy: SocketAddr,
    echo: Destination,
    connections: AtomicU64,
    /// Clients that may or may not have made a request.
    hasty: AtomicU64,
    ledger: Ledger,
    is_over: AtomicBool,
}

impl Soak {
    /// A new client.
    fn dial(&self) -> TcpStream {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let source = SOURCES.start + (number % SOURCES.len() as u64) as u8;
        dial_from((Ipv4Addr::new(127, 0, 0, source), 0).into(), self.proxy)
    }

    /// A client that is connected to this target.
    fn connect(&self, target: &Destination) -> TcpStream {
        let client = self.dial();
        self.ledger.expects(&client, ACCEPTED);
        client::socks4::connect(client, target, b"soak").expect("granted")
    }

    /// A session with both ends in hand: the client's, the remote's.
    fn relayed_pair(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let client = self.connect(&by_address(listener.local_addr().unwrap()));
        (client, accept(&listener))
    }

    /// A client that is listened for, and will hear this in the end.
    fn bind(&self, in_the_end: &str) -> (Binding<TcpStream>, SocketAddr) {
        let client = self.dial();
        self.ledger.expects(&client, in_the_end);
        let expected = by_address((LOCALHOST, 21).into());
        let binding = client::socks4::bind(client, &expected, b"").expect("listening");
        let listener = (LOCALHOST, binding.address.port()).into();
        (binding, listener)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// So long, but not when all is over.
    fn sleep(&self, pause: Duration) {
        let began = Instant::now();
        while began.elapsed() < pause && !self.is_over() {
            thread::sleep(Duration::from_millis(100).min(pause));
        }
    }
}

/// Which screen messages there must be: those asked for less those shown. In
/// the end that leaves nothing.
#[derive(Default)]
struct Ledger {
    open: Mutex<HashMap<(SocketAddr, String), i64>>,
    shown: AtomicU64,
    hasty: AtomicU64,
}

impl Ledger {
    fn expects(&self, client: &TcpStream, answer: &str) {
        self.count(client.local_addr().unwrap(), answer.to_owned(), 1);
    }

    fn shows(&self, block: &ScreenMessage) {
        self.shown.fetch_add(1, Ordering::Relaxed);
        if block.source.ip() == HASTY {
            self.hasty.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let answer = format!("{} {}", block.command, block.reply);
        self.count(block.source, answer, -1);
    }

    fn count(&self, client: SocketAddr, answer: String, change: i64) {
        let mut open = self.open.lock().unwrap();
        let key = (client, answer);
        let count = open.get(&key).unwrap_or(&0) + change;
        match count {
            0 => open.remove(&key),
            count => open.insert(key, count),
        };
    }

    /// Reads the screen to its end, message by message.
    fn read(&self, screen: PipeReader) {
        let mut lines = BufReader::new(screen).lines();
        loop {
            let message: Vec<String> = lines.by_ref().take(7).map(Result::unwrap).collect();
            match parse_screen(&message).first() {
                Some(block) => self.shows(block),
                None => return assert_eq!(message, [""; 0], "half a message"),
            }
        }
    }

    /// Waits until every request has its message.
    fn until_settled(&self) {
        let deadline = Deadline::after(TIMEOUT);
        while !self.open.lock().unwrap().is_empty() {
            let open = self.open.lock().unwrap();
            assert!(!deadline.is_over(), "too few (1), too many (-1): {open:?}");
            drop(open);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A few bytes go round.
fn talk(client: &TcpStream, rng: &mut Rng) {
    let count = 1 + rng.below(3000) as usize;
    let bytes = rng.bytes(count);
    write(client, &bytes);
    assert!(read_exactly(client, bytes.len()) == bytes);
}

/// Takes leave, in one of three ways.
fn leave(client: TcpStream, rng: &mut Rng) {
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
    talk(&client, rng);
    leave(client, rng);
}

fn connect_by_name(soak: &Soak, rng: &mut Rng) {
    let client = soak.connect(&by_name("localhost", soak.echo.port));
    talk(&client, rng);
    leave(client, rng);
}

fn refused(soak: &Soak, rng: &mut Rng) {
    let (command, target) = match rng.below(4) {
        0 => (Command::Connect, by_address(CLOSED.into())),
        1 => (Command::Connect, by_address((DENIED, 80).into())),
        2 => (Command::Connect, by_name("localhost", CLOSED.port())),
        _ => (Command::Bind, by_address((DENIED, 21).into())),
    };
    let client = soak.dial();
    soak.ledger.expects(&client, &format!("{command} Reject"));
    write(&client, &request(command, &target, b"soak"));
    assert_eq!(read_all(&client)[..2], [0, 91], "{target:?}");
}

/// No message is due to what is no request.
fn malformed(soak: &Soak, rng: &mut Rng) {
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
    // The server may have left before us.
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = (&client).read_to_end(&mut answer);
    // A choice of method, and a refusal in SOCKS5.
    assert!(answer.len() <= 12, "{answer:?}");
}

fn bind_met(soak: &Soak, rng: &mut Rng) {
    let (binding, listener) = soak.bind("BIND Accept");
    let count = rng.below(20_000);
    let peer = Peer::remote(dial(listener), exchange(count, Pacing::Steady));
    let (client, _) = binding.wait().expect("granted");
    let client = Peer::client(client, exchange(count, Pacing::Steady));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(peer.outcome(), Outcome::whole(count));
}

fn bind_unmet(soak: &Soak, rng: &mut Rng) {
    let (binding, listener) = soak.bind("BIND Reject");
    match rng.below(3) {
        // The client does not wait.
        0 => return,
        // A stranger comes.
        1 => drop(dial_from((Ipv4Addr::new(127, 8, 0, 1), 0).into(), listener)),
        // Nobody comes.
        _ => {}
    }
    binding.wait().expect_err("nobody it expects");
}

fn bulk(soak: &Soak, rng: &mut Rng) {
    let count = MEGABYTE + rng.below(3 * MEGABYTE);
    let manners = [Pacing::Steady, Pacing::Choppy, Pacing::Stalling(count / 2)];
    let pacing = manners[rng.below(3) as usize];
    let (client, remote) = soak.relayed_pair();
    let client = Peer::client(client, exchange(count, pacing));
    let remote = Peer::remote(remote, exchange(count, Pacing::Steady));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(remote.outcome(), Outcome::whole(count));
}

/// There and back, one at a time: nothing is lost on the way.
fn datagrams(soak: &Soak, rng: &mut Rng) {
    let control = soak.dial();
    soak.ledger.expects(&control, "UDP ASSOCIATE Accept");
    let socket_on = |ip| {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    };
    let client = socket_on(control.local_addr().unwrap().ip());
    let origin = socket_on(LOCALHOST.into());
    let (here, there) = (client.local_addr().unwrap(), origin.local_addr().unwrap());
    let reached = soak.proxy.ip();
    let association = client::socks5::associate(control, None, reached, here).expect("granted");
    let mut buffer = vec![0; 65_536];
    for _ in 0..rng.below(20) {
        let target = match rng.below(2) {
            0 => by_address(there),
            _ => by_name("localhost", there.port()),
        };
        let size = rng.below(9000) as usize;
        let data = rng.bytes(size);
        association.send(&client, &data, &target).expect("sent");
        let (count, relay) = origin.recv_from(&mut buffer).expect("relayed");
        assert!(buffer[..count] == data);
        origin.send_to(&data, relay).unwrap();
        let (from, back) = association.receive(&client, &mut buffer).expect("back");
        assert_eq!(from, by_address(there));
        assert!(back == data);
    }
}

/// One end says all it has to say before the other one begins.
fn half_closed(soak: &Soak, rng: &mut Rng) {
    let count = rng.below(200_000);
    let all = ReceiveAll(Pacing::Steady);
    let speaks = Send(count, Pacing::Steady);
    let first = vec![speaks.clone(), HalfClose, all.clone()];
    let second = vec![all, speaks, HalfClose];
    let (up, down) = match rng.below(2) {
        0 => (first, second),
        _ => (second, first),
    };
    let (client, remote) = soak.relayed_pair();
    let (client, remote) = (Peer::client(client, up), Peer::remote(remote, down));
    assert_eq!(client.outcome(), Outcome::whole(count));
    assert_eq!(remote.outcome(), Outcome::whole(count));
}

fn idle(soak: &Soak, rng: &mut Rng) {
    let client = soak.connect(&soak.echo);
    talk(&client, rng);
    soak.sleep(rng.duration_up_to(Duration::from_secs(12)));
    talk(&client, rng);
    leave(client, rng);
}

/// A request byte by byte, and an answer in sips.
fn slow(soak: &Soak, rng: &mut Rng) {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let target = by_address(listener.local_addr().unwrap());
    let client = soak.dial();
    soak.ledger.expects(&client, ACCEPTED);
    for byte in request(Command::Connect, &target, b"soak") {
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

/// A reset amid a transfer is none but a reset. And one amid a request.
fn broken(soak: &Soak, rng: &mut Rng) {
    let place = rng.below(2 * MEGABYTE);
    let steady = Pacing::Steady;
    let breaks = vec![
        Meanwhile(vec![Send(place / 2, steady)]),
        Receive(place, steady),
        Reset,
    ];
    let goes_on = vec![Meanwhile(vec![Send(u64::MAX, steady)]), ReceiveAll(steady)];
    let (client, remote) = soak.relayed_pair();
    let (breaker, other) = match rng.below(2) {
        0 => (Peer::client(client, breaks), Peer::remote(remote, goes_on)),
        _ => (Peer::remote(remote, breaks), Peer::client(client, goes_on)),
    };
    breaker.outcome();
    assert_eq!(other.outcome().end, End::Reset);

    soak.connections.fetch_add(1, Ordering::Relaxed);
    soak.hasty.fetch_add(1, Ordering::Relaxed);
    let client = dial_from((HASTY, 0).into(), soak.proxy);
    write(&client, &request(Command::Connect, &soak.echo, b"soak"));
    thread::sleep(rng.duration_up_to(Duration::from_micros(500)));
    reset(client);
}

/// A network that misbehaves is between the server and the remote.
fn faulty(soak: &Soak, rng: &mut Rng) {
    let count = 50_000 + rng.below(200_000);
    let late = rng.duration_up_to(Duration::from_millis(100));
    let place = rng.below(count);
    let fault = match rng.below(8) {
        0 => Fault::Latency(late),
        1 => Fault::Bandwidth(MEGABYTE),
        2 => Fault::SlowClose(late),
        3 => Fault::Stall(place, late),
        4 => Fault::Slicing,
        5 => Fault::Reset(place),
        6 => Fault::LimitedData(place),
        _ => Fault::Down(place),
    };
    let count = match fault {
        Fault::Slicing => count / 50,
        _ => count,
    };
    let case = Case {
        command: [Command::Connect, Command::Bind][rng.below(2) as usize],
        way: [Way::Up, Way::Down][rng.below(2) as usize],
        place: Place::Remote,
        seed: rng.next(),
    };
    let client = soak.dial();
    soak.ledger
        .expects(&client, &format!("{} Accept", case.command));
    let (client, remote) = case.open(client, fault);
    let client = Peer::client(client, exchange(count, Pacing::Steady));
    let remote = Peer::remote(remote, exchange(count, Pacing::Steady));
    let outcomes = [client.outcome(), remote.outcome()];
    match fault {
        Fault::LimitedData(_) | Fault::Down(_) => {}
        Fault::Reset(_) => assert!(outcomes.iter().any(|it| it.end == End::Reset)),
        _ => assert_eq!(outcomes, [Outcome::whole(count); 2], "{fault:?}"),
    }
}

/// The rules are replaced all the time, and go on permitting what is needed.
fn rules_change(soak: &Soak, proxy: &Proxy) {
    let draft = proxy.folder().join("draft");
    for round in 1.. {
        fs::write(&draft, format!("{RULES}# {round}\n")).unwrap();
        fs::rename(&draft, proxy.config()).unwrap();
        if round % 3 == 0 {
            proxy.signal(Signal::SIGHUP);
        }
        soak.sleep(Duration::from_secs(2));
        if soak.is_over() {
            return;
        }
    }
}

/// What the process held at some time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    /// Resident memory in MiB.
    memory: f64,
    threads: f64,
    descriptors: f64,
    /// That have come so far.
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

/// The visitors come, until this time is over or one of them fails.
fn run(soak: &Soak, proxy: &Proxy, lasts: Duration) -> Vec<Sample> {
    /// A visitor that fails ends it all.
    struct Alarm<'a>(&'a Soak);
    impl Drop for Alarm<'_> {
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
        for (count, pause, visit) in VISITORS {
            for _ in 0..count {
                let mut rng = Rng::new(rng.next());
                scope.spawn(move || {
                    let _alarm = Alarm(soak);
                    while !soak.is_over() {
                        visit(soak, &mut rng);
                        soak.sleep(rng.duration_up_to(Duration::from_millis(2 * pause)));
                    }
                });
            }
        }
        scope.spawn(|| rules_change(soak, proxy));
        while began.elapsed() < lasts && !soak.is_over() {
            thread::sleep(Duration::from_secs(1));
            samples.push(Sample::take(proxy, soak, began));
        }
        soak.is_over.store(true, Ordering::Relaxed);
    });
    samples
}

/// By how much the memory has grown in these samples, in MiB, as the straight
/// line tells that fits them best.
fn growth(samples: &[Sample]) -> f64 {
    let mean = |of: &dyn Fn(&Sample) -> f64| -> f64 {
        samples.iter().map(of).sum::<f64>() / samples.len() as f64
    };
    let (time, memory) = (mean(&|it| it.seconds), mean(&|it| it.memory));
    let both = mean(&|it| (it.seconds - time) * (it.memory - memory));
    let spread = mean(&|it| (it.seconds - time).powi(2));
    let lasts = samples[samples.len() - 1].seconds - samples[0].seconds;
    both / spread * lasts
}

/// The memory does not grow with the number of clients.
fn stays_flat(samples: &[Sample]) {
    let warm = samples[samples.len() / 10];
    let last = samples[samples.len() - 1];
    let grown = growth(&samples[samples.len() / 2..]);
    println!("warm: {warm:?}");
    println!("last: {last:?}; the second half grew by {grown:.2} MiB");
    assert!(last.memory < warm.memory + 8.0, "{warm:?}, {last:?}");
    assert!(grown < 2.0, "{grown} MiB");
}

/// Once it is quiet and its idle threads have left, all is given back.
fn gives_all_back(proxy: &Proxy, soak: &Soak, start: Sample) {
    until("warm threads to leave", || {
        (proxy.status("Threads") as f64 == start.threads).then_some(())
    });
    proxy.assert_resources_released();
    let end = Sample::take(proxy, soak, Instant::now());
    println!("at the start: {start:?}\nin the end: {end:?}");
    assert_eq!(end.descriptors, start.descriptors);
    let panics = |line: &String| line.contains("panic") || line.contains("dropped");
    assert!(
        !proxy.stderr_lines().iter().any(panics),
        "{:#?}",
        proxy.stderr_lines()
    );
}

/// The curves: in the documentation those of a full run, elsewhere all others.
fn draw(samples: &[Sample], lasts: Duration) {
    let curve = |title, unit, of: fn(&Sample) -> f64| Curve {
        title,
        unit,
        points: samples.iter().map(|it| (it.seconds, of(it))).collect(),
    };
    let curves = [
        curve("Memory", "MiB resident", |it| it.memory),
        curve("Connections", "so far", |it| it.connections),
        curve("Threads", "", |it| it.threads),
        curve("Descriptors", "", |it| it.descriptors),
    ];
    let title = "One threadsocks process under mixed traffic";
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let last = samples[samples.len() - 1];
    let circumstances = format!(
        "One process, {} connections of all kinds in {:.0} seconds on loopback, {cores} cores; \
         make soak.",
        last.connections, last.seconds
    );
    let path = match lasts < FULL {
        true => PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("soak.svg"),
        false => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/soak.svg"),
    };
    fs::write(&path, plot::svg(title, &circumstances, &curves)).unwrap();
    println!("{}", path.display());
}

const FULL: Duration = Duration::from_secs(600);

#[test]
#[ignore = "ten minutes, or SOAK_SECONDS"]
fn s09_r16_everything_at_once() {
    let told = std::env::var("SOAK_SECONDS").ok();
    let lasts = told.map_or(FULL, |it| Duration::from_secs(it.parse().expect("seconds")));
    let (screen, writer) = std::io::pipe().unwrap();
    let proxy = Proxy::with(Setup {
        rules: RULES,
        options: &["--bind-timeout", "1s", "--half-closed-timeout", "3s"],
        stdout: Some(Stdio::from(writer)),
        ..Setup::default()
    });
    let soak = Soak {
        proxy: proxy.address(),
        echo: Origin::echo().destination(),
        connections: AtomicU64::new(0),
        hasty: AtomicU64::new(0),
        ledger: Ledger::default(),
        is_over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        scope.spawn(|| soak.ledger.read(screen));
        // In here, so that a failure ends the screen.
        let proxy = proxy;
        let samples = run(&soak, &proxy, lasts);
        draw(&samples, lasts);
        gives_all_back(&proxy, &soak, samples[0]);
        stays_flat(&samples);
        soak.ledger.until_settled();
        proxy.finish();
    });
    let shown = soak.ledger.shown.into_inner();
    let (hasty, heard) = (soak.hasty.into_inner(), soak.ledger.hasty.into_inner());
    let connections = soak.connections.into_inner();
    println!("{connections} connections, {shown} messages; {heard} of {hasty} hasty requests");
    assert!(heard <= hasty, "{heard} of {hasty}");
    let least = 100_000 * lasts.as_secs() / FULL.as_secs();
    assert!(connections >= least, "only {connections} connections");
}
