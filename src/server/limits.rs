//! The number of sessions that this machine can serve at a time.
//!
//! The standard library aborts the process if memory mappings run out while a thread
//! starts. So the limit is computed before the first client is accepted.

use std::fmt;
use std::{fs, thread};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::relay::{LARGE_BUFFER, MAX_PIPES};

/// Lookups of names in datagrams at a time, for all associations together. Each has a
/// thread beyond the two of its session. When all are in use, the datagram is dropped.
pub(super) const MAX_NAME_LOOKUPS: usize = 32;

/// The same limit for one client, so that no client takes all lookups.
pub(super) const MAX_NAME_LOOKUPS_PER_CLIENT: usize = MAX_NAME_LOOKUPS / 4;

/// Logins of one client that wait for the rate limiter at a time; one more is refused. A
/// browser opens some 30 connections at once. Of more than 64 logins, hardly any could be
/// checked within the handshake timeout.
pub(super) const MAX_WAITING_LOGINS: usize = 64;

/// Threads of a session: one per direction. The name of the destination is looked up on
/// another thread, but before the thread of the second direction starts.
const THREADS_PER_SESSION: u64 = 2;

/// File descriptors of a session: client and remote. An association has one more: the
/// client's connection and two UDP sockets.
const DESCRIPTORS_PER_SESSION: u64 = 2;

/// One session in this many may be a UDP association. The bound makes it unnecessary to
/// keep a third descriptor for every session.
const SESSIONS_PER_ASSOCIATION: usize = 4;

/// Memory mappings of a thread of the standard library on Linux: the stack and the signal
/// stack, each with a guard page.
const MAPPINGS_PER_THREAD: u64 = 4;

/// Address space of a thread beyond its stack, in bytes: the signal stack and the guard
/// pages.
const OVERHEAD_PER_THREAD: u64 = 64 << 10;

/// File descriptors kept for other uses: listener, output, rules file, resolver sockets,
/// the listener that a BIND has until its peer connects, and the pipes of splice(2), each
/// with two.
const SPARE_DESCRIPTORS: u64 = 128 + 2 * MAX_PIPES as u64;

/// Memory mappings kept for the program, its libraries, the allocator's arenas, and the
/// threads that look up names in datagrams.
const SPARE_MAPPINGS: u64 = 1000 + MAX_NAME_LOOKUPS as u64 * MAPPINGS_PER_THREAD;

/// Threads kept for the server's other threads, for lookups of names in datagrams, and for
/// other programs.
const SPARE_THREADS: u64 = 200 + MAX_NAME_LOOKUPS as u64;

/// Address space in bytes kept for the server's other threads, which have the standard
/// library's stack size of 2 MiB.
const SPARE_ADDRESS_SPACE: u64 = 16 << 20;

/// Heap in bytes of one association beyond the buffers of its directions: the peers to
/// which it has sent, with the longest names, and the datagrams that wait for a lookup.
const ASSOCIATION_HEAP: u64 = 1 << 20;

/// The limit on sessions, and the resource that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time, at least 1; one client more is closed at once.
    pub max_sessions: usize,
    /// The resource that would run out first. Its `Display` follows "limited by".
    pub limited_by: LimitedBy,
}

/// The resource that one more session would exhaust, with its limit.
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
    /// The operator's limit (`--max-sessions`).
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
    /// Raises the soft limit on open files to the hard one, then computes how many sessions
    /// the machine can serve if each thread has a stack of `stack_size` bytes.
    /// `max_sessions` can only lower the result.
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

/// UDP associations at a time, if there may be this many sessions.
pub(crate) fn max_associations(max_sessions: usize) -> usize {
    (max_sessions / SESSIONS_PER_ASSOCIATION).max(1)
}

/// Sessions at a time if the system reports no limit at all.
const DEFAULT_MAX_SESSIONS: u64 = 1000;

/// Raises the soft limit on open files to the hard one. The soft limit is usually 1024,
/// for programs that use select(2), and the hard limit far higher.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If this fails, the computation uses the soft limit, which has not changed.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The soft limit on this resource; `None` if it is unlimited or unknown.
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

/// Not used on other systems: [`free_address_space`] models the allocator of glibc.
#[cfg(not(target_os = "linux"))]
fn address_space_limit() -> Option<u64> {
    None
}

/// The limit on data in bytes, on Linux only: there, stacks count as data even before they
/// are used.
fn data_limit() -> Option<u64> {
    soft_limit(Resource::RLIMIT_DATA).filter(|_| cfg!(target_os = "linux"))
}

/// The address space in bytes that this limit leaves for sessions.
///
/// The allocator of glibc reserves an arena of 64 MiB for each of the first threads, while
/// address space for one is left. Only the rest is left for stacks. `MALLOC_ARENA_MAX` in
/// the environment limits the number of arenas; the default is eight per processor.
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

/// The data in bytes that this limit leaves for sessions. Only the used part of an arena
/// counts as data.
fn free_data(limit: u64) -> u64 {
    limit.saturating_sub(used_bytes("VmData:") + SPARE_ADDRESS_SPACE)
}

/// Bytes that this process uses already, from this field of /proc/self/status; 0 if
/// unknown.
fn used_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        let kilobytes = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
        kilobytes.parse::<u64>().ok()
    });
    kilobytes.unwrap_or(0) << 10
}

/// The lowest of the limits on threads. The kernel does not enforce RLIMIT_NPROC for root,
/// but an operator who sets it for root expects it to count.
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

/// RLIMIT_NPROC, on Linux only: there it counts threads, on other systems processes.
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

/// The number in a file of the kernel; `None` if there is no such file, or if its content
/// is "max".
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
