//! The parts of which threads share state and wait for each other; channels are crossbeam's.
//!
//! - `lock`: a mutex with a place in the lock order
//! - `semaphore`: a limit on how many of something are in use
//! - `wait_group`: a thread waits until others are done
//! - [`thread_pool`]: threads that are reused
//! - `primitives`: what the standard library has, in one place

pub(crate) mod lock;
pub(crate) mod primitives;
pub(crate) mod semaphore;
pub mod thread_pool;
pub(crate) mod wait_group;

pub(crate) use lock::{OrderedGuard, OrderedMutex, Rank};
pub(crate) use primitives::{AtomicBool, AtomicU16, AtomicU64, Condvar, OnceLock, thread};
