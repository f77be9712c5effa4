//! How many sessions fit this machine.
//!
//! A process that runs out of memory mappings while it starts a thread is
//! aborted by the standard library, so the limit is worked out before the
//! first client comes.

use std::fmt;
use std::{fs, thread};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::relay::{LARGE_BUFFER, MAX_PIPES};

/// Lookups of names in datagrams at a time, for all associations together. Each has a
/// thread beyond the two of its session. One more is refused, and its datagram dropped.
pub(super) const MAX_NAME_LOOKUPS: usize = 32;

/// The same for one client, so that it does not take all of them.
pub(super) const MAX_NAME_LOOKUPS_PER_CLIENT: usize = MAX_NAME_LOOKUPS / 4;

/// Logins of one client that wait for the rate limit at most. A browser opens some thirty
/// connections at once; of more logins hardly any could be checked in time.
pub(super) const MAX_WAITING_LOGINS: usize = 64;

/// Threads of a session: one per direction. A name is looked up on a thread of
/// its own before the second direction has one.
const THREADS_PER_SESSION: u64 = 2;

/// Descriptors of a session: client and remote. An association has two sockets
/// beside the client's.
const DESCRIPTORS_PER_SESSION: u64 = 2;

/// One session in so many may be an association, so that their third descriptors
/// need not be kept for all.
const SESSIONS_PER_ASSOCIATION: usize = 4;

/// Memory mappings of a thread, as std makes it on Linux: the stack and the
/// signal stack, each with a guard page.
const MAPPINGS_PER_THREAD: u64 = 4;

/// Address space of a thread beyond its stack: the signal stack, the guards.
const OVERHEAD_PER_THREAD: u64 = 64 << 10;

/// Kept for what is no session: listener, output, rules file, resolver
/// sockets, the third descriptor a BIND has for a moment, and the pipes of
/// those who move bytes in bulk.
const SPARE_DESCRIPTORS: u64 = 128 + 2 * MAX_PIPES as u64;

/// Kept for the program, its libraries, the allocator's arenas, and the threads that
/// look up the names of datagrams.
const SPARE_MAPPINGS: u64 = 1000 + MAX_NAME_LOOKUPS as u64 * MAPPINGS_PER_THREAD;

/// Kept for our own few threads, those again, and for other programs.
const SPARE_THREADS: u64 = 200 + MAX_NAME_LOOKUPS as u64;

/// Kept for our own few threads, whose stacks std makes 2 MiB large.
const SPARE_ADDRESS_SPACE: u64 = 16 << 20;

/// What the heap may hold for an association beyond the buffers of its directions:
/// whom it has sent something, by the longest names there are, and what waits for one.
const ASSOCIATION_HEAP: u64 = 1 << 20;

/// How many sessions there may be at a time, and what sets the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time; one client more is closed at once.
    pub max_sessions: usize,
    /// What would run out first, as the end of a sentence.
    pub limited_by: LimitedBy,
}

/// What a machine has too little of for one more session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// Open files (RLIMIT_NOFILE).
    Descriptors(u64),
    /// Memory mappings (vm.max_map_count).
    Mappings(u64),
    /// Threads (RLIMIT_NPROC, kernel.threads-max, kernel.pid_max, pids.max).
    Threads(u64),
    /// Address space in bytes (RLIMIT_AS).
    AddressSpace(u64),
    /// Writable memory in bytes, used or not (RLIMIT_DATA).
    Data(u64),
    /// The operator's wish (`--max-sessions`).
    MaxSessions,
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitedBy::Descriptors(limit) => write!(out, "{limit} open files (ulimit -n)"),
            LimitedBy::Mappings(limit) => write!(out, "{limit} memory mappings (vm.max_map_count)"),
            LimitedBy::Threads(limit) => write!(
                out,
                "{limit} threads (ulimit -u, kernel.threads-max, kernel.pid_max, pids.max)"
            ),
            LimitedBy::AddressSpace(limit) => write!(
                out,
                "{limit} bytes of address space (ulimit -v; MALLOC_ARENA_MAX=1 leaves more)"
            ),
            LimitedBy::Data(limit) => write!(out, "{limit} bytes of data (ulimit -d)"),
            LimitedBy::MaxSessions => out.write_str("--max-sessions"),
        }
    }
}

impl Limits {
    /// Raises the soft limit of open files to the hard one, then works out how
    /// many sessions, with stacks of this many bytes, the machine carries. The
    /// operator may wish for fewer, not for more.
    pub fn of_this_machine(stack_size: usize, max_sessions: Option<usize>) -> Limits {
        raise_descriptors();
        let per_thread = stack_size as u64 + OVERHEAD_PER_THREAD;
        let lookups = MAX_NAME_LOOKUPS as u64 * per_thread;
        let heap = ASSOCIATION_HEAP / SESSIONS_PER_ASSOCIATION as u64;
        let candidates = [
            soft_limit(Resource::RLIMIT_NOFILE).map(|limit| {
                let free = limit.saturating_sub(SPARE_DESCRIPTORS);
                let group_size = SESSIONS_PER_ASSOCIATION as u64;
                let sessions = free * group_size / (group_size * DESCRIPTORS_PER_SESSION + 1);
                (sessions, LimitedBy::Descriptors(limit))
            }),
            read_number("/proc/sys/vm/max_map_count").map(|limit| {
                let free = limit.saturating_sub(SPARE_MAPPINGS);
                let sessions = free / (THREADS_PER_SESSION * MAPPINGS_PER_THREAD);
                (sessions, LimitedBy::Mappings(limit))
            }),
            thread_limit().map(|limit| {
                let sessions = limit.saturating_sub(SPARE_THREADS) / THREADS_PER_SESSION;
                (sessions, LimitedBy::Threads(limit))
            }),
            address_space_limit().map(|limit| {
                let free = free_address_space(limit).saturating_sub(lookups);
                let sessions = free / (THREADS_PER_SESSION * per_thread + heap);
                (sessions, LimitedBy::AddressSpace(limit))
            }),
            data_limit().map(|limit| {
                let free = free_data(limit).saturating_sub(lookups);
                let sessions =
                    free / (THREADS_PER_SESSION * (per_thread + LARGE_BUFFER as u64) + heap);
                (sessions, LimitedBy::Data(limit))
            }),
            max_sessions.map(|max_sessions| (max_sessions as u64, LimitedBy::MaxSessions)),
        ];
        let tightest = candidates
            .into_iter()
            .flatten()
            .min_by_key(|(count, _)| *count);
        let (sessions, limited_by) =
            tightest.unwrap_or((DEFAULT_MAX_SESSIONS, LimitedBy::MaxSessions));
        Limits {
            max_sessions: usize::try_from(sessions).unwrap_or(usize::MAX).max(1),
            limited_by,
        }
    }
}

/// How many UDP associations there may be among so many sessions.
pub(crate) fn max_associations(max_sessions: usize) -> usize {
    (max_sessions / SESSIONS_PER_ASSOCIATION).max(1)
}

/// Where a system tells none of its limits.
const DEFAULT_MAX_SESSIONS: u64 = 1000;

/// Most servers are started with a soft limit of 1024 open files, meant for
/// programs that use select(2), and a far higher hard limit.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If the system refuses, the soft limit stays and is what we count on.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The soft limit, if there is one.
fn soft_limit(resource: Resource) -> Option<u64> {
    let (soft, _) = getrlimit(resource).ok()?;
    if soft == nix::sys::resource::RLIM_INFINITY {
        return None;
    }
    #[allow(clippy::useless_conversion, reason = "signed on other systems")]
    u64::try_from(soft).ok()
}

#[cfg(target_os = "linux")]
fn address_space_limit() -> Option<u64> {
    soft_limit(Resource::RLIMIT_AS)
}

/// Elsewhere it is not request for: the formula below is glibc's.
#[cfg(not(target_os = "linux"))]
fn address_space_limit() -> Option<u64> {
    None
}

/// On Linux stacks count as data, touched or not.
fn data_limit() -> Option<u64> {
    soft_limit(Resource::RLIMIT_DATA).filter(|_| cfg!(target_os = "linux"))
}

/// What this limit leaves for sessions. The C library's allocator gives each of
/// the first threads an arena of its own, of 64 MiB of address space, as long
/// as there is room for one, and leaves but the rest for stacks.
/// (`MALLOC_ARENA_MAX=1` in the environment makes it modest.)
fn free_address_space(limit: u64) -> u64 {
    const ARENA: u64 = 64 << 20;
    let free = limit.saturating_sub(used_bytes("VmSize:"));
    let max_arenas = match std::env::var("MALLOC_ARENA_MAX") {
        Ok(count) => count.parse().unwrap_or(u64::MAX),
        Err(_) => thread::available_parallelism().map_or(u64::MAX, |cores| 8 * cores.get() as u64),
    };
    // The first arena is the program's own heap.
    let arenas = max_arenas.saturating_sub(1).min(free / ARENA);
    free.saturating_sub(arenas * ARENA + SPARE_ADDRESS_SPACE)
}

/// What this limit leaves for sessions. Of the arenas only what is used counts.
fn free_data(limit: u64) -> u64 {
    limit.saturating_sub(used_bytes("VmData:") + SPARE_ADDRESS_SPACE)
}

/// Bytes that this process uses already, by their name in its status.
fn used_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        let kilobytes = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
        kilobytes.parse::<u64>().ok()
    });
    kilobytes.unwrap_or(0) << 10
}

/// The tightest of the limits on threads. Root may exceed RLIMIT_NPROC, but
/// whoever set it for root meant something.
fn thread_limit() -> Option<u64> {
    let limits = [
        user_limit(),
        read_number("/proc/sys/kernel/threads-max"),
        read_number("/proc/sys/kernel/pid_max"),
        read_number("/sys/fs/cgroup/pids.max"),
        cgroup_limit(),
    ];
    limits.into_iter().flatten().min()
}

/// On Linux this counts threads, elsewhere processes.
#[cfg(target_os = "linux")]
fn user_limit() -> Option<u64> {
    soft_limit(Resource::RLIMIT_NPROC)
}

#[cfg(not(target_os = "linux"))]
fn user_limit() -> Option<u64> {
    None
}

/// pids.max of the control group this process is in (`0::/PATH`, version 2).
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    read_number(&format!("/sys/fs/cgroup{path}/pids.max"))
}

/// The number a file of the kernel holds; none if there is no such file, or if
/// it says "max".
fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_sessions_lowers_the_limit_but_does_not_raise_it() {
        let machine = Limits::of_this_machine(256 << 10, None);
        assert!(machine.max_sessions > 1);
        let fewer = Limits::of_this_machine(256 << 10, Some(1));
        assert_eq!(
            (fewer.max_sessions, fewer.limited_by),
            (1, LimitedBy::MaxSessions)
        );
        let more = Limits::of_this_machine(256 << 10, Some(usize::MAX));
        assert_eq!(more, machine);
    }
}
