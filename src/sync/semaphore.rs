//! A counting semaphore that limits how many slots are in use, in total and per key.
//!
//! Other programs call a slot a permit; here `permit` is a word of the rules. A caller
//! without a slot refuses its request, so no queue of waiting callers can grow. A slot is
//! given back when its guard is dropped, on every path, panics included (RAII).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::lock::{OrderedMutex, Rank};
use super::primitives::{Condvar, OnceLock};
use crate::trace::{self, Wait};

/// At most N slots in total, and at most M for one key.
///
/// A slot may count under several keys, for groups within larger groups. Each key has a
/// factor: the number by which its limit is multiplied. A limit that is multiplied is at
/// most half of the total, so that no group of callers takes all slots.
#[derive(Debug)]
pub(crate) struct KeyedSemaphore<K> {
    max_total: usize,
    max_per_key: usize,
    slots: Arc<Slots<K>>,
}

/// What the semaphore and the guards share.
#[derive(Debug)]
struct Slots<K> {
    /// Guards the counts; a leaf in the lock order.
    in_use: OrderedMutex<Counts<K>>,
    /// Notified after a slot is given back.
    freed: Condvar,
}

#[derive(Debug)]
struct Counts<K> {
    total: usize,
    /// Only keys with at least one slot in use.
    per_key: HashMap<K, usize>,
}

/// One slot in use. Dropping the guard gives the slot back.
#[derive(Debug)]
pub(crate) struct SlotGuard<K: Copy + Eq + Hash> {
    slots: Arc<Slots<K>>,
    /// Empty while no key is known. Set under the lock of the counts.
    keys: OnceLock<Vec<K>>,
}

/// Which of the two limits was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcquireError {
    /// All slots are in use.
    Total,
    /// All slots that one key may have are in use.
    PerKey,
}

impl fmt::Display for AcquireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            AcquireError::Total => "all slots are in use",
            AcquireError::PerKey => "all slots of this key are in use",
        })
    }
}

impl std::error::Error for AcquireError {}

impl<K: Copy + Eq + Hash> KeyedSemaphore<K> {
    /// `usize::MAX` means no limit.
    pub(crate) fn new(max_total: usize, max_per_key: usize) -> KeyedSemaphore<K> {
        let counts = Counts {
            total: 0,
            per_key: HashMap::new(),
        };
        KeyedSemaphore {
            max_total,
            max_per_key,
            slots: Arc::new(Slots {
                in_use: OrderedMutex::new(Rank::Leaf, counts),
                freed: Condvar::new(),
            }),
        }
    }

    /// Takes a slot that counts under these keys, each with its factor, without waiting. All
    /// keys must differ; without a key, only the total counts. Tests and increments happen
    /// under one lock, so that two callers cannot both get the last slot.
    ///
    /// # Errors
    ///
    /// The limit that was reached, and nothing is counted then; the limits of the keys are
    /// tested first.
    pub(crate) fn try_acquire(
        &self,
        keys: impl IntoIterator<Item = (K, usize)>,
    ) -> Result<SlotGuard<K>, AcquireError> {
        self.count(&mut self.slots.in_use.lock(), keys)
    }

    /// The same, but waits for at most `limit` while all slots are in use. The drop of a
    /// guard ends the wait.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub(crate) fn acquire_within(
        &self,
        limit: Duration,
        keys: impl IntoIterator<Item = (K, usize)>,
    ) -> Result<SlotGuard<K>, AcquireError> {
        let counts = self.slots.in_use.lock();
        let _wait = trace::wait(|| Wait::Slot);
        let is_full = |counts: &mut Counts<K>| counts.total >= self.max_total;
        let mut counts = counts.wait_timeout_while(&self.slots.freed, limit, is_full);
        self.count(&mut counts, keys)
    }

    /// Counts one slot under these keys.
    fn count(
        &self,
        counts: &mut Counts<K>,
        keys: impl IntoIterator<Item = (K, usize)>,
    ) -> Result<SlotGuard<K>, AcquireError> {
        let keys = self.require_room(counts, keys)?;
        if counts.total >= self.max_total {
            return Err(AcquireError::Total);
        }
        counts.total += 1;
        let guard = SlotGuard {
            slots: Arc::clone(&self.slots),
            keys: OnceLock::new(),
        };
        if !keys.is_empty() {
            guard.set_keys(counts, keys);
        }
        Ok(guard)
    }

    /// Counts a slot, which was taken without a key, under these keys.
    ///
    /// # Errors
    ///
    /// The limit of a key is reached, and nothing is counted then. The slot stays in use.
    pub(crate) fn add_keys(
        &self,
        guard: &SlotGuard<K>,
        keys: impl IntoIterator<Item = (K, usize)>,
    ) -> Result<(), AcquireError> {
        let mut counts = self.slots.in_use.lock();
        let keys = self.require_room(&counts, keys)?;
        guard.set_keys(&mut counts, keys);
        Ok(())
    }

    /// The keys, if all of them may have one more slot.
    fn require_room(
        &self,
        counts: &Counts<K>,
        keys: impl IntoIterator<Item = (K, usize)>,
    ) -> Result<Vec<K>, AcquireError> {
        let has_room = |(key, factor)| {
            let of_key = counts.per_key.get(&key).copied().unwrap_or(0);
            (of_key < self.limit(factor)).then_some(key)
        };
        let keys: Option<_> = keys.into_iter().map(has_room).collect();
        keys.ok_or(AcquireError::PerKey)
    }

    /// The limit of a key with this factor.
    fn limit(&self, factor: usize) -> usize {
        let multiplied = self.max_per_key.saturating_mul(factor);
        multiplied.min(self.max_total / 2).max(self.max_per_key)
    }

    /// The number of slots that are in use, of all keys.
    pub(crate) fn in_use(&self) -> usize {
        self.slots.in_use.lock().total
    }
}

impl<K: Copy + Eq + Hash> SlotGuard<K> {
    /// Counts the slot under these keys, unless it has keys already.
    fn set_keys(&self, counts: &mut Counts<K>, keys: Vec<K>) {
        let added = keys.clone();
        if self.keys.set(keys).is_ok() {
            for key in added {
                *counts.per_key.entry(key).or_default() += 1;
            }
        }
    }
}

impl<K: Copy + Eq + Hash> Drop for SlotGuard<K> {
    fn drop(&mut self) {
        let mut counts = self.slots.in_use.lock();
        counts.total -= 1;
        for key in self.keys.get().into_iter().flatten() {
            if let Entry::Occupied(mut of_key) = counts.per_key.entry(*key) {
                *of_key.get_mut() -= 1;
                if *of_key.get() == 0 {
                    of_key.remove();
                }
            }
        }
        drop(counts);
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semaphore_limits_the_total_and_each_key() {
        let semaphore = KeyedSemaphore::new(5, 3);
        let acquire = |key: char| semaphore.try_acquire([(key, 1)]);
        let of_first: Vec<_> = (0..3).map(|_| acquire('a')).collect();
        assert!(of_first.iter().all(Result::is_ok));
        assert_eq!(acquire('a').unwrap_err(), AcquireError::PerKey);
        let of_second: Vec<_> = (0..2).map(|_| acquire('b')).collect();
        assert!(of_second.iter().all(Result::is_ok));
        assert_eq!(acquire('c').unwrap_err(), AcquireError::Total);
        assert_eq!(semaphore.in_use(), 5);
        drop(of_first);
        assert!(acquire('a').is_ok());
        drop(of_second);
        let counts = semaphore.slots.in_use.lock();
        assert_eq!((counts.total, counts.per_key.len()), (0, 0));
    }

    #[test]
    fn s28_a_slot_that_is_given_back_ends_the_wait_for_it() {
        let semaphore = KeyedSemaphore::new(1, 1);
        let minute = Duration::from_secs(60);
        let held = semaphore.try_acquire([('a', 1)]).unwrap();
        let none = semaphore.acquire_within(Duration::ZERO, [('b', 1)]);
        assert_eq!(none.unwrap_err(), AcquireError::Total);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| semaphore.acquire_within(minute, [('b', 1)]));
            drop(held);
            assert!(waiting.join().unwrap().is_ok());
        });
        assert_eq!(semaphore.in_use(), 0);
    }

    #[test]
    fn s23_a_slot_counts_under_all_its_keys_or_not_at_all() {
        // Group 'x' has the factor 2: at most 4 of 100 slots.
        let semaphore = KeyedSemaphore::new(100, 2);
        let acquire = |key: char| semaphore.try_acquire([(key, 1), ('x', 2)]);
        let held: Vec<_> = "aabb".chars().map(acquire).collect();
        assert!(held.iter().all(Result::is_ok));
        // The group is full. Nothing is counted for a key that is not.
        assert_eq!(acquire('c').unwrap_err(), AcquireError::PerKey);
        assert_eq!(semaphore.slots.in_use.lock().per_key.get(&'c'), None);
        assert!(semaphore.try_acquire([('c', 1)]).is_ok());
        assert_eq!(semaphore.in_use(), 4);
        drop(held);
        assert_eq!(semaphore.slots.in_use.lock().per_key.len(), 0);
        // The group has room, and its member has not.
        let held: Vec<_> = "aa".chars().map(acquire).collect();
        assert_eq!(acquire('a').unwrap_err(), AcquireError::PerKey);
        assert_eq!(semaphore.slots.in_use.lock().per_key.get(&'x'), Some(&2));
        drop(held);
    }

    #[test]
    fn s23_a_group_gets_at_most_half_of_the_total() {
        for (total, per_key, factor, expected) in [
            (32, 8, 1, 8),
            (32, 8, 4, 16),
            (32, 8, 16, 16),
            (1000, 10, 4, 40),
            (1000, 10, 16, 160),
            // No group has less than one of its members.
            (10, 8, 4, 8),
            (1, 1, 4, 1),
            (usize::MAX, 64, 16, 1024),
            (1000, usize::MAX, 16, usize::MAX),
        ] {
            let semaphore = KeyedSemaphore::<()>::new(total, per_key);
            assert_eq!(semaphore.limit(factor), expected);
        }
    }

    #[test]
    fn x34_a_slot_can_get_its_keys_later() {
        let semaphore = KeyedSemaphore::new(5, 1);
        let slots: Vec<_> = (0..3).map(|_| semaphore.try_acquire([]).unwrap()).collect();
        assert_eq!(semaphore.add_keys(&slots[0], [('a', 1)]), Ok(()));
        let refused = semaphore.add_keys(&slots[1], [('b', 1), ('a', 1)]);
        assert_eq!(refused, Err(AcquireError::PerKey));
        assert_eq!(semaphore.slots.in_use.lock().per_key.get(&'b'), None);
        assert_eq!(
            semaphore.try_acquire([('a', 1)]).unwrap_err(),
            AcquireError::PerKey
        );
        // A slot has its keys once.
        assert_eq!(semaphore.add_keys(&slots[0], [('c', 1)]), Ok(()));
        assert_eq!(semaphore.slots.in_use.lock().per_key.get(&'c'), None);
        assert_eq!(semaphore.in_use(), 3);
        drop(slots);
        let counts = semaphore.slots.in_use.lock();
        assert_eq!((counts.total, counts.per_key.len()), (0, 0));
    }

    #[test]
    fn without_a_key_only_the_total_counts() {
        let semaphore = KeyedSemaphore::<()>::new(2, 1);
        let held: Vec<_> = (0..2).map(|_| semaphore.try_acquire([])).collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(semaphore.try_acquire([]).unwrap_err(), AcquireError::Total);
    }
}
