//! The number of sessions that this machine can serve at a time.
//!
//! The standard library aborts the process if memory mappings run out while a thread
//! starts, and the kernel kills a process that needs more memory than there is. So the limit
//! is computed before the first client is accepted.

mod address_space;
#[cfg(target_os = "linux")]
mod arenas;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "only Linux has control groups")
)]
mod control_group;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "the files are those of Linux")
)]
mod kernel_files;
mod limited_by;
mod machine;
pub(super) mod name_lookups;
#[cfg(target_os = "linux")]
mod one_arena;
mod other_memory;

pub use limited_by::{LimitedBy, LimitsError, MemoryError, MemorySource};
#[cfg(target_os = "linux")]
pub use one_arena::use_one_arena;
pub use other_memory::OtherMemory;

use crate::relay::{LARGE_BUFFER, max_pipes};
use address_space::AddressSpace;
use kernel_files::{KernelFiles, Share};
use machine::Machine;
use name_lookups::{MAX_NAME_LOOKUPS, SPARE_MEMORY};
use other_memory::{log_events, log_memory};

/// Attempts to connect at a time beside the one for which each session has a descriptor, for
/// all sessions together. When all are in use, a session begins its next attempt later.
const MAX_EXTRA_ATTEMPTS: usize = 64;

/// On a small machine there is only one such attempt for this many sessions, since the
/// reserve of descriptors is smaller there.
const SESSIONS_PER_EXTRA_ATTEMPT: usize = 8;

/// Logins of one user name at one address that wait for the rate limiter at a time; one
/// more is refused. A browser opens some 30 connections at once.
pub(super) const MAX_WAITING_LOGINS_PER_USER: usize = 32;

/// Logins of one user name at one address that wait for the turn of the address at a time.
/// The others of that name wait for this one. So a guesser with few names and many
/// connections does not delay another name for longer than these few names take.
pub(super) const MAX_NEXT_LOGINS_PER_USER: usize = 1;

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

/// Memory mappings of an arena of the allocator: the part in use, and the part reserved.
const MAPPINGS_PER_ARENA: u64 = 2;

/// Address space of a thread beyond its stack, in bytes: the signal stack and the guard
/// pages.
const OVERHEAD_PER_THREAD: u64 = 64 << 10;

/// Memory in bytes of an idle session: 31 kB in this process and 53 kB in the kernel, which
/// counts it in the same control group (two threads and two sockets, measured on Linux 6).
const IDLE_SESSION_MEMORY: u64 = 88 << 10;

/// Memory in bytes of a session in the worst case: its peers have stopped reading while
/// both directions hold a large buffer.
const SESSION_MEMORY: u64 = IDLE_SESSION_MEMORY + 2 * LARGE_BUFFER as u64;

/// Heap in bytes of one association beyond the buffers of its directions, with the longest
/// names: 760 kB for the peers to which it has sent, 300 kB for cached names, 270 kB for
/// their flows, 380 kB for verdicts, 64 KiB for datagrams that wait for a lookup.
const ASSOCIATION_HEAP: u64 = 1780 << 10;

/// Memory in bytes of one association beyond that of a session: its heap, and the receive
/// buffers of its two sockets (net.core.rmem_default).
const ASSOCIATION_MEMORY: u64 = ASSOCIATION_HEAP + 2 * 212_992;

/// Associations may use at most this part of the memory for sessions: an eighth.
const ASSOCIATION_PART: u64 = 8;

/// A reserve takes at most this part of what there is: a quarter. On a small machine the
/// full reserve would leave nothing for sessions.
const RESERVE_PART: u64 = 4;

/// File descriptors kept for other uses than the pipes of splice(2): listener, output, rules
/// file, resolver sockets, the listener that a BIND has until its peer connects, and the
/// extra attempts to connect.
const SPARE_DESCRIPTORS: u64 = 128 + MAX_EXTRA_ATTEMPTS as u64;

/// File descriptors without which the server does not work: standard streams, listener, the pipe
/// for its stop, spare descriptor, signals, rules file and a resolver socket.
const OWN_DESCRIPTORS: u64 = 16;

/// Threads kept for the server's other threads, for name lookups, for
/// checks of the rules file, and for other programs.
const SPARE_THREADS: u64 = 200 + MAX_NAME_LOOKUPS as u64;

/// Threads without which the server does not work: main, accept, logger, three for signals
/// and two for changed files, and one that looks up a name.
const OWN_THREADS: u64 = 9;

/// Memory mappings kept for the program, its libraries, large allocations, and the threads
/// that look up names in datagrams.
const SPARE_MAPPINGS: u64 = 1000 + MAX_NAME_LOOKUPS as u64 * MAPPINGS_PER_THREAD;

/// Memory mappings of the program without sessions: some 60 at the start, more with
/// lookups. This reserve does not shrink, since the process
/// aborts without it.
const OWN_MAPPINGS: u64 = 300;

/// Address space in bytes kept for the server's other threads, which have the standard
/// library's stack size of 2 MiB.
const SPARE_ADDRESS_SPACE: u64 = 16 << 20;

/// The connections of `--metrics` count as this many sessions in each resource: six have 12
/// threads and 13 descriptors. The endpoint has four threads, and 11 descriptors: the listener, both
/// ends of a pipe, and a connection and a file of /proc for each thread.
const SESSIONS_FOR_METRICS: u64 = 6;

/// Memory in bytes of the server's own threads, with the kernel's share: as those of a session.
const OWN_THREAD_MEMORY: u64 = OWN_THREADS * IDLE_SESSION_MEMORY / THREADS_PER_SESSION;

/// The limit on sessions, and the resource that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time, at least 1; one client more is closed at once.
    pub max_sessions: usize,
    /// UDP associations at a time, at least 1; they are sessions as well.
    pub max_associations: usize,
    /// Name lookups at a time, at least 4.
    pub max_name_lookups: usize,
    /// Events that may wait for the logger.
    pub log_events: usize,
    /// The resource that would run out first. Its `Display` follows "limited by".
    pub limited_by: LimitedBy,
    /// The control group of this process may have a limit on memory that cannot be read, and
    /// the operator has not set the number of sessions.
    pub has_unknown_memory: bool,
}

impl Limits {
    /// Raises the soft limit on open files to the hard one, then computes how many sessions
    /// the machine can serve if each thread has a stack of `stack_size` bytes.
    ///
    /// `max_sessions` lowers the result. It also raises it where the reserve for other
    /// programs, or the worst case of a session, would allow fewer; never above what the
    /// machine has.
    ///
    /// Call it after the rules and users are loaded, so that their memory counts, and before
    /// any thread starts. `has_metrics` says whether the server will serve metrics.
    ///
    /// # Errors
    ///
    /// The control group has less than the first login needs: the kernel would kill the server.
    /// Or one session, beside what the server itself needs, does not fit into a limit.
    pub fn of_this_machine(
        stack_size: usize,
        max_sessions: Option<usize>,
        other: OtherMemory,
        has_metrics: bool,
    ) -> Result<Limits, LimitsError> {
        let other_sessions = if has_metrics { SESSIONS_FOR_METRICS } else { 0 };
        let limits = |other| {
            let machine = Machine {
                other_sessions,
                ..Machine::read(other)
            };
            Limits::of(machine, stack_size, max_sessions)
        };
        let error = match limits(other) {
            Err(LimitsError::NoSession(limit)) => limit,
            result => return result,
        };
        // Which of the other uses is too much?
        let without_trace = OtherMemory { trace: 0, ..other };
        Err(if limits(without_trace).is_ok() {
            LimitsError::NoSessionWithTrace(error)
        } else if matches!(error, LimitedBy::Memory(..)) && limits(OtherMemory::default()).is_ok() {
            LimitsError::HashMemory(other.hash)
        } else {
            LimitsError::NoSession(error)
        })
    }

    fn of(
        machine: Machine,
        stack_size: usize,
        max_sessions: Option<usize>,
    ) -> Result<Limits, LimitsError> {
        let demand = Demand {
            per_thread: stack_size as u64 + OVERHEAD_PER_THREAD,
            is_explicit: max_sessions.is_some(),
        };
        let candidates = [
            machine.descriptors.map(|it| demand.by_descriptors(it)),
            machine.mappings.map(|mappings| {
                let limited_by = match mappings.is_default {
                    true => LimitedBy::DefaultMappings,
                    false => LimitedBy::Mappings,
                };
                let sessions = by_mappings(mappings.limit, machine.arenas);
                (sessions, limited_by(mappings.limit))
            }),
            machine.threads.map(|it| demand.by_threads(it)),
            machine.memory.map(|(share, source)| {
                let sessions = demand.by_memory(share);
                (sessions, LimitedBy::Memory(share.limit, source))
            }),
            machine
                .address_space
                .map(|it| demand.by_address_space(it, machine.arenas)),
            machine.data.map(|it| demand.by_data(it)),
        ];
        let of_machine = candidates.into_iter().flatten();
        let for_clients =
            of_machine.map(|(count, limit)| (count.saturating_sub(machine.other_sessions), limit));
        let of_operator = max_sessions.map(|it| (it as u64, LimitedBy::MaxSessions));
        let candidates = for_clients.chain(of_operator);
        let mut without_room = candidates.clone().filter(|(count, _)| *count == 0);
        if let Some((_, limit)) = without_room.find(|(_, limit)| limit.is_fixed()) {
            return Err(LimitsError::NoSession(limit));
        }
        let tightest = candidates.min_by_key(|(count, _)| *count);
        let (sessions, limited_by) =
            tightest.unwrap_or((DEFAULT_MAX_SESSIONS, LimitedBy::MaxSessions));
        let max_sessions = usize::try_from(sessions).unwrap_or(usize::MAX).max(1);
        Ok(Limits {
            max_sessions,
            max_associations: max_associations(max_sessions, machine),
            max_name_lookups: demand.max_name_lookups(machine),
            log_events: usize::try_from(log_events(machine.free_memory())).unwrap_or(usize::MAX),
            limited_by,
            has_unknown_memory: machine.has_hidden_group && !demand.is_explicit,
        })
    }
}

/// Is so much memory left to this process now, in bytes? It reads a few files of the kernel.
///
/// # Errors
///
/// What is left, and the limit.
pub fn check_memory(needed: u64) -> Result<(), MemoryError> {
    machine::check_memory(&KernelFiles::of_this_system(), needed)
}

/// UDP associations at a time: one session in four, and no more than their part of the
/// memory can hold.
fn max_associations(max_sessions: usize, machine: Machine) -> usize {
    let by_memory = machine.memory.map_or(u64::MAX, |(share, _)| {
        memory_for_sessions(share) / ASSOCIATION_PART / ASSOCIATION_MEMORY
    });
    let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
    (max_sessions / SESSIONS_PER_ASSOCIATION)
        .min(by_memory)
        .max(1)
}

/// Extra attempts to connect, as [`MAX_EXTRA_ATTEMPTS`], if there may be this many sessions.
pub(super) fn max_extra_attempts(max_sessions: usize) -> usize {
    (max_sessions / SESSIONS_PER_EXTRA_ATTEMPT).clamp(1, MAX_EXTRA_ATTEMPTS)
}

/// Sessions at a time if the system reports no limit at all.
const DEFAULT_MAX_SESSIONS: u64 = 1000;

/// The reserve of a resource: `full`, on a small machine a quarter of what there is.
fn reserve(available: u64, full: u64) -> u64 {
    full.min(available / RESERVE_PART)
}

/// Each thread has an arena of its own, or there are as many as there can be.
fn by_mappings(limit: u64, max_arenas: u64) -> u64 {
    let spare = reserve(limit, SPARE_MAPPINGS).max(OWN_MAPPINGS);
    let free = limit.saturating_sub(spare);
    let own_arenas = free / (THREADS_PER_SESSION * (MAPPINGS_PER_THREAD + MAPPINGS_PER_ARENA));
    let free = free.saturating_sub(max_arenas.saturating_mul(MAPPINGS_PER_ARENA));
    own_arenas.max(free / (THREADS_PER_SESSION * MAPPINGS_PER_THREAD))
}

fn memory_for_sessions(share: Share) -> u64 {
    let free = share.free();
    // The part without which the kernel would kill the server does not shrink.
    let own = OWN_THREAD_MEMORY + log_memory(free) + name_lookups::memory(free);
    let reserve = reserve(free, SPARE_MEMORY).max(own);
    free.saturating_sub(reserve)
}

/// What sessions need of each resource.
#[derive(Clone, Copy)]
struct Demand {
    /// Address space of a thread in bytes.
    per_thread: u64,
    /// The operator has set the number of sessions. Then the reserves for other programs
    /// and for the worst case do not count against it.
    is_explicit: bool,
}

impl Demand {
    /// Name lookups at a time that the memory, and limited address space and data, permit.
    fn max_name_lookups(self, machine: Machine) -> usize {
        let space = machine.address_space;
        let limited = [
            space.map(|space| space.for_sessions(machine.arenas)),
            machine.data.map(Share::free),
        ];
        let by_stacks = limited.into_iter().flatten();
        let by_stacks = by_stacks.map(|free| name_lookups::by_address_space(free, self.per_thread));
        let by_memory = machine
            .memory
            .map(|it| name_lookups::by_memory(it.0.free()));
        let fewest = by_stacks.chain(by_memory).min();
        fewest.map_or(MAX_NAME_LOOKUPS, |fewest| fewest as usize)
    }

    fn by_descriptors(self, limit: u64) -> (u64, LimitedBy) {
        let pipes = 2 * max_pipes(limit) as u64;
        let spare = match self.is_explicit {
            true => OWN_DESCRIPTORS,
            false => reserve(limit, SPARE_DESCRIPTORS + pipes).max(OWN_DESCRIPTORS),
        };
        let group_size = SESSIONS_PER_ASSOCIATION as u64;
        let free = limit.saturating_sub(spare);
        let sessions = free.saturating_mul(group_size) / (group_size * DESCRIPTORS_PER_SESSION + 1);
        (sessions, LimitedBy::Descriptors(limit))
    }

    fn by_threads(self, share: Share) -> (u64, LimitedBy) {
        let free = share.free();
        let spare = match self.is_explicit {
            true => OWN_THREADS,
            false => reserve(free, SPARE_THREADS).max(OWN_THREADS),
        };
        let sessions = free.saturating_sub(spare) / THREADS_PER_SESSION;
        (sessions, LimitedBy::Threads(share.limit))
    }

    fn by_memory(self, share: Share) -> u64 {
        let free = memory_for_sessions(share);
        let free = free - free / ASSOCIATION_PART;
        free / match self.is_explicit {
            true => IDLE_SESSION_MEMORY,
            false => SESSION_MEMORY,
        }
    }

    /// Address space: what the allocator's arenas leave is for stacks and for the heap.
    fn by_address_space(self, space: AddressSpace, max_arenas: u64) -> (u64, LimitedBy) {
        let free = space.for_sessions(max_arenas);
        let sessions = self.by_stacks(free, LARGE_BUFFER as u64);
        let limited_by = match max_arenas {
            0 | 1 => LimitedBy::AddressSpace,
            _ => LimitedBy::AddressSpaceOfArenas,
        };
        (sessions, limited_by(space.share.limit))
    }

    /// Data: stacks count before they are used, and only the used part of an arena.
    fn by_data(self, share: Share) -> (u64, LimitedBy) {
        let sessions = self.by_stacks(share.free(), LARGE_BUFFER as u64);
        (sessions, LimitedBy::Data(share.limit))
    }

    /// Sessions whose stacks and heap fit in this many bytes of address space or data, if
    /// each direction also needs `buffer` bytes.
    fn by_stacks(self, free: u64, buffer: u64) -> u64 {
        let lookups = name_lookups::address_space(free, self.per_thread);
        let heap = ASSOCIATION_HEAP / SESSIONS_PER_ASSOCIATION as u64;
        let free = free.saturating_sub(SPARE_ADDRESS_SPACE + lookups + log_memory(free));
        free / (THREADS_PER_SESSION * (self.per_thread + buffer) + heap)
    }
}

#[cfg(test)]
mod tests {
    use super::machine::Mappings;
    use super::*;
    use crate::logger::MAX_QUEUED_EVENTS;

    const STACK_SIZE: usize = 256 << 10;

    /// A machine that limits nothing but its mappings.
    const LARGE: Machine = Machine {
        other_sessions: 0,
        descriptors: None,
        mappings: Some(Mappings {
            limit: 65_530,
            is_default: false,
        }),
        arenas: 16,
        threads: None,
        memory: None,
        has_hidden_group: false,
        address_space: None,
        data: None,
    };

    fn limits(machine: Machine, max_sessions: Option<usize>) -> (usize, LimitedBy) {
        let limits = Limits::of(machine, STACK_SIZE, max_sessions).expect("room");
        (limits.max_sessions, limits.limited_by)
    }

    fn threads(limit: u64) -> Machine {
        let threads = Some(Share { limit, used: 0 });
        Machine { threads, ..LARGE }
    }

    fn memory(limit: u64) -> Machine {
        let share = Share { limit, used: 0 };
        let memory = Some((share, MemorySource::ControlGroup));
        Machine { memory, ..LARGE }
    }

    fn descriptors(limit: u64) -> Machine {
        let descriptors = Some(limit);
        Machine {
            descriptors,
            ..LARGE
        }
    }

    #[test]
    fn max_sessions_lowers_the_limit_but_does_not_raise_it_above_the_machine() {
        let machine = Limits::of_this_machine(STACK_SIZE, None, OtherMemory::default(), false)
            .expect("limits");
        assert!(machine.max_sessions > 1);
        let fewer = Limits::of_this_machine(STACK_SIZE, Some(1), OtherMemory::default(), false)
            .expect("limits");
        assert_eq!(
            (fewer.max_sessions, fewer.limited_by),
            (1, LimitedBy::MaxSessions)
        );
        let mappings = LimitedBy::Mappings(65_530);
        assert_eq!(limits(LARGE, None), (7934, mappings));
        assert_eq!(limits(LARGE, Some(usize::MAX)), (7934, mappings));
        let nothing = Machine {
            mappings: None,
            ..LARGE
        };
        assert_eq!(limits(nothing, None), (1000, LimitedBy::MaxSessions));
    }

    #[test]
    fn l23_the_metrics_have_their_part_of_each_resource() {
        for machine in [LARGE, threads(100), descriptors(192), memory(96 << 20)] {
            let with_metrics = Machine {
                other_sessions: SESSIONS_FOR_METRICS,
                ..machine
            };
            for max_sessions in [None, Some(usize::MAX)] {
                let (without, limited_by) = limits(machine, max_sessions);
                let fewer = without - SESSIONS_FOR_METRICS as usize;
                assert_eq!(limits(with_metrics, max_sessions), (fewer, limited_by));
            }
            assert_eq!(limits(with_metrics, Some(9)).0, 9);
        }
        let threads_of_sessions = SESSIONS_FOR_METRICS * THREADS_PER_SESSION;
        assert!(super::super::metrics::METRICS_THREADS as u64 <= threads_of_sessions);
    }

    #[test]
    fn s37_mappings_of_arenas_count() {
        for (limit, arenas, sessions) in [
            (65_530, 1, 7938),
            (65_530, 8 * 128, 7682),
            // Every thread has its own arena.
            (65_530, u64::MAX, 5292),
            (2000, 16, 183),
            (2000, 8 * 128, 125),
        ] {
            assert_eq!(by_mappings(limit, arenas), sessions, "{limit} {arenas}");
        }
    }

    #[test]
    fn s18_reserves_are_in_proportion_on_a_small_machine() {
        for (machine, sessions, limited_by) in [
            (threads(100), 37, LimitedBy::Threads(100)),
            (threads(200), 75, LimitedBy::Threads(200)),
            (threads(10_000), 4772, LimitedBy::Threads(10_000)),
            (descriptors(192), 64, LimitedBy::Descriptors(192)),
            (descriptors(1024), 341, LimitedBy::Descriptors(1024)),
            (descriptors(10_000), 4330, LimitedBy::Descriptors(10_000)),
            (threads(11), 1, LimitedBy::Threads(11)),
            (descriptors(19), 1, LimitedBy::Descriptors(19)),
        ] {
            assert_eq!(limits(machine, None), (sessions, limited_by));
        }
    }

    #[test]
    fn s18_max_sessions_is_honoured_up_to_what_the_machine_has() {
        for (machine, honoured, max, limited_by) in [
            (threads(100), 45, 45, LimitedBy::Threads(100)),
            (descriptors(192), 78, 78, LimitedBy::Descriptors(192)),
        ] {
            let explicit = limits(machine, Some(honoured - 1));
            assert_eq!(explicit, (honoured - 1, LimitedBy::MaxSessions));
            assert_eq!(limits(machine, Some(1000)), (max, limited_by));
        }
        // Without a reserve the process would abort for lack of mappings.
        let few = Some(Mappings {
            limit: 2000,
            is_default: true,
        });
        let machine = Machine {
            mappings: few,
            ..LARGE
        };
        let limited_by = LimitedBy::DefaultMappings(2000);
        assert_eq!(limits(machine, None), (183, limited_by));
        assert_eq!(limits(machine, Some(1000)), (183, limited_by));
    }

    /// For each limit in steps, whatever else the process uses.
    #[test]
    fn s46_more_address_space_or_data_never_means_fewer_sessions() {
        for (arenas, later) in [(1, 0), (2, 0), (16, 0), (u64::MAX, 0), (16, 40 << 20)] {
            let (mut before, mut errors) = (0, 0);
            for limit in (0..1300).map(|mebibytes| (mebibytes << 20) + 4096) {
                let used = 6 << 20;
                let share = Share { limit, used };
                let address_space = Some(AddressSpace { share, later });
                let machine = Machine {
                    address_space,
                    arenas,
                    ..LARGE
                };
                let sessions = match Limits::of(machine, STACK_SIZE, None) {
                    Ok(limits) => limits.max_sessions,
                    Err(error) => {
                        let limited_by = match arenas {
                            1 => LimitedBy::AddressSpace(limit),
                            _ => LimitedBy::AddressSpaceOfArenas(limit),
                        };
                        assert_eq!(error, LimitsError::NoSession(limited_by));
                        errors += 1;
                        0
                    }
                };
                assert!(before <= sessions, "{limit} {arenas}");
                before = sessions;
            }
            assert!(
                errors > 20 && before > 100 || arenas == u64::MAX,
                "{before}"
            );
        }
        let with_data = |limit| {
            let data = Some(Share { limit, used: 0 });
            Limits::of(Machine { data, ..LARGE }, STACK_SIZE, None)
        };
        let limit = LimitedBy::Data(1 << 20);
        assert_eq!(with_data(1 << 20), Err(LimitsError::NoSession(limit)));
        let counts = (0..300).map(|it| with_data(it << 20).map_or(0, |it| it.max_sessions));
        assert!(counts.is_sorted());
    }

    #[test]
    fn s46_too_few_mappings_are_an_error() {
        let few = Some(Mappings {
            limit: 300,
            is_default: false,
        });
        let machine = Machine {
            mappings: few,
            ..LARGE
        };
        let no_session = LimitsError::NoSession(LimitedBy::Mappings(300));
        assert_eq!(Limits::of(machine, STACK_SIZE, None), Err(no_session));
        // The same with less memory, which other programs may leave later.
        let none = Share { limit: 0, used: 0 };
        let memory = Some((none, MemorySource::Available));
        let machine = Machine { memory, ..machine };
        assert_eq!(Limits::of(machine, STACK_SIZE, None), Err(no_session));
    }

    #[test]
    fn s53_too_few_descriptors_threads_or_memory_of_a_group_are_an_error() {
        for count in 0..30 {
            for machine in [descriptors(count), threads(count)] {
                for max_sessions in [None, Some(1)] {
                    let error = Limits::of(machine, STACK_SIZE, max_sessions).err();
                    let is_known = matches!(
                        error,
                        Some(LimitsError::NoSession(LimitedBy::Descriptors(it) | LimitedBy::Threads(it)))
                            if it == count
                    );
                    let enough = if machine.threads.is_some() { 11 } else { 19 };
                    assert_eq!(is_known, count < enough, "{count}");
                }
            }
        }
        let limit = LimitedBy::Memory(1 << 20, MemorySource::ControlGroup);
        let error = Limits::of(memory(1 << 20), STACK_SIZE, None);
        assert_eq!(error, Err(LimitsError::NoSession(limit)));
    }

    #[test]
    fn s52_the_log_queue_is_smaller_where_there_is_little_memory() {
        let log_events = |machine| {
            let limits = Limits::of(machine, STACK_SIZE, None).expect("room");
            limits.log_events
        };
        assert_eq!(log_events(LARGE), MAX_QUEUED_EVENTS);
        assert_eq!(log_events(memory(1 << 30)), MAX_QUEUED_EVENTS);
        assert_eq!(log_events(memory(96 << 20)), 1755);
        assert_eq!(log_events(memory(6 << 20)), 256);
        let share = |limit| Some(Share { limit, used: 0 });
        let data = share(96 << 20);
        assert_eq!(log_events(Machine { data, ..LARGE }), 1755);
        let address_space = share(96 << 20).map(|share| AddressSpace { share, later: 0 });
        let machine = Machine {
            address_space,
            arenas: 1,
            ..LARGE
        };
        assert_eq!(log_events(machine), 1755);
        // With threads and a full queue all sessions fit in.
        for megabytes in 6..600 {
            let limit = megabytes << 20;
            let of_sessions = limits(memory(limit), None).0 as u64 * SESSION_MEMORY;
            let own = OWN_THREAD_MEMORY + log_memory(limit) + name_lookups::memory(limit);
            assert!(of_sessions + own <= limit, "{megabytes}");
        }
    }

    #[test]
    fn c21_a_small_machine_has_few_extra_attempts() {
        for (sessions, attempts) in [(1, 1), (15, 1), (64, 8), (512, 64), (8050, 64)] {
            assert_eq!(max_extra_attempts(sessions), attempts);
        }
    }

    #[test]
    fn s17_sessions_and_associations_fit_into_the_memory() {
        let (sessions, limited_by) = limits(memory(96 << 20), None);
        assert_eq!(
            limited_by.to_string(),
            "96 MiB of memory (of its control group)"
        );
        let small = Limits::of(memory(96 << 20), STACK_SIZE, None).expect("room");
        let associations = small.max_associations;
        let worst_case =
            sessions as u64 * SESSION_MEMORY + associations as u64 * ASSOCIATION_MEMORY;
        // Three quarters of it, as nearly as whole sessions and associations allow.
        let for_sessions = 72 << 20;
        assert!(worst_case <= for_sessions, "{worst_case}");
        assert!(worst_case + SESSION_MEMORY + ASSOCIATION_MEMORY > for_sessions);
        // An operator who knows that most sessions are idle may set more.
        let (more, limited_by) = limits(memory(96 << 20), Some(2 * sessions));
        assert_eq!((more, limited_by), (2 * sessions, LimitedBy::MaxSessions));
        let (most, _) = limits(memory(96 << 20), Some(usize::MAX));
        assert!(most as u64 * IDLE_SESSION_MEMORY < 72 << 20);
        // No memory is available now.
        let full = Share {
            limit: 1 << 20,
            used: 2 << 20,
        };
        let full = Machine {
            memory: Some((full, MemorySource::Available)),
            ..LARGE
        };
        assert_eq!(limits(full, None).0, 1);
        assert_eq!(limits(memory(64 << 30), None).0, 7934);
        let large = Limits::of(memory(64 << 30), STACK_SIZE, None).expect("room");
        assert_eq!(large.max_associations, 1983);
    }
}
