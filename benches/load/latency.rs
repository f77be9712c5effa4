//! How long one byte takes there and back, and a new connection while others are busy.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use crate::bulk::{Direction, Streams};
use crate::connections::{Origin, visit};
use crate::ends::{Pair, listen};
use crate::peers::Peer;
use crate::results::Outcome;

/// Microseconds of a one-byte round trip on a connection that is open.
pub(crate) fn round_trip(peer: &Peer, window: Duration) -> Outcome {
    let failed = |error: io::Error| format!("round trip: {error}");
    let pair = Pair::open(peer, &listen()).map_err(failed)?;
    let times = thread::scope(|scope| {
        scope.spawn(|| echo(&pair));
        let times = repeat(window, || {
            (&pair.near).write_all(b"?")?;
            (&pair.near).read_exact(&mut [0])
        });
        let _ = pair.far.shutdown(Shutdown::Both);
        times
    });
    let times = times.map_err(failed)?;
    let [p50, p99] = percentiles(times);
    Ok(vec![("trip_p50", p50), ("trip_p99", p99)])
}

fn echo(pair: &Pair) {
    let mut byte = [0];
    while let Ok(1) = (&pair.far).read(&mut byte) {
        if (&pair.far).write_all(&byte).is_err() {
            return;
        }
    }
}

/// Microseconds of a whole new connection while four streams go on as fast as
/// they can.
pub(crate) fn new_while_busy(peer: &Peer, window: Duration) -> Outcome {
    let streams = Streams::start(peer, 4, Direction::Down)?;
    let origin = Origin::start(4);
    thread::sleep(Duration::from_millis(50));
    let times = repeat(window, || visit(peer, origin.address));
    let times = times.map_err(|error| format!("a new connection while busy: {error}"))?;
    drop(streams);
    let [p50, p99] = percentiles(times);
    Ok(vec![("busy_p50", p50), ("busy_p99", p99)])
}

/// How long this takes, each time, again and again.
pub(crate) fn repeat(
    window: Duration,
    mut what: impl FnMut() -> io::Result<()>,
) -> io::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < window {
        let now = Instant::now();
        what()?;
        times.push(now.elapsed());
    }
    Ok(times)
}

/// What half of them, and all but one in a hundred, stay below; in
/// microseconds.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let place = (times.len() - 1) * percent / 100;
        times[place].as_secs_f64() * 1e6
    })
}
