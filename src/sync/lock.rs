//! Mutexes with a place in the lock order, which debug builds check.
//!
//! Two threads that take two locks in opposite orders can wait for each other for
//! ever: a deadlock. So every mutex here has a [`Rank`], and a thread may take a lock
//! only if its rank is higher than the rank of every lock that the thread holds.
//! Debug builds (and so all tests) check this at each lock and panic otherwise;
//! release builds do not spend time on it.
//!
//! A mutex is poisoned when a thread panics while holding it. These ignore the poison:
//! a panic leaves at worst one change half done, and all other sessions continue.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use super::primitives::{Condvar, Mutex, MutexGuard};
use crate::trace::{self, Wait};

/// The lock order, from the lock that is taken first to those that are taken last.
///
/// ARCHITECTURE.md lists every lock with what it guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// What the last check of a watched file has found. Its holder reads the file, so no
    /// other lock may be held; a session only tries to take it.
    FileCheck,
    /// Why and whether one session ends. Its holder stops the session's relay.
    SessionState,
    /// The list of idle threads. Its holder tells the threads to end.
    IdleThreads,
    /// The sessions and associations that wait for a name lookup. Its holder takes a slot for
    /// one.
    LookupQueue,
    /// No other lock is taken while a lock of this rank is held.
    Leaf,
}

/// A mutex that knows its rank and ignores poison.
pub(crate) struct OrderedMutex<T> {
    rank: Rank,
    mutex: Mutex<T>,
}

impl<T> OrderedMutex<T> {
    // In a report of the models, the caller's place gives the lock its name.
    #[track_caller]
    pub(crate) fn new(rank: Rank, value: T) -> OrderedMutex<T> {
        let mutex = Mutex::new(value);
        OrderedMutex { rank, mutex }
    }

    /// Takes the lock. The holder of the lock ends the wait by dropping its guard.
    #[track_caller]
    pub(crate) fn lock(&self) -> OrderedGuard<'_, T> {
        // Check first: a wrong order must panic, and not wait in a deadlock.
        let held = order::Held::new(self.rank);
        let place = Location::caller();
        let _wait = trace::wait(|| Wait::Lock(place));
        let guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        OrderedGuard { guard, _held: held }
    }

    /// Takes the lock if no thread holds it; `None` if one does. Never waits.
    #[track_caller]
    pub(crate) fn try_lock(&self) -> Option<OrderedGuard<'_, T>> {
        let held = order::Held::new(self.rank);
        let guard = match self.mutex.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(OrderedGuard { guard, _held: held })
    }
}

impl<T: fmt::Debug> fmt::Debug for OrderedMutex<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mutex.fmt(out)
    }
}

/// Holds the lock until it is dropped.
pub(crate) struct OrderedGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    /// Its drop removes the rank again. It is the second field, so it is dropped after
    /// the unlock.
    _held: order::Held,
}

impl<T> OrderedGuard<'_, T> {
    /// Releases the lock and waits while `condition` is true; then takes the lock again.
    /// A thread that changes the data notifies `condvar`, which ends the wait. A spurious
    /// wake-up does not: the condition is tested again.
    #[track_caller]
    pub(crate) fn wait_while(
        self,
        condvar: &Condvar,
        condition: impl FnMut(&mut T) -> bool,
    ) -> Self {
        let place = Location::caller();
        let _wait = trace::wait(|| Wait::Notification(place));
        let waited = condvar.wait_while(self.guard, condition);
        let guard = waited.unwrap_or_else(PoisonError::into_inner);
        OrderedGuard { guard, ..self }
    }

    /// The same for at most `limit`.
    #[track_caller]
    pub(crate) fn wait_timeout_while(
        self,
        condvar: &Condvar,
        limit: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> Self {
        let place = Location::caller();
        let _wait = trace::wait(|| Wait::Notification(place));
        let waited = condvar.wait_timeout_while(self.guard, limit, condition);
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        OrderedGuard { guard, ..self }
    }
}

impl<T> Deref for OrderedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for OrderedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Debug builds: the ranks of the locks that each thread holds.
#[cfg(debug_assertions)]
mod order {
    use std::cell::RefCell;

    use super::Rank;
    use crate::sync::primitives::thread_local;

    thread_local! {
        /// The ranks of all locks that the current thread holds.
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// One lock that the current thread holds or is about to take.
    #[derive(Debug)]
    pub(super) struct Held(Rank);

    impl Held {
        #[track_caller]
        pub(super) fn new(rank: Rank) -> Held {
            HELD.with(|held| {
                let mut held = held.borrow_mut();
                assert!(
                    held.iter().all(|other| *other < rank),
                    "lock order: {rank:?} is taken while {held:?} is held"
                );
                held.push(rank);
            });
            Held(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // Fails only while the thread itself ends.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(last) = held.iter().rposition(|rank| *rank == self.0) {
                    held.remove(last);
                }
            });
        }
    }
}

/// Release builds: no check.
#[cfg(not(debug_assertions))]
mod order {
    use super::Rank;

    #[derive(Debug)]
    pub(super) struct Held;

    impl Held {
        pub(super) fn new(_: Rank) -> Held {
            Held
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn locks_are_taken_in_the_order_of_their_ranks() {
        let outer = OrderedMutex::new(Rank::SessionState, 1);
        let inner = OrderedMutex::new(Rank::Leaf, 2);
        let outer_guard = outer.lock();
        assert_eq!((*outer_guard, *inner.lock()), (1, 2));
        drop(outer_guard);
        // Released locks do not count.
        drop(inner.lock());
        drop(outer.lock());
    }

    /// Does this panic, on a thread of its own?
    fn panics(body: impl FnOnce() + Send) -> bool {
        thread::scope(|scope| scope.spawn(body).join().is_err())
    }

    /// Does it panic to take `second` while `first` is held?
    fn violates(first: Rank, second: Rank) -> bool {
        let (first, second) = (OrderedMutex::new(first, ()), OrderedMutex::new(second, ()));
        panics(|| {
            let _first = first.lock();
            drop(second.lock());
        })
    }

    #[test]
    fn a_lock_that_is_taken_against_the_order_is_reported() {
        let ranks = [
            Rank::FileCheck,
            Rank::SessionState,
            Rank::IdleThreads,
            Rank::Leaf,
        ];
        for (place, first) in ranks.into_iter().enumerate() {
            for (other_place, second) in ranks.into_iter().enumerate() {
                let expected = cfg!(debug_assertions) && other_place <= place;
                assert_eq!(violates(first, second), expected, "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn a_poisoned_mutex_can_be_locked_again() {
        let mutex = OrderedMutex::new(Rank::Leaf, 7);
        assert!(panics(|| {
            let _guard = mutex.lock();
            panic!("on purpose");
        }));
        assert_eq!(mutex.try_lock().as_deref(), Some(&7));
        assert_eq!(*mutex.lock(), 7);
    }

    #[test]
    fn a_lock_that_another_thread_holds_is_not_taken() {
        let mutex = OrderedMutex::new(Rank::Leaf, 7);
        let guard = mutex.lock();
        thread::scope(|scope| {
            let other = scope.spawn(|| mutex.try_lock().is_none());
            assert!(other.join().expect("no panic"));
        });
        drop(guard);
        assert_eq!(mutex.try_lock().as_deref(), Some(&7));
    }
}
