//! What the system says of the process, under the names that are usual for Prometheus.
//!
//! What cannot be read is left out; on other systems than Linux that is most of it. Nothing here
//! reads `/proc/self/stat` for each page: with 16,000 threads that takes 5 ms.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};

use crate::metrics::{Kind, TextFormat};
use crate::server::start_time::start_time;

/// Writes the metrics of this process, which has `started` since 1970.
pub(super) fn write(page: &mut TextFormat, started: Option<Duration>) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut add = |name, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            page.metric(name, kind, help).add(&[], value);
        }
    };
    let processor_time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok();
    add(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time of the process, in the program and in the kernel.",
        processor_time.map(|time| Duration::from(time).as_secs_f64()),
    );
    add(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start of the process, since 1970.",
        started.map(|time| time.as_secs_f64()),
    );
    add(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Address space of the process.",
        bytes(&status, "VmSize:"),
    );
    add(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the process that is in RAM.",
        bytes(&status, "VmRSS:"),
    );
    add(
        "process_open_fds",
        Kind::Gauge,
        "Open descriptors.",
        open_descriptors().map(|it| it as f64),
    );
    let max = getrlimit(Resource::RLIMIT_NOFILE).ok();
    add(
        "process_max_fds",
        Kind::Gauge,
        "Descriptors that may be open.",
        max.map(|(soft, _)| soft as f64),
    );
    add(
        "threadsocks_threads",
        Kind::Gauge,
        "Threads of the process: two for each session that relays.",
        number(&status, "Threads:"),
    );
}

/// The number after this name in `/proc/self/status`.
fn number(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The same, in bytes: the file has kilobytes.
fn bytes(status: &str, name: &str) -> Option<f64> {
    Some(number(status, name)? * 1024.0)
}

/// When this process has started, since 1970.
pub(super) fn started() -> Option<Duration> {
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let mut lines = system.lines();
    let boot = lines.find_map(|line| line.strip_prefix("btime "))?;
    Some(Duration::from_secs(boot.trim().parse().ok()?) + start_time(&own)?)
}

/// How many descriptors are open.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2 the size says it. In the list of an older kernel, one descriptor is that
    // through which it is read.
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count().saturating_sub(1) as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l20_what_cannot_be_read_is_left_out() {
        let status = "Name:\tx\nVmSize:\t   20 kB\nThreads:\t3\nVmRSS:\t\n";
        assert_eq!(bytes(status, "VmSize:"), Some(20_480.0));
        assert_eq!(number(status, "Threads:"), Some(3.0));
        assert_eq!(bytes(status, "VmRSS:"), None);
        assert_eq!(number(status, "VmData:"), None);
        let mut page = TextFormat::default();
        write(&mut page, None);
        let page = page.finish();
        assert!(!page.contains("process_start_time_seconds"), "{page}");
    }
}
