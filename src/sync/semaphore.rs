//! A counting semaphore that limits how many slots are in use, in total and per key.
//!
//! Other programs call a slot a permit; here `permit` is a word of the rules. No call
//! waits: a caller without a slot refuses its request, so no queue of waiting callers can
//! grow. A slot is given back when its guard is dropped, on every path, panics included
//! (RAII).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::lock::{OrderedMutex, Rank};

/// At most N slots in total, and at most M for one key.
#[derive(Debug)]
pub(crate) struct KeyedSemaphore<K> {
    max_total: usize,
    max_per_key: usize,
    /// Guards the counts; a leaf in the lock order.
    in_use: Arc<OrderedMutex<Counts<K>>>,
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
    in_use: Arc<OrderedMutex<Counts<K>>>,
    key: K,
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
            in_use: Arc::new(OrderedMutex::new(Rank::Leaf, counts)),
        }
    }

    /// Takes a slot, without waiting. Test and increment happen under one lock, so
    /// that two callers cannot both get the last slot.
    ///
    /// # Errors
    ///
    /// The limit that was reached; the total limit is tested first.
    pub(crate) fn try_acquire(&self, key: K) -> Result<SlotGuard<K>, AcquireError> {
        let mut counts = self.in_use.lock();
        if counts.total >= self.max_total {
            return Err(AcquireError::Total);
        }
        let of_key = counts.per_key.get(&key).copied().unwrap_or(0);
        if of_key >= self.max_per_key {
            return Err(AcquireError::PerKey);
        }
        counts.total += 1;
        counts.per_key.insert(key, of_key + 1);
        let in_use = Arc::clone(&self.in_use);
        Ok(SlotGuard { in_use, key })
    }

    /// The number of slots that are in use, of all keys.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.lock().total
    }
}

impl<K: Copy + Eq + Hash> Drop for SlotGuard<K> {
    fn drop(&mut self) {
        let mut counts = self.in_use.lock();
        if let Entry::Occupied(mut of_key) = counts.per_key.entry(self.key) {
            *of_key.get_mut() -= 1;
            if *of_key.get() == 0 {
                of_key.remove();
            }
            counts.total -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semaphore_limits_the_total_and_each_key() {
        let semaphore = KeyedSemaphore::new(5, 3);
        let of_first: Vec<_> = (0..3).map(|_| semaphore.try_acquire('a')).collect();
        assert!(of_first.iter().all(Result::is_ok));
        assert_eq!(
            semaphore.try_acquire('a').unwrap_err(),
            AcquireError::PerKey
        );
        let of_second: Vec<_> = (0..2).map(|_| semaphore.try_acquire('b')).collect();
        assert!(of_second.iter().all(Result::is_ok));
        assert_eq!(semaphore.try_acquire('c').unwrap_err(), AcquireError::Total);
        assert_eq!(semaphore.in_use(), 5);
        drop(of_first);
        assert!(semaphore.try_acquire('a').is_ok());
        drop(of_second);
        let counts = semaphore.in_use.lock();
        assert_eq!((counts.total, counts.per_key.len()), (0, 0));
    }
}
