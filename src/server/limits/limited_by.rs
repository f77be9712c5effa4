//! What limits the number of sessions, as the start line says it.

use std::fmt;

/// What says how much memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// A control group of this process, or one above it.
    ControlGroup,
    /// MemAvailable in /proc/meminfo: without swapping, this much can be used.
    Available,
    /// The free memory according to sysinfo(2), if /proc/meminfo cannot be read. It does not
    /// include the file pages that the kernel could drop.
    Free,
}

/// The resource that one more session would exhaust, with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// Open files (RLIMIT_NOFILE).
    Descriptors(u64),
    /// Memory mappings (vm.max_map_count).
    Mappings(u64),
    /// The kernel's default for memory mappings: vm.max_map_count cannot be read.
    DefaultMappings(u64),
    /// Threads (RLIMIT_NPROC, kernel.threads-max, kernel.pid_max, pids.max).
    Threads(u64),
    /// Memory in bytes.
    Memory(u64, MemorySource),
    /// Address space in bytes (RLIMIT_AS).
    AddressSpace(u64),
    /// The same, and the allocator may make several arenas.
    AddressSpaceOfArenas(u64),
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
            LimitedBy::DefaultMappings(limit) => write!(
                out,
                "{limit} memory mappings (the default: vm.max_map_count cannot be read)"
            ),
            LimitedBy::Threads(limit) => write!(
                out,
                "{limit} threads (ulimit -u, kernel.threads-max, kernel.pid_max, pids.max)"
            ),
            LimitedBy::Memory(limit, source) => {
                let megabytes = limit >> 20;
                let source = match source {
                    MemorySource::ControlGroup => "of its control group",
                    MemorySource::Available => "that is available",
                    MemorySource::Free => "that is free: /proc/meminfo cannot be read",
                };
                write!(out, "{megabytes} MiB of memory ({source})")
            }
            LimitedBy::AddressSpace(limit) => {
                write!(out, "{limit} bytes of address space (ulimit -v)")
            }
            LimitedBy::AddressSpaceOfArenas(limit) => write!(
                out,
                "{limit} bytes of address space (ulimit -v; MALLOC_ARENA_MAX=1 leaves more)"
            ),
            LimitedBy::Data(limit) => write!(out, "{limit} bytes of data (ulimit -d)"),
            LimitedBy::MaxSessions => out.write_str("--max-sessions"),
        }
    }
}

impl LimitedBy {
    /// Can no session be served, if not even one fits into this limit? The memory of the machine
    /// is no fixed limit: other programs may leave more of it later.
    pub(super) fn is_fixed(self) -> bool {
        !matches!(
            self,
            LimitedBy::Memory(_, MemorySource::Available | MemorySource::Free)
        )
    }
}

/// Why this machine can serve no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// The control group of this process has less than the most expensive hash of a login
    /// needs, in bytes.
    HashMemory(u64),
    /// This limit is too low for one session.
    NoSession(LimitedBy),
    /// This limit is too low for one session beside a trace.
    NoSessionWithTrace(LimitedBy),
}

impl fmt::Display for LimitsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitsError::HashMemory(bytes) => write!(
                out,
                "a login needs {} MiB of memory for its hash, and the control group has less \
                 to spare; allow the group more memory, or write users with a smaller m",
                bytes >> 20
            ),
            LimitsError::NoSession(limit) => write!(
                out,
                "the server and one session need more than {limit}; raise this limit"
            ),
            LimitsError::NoSessionWithTrace(limit) => write!(
                out,
                "the server, one session and a trace need more than {limit}; raise this limit, or \
                 start without --trace"
            ),
        }
    }
}

impl std::error::Error for LimitsError {}

/// Too little memory is left for a changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryError {
    /// In bytes.
    pub(super) left: u64,
    /// The limit on it.
    pub(super) limit: LimitedBy,
}

impl fmt::Display for MemoryError {
    /// A clause: "20 MiB are left of 64 MiB of memory (of its control group)".
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} MiB are left of {}", self.left >> 20, self.limit)
    }
}

impl std::error::Error for MemoryError {}
