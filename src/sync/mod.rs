//! What threads share and wait for: the standard library's, and locks that survive a panic.
//!
//! The rooms in which threads meet take all of it from here. `tests/model` puts
//! another room in this place, whose locks and flags let a test choose which
//! thread goes on.
//!
//! What the locks guard is replaced, inserted or removed one value at a time. So
//! a thread that panicked while it held one has left something undone at worst,
//! and the others go on.

pub(crate) mod semaphore;
pub(crate) mod thread_pool;

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
pub(crate) use std::sync::{Condvar, Mutex, OnceLock};
pub(crate) use std::thread;

/// Takes the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of the lock while this holds, at most for this long, and takes it
/// again. Whoever changes something notifies the condition.
pub(crate) fn wait_while<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
    holds: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let waited = condition.wait_timeout_while(guard, limit, holds);
    let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
    guard
}
