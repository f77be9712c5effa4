//! Test `latency`: round trips of one byte, and new connections during bulk transfers.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::bulk::{BulkStreams, Direction};
use crate::connections::{OriginServer, connect_and_exchange};
use crate::endpoints::{StreamPair, listen};
use crate::results::TestResult;
use crate::running_contender::RunningContender;
use crate::statistics::p50_p99_micros;

/// Microseconds of a one-byte round trip on an open connection: p50 and p99.
pub(crate) fn round_trip(contender: &RunningContender, window: Duration) -> TestResult {
    let failed = |error: io::Error| format!("round trip: {error}");
    let pair = contender.open_pair(&listen()).map_err(failed)?;
    let times = thread::scope(|scope| {
        scope.spawn(|| echo_bytes(&pair));
        let times = time_repeatedly(window, || {
            (&pair.client).write_all(b"?")?;
            (&pair.client).read_exact(&mut [0])
        });
        let _ = pair.origin.shutdown(Shutdown::Both);
        times
    });
    let times = times.map_err(failed)?;
    let [p50, p99] = p50_p99_micros(times);
    Ok(vec![("trip_p50", p50), ("trip_p99", p99)])
}

fn echo_bytes(pair: &StreamPair) {
    let mut byte = [0];
    while let Ok(1) = (&pair.origin).read(&mut byte) {
        if (&pair.origin).write_all(&byte).is_err() {
            return;
        }
    }
}

/// Microseconds of a whole new connection while four connections transfer at full
/// speed: p50 and p99.
pub(crate) fn connect_while_busy(contender: &RunningContender, window: Duration) -> TestResult {
    let streams = BulkStreams::start(contender, 4, Direction::Down)?;
    let origin = OriginServer::start(4);
    thread::sleep(Duration::from_millis(50));
    let times = time_repeatedly(window, || connect_and_exchange(contender, origin.address));
    let times = times.map_err(|error| format!("a new connection while busy: {error}"))?;
    drop(streams);
    let [p50, p99] = p50_p99_micros(times);
    Ok(vec![("busy_p50", p50), ("busy_p99", p99)])
}

/// Repeats `operation` for the time of `window` and returns the duration of each
/// call. The first error ends it.
pub(crate) fn time_repeatedly(
    window: Duration,
    mut operation: impl FnMut() -> io::Result<()>,
) -> io::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < window {
        let started = Instant::now();
        operation()?;
        times.push(started.elapsed());
    }
    Ok(times)
}
