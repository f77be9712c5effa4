//! The table of threads, from what Linux says about them.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::columns::{Table, UNKNOWN, short};
use super::system_calls::describe;
use crate::server::session::SessionRegistry;
use crate::server::start_time::start_time;

const HEADINGS: [&str; 3] = ["NAME", "SINCE", "WAITS FOR"];

/// The folder of this process with a folder for each thread.
const TASKS: &str = "/proc/self/task";

/// The summary and the table, oldest thread first.
pub(super) fn table(registry: &SessionRegistry) -> String {
    let tasks = match fs::read_dir(TASKS) {
        Ok(tasks) => tasks,
        Err(error) => return format!("threads: cannot read {TASKS}: {error}"),
    };
    let now = boot_time();
    let mut table = Table::new("threads", HEADINGS);
    let mut total = 0;
    // The system lists them in the order of their start.
    for task in tasks.flatten() {
        total += 1;
        table.add(|| row(&task.path(), now, registry));
    }
    format!("{total} threads\n{table}")
}

fn row(task: &Path, now: Option<Duration>, registry: &SessionRegistry) -> [String; 3] {
    // A thread that has ended since has no files any more.
    let read = |file| fs::read_to_string(task.join(file)).ok();
    let name = read("comm").map(|name| name.trim_end().to_owned());
    let started = read("stat").as_deref().and_then(start_time);
    let age = now.zip(started).map(|(now, at)| now.saturating_sub(at));
    let session = name.as_deref().and_then(session_number);
    let peer = |descriptor| peer_of(registry, session?, descriptor);
    let waits_for = read("syscall").and_then(|call| describe(&call, peer));
    let unknown = || UNKNOWN.to_owned();
    [
        name.unwrap_or_else(unknown),
        age.map_or_else(unknown, short),
        waits_for.unwrap_or_else(unknown),
    ]
}

/// The time since the boot, suspended time included: the clock of start times.
fn boot_time() -> Option<Duration> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(now.into())
}

/// 7, for a thread of session 7: `s7` or `s7-down`.
fn session_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix('s')?;
    number.split('-').next()?.parse().ok()
}

/// The peer of the socket with this number, if it is one of this session. Its sockets are
/// open as long as the session lives, so no other socket has the number meanwhile.
fn peer_of(registry: &SessionRegistry, session: u64, descriptor: i32) -> Option<SocketAddr> {
    let session = registry.get(session)?;
    if session.client.as_raw_fd() == descriptor {
        return Some(session.client_address());
    }
    let remote = session.remote()?;
    let is_remote = remote.as_raw_fd() == descriptor;
    is_remote.then(|| remote.peer_addr().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o18_a_thread_is_matched_with_its_session() {
        for (name, number) in [
            ("s7", Some(7)),
            ("s7-down", Some(7)),
            ("signals", None),
            ("status", None),
            ("accept", None),
            ("lookup", None),
        ] {
            assert_eq!(session_number(name), number, "{name}");
        }
    }
}
