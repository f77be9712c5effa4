//! As many bytes as will go, in one direction, on one connection or several.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

use crate::ends::{Pair, listen};
use crate::peers::Peer;
use crate::results::Outcome;
use crate::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the origin to the client.
    Down,
    Up,
}

/// Gbit/s, and CPU seconds per GB.
pub(crate) fn measure(
    peer: &Peer,
    count: usize,
    direction: Direction,
    window: Duration,
) -> Outcome {
    let streams = Streams::start(peer, count, direction)?;
    let span = Span::watch(peer, window, || streams.moved());
    if span.count == 0.0 {
        return Err("moved nothing".to_owned());
    }
    let (speed, cpu) = match (count, direction) {
        (1, Direction::Down) => ("down", "down_cpu"),
        (1, Direction::Up) => ("up", "up_cpu"),
        _ => ("four", "four_cpu"),
    };
    let gigabytes = span.count / 1e9;
    let mut numbers = vec![(speed, 8.0 * gigabytes / span.seconds)];
    numbers.extend(span.cpu.map(|seconds| (cpu, seconds / gigabytes)));
    Ok(numbers)
}

/// Connections that are kept as busy as can be.
pub(crate) struct Streams {
    pairs: Vec<Arc<Pair>>,
    moved: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    pub(crate) fn start(
        peer: &Peer,
        count: usize,
        direction: Direction,
    ) -> Result<Streams, String> {
        let listener = listen();
        let mut streams = Streams {
            pairs: Vec::new(),
            moved: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..count {
            let pair = Pair::open(peer, &listener).map_err(|error| format!("stream: {error}"))?;
            streams.keep_busy(Arc::new(pair), direction);
        }
        Ok(streams)
    }

    fn keep_busy(&mut self, pair: Arc<Pair>, direction: Direction) {
        self.pairs.push(Arc::clone(&pair));
        self.threads.push(thread::spawn({
            let pair = Arc::clone(&pair);
            move || match direction {
                Direction::Down => pour(&pair.far),
                Direction::Up => pour(&pair.near),
            }
        }));
        let moved = Arc::clone(&self.moved);
        self.threads.push(thread::spawn(move || match direction {
            Direction::Down => drain(&pair.near, &moved),
            Direction::Up => drain(&pair.far, &moved),
        }));
    }

    /// Bytes that have arrived so far.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for pair in &self.pairs {
            let _ = pair.near.shutdown(Shutdown::Both);
            let _ = pair.far.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What is sent, again and again: it stays in the processor's cache.
static BYTES: [u8; 256 << 10] = [0x55; 256 << 10];

fn pour(mut stream: &TcpStream) {
    while stream.write_all(&BYTES).is_ok() {}
}

/// MSG_TRUNC lets the kernel throw the bytes away instead of copying them, so
/// that this end is never what holds the others up.
fn drain(stream: &TcpStream, moved: &AtomicU64) {
    let mut buffer = vec![0; 1 << 20];
    let discard = MsgFlags::MSG_TRUNC;
    while let Ok(count @ 1..) = recv(stream.as_raw_fd(), &mut buffer, discard) {
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
}
