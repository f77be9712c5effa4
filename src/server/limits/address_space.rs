//! What glibc's allocator leaves of the address space.
//!
//! It reserves address space for an arena for each of the first threads, while there is enough
//! left. Heap fits into an arena, and stacks do not. So with 200 MiB, three arenas would leave
//! 8 MiB for stacks, less than one arena leaves of 127 MiB.

use super::kernel_files::Share;

/// Address space in bytes of an arena (`HEAP_MAX_SIZE` in 64-bit programs).
const ARENA: u64 = 64 << 20;

/// One byte less than an arena, in whole pages of the largest size.
const LESS_THAN_ARENA: u64 = ARENA - (64 << 10);

/// The address space of this process (RLIMIT_AS), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressSpace {
    pub(super) share: Share,
    /// What a reload of the files will need.
    pub(super) reload: u64,
}

impl AddressSpace {
    /// The limit that the server sets itself, so that no further arena fits in: if all arenas
    /// would leave less. `None`: the limit stays.
    pub(super) fn lower_limit(self, max_arenas: u64) -> Option<u64> {
        let is_lower =
            LESS_THAN_ARENA < self.share.free() && self.after_arenas(max_arenas) < LESS_THAN_ARENA;
        is_lower.then_some(self.share.used + LESS_THAN_ARENA)
    }

    /// What is left for sessions with that limit. More address space never leaves less.
    pub(super) fn for_sessions(self, max_arenas: u64) -> u64 {
        let without_arenas = self.share.free().min(LESS_THAN_ARENA);
        let left = without_arenas.max(self.after_arenas(max_arenas));
        left.saturating_sub(self.reload)
    }

    /// What is left after all arenas; the first one is the program's own heap.
    fn after_arenas(self, max_arenas: u64) -> u64 {
        let arenas = max_arenas.saturating_sub(1).saturating_mul(ARENA);
        self.share.free().saturating_sub(arenas)
    }
}
