//! What connections cost on which nothing happens, and how many of them fit.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::connections::{Origin, visit};
use crate::ends::{Pair, listen};
use crate::latency::{percentiles, repeat};
use crate::peers::Peer;
use crate::results::Outcome;
use crate::tree::Usage;

/// Until whoever was about to allocate or to start a thread has done it.
const SETTLE: Duration = Duration::from_millis(300);

/// A thousand: kB, threads and descriptors of each.
pub(crate) fn thousand(peer: &Peer) -> Outcome {
    let before = peer.usage();
    let (held, why) = hold(peer, 1000);
    if held.len() < 1000 {
        return Err(format!("held {} idle connections, then {why}", held.len()));
    }
    thread::sleep(SETTLE);
    let [memory, threads, descriptors] = each(before, peer.usage(), held.len());
    Ok(vec![
        ("idle_memory", memory),
        ("idle_threads", threads),
        ("idle_descriptors", descriptors),
    ])
}

/// As many as fit: how many, kB of each, and the milliseconds a new one takes.
pub(crate) fn most(peer: &Peer) -> Outcome {
    let before = peer.usage();
    let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    // Two of ours for each, and some for the origin of the newcomers.
    let (mut held, why) = hold(peer, (descriptors.saturating_sub(200) / 2) as usize);
    eprintln!("{}: {} fit: {why}", peer.contender.name(), held.len());
    thread::sleep(SETTLE);
    let count = held.len();
    let [memory, _, _] = each(before, peer.usage(), count);
    // Newcomers need some room, also with who holds no more than that.
    held.truncate(count.saturating_sub(20));
    thread::sleep(SETTLE);
    let origin = Origin::start(4);
    let times = repeat(SETTLE, || visit(peer, origin.address));
    let times = times.map_err(|error| format!("a new one beside {count} idle ones: {error}"))?;
    let [new, _] = percentiles(times);
    Ok(vec![
        ("most", count as f64),
        ("most_memory", memory),
        ("most_new", new / 1e3),
    ])
}

/// Opens connections, each used once so that all there is to it is there, and
/// tells why it stopped.
fn hold(peer: &Peer, wanted: usize) -> (Vec<Pair>, String) {
    const LONGEST: Duration = Duration::from_secs(25);
    let began = Instant::now();
    let listener = listen();
    let mut held = Vec::new();
    while held.len() < wanted {
        let pair = Pair::open(peer, &listener).and_then(|pair| {
            pair.exchange()?;
            Ok(pair)
        });
        match pair {
            Ok(pair) => held.push(pair),
            Err(error) => return (held, format!("the next one failed: {error}")),
        }
        if began.elapsed() > LONGEST {
            return (held, format!("{LONGEST:?} were over"));
        }
        if held.len().is_multiple_of(100) && memory_is_scarce() {
            return (held, "a quarter of the memory is left".to_owned());
        }
    }
    (held, "the load generator has no descriptor left".to_owned())
}

fn memory_is_scarce() -> bool {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (number("MemTotal:"), number("MemAvailable:")) {
        (Some(total), Some(available)) => available < total / 4,
        _ => false,
    }
}

/// Of each connection: kB, threads, descriptors.
fn each(before: Usage, after: Usage, count: usize) -> [f64; 3] {
    let share = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    [
        share(before.pss, after.pss) / 1024.0,
        share(before.threads as u64, after.threads as u64),
        share(before.descriptors as u64, after.descriptors as u64),
    ]
}
