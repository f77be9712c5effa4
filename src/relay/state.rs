//! What the two directions of a relay know of each other, and what other threads see.

use std::sync::atomic::Ordering;

use super::stream::RelayStream;
use crate::sync::{AtomicU64, Condvar, OrderedMutex, Rank};

/// One of the two directions of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From client to remote.
    Up,
    /// From remote to client.
    Down,
}

impl Direction {
    /// The opposite direction.
    pub fn reverse(self) -> Direction {
        match self {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }
}

/// The state of one relay, shared by the threads of both directions and by the main
/// thread, which looks for idle sessions.
#[derive(Debug)]
pub struct RelayState {
    up: AtomicU64,
    down: AtomicU64,
    /// A leaf in the lock order. A direction takes it before and after it writes what it
    /// has read, for a few instructions each time; the system calls cost far more.
    phases: OrderedMutex<Phases>,
    /// Notified when a direction stops writing, and when the relay is aborted.
    changed: Condvar,
}

#[derive(Debug)]
struct Phases {
    up: Phase,
    down: Phase,
    /// A direction met an error, or the session was terminated: a direction that has not
    /// ended yet sends no FIN.
    aborted: bool,
    /// A thread waits on `changed`. Without this test each write would make a system call
    /// more: the standard library's condition variable makes one for every notification.
    has_waiter: bool,
}

/// What a direction is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It waits for bytes and holds none.
    Reading,
    /// It holds bytes that it has not written yet, or its write has failed and it has not
    /// dealt with the error yet.
    Writing,
    /// It has ended.
    Ended,
}

impl Phases {
    fn of(&mut self, direction: Direction) -> &mut Phase {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl Default for RelayState {
    fn default() -> RelayState {
        let phases = Phases {
            up: Phase::Reading,
            down: Phase::Reading,
            aborted: false,
            has_waiter: false,
        };
        RelayState {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            phases: OrderedMutex::new(Rank::Leaf, phases),
            changed: Condvar::new(),
        }
    }
}

impl RelayState {
    /// Bytes that a direction has written so far.
    pub fn bytes(&self, direction: Direction) -> u64 {
        // Relaxed: a mere count, from which no thread concludes anything about other data.
        self.counter(direction).load(Ordering::Relaxed)
    }

    /// Counts bytes that were written.
    pub(crate) fn add(&self, direction: Direction, count: usize) {
        let counter = self.counter(direction);
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// True after the direction has passed on its EOF or dealt with its error.
    pub fn has_ended(&self, direction: Direction) -> bool {
        *self.phases.lock().of(direction) == Phase::Ended
    }

    /// Marks the direction as writing: it has read bytes. False if the relay was aborted;
    /// then it must not write them, since a peer that goes on sending would keep it busy.
    pub(super) fn begin_write(&self, direction: Direction) -> bool {
        let mut phases = self.phases.lock();
        *phases.of(direction) = Phase::Writing;
        !phases.aborted
    }

    /// All bytes of the direction are written, or the error of its write is dealt with.
    pub(super) fn end_write(&self, direction: Direction) {
        self.set(direction, Phase::Reading);
    }

    /// Says that this direction does nothing more.
    pub(super) fn end(&self, direction: Direction) {
        self.set(direction, Phase::Ended);
    }

    fn set(&self, direction: Direction, phase: Phase) {
        let mut phases = self.phases.lock();
        *phases.of(direction) = phase;
        if phases.has_waiter {
            self.changed.notify_all();
        }
    }

    /// Waits until the direction holds no bytes any more, or the relay is aborted.
    ///
    /// The caller makes sure that the wait ends: the direction writes to an end that has
    /// no connection, so its write fails at once. A direction that panics aborts the relay.
    pub(super) fn wait_until_written(&self, direction: Direction) {
        let is_writing =
            |phases: &mut Phases| *phases.of(direction) == Phase::Writing && !phases.aborted;
        let mut phases = self.phases.lock();
        if is_writing(&mut phases) {
            phases.has_waiter = true;
            phases.wait_while(&self.changed, is_writing);
        }
    }

    /// Stops both directions: because one of them met an error, or from outside. Reads are
    /// interrupted; a write that waits for its reader returns at its send timeout of half a
    /// second. (A splice(2) may last several of these: see `splice::MIN_PART`.)
    ///
    /// A direction that has not ended sends no FIN after that, so the end to which it writes
    /// closes with RST: no peer takes a transfer that was cut off for a complete one. A
    /// direction that has ended stays ended. The flag is set first: a direction whose read
    /// returns EOF because of the interruption then finds the reason.
    pub fn abort<A: RelayStream, B: RelayStream>(&self, one: &A, other: &B) {
        self.phases.lock().aborted = true;
        self.changed.notify_all();
        one.interrupt();
        other.interrupt();
    }

    /// Was the relay aborted? Then no more bytes are written, and no more FIN is sent.
    pub(super) fn is_aborted(&self) -> bool {
        self.phases.lock().aborted
    }
}

/// Why a direction stopped splicing without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "only Linux has splice(2)")
)]
pub(super) enum SpliceStop {
    /// The relay was aborted: the bytes in the pipe must not be written.
    Aborted,
    /// No byte came for a while, or only read(2) can tell what comes next.
    Idle,
    /// All pipes are in use; nothing was moved.
    NoPipe,
    /// These two sockets cannot be spliced; nothing was moved.
    Unsupported,
}
