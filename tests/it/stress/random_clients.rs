//! Clients that send random bytes, and how long normal clients wait meanwhile.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{
    Origin, by_name, connect_through, dial_from, read_exactly, request, reset, write,
};
use crate::support::proxy::{Proxy, Setup};
use crate::support::random::{self, Rng};

/// Threads that drive the random clients. Each thread has an equal share of them and a
/// source address of its own.
const DRIVERS: usize = 20;

/// Average pause of a driver between two actions. A connection exists for two or three
/// actions, so the drivers open some 950 connections a second. That leaves half of two
/// cores idle, so a wait of a normal client is due to the server.
const PAUSE: Duration = Duration::from_millis(8);

/// A wrapper that turns off the allocator's caches. glibc keeps a cache of up to 16 KiB
/// for each thread, and many arenas. With 1,500 threads these take minutes to fill, and
/// until then look like a leak of some hundred bytes for each connection.
const NO_CACHES: [&str; 3] = [
    "env",
    "MALLOC_ARENA_MAX=1",
    "GLIBC_TUNABLES=glibc.malloc.tcache_count=0",
];

/// The state that all random clients share. The rules permit them only one service on
/// loopback, because random bytes may name any address.
struct Noise {
    proxy: SocketAddr,
    destination: Destination,
    /// Set once, at the end; Relaxed, because no other data depends on it.
    is_over: AtomicBool,
    /// Connections opened so far; a counter, so Relaxed suffices.
    connections: AtomicU64,
}

impl Noise {
    /// Keeps `clients` connections open, acts on one of them at a time, and replaces
    /// those that have ended, until `is_over` is set.
    fn drive(&self, clients: usize, number: usize, mut rng: Rng) {
        let from = Ipv4Addr::new(127, 0, 1, number as u8 + 1);
        let connect = |rng: &mut Rng| self.connect((from, 0).into(), rng);
        let mut held: Vec<TcpStream> = (0..clients).map(|_| connect(&mut rng)).collect();
        while !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(rng.duration_up_to(2 * PAUSE));
            let stream = held.swap_remove(rng.below(clients as u64) as usize);
            let kept = self.act(stream, &mut rng);
            held.push(kept.unwrap_or_else(|| connect(&mut rng)));
        }
    }

    /// Connects and sends random bytes.
    fn connect(&self, from: SocketAddr, rng: &mut Rng) -> TcpStream {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let stream = dial_from(from, self.proxy);
        stream.set_nonblocking(true).unwrap();
        let _ = (&stream).write(&self.random_request(rng));
        stream
    }

    /// Sends more random bytes, half-closes, resets or closes. Returns the connection if
    /// it is still open.
    fn act(&self, stream: TcpStream, rng: &mut Rng) -> Option<TcpStream> {
        let _ = (&stream).read(&mut [0; 4096]);
        match rng.below(10) {
            0 | 1 => {
                reset(stream);
                return None;
            }
            2 | 3 => return None,
            4 => drop(stream.shutdown(Shutdown::Write)),
            _ => drop((&stream).write(&self.random_request(rng))),
        }
        Some(stream)
    }

    /// A valid request, a part of one, one with a wrong bit, one with bytes after it, or
    /// random bytes.
    fn random_request(&self, rng: &mut Rng) -> Vec<u8> {
        let command = [Command::Connect, Command::Bind][rng.below(2) as usize];
        let local = by_name("localhost", self.destination.port);
        let destination = [&self.destination, &local][rng.below(2) as usize];
        let mut bytes = request(command, destination, b"noise");
        match rng.below(6) {
            0 => {}
            1 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
            2 => {
                // A bit before the host name: a wrong name would go to the system's name
                // server.
                let position = rng.below(8 + 5) as usize;
                bytes[position] ^= 1 << rng.below(8);
            }
            3 => {
                let count = rng.below(700) as usize;
                bytes.extend(rng.bytes(count));
            }
            _ => {
                let count = 1 + rng.below(2000) as usize;
                bytes = rng.bytes(count);
            }
        }
        bytes
    }
}

/// The time that each of many normal clients needs, one after the other: to connect, to
/// send a byte and receive it back, and to close.
fn wait_times(proxy: SocketAddr, destination: &Destination, is_over: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let client = connect_through(proxy, destination);
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        drop(client);
        times.push(began.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    times
}

/// Runs random clients and one normal client at a time. Checks the waits of the normal
/// clients, and that memory stays flat.
fn assert_normal_clients_are_served(clients: usize, lasts: Duration) {
    let origin = Origin::echo();
    let rules = format!(
        "permit - 127.0.0.1 - -\npermit - 127.0.1. - 127. {}\n",
        origin.port()
    );
    let proxy = Proxy::with(Setup {
        rules: &rules,
        options: &["--bind-timeout", "3s"],
        wrapper: &NO_CACHES,
        ..Setup::default()
    });
    let pid = proxy.pid();
    let noise = Noise {
        proxy: proxy.address(),
        destination: origin.destination(),
        is_over: AtomicBool::new(false),
        connections: AtomicU64::new(0),
    };
    let seed = random::seed();
    let (mut times, warm, last) = thread::scope(|scope| {
        for number in 0..DRIVERS {
            let rng = Rng::new(seed + number as u64);
            let noise = &noise;
            scope.spawn(move || noise.drive(clients / DRIVERS, number, rng));
        }
        let times = scope.spawn(|| wait_times(proxy.address(), &noise.destination, &noise.is_over));
        thread::sleep(lasts / 6);
        let warm = (proxy.status("VmRSS"), proxy.status("Threads"));
        thread::sleep(lasts - lasts / 6);
        let last = (proxy.status("VmRSS"), proxy.status("Threads"));
        noise.is_over.store(true, Ordering::Relaxed);
        (times.join().unwrap(), warm, last)
    });
    times.sort_unstable();
    let median = times[times.len() / 2];
    let p99 = times[times.len() * 99 / 100];
    println!(
        "{} connections of noise, {} normal: median {median:?}, 99 % {p99:?}; \
         kB and threads: {warm:?} after a sixth of the time, {last:?} at the end",
        noise.connections.load(Ordering::Relaxed),
        times.len(),
    );
    assert!(median < Duration::from_millis(50), "{median:?}");
    assert!(p99 < Duration::from_millis(250), "{p99:?}");
    // In kB: 2 MiB, and 32 KiB of stack for each thread that was added since.
    let max = warm.0 + (2 << 10) + 32 * last.1.saturating_sub(warm.1);
    assert!(last.0 < max, "{last:?} after {warm:?}");
    assert_eq!(proxy.pid(), pid);
    let is_panic = |line: &String| line.contains("panic");
    assert!(
        !proxy.stderr_lines().iter().any(is_panic),
        "{:#?}",
        proxy.stderr_lines()
    );
    proxy.finish();
}

#[test]
fn h19_noise_does_not_disturb_normal_clients() {
    assert_normal_clients_are_served(200, Duration::from_secs(4));
}

#[test]
#[ignore = "takes a minute"]
fn h19_a_minute_of_noise_from_a_thousand_clients_does_not_disturb_normal_clients() {
    assert_normal_clients_are_served(1000, Duration::from_secs(60));
}
