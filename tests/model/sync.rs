//! What threads share and wait for, made of shuttle's; in the place of `src/sync.rs`.

#[path = "../../src/sync/semaphore.rs"]
pub(crate) mod semaphore;
#[path = "../../src/sync/thread_pool.rs"]
pub(crate) mod thread_pool;

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::MutexGuard;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
pub(crate) use shuttle::sync::{Condvar, Mutex};

/// The standard library's, which others may be ahead of at each use.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    step: AtomicBool,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> OnceLock<T> {
        OnceLock {
            value: std::sync::OnceLock::new(),
            step: AtomicBool::new(false),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.step.load(Ordering::SeqCst);
        self.value.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.step.load(Ordering::SeqCst);
        self.value.set(value)
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.value.take()
    }
}

/// A lock that was taken, and which one.
pub(crate) struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
    taken: MutexGuard<'a, T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.taken
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.taken
    }
}

/// Takes the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Guard<'_, T> {
    let taken = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    Guard { mutex, taken }
}

/// Lets go of the lock until the condition is notified.
pub(crate) fn wait<'a, T>(condition: &Condvar, guard: Guard<'a, T>) -> Guard<'a, T> {
    let Guard { mutex, taken } = guard;
    let waited = condition.wait(taken);
    let taken = waited.unwrap_or_else(PoisonError::into_inner);
    Guard { mutex, taken }
}

/// As its namesake. Whether the limit will run out is decided at the start; it
/// may do so at the very moment when somebody changes what is waited for.
pub(crate) fn wait_while<'a, T>(
    condition: &Condvar,
    Guard { mutex, taken }: Guard<'a, T>,
    _limit: Duration,
    mut holds: impl FnMut(&mut T) -> bool,
) -> Guard<'a, T> {
    if runs_out() {
        drop(taken);
        pause();
        return lock(mutex);
    }
    let waited = condition.wait_while(taken, &mut holds);
    let taken = waited.unwrap_or_else(PoisonError::into_inner);
    Guard { mutex, taken }
}

thread_local! {
    // All threads of an execution run on the same one of the system.
    static LIMITS: Cell<bool> = const { Cell::new(false) };
    static THREADS: Cell<usize> = const { Cell::new(0) };
}

/// At the start of an execution: may limits run out, and threads be wanting?
pub(crate) fn begin(limits: bool) {
    LIMITS.set(limits);
    THREADS.set(0);
}

/// No limit runs out any more: nobody may need one to get away.
pub(crate) fn no_limits() {
    LIMITS.set(false);
}

/// Does a limit run out at this moment?
pub(crate) fn runs_out() -> bool {
    LIMITS.get() && one_in(4)
}

/// True once in so many times.
pub(crate) fn one_in(times: u32) -> bool {
    thread_rng().gen_ratio(1, times)
}

/// One of these, by chance.
pub(crate) fn any<T: Copy>(of: &[T]) -> T {
    of[thread_rng().gen_range(0..of.len())]
}

/// Time passes, more or less of it.
pub(crate) fn pause() {
    while !one_in(3) {
        thread::yield_now();
    }
}

/// Waits until all threads that the program has started have left.
pub(crate) fn all_threads_leave() {
    while THREADS.get() > 0 {
        thread::yield_now();
    }
}

/// In the place of `std::thread`.
pub(crate) mod thread {
    use std::io;
    use std::time::Duration;

    use super::{THREADS, one_in, runs_out};
    pub(crate) use shuttle::thread::{JoinHandle, spawn, yield_now};
    pub(crate) use std::thread::panicking;

    pub(crate) fn sleep(_: Duration) {
        yield_now();
    }

    /// Starts threads that are counted. Now and then there is none to be had.
    pub(crate) struct Builder(String);

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder(String::new())
        }

        pub(crate) fn name(self, name: String) -> Builder {
            Builder(name)
        }

        pub(crate) fn stack_size(self, _: usize) -> Builder {
            self
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            body: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            if self.0 == "worker" && runs_out() && one_in(4) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            THREADS.set(THREADS.get() + 1);
            shuttle::thread::Builder::new().name(self.0).spawn(|| {
                let result = body();
                THREADS.set(THREADS.get() - 1);
                result
            })
        }
    }
}
