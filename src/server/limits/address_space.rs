//! What glibc's allocator leaves of the address space.
//!
//! The program starts itself again with one arena where address space is limited, unless the
//! environment says how many arenas there are. Each further one reserves address space.

use super::kernel_files::Share;

/// Address space in bytes of an arena (`HEAP_MAX_SIZE` in 64-bit programs).
const ARENA: u64 = 64 << 20;

/// The address space of this process (RLIMIT_AS), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressSpace {
    pub(super) share: Share,
    /// What other uses than sessions will need: a reload of the files, the trace.
    pub(super) later: u64,
}

impl AddressSpace {
    /// What is left for sessions. More address space never leaves less. One arena is the program's
    /// own heap, which grows as it is used.
    pub(super) fn for_sessions(self, max_arenas: u64) -> u64 {
        // For a new arena the allocator reserves twice its size for a moment, to align it.
        let arenas = match max_arenas {
            0 | 1 => 0,
            arenas => arenas.saturating_mul(ARENA),
        };
        let free = self.share.free().saturating_sub(arenas);
        free.saturating_sub(self.later)
    }
}
