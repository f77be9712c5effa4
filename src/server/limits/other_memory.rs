//! The memory that the server may need for other uses than sessions.

use crate::logger::{MAX_QUEUED_EVENTS, MEMORY_PER_EVENT};

/// What the options of the server need, in bytes, and what it does not use yet at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherMemory {
    /// The first login: one hash. Its address space is reserved already.
    pub hash: u64,
    /// Later logins: the tables of credentials and of failures.
    pub logins: u64,
    /// `--trace`: the events, and writing them.
    pub trace: u64,
}

impl OtherMemory {
    /// What is neither used nor reserved.
    pub(super) fn heap(self) -> u64 {
        self.logins + self.trace
    }
}

/// The log queue gets this part of the memory at most: a sixteenth.
const LOG_PART: u64 = 16;

/// Events of the log queue on the smallest machine: those of some hundred sessions.
const MIN_QUEUED_EVENTS: u64 = 256;

/// Events that may wait for the logger, if this much memory is free.
pub(super) fn log_events(free: u64) -> u64 {
    let fitting = free / LOG_PART / MEMORY_PER_EVENT;
    fitting.clamp(MIN_QUEUED_EVENTS, MAX_QUEUED_EVENTS as u64)
}

/// The log queue in bytes, if it is full of the largest events.
pub(super) fn log_memory(free: u64) -> u64 {
    log_events(free) * MEMORY_PER_EVENT
}
