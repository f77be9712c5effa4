//! What the system says of the process, under the names that are usual for Prometheus.
//!
//! What cannot be read is left out: on other systems than Linux, all but the limit on descriptors.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use crate::metrics::{Kind, TextFormat};
use crate::server::proc_stat::{START_TIME, field, time_field};

/// Fields of proc_pid_stat(5): processor time in the program and in the kernel, and more.
const USER_TIME: usize = 14;
const SYSTEM_TIME: usize = 15;
const THREADS: usize = 20;
const VIRTUAL_BYTES: usize = 23;
const RESIDENT_PAGES: usize = 24;

/// Writes the metrics of this process.
pub(super) fn write(page: &mut TextFormat) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut add = |name, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            page.metric(name, kind, help).add(&[], value);
        }
    };
    let seconds = |number| Some(time_field(&stat, number)?.as_secs_f64());
    let processor_time = seconds(USER_TIME).zip(seconds(SYSTEM_TIME));
    add(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time of the process, in the program and in the kernel.",
        processor_time.map(|(user, system)| user + system),
    );
    add(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start of the process, since 1970.",
        boot_time()
            .zip(seconds(START_TIME))
            .map(|(boot, start)| boot + start),
    );
    add(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Address space of the process.",
        field(&stat, VIRTUAL_BYTES).map(|it| it as f64),
    );
    add(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the process that is in RAM.",
        field(&stat, RESIDENT_PAGES)
            .zip(page_size())
            .map(|(pages, size)| (pages * size) as f64),
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
        field(&stat, THREADS).map(|it| it as f64),
    );
}

/// When the system was booted, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn page_size() -> Option<u64> {
    sysconf(SysconfVar::PAGE_SIZE).ok()??.try_into().ok()
}

/// How many descriptors are open.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2 the size says it; an older kernel needs the list, with the descriptor
    // through which it is read.
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count().saturating_sub(1) as u64),
        count => Some(count),
    }
}
