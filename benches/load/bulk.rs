//! Test `bulk`: the throughput of one connection or several, in one direction.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

use crate::endpoints::{StreamPair, listen};
use crate::interval::Interval;
use crate::results::TestResult;
use crate::running_contender::RunningContender;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the origin server to the client.
    Down,
    /// From the client to the origin server.
    Up,
}

/// Throughput in Gbit/s and CPU seconds per GB (10^9 bytes), summed over `count`
/// connections.
pub(crate) fn measure(
    contender: &RunningContender,
    count: usize,
    direction: Direction,
    window: Duration,
) -> TestResult {
    let streams = BulkStreams::start(contender, count, direction)?;
    let interval = Interval::measure(contender, window, || streams.received());
    if interval.count == 0.0 {
        return Err("received nothing".to_owned());
    }
    let (rate, cpu) = match (count, direction) {
        (1, Direction::Down) => ("down", "down_cpu"),
        (1, Direction::Up) => ("up", "up_cpu"),
        _ => ("four", "four_cpu"),
    };
    let gigabytes = interval.count / 1e9;
    let mut numbers = vec![(rate, 8.0 * gigabytes / interval.seconds)];
    numbers.extend(
        interval
            .cpu_seconds
            .map(|seconds| (cpu, seconds / gigabytes)),
    );
    Ok(numbers)
}

/// Connections over which one thread sends without a pause and another receives.
pub(crate) struct BulkStreams {
    pairs: Vec<Arc<StreamPair>>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl BulkStreams {
    pub(crate) fn start(
        contender: &RunningContender,
        count: usize,
        direction: Direction,
    ) -> Result<BulkStreams, String> {
        let listener = listen();
        let mut streams = BulkStreams {
            pairs: Vec::new(),
            received: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..count {
            let pair = contender
                .open_pair(&listener)
                .map_err(|error| format!("stream: {error}"))?;
            streams.start_threads(Arc::new(pair), direction);
        }
        Ok(streams)
    }

    fn start_threads(&mut self, pair: Arc<StreamPair>, direction: Direction) {
        self.pairs.push(Arc::clone(&pair));
        self.threads.push(thread::spawn({
            let pair = Arc::clone(&pair);
            move || match direction {
                Direction::Down => send_continuously(&pair.origin),
                Direction::Up => send_continuously(&pair.client),
            }
        }));
        let received = Arc::clone(&self.received);
        self.threads.push(thread::spawn(move || match direction {
            Direction::Down => receive_and_discard(&pair.client, &received),
            Direction::Up => receive_and_discard(&pair.origin, &received),
        }));
    }

    /// Bytes received so far. Relaxed suffices: the counter publishes no other data.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for BulkStreams {
    /// Shuts down all sockets first: that ends the blocked reads and writes of the
    /// threads that it then joins.
    fn drop(&mut self) {
        for pair in &self.pairs {
            let _ = pair.client.shutdown(Shutdown::Both);
            let _ = pair.origin.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The bytes of each write. 256 KiB stay in the processor's cache, so that reading
/// them costs the sender little.
static PAYLOAD: [u8; 256 << 10] = [0x55; 256 << 10];

fn send_continuously(mut stream: &TcpStream) {
    while stream.write_all(&PAYLOAD).is_ok() {}
}

/// Receives until EOF or an error. With MSG_TRUNC the kernel discards the bytes
/// instead of copying them, so that the receiver is not the bottleneck.
fn receive_and_discard(stream: &TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; 1 << 20];
    let discard = MsgFlags::MSG_TRUNC;
    while let Ok(count @ 1..) = recv(stream.as_raw_fd(), &mut buffer, discard) {
        received.fetch_add(count as u64, Ordering::Relaxed);
    }
}
