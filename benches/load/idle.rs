//! Test `idle`: the cost of idle connections, and how many a contender can hold.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::connections::{OriginServer, connect_and_exchange};
use crate::endpoints::{StreamPair, listen};
use crate::latency::time_repeatedly;
use crate::machine::is_memory_scarce;
use crate::process_tree::Usage;
use crate::results::TestResult;
use crate::running_contender::RunningContender;
use crate::statistics::p50_p99_micros;

/// Pause before a sample of memory and threads, in which the contender finishes its
/// allocations and thread starts.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// kB, threads and descriptors per connection, with 1,000 idle connections.
pub(crate) fn thousand_connections(contender: &RunningContender) -> TestResult {
    let before = contender.usage();
    let (held, reason) = open_connections(contender, 1000);
    if held.len() < 1000 {
        return Err(format!(
            "held {} idle connections, then {reason}",
            held.len()
        ));
    }
    thread::sleep(SETTLE_TIME);
    let [memory, threads, descriptors] = per_connection(before, contender.usage(), held.len());
    Ok(vec![
        ("idle_memory", memory),
        ("idle_threads", threads),
        ("idle_descriptors", descriptors),
    ])
}

/// The number of idle connections that the contender can hold, kB per connection,
/// and the median time of a new connection in ms.
pub(crate) fn maximum_connections(contender: &RunningContender) -> TestResult {
    let before = contender.usage();
    let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE).expect("read RLIMIT_NOFILE");
    // The load generator needs two descriptors per connection, and some for the
    // origin server of the new connections.
    let (mut held, reason) =
        open_connections(contender, (descriptors.saturating_sub(200) / 2) as usize);
    eprintln!(
        "{}: {} idle connections: {reason}",
        contender.kind.name(),
        held.len()
    );
    thread::sleep(SETTLE_TIME);
    let count = held.len();
    let [memory, _, _] = per_connection(before, contender.usage(), count);
    // Closes 20 connections, so that a contender at its limit has capacity for new
    // ones.
    held.truncate(count.saturating_sub(20));
    thread::sleep(SETTLE_TIME);
    let origin = OriginServer::start(4);
    let times = time_repeatedly(SETTLE_TIME, || {
        connect_and_exchange(contender, origin.address)
    });
    let times =
        times.map_err(|error| format!("a new connection beside {count} idle ones: {error}"))?;
    let [new, _] = p50_p99_micros(times);
    Ok(vec![
        ("most", count as f64),
        ("most_memory", memory),
        ("most_new", new / 1e3),
    ])
}

/// Opens connections until there are `wanted`, and returns them with the reason why
/// it stopped. Each carries one byte each way, so that the contender has allocated
/// everything for it.
fn open_connections(contender: &RunningContender, wanted: usize) -> (Vec<StreamPair>, String) {
    const TIME_LIMIT: Duration = Duration::from_secs(25);
    let began = Instant::now();
    let listener = listen();
    let mut held = Vec::new();
    while held.len() < wanted {
        let pair = contender.open_pair(&listener).and_then(|pair| {
            pair.exchange()?;
            Ok(pair)
        });
        match pair {
            Ok(pair) => held.push(pair),
            Err(error) => return (held, format!("the next one failed: {error}")),
        }
        if began.elapsed() > TIME_LIMIT {
            return (
                held,
                format!("the time limit of {TIME_LIMIT:?} was reached"),
            );
        }
        if held.len().is_multiple_of(100) && is_memory_scarce() {
            return (held, "only a quarter of the memory is available".to_owned());
        }
    }
    (held, "the load generator has no descriptor left".to_owned())
}

/// kB, threads and descriptors per connection.
fn per_connection(before: Usage, after: Usage, count: usize) -> [f64; 3] {
    let share = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    [
        share(before.pss_bytes, after.pss_bytes) / 1024.0,
        share(before.threads as u64, after.threads as u64),
        share(before.descriptors as u64, after.descriptors as u64),
    ]
}
