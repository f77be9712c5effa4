//! Resources of a process and all its descendants, from /proc (proc(5)).

use std::fs;
use std::time::Duration;

use crate::machine::CLOCK_TICK;

/// The resources in use at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Proportional set size: a page that n processes share counts 1/n for each.
    pub(crate) pss_bytes: u64,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

/// The pids of the process and of its descendants; the process is the first.
pub(crate) fn members(root: u32) -> Vec<u32> {
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("read /proc")
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let parent = stat_fields(pid)?.get(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut members = vec![root];
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        let children = processes
            .iter()
            .filter(|(_, candidate)| *candidate == parent);
        members.extend(children.map(|(pid, _)| pid));
        next += 1;
    }
    members
}

/// CPU time used so far, including children that have ended and been waited for.
pub(crate) fn cpu_time(root: u32) -> Duration {
    let ticks: u32 = members(root).into_iter().map(cpu_ticks).sum();
    ticks * CLOCK_TICK
}

fn cpu_ticks(pid: u32) -> u32 {
    // utime, stime, cutime, cstime: user and system time of the process, and of the
    // children that it has waited for.
    let fields = stat_fields(pid).unwrap_or_default();
    let times = fields.get(11..15).unwrap_or_default();
    times.iter().flat_map(|time| time.parse::<u32>()).sum()
}

/// The fields of /proc/PID/stat from the third on. The second one is the command in
/// parentheses, which may itself contain spaces and parentheses.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = line.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The resources that the process and its descendants use now.
pub(crate) fn usage(root: u32) -> Usage {
    let mut total = Usage::default();
    for pid in members(root) {
        total.pss_bytes += pss_bytes(pid);
        total.threads += count_entries(pid, "task");
        total.descriptors += count_entries(pid, "fd");
    }
    total
}

fn pss_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = kilobytes.and_then(|rest| rest.trim().strip_suffix(" kB"));
    kilobytes.map_or(0, |number| number.parse::<u64>().unwrap_or(0) << 10)
}

fn count_entries(pid: u32, folder: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{folder}")).map_or(0, Iterator::count)
}
