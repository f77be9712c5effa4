//! Name lookups at a time: each takes a thread and memory, and nothing can interrupt it.

use super::{IDLE_SESSION_MEMORY, THREADS_PER_SESSION, reserve};

/// Lookups at a time on a large machine, for all requests and datagrams together. A resolver
/// that answers after 20 ms then answers 12,800 in a second, and one client may have 64: a
/// browser opens some 30 connections at once.
pub(in crate::server) const MAX_NAME_LOOKUPS: usize = 256;

/// Lookups at a time on the smallest machine: one for each of four clients.
const MIN_NAME_LOOKUPS: u64 = 4;

/// One client may have a quarter of all lookups, so that names that hang leave slots to
/// others.
const PART_OF_ONE_CLIENT: usize = 4;

/// Lookups of one association at a time, and no more than half of those of its client: those
/// that hang leave the others to the other sessions of the client. The limit also applies
/// while no other session waits: nothing can interrupt a lookup for one that comes later.
const MAX_NAME_LOOKUPS_PER_ASSOCIATION: usize = 4;

/// Memory in bytes of one lookup in the worst case, with what the allocator keeps: 4,000 IPv4
/// and 2,000 IPv6 addresses, as many as two messages of DNS over TCP can have (measured with
/// glibc: 0.9 MiB).
pub(super) const LOOKUP_MEMORY: u64 = 1 << 20;

/// Lookups may use half of the reserve of memory; the other half is for all else.
const PART_OF_RESERVE: u64 = 2;

/// The reserve of memory on a large machine, in bytes.
pub(super) const SPARE_MEMORY: u64 = PART_OF_RESERVE * MAX_NAME_LOOKUPS as u64 * LOOKUP_MEMORY;

/// Lookups may use an eighth of a limited address space: stacks and memory.
const PART_OF_ADDRESS_SPACE: u64 = 8;

/// Lookups for which address space is kept at least, so that a small machine has some.
const MIN_LOOKUPS_OF_ADDRESS_SPACE: u64 = 8;

/// Lookups whose memory fits in the reserve, if so many bytes are free.
pub(super) fn by_memory(free: u64) -> u64 {
    let share = reserve(free, SPARE_MEMORY) / PART_OF_RESERVE;
    (share / LOOKUP_MEMORY).max(MIN_NAME_LOOKUPS)
}

/// The memory in bytes of that many lookups, with their threads and the kernel's share.
pub(super) fn memory(free: u64) -> u64 {
    by_memory(free) * (LOOKUP_MEMORY + IDLE_SESSION_MEMORY / THREADS_PER_SESSION)
}

/// Bytes that are kept for lookups of so much address space or data, if a thread takes
/// `per_thread` bytes. It grows more slowly than `free`, so more never means fewer sessions.
pub(super) fn address_space(free: u64, per_thread: u64) -> u64 {
    let per_lookup = per_thread + LOOKUP_MEMORY;
    let (least, most) = (MIN_LOOKUPS_OF_ADDRESS_SPACE, MAX_NAME_LOOKUPS as u64);
    (free / PART_OF_ADDRESS_SPACE).clamp(least * per_lookup, most * per_lookup)
}

/// Lookups that fit in these bytes.
pub(super) fn by_address_space(free: u64, per_thread: u64) -> u64 {
    address_space(free, per_thread) / (per_thread + LOOKUP_MEMORY)
}

/// Lookups of one client at a time.
pub(in crate::server) fn of_one_client(max_lookups: usize) -> usize {
    max_lookups.div_ceil(PART_OF_ONE_CLIENT)
}

/// Lookups of one association at a time.
pub(in crate::server) fn of_one_association(max_lookups: usize) -> usize {
    (of_one_client(max_lookups) / 2).clamp(1, MAX_NAME_LOOKUPS_PER_ASSOCIATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d26_the_number_of_lookups_follows_the_memory() {
        for (mebibytes, lookups) in [
            (0, 4),
            (28, 4),
            (60, 7),
            (92, 11),
            (500, 62),
            (1000, 125),
            (4000, 256),
        ] {
            assert_eq!(by_memory(mebibytes << 20), lookups, "{mebibytes}");
        }
        for free in (0..5000).map(|mebibytes| mebibytes << 20) {
            let used = by_memory(free) * LOOKUP_MEMORY;
            let smallest = MIN_NAME_LOOKUPS * LOOKUP_MEMORY;
            assert!(used <= (free / 8).max(smallest), "{free}");
        }
    }

    #[test]
    fn d26_one_client_leaves_lookups_to_others() {
        for (all, of_client, of_association) in
            [(4, 1, 1), (5, 2, 1), (11, 3, 1), (32, 8, 4), (256, 64, 4)]
        {
            let parts = (of_one_client(all), of_one_association(all));
            assert_eq!(parts, (of_client, of_association), "{all}");
        }
    }
}
