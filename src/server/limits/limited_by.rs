//! What limits the number of sessions, as the start line says it.

use std::fmt;

use super::machine::MemorySource;

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
            LimitedBy::AddressSpace(limit) => write!(
                out,
                "{limit} bytes of address space (ulimit -v; MALLOC_ARENA_MAX=1 leaves more)"
            ),
            LimitedBy::Data(limit) => write!(out, "{limit} bytes of data (ulimit -d)"),
            LimitedBy::MaxSessions => out.write_str("--max-sessions"),
        }
    }
}

/// The control group of this process has too little memory for a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashMemoryError {
    /// What the most expensive hash of a login needs, in bytes.
    pub(super) hash_memory: u64,
}

impl fmt::Display for HashMemoryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.hash_memory >> 20;
        write!(
            out,
            "a login needs {megabytes} MiB of memory for its hash, and the control group has less \
             to spare; allow the group more memory, or write users with a smaller m"
        )
    }
}

impl std::error::Error for HashMemoryError {}
