//! Shuttle's primitives with the interface of the standard library, in place of `src/sync/primitives.rs`.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
pub(crate) use shuttle::thread_local;

use crate::control::{pause, times_out};

/// A mutex whose guard knows it, so that a condition variable can time out.
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { mutex: self, guard })
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(TryLockError::WouldBlock),
        };
        Ok(MutexGuard { mutex: self, guard })
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition variable whose timeouts run out at random.
#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait_while<'a, T>(
        &self,
        MutexGuard { mutex, guard }: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        let guard = self.0.wait_while(guard, condition);
        let guard = guard.unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { mutex, guard })
    }

    /// Whether the timeout will run out is decided at the start. It may do so at the very
    /// moment when another thread changes the condition.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        if times_out() {
            let mutex = guard.mutex;
            drop(guard);
            pause();
            return mutex
                .lock()
                .map(|guard| (guard, true))
                .map_err(|_| unreachable!());
        }
        let waited = self.wait_while(guard, condition);
        waited
            .map(|guard| (guard, false))
            .map_err(|_| unreachable!())
    }
}

/// The standard library's, with a step of the scheduler before each use.
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

    pub(crate) fn get_or_init(&self, value: impl FnOnce() -> T) -> &T {
        self.step.load(Ordering::SeqCst);
        self.value.get_or_init(value)
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.value.take()
    }
}

/// In place of `std::thread`.
pub(crate) mod thread {
    use std::io;
    use std::time::Duration;

    use crate::control::{count_thread, one_in, times_out, uncount_thread};
    pub(crate) use shuttle::thread::{JoinHandle, spawn, yield_now};
    pub(crate) use std::thread::{available_parallelism, panicking, scope};

    pub(crate) fn sleep(_: Duration) {
        yield_now();
    }

    /// Counts the threads that it starts. Sometimes the system has none for the pool.
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
            if self.0 == "worker" && times_out() && one_in(4) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            count_thread();
            shuttle::thread::Builder::new().name(self.0).spawn(|| {
                let result = body();
                uncount_thread();
                result
            })
        }
    }
}
