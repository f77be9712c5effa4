//! The machine on which the benchmark runs: description, limits, steal time.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// The unit of CPU times in /proc: USER_HZ is 100 on Linux, on all common
/// architectures. Each time is rounded down to it.
pub(crate) const CLOCK_TICK: Duration = Duration::from_millis(10);

/// Steal time since boot: CPU time that the hypervisor gave to other virtual
/// machines while this one had work to do (proc(5), /proc/stat).
pub(crate) fn steal_time() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    // Fields: cpu user nice system idle iowait irq softirq steal ...
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

/// Is less than a quarter of the memory available?
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

/// Raises the soft limit of descriptors to the hard limit: the load generator holds
/// both ends of every connection. The servers inherit it, so that a low limit of the
/// shell restricts none of them.
pub(crate) fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("read RLIMIT_NOFILE");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raise RLIMIT_NOFILE to the hard limit");
}

/// Processor, cores, kernel and descriptor limit, for `bench.json`.
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
