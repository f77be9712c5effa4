//! The machine that the benchmark runs on.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// The kernel tells times in ticks of this length, to every program on every
/// machine. Each of the four times below is rounded down to it.
pub(crate) const CLOCK_TICK: Duration = Duration::from_millis(10);

/// CPU time so far that a virtual machine wanted and did not get.
pub(crate) fn steal_time() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    // cpu user nice system idle iowait irq softirq steal ...
    let ticks = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .nth(8);
    ticks
        .and_then(|field| field.parse::<u32>().ok())
        .unwrap_or(0)
        * CLOCK_TICK
}

pub(crate) fn is_memory_scarce() -> bool {
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

/// The load generator holds both ends of every connection. The servers inherit
/// the limit, so that none of them is held back by a modest shell.
pub(crate) fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit raised");
}

pub(crate) fn description() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft);
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "kernel": kernel.trim(),
        "descriptors": descriptors.ok(),
    })
}
