//! Terminated sessions: a reset of each direction that has not ended, and of no other.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use threadsocks::client;

use crate::support::endpoints::{
    Origin, random_bytes, read_all, read_exactly, read_until_reset, relayed_pair, shutdown_write,
    with_timeout, write,
};
use crate::support::netns::in_own_network;
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::tcp_table::{FIN_WAIT1, FIN_WAIT2, TcpRow};
use crate::support::wait::until;

/// The reset tells the client that it has not received everything.
#[test]
fn r26_o04_a_transfer_that_a_limit_or_a_stop_cuts_off_ends_with_a_reset() {
    const ALL: usize = 16 << 20;
    for (option, limit, half_closes, ending) in [
        ("--idle-timeout", "500ms", false, "idle for too long"),
        (
            "--half-closed-timeout",
            "500ms",
            true,
            "half-closed and idle",
        ),
        ("--grace", "300ms", false, "the server stopped"),
    ] {
        let mut proxy = Proxy::start(PERMIT_ALL, &[option, limit, "-v"]);
        let (client, remote) = relayed_pair(proxy.address());
        if half_closes {
            shutdown_write(&client);
        }
        let sender = thread::spawn(move || {
            let _ = (&remote).write_all(&vec![b'x'; ALL]);
        });
        // The client reads nothing, so the relay thread blocks in a write.
        until("the first bytes", || {
            (client.peek(&mut [0; 10_000]).unwrap() == 10_000).then_some(())
        });
        if option == "--grace" {
            proxy.signal(Signal::SIGTERM);
        }
        let line = proxy.stderr_line("ending=");
        assert!(line.contains(ending), "{line}");
        let received = read_until_reset(&client);
        assert!(received.len() < ALL);
        sender.join().unwrap();
        proxy.signal(Signal::SIGTERM);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// As before, when the server has relayed all bytes so far and more would come: it holds
/// no bytes, and still the transfer is incomplete.
#[test]
fn r26_o04_a_steady_transfer_that_a_stop_cuts_off_ends_with_a_reset() {
    for signals in [1, 2] {
        let grace = ["0s", "1m"][signals - 1];
        let mut proxy = Proxy::start(PERMIT_ALL, &["--grace", grace]);
        let (client, remote) = relayed_pair(proxy.address());
        let sender = thread::spawn(move || {
            while (&remote).write_all(b"a line now and then\n").is_ok() {
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        read_exactly(&client, 200);
        for _ in 0..signals {
            proxy.signal(Signal::SIGTERM);
            proxy.stderr_line("stopping");
        }
        read_until_reset(&client);
        sender.join().unwrap();
        proxy.wait();
    }
}

/// Reads slowly, 4 KiB every 40 ms, until an error, and returns its kind.
fn read_slowly(client: &TcpStream) -> ErrorKind {
    let mut buffer = [0; 4096];
    loop {
        match { client }.read(&mut buffer) {
            Ok(0) => panic!("EOF in place of a reset"),
            Ok(_) => thread::park_timeout(Duration::from_millis(40)),
            Err(error) => return error.kind(),
        }
    }
}

/// Such a reader keeps a relay thread in one write for long. Even so a stop, or changed
/// rules, terminate the session in time. The client receives a reset, and the log a line.
#[test]
fn r26_o04_slow_readers_that_never_pause_are_terminated_in_time() {
    const READERS: usize = 8;
    for by_stop in [true, false] {
        // With this half-closed timeout the server checks all sessions every 100 ms.
        let options = [
            "--half-closed-timeout",
            "1s",
            "--grace",
            "1s",
            "--enforce",
            "-v",
        ];
        let mut proxy = Proxy::start(PERMIT_ALL, &options);
        let endless = Origin::start(|stream| {
            let megabyte = vec![7; 1 << 20];
            while (&stream).write_all(&megabyte).is_ok() {}
        });
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let client = dial_with_small_buffer(proxy.address());
                let client =
                    client::socks4::connect(client, &endless.destination(), b"").expect("granted");
                thread::spawn(move || read_slowly(&client))
            })
            .collect();
        // After this time all sessions splice, and their pipes are full.
        thread::park_timeout(Duration::from_secs(4));
        let began = Instant::now();
        match by_stop {
            true => proxy.signal(Signal::SIGTERM),
            false => fs::write(proxy.config(), "deny - -\n").unwrap(),
        }
        proxy.wait_for_stderr("ending=", READERS);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        for reader in readers {
            assert_eq!(reader.join().expect("no EOF"), ErrorKind::ConnectionReset);
        }
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    }
}

/// Such a reader is not idle, even with small socket buffers at the server.
#[test]
fn r06_a_slow_reader_that_never_pauses_is_not_idle() {
    in_own_network(|network| {
        network.set("tcp_wmem", "4096 16384 131072");
        let proxy = Proxy::start(PERMIT_ALL, &["--idle-timeout", "2s", "-v"]);
        let endless = Origin::start(|stream| {
            let megabyte = vec![7; 1 << 20];
            while (&stream).write_all(&megabyte).is_ok() {}
        });
        let client = dial_with_small_buffer(proxy.address());
        let client = client::socks4::connect(client, &endless.destination(), b"").expect("granted");
        let began = Instant::now();
        let mut buffer = [0; 4096];
        while began.elapsed() < Duration::from_secs(8) {
            (&client).read_exact(&mut buffer).expect("more data");
            thread::park_timeout(Duration::from_millis(50));
        }
        let lines = proxy.stderr_lines();
        assert!(!lines.iter().any(|line| line.contains("ending=")));
        drop(client);
        proxy.finish();
    });
}

/// Connects with a receive buffer of 32 KiB, so that little more than what the client has
/// read is in transit.
fn dial_with_small_buffer(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("a connection");
    setsockopt(&client, sockopt::RcvBuf, &(32 << 10)).expect("set");
    with_timeout(client)
}

/// What can terminate a session.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Idle,
    HalfClosed,
    GracePeriod,
    SecondSignal,
    Enforce,
}

impl Limit {
    const ALL: [Limit; 5] = [
        Limit::Idle,
        Limit::HalfClosed,
        Limit::GracePeriod,
        Limit::SecondSignal,
        Limit::Enforce,
    ];

    /// A server with this limit.
    fn start_proxy(self) -> Proxy {
        let options: &[&str] = match self {
            Limit::Idle => &["--idle-timeout", "500ms"],
            Limit::HalfClosed => &["--half-closed-timeout", "500ms"],
            Limit::GracePeriod => &["--grace", "100ms"],
            Limit::SecondSignal => &["--grace", "1m"],
            Limit::Enforce => &["--enforce"],
        };
        Proxy::start(PERMIT_ALL, &[options, &["-v"]].concat())
    }

    /// Terminates the only session, and waits until that is done.
    fn terminate(self, proxy: &Proxy) {
        match self {
            Limit::Idle | Limit::HalfClosed => {}
            Limit::GracePeriod => proxy.signal(Signal::SIGTERM),
            Limit::SecondSignal => {
                proxy.signal(Signal::SIGTERM);
                proxy.stderr_line("stopping");
                proxy.signal(Signal::SIGTERM);
            }
            Limit::Enforce => {
                fs::write(proxy.config(), "deny - -\n").unwrap();
                proxy.signal(Signal::SIGHUP);
            }
        }
        proxy.stderr_line("ending=");
    }

    fn stop(self, mut proxy: Proxy) {
        if !matches!(self, Limit::GracePeriod | Limit::SecondSignal) {
            proxy.signal(Signal::SIGTERM);
        }
        proxy.wait();
    }
}

/// No byte moves, and still more might have come.
#[test]
fn r26_r29_a_silent_session_that_is_terminated_ends_with_a_reset() {
    for limit in Limit::ALL {
        if matches!(limit, Limit::HalfClosed) {
            continue;
        }
        let proxy = limit.start_proxy();
        let (client, remote) = relayed_pair(proxy.address());
        write(&client, b"a part of it");
        assert_eq!(read_exactly(&remote, 12), b"a part of it");
        limit.terminate(&proxy);
        assert_eq!(read_until_reset(&client), b"", "{limit:?}");
        assert_eq!(read_until_reset(&remote), b"", "{limit:?}");
        limit.stop(proxy);
    }
}

/// The open direction is reset. The other one has ended, and its last bytes still arrive
/// after the termination, or after the process was killed.
#[test]
fn r29_r30_a_direction_that_has_ended_stays_ended_and_loses_no_byte() {
    let bytes = random_bytes(30, 300_000);
    for limit in Limit::ALL.map(Some).into_iter().chain([None]) {
        for up_has_ended in [true, false] {
            let mut proxy = limit.unwrap_or(Limit::SecondSignal).start_proxy();
            let (client, remote) = relayed_pair(proxy.address());
            let (ended, open) = match up_has_ended {
                true => (&remote, &client),
                false => (&client, &remote),
            };
            // As much as the socket buffers hold: the receiver does not read yet.
            write(open, &bytes);
            shutdown_write(open);
            until("the FIN of the server", || {
                let state = TcpRow::of_peer(ended).state;
                [FIN_WAIT1, FIN_WAIT2].contains(&&state[..]).then_some(())
            });
            match limit {
                Some(limit) => limit.terminate(&proxy),
                None => proxy.signal(Signal::SIGKILL),
            }
            assert_eq!(read_until_reset(open), b"", "{limit:?}");
            assert!(read_all(ended) == bytes, "{limit:?}");
            match limit {
                Some(limit) => limit.stop(proxy),
                None => drop(proxy.wait()),
            }
        }
    }
}
