//! The concurrency toolbox of `src/sync` on shuttle's primitives.

#[path = "../../../src/sync/lock.rs"]
pub(crate) mod lock;
pub(crate) mod primitives;
#[path = "../../../src/sync/semaphore.rs"]
pub(crate) mod semaphore;
#[path = "../../../src/sync/thread_pool.rs"]
pub(crate) mod thread_pool;
#[path = "../../../src/sync/wait_group.rs"]
pub(crate) mod wait_group;

pub(crate) use lock::{OrderedGuard, OrderedMutex, Rank};
pub(crate) use primitives::{AtomicBool, AtomicU16, AtomicU64, Condvar, OnceLock, thread};
