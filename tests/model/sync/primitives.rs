//! Shuttle's primitives with the interface of the standard library, in place of `src/sync/primitives.rs`.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

use crate::control::{pause, runs_out};
use crate::steps::{self, Event, Object, Value};

/// A mutex whose guard knows it, so that a condition variable can time out.
pub(crate) struct Mutex<T> {
    mutex: shuttle::sync::Mutex<T>,
    object: Object,
}

impl<T> Mutex<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex {
            mutex: shuttle::sync::Mutex::new(value),
            object: steps::object(Location::caller(), 0),
        }
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let place = Location::caller();
        steps::begin_lock(self.object, place);
        let guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        steps::lock(self.object, place);
        Ok(self.guard(guard))
    }

    #[track_caller]
    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let place = Location::caller();
        let guard = match self.mutex.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                steps::note(Event::FindLocked(self.object), Some(place));
                return Err(TryLockError::WouldBlock);
            }
        };
        steps::lock(self.object, place);
        Ok(self.guard(guard))
    }

    fn guard<'a>(&'a self, guard: shuttle::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard {
            guard: Some(guard),
            mutex: self,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mutex.fmt(out)
    }
}

pub(crate) struct MutexGuard<'a, T> {
    /// `None` after a condition variable has taken it.
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            drop(guard);
            steps::unlock(self.mutex.object);
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("the lock is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("the lock is held")
    }
}

/// A condition variable whose timeouts run out at random.
#[derive(Debug)]
pub(crate) struct Condvar {
    condvar: shuttle::sync::Condvar,
    object: Object,
}

impl Condvar {
    #[track_caller]
    pub(crate) fn new() -> Condvar {
        Condvar {
            condvar: shuttle::sync::Condvar::new(),
            object: steps::object(Location::caller(), 0),
        }
    }

    #[track_caller]
    pub(crate) fn notify_one(&self) {
        self.condvar.notify_one();
        steps::notify(self.object, false, Location::caller());
    }

    #[track_caller]
    pub(crate) fn notify_all(&self) {
        self.condvar.notify_all();
        steps::notify(self.object, true, Location::caller());
    }

    #[track_caller]
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        let (mutex, place) = (guard.mutex, Location::caller());
        while condition(&mut guard) {
            let inner = guard.guard.take().expect("the lock is held");
            steps::begin_wait(self.object, mutex.object, place);
            let inner = self.condvar.wait(inner);
            steps::end_wait(self.object, mutex.object, place);
            guard = mutex.guard(inner.unwrap_or_else(PoisonError::into_inner));
        }
        Ok(guard)
    }

    /// Whether the timeout will run out is decided at the start. It may do so at the very
    /// moment when another thread changes the condition.
    #[track_caller]
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        if runs_out(limit) {
            let mutex = guard.mutex;
            drop(guard);
            steps::note(Event::TimeOut(self.object), Some(Location::caller()));
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

/// An atomic flag.
#[derive(Debug)]
pub(crate) struct AtomicBool {
    flag: shuttle::sync::atomic::AtomicBool,
    object: Object,
}

impl AtomicBool {
    #[track_caller]
    pub(crate) fn new(value: bool) -> AtomicBool {
        AtomicBool {
            flag: shuttle::sync::atomic::AtomicBool::new(value),
            object: steps::object(Location::caller(), 0),
        }
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> bool {
        let value = self.flag.load(order);
        let event = Event::Load(self.object, Value::Flag(value));
        steps::note(event, Some(Location::caller()));
        value
    }

    #[track_caller]
    pub(crate) fn store(&self, value: bool, order: Ordering) {
        self.flag.store(value, order);
        let event = Event::Store(self.object, Value::Flag(value));
        steps::note(event, Some(Location::caller()));
    }
}

macro_rules! atomic_number {
    ($name:ident, $number:ty) => {
        /// An atomic number.
        #[derive(Debug)]
        pub(crate) struct $name {
            number: shuttle::sync::atomic::$name,
            object: Object,
        }

        impl Default for $name {
            #[track_caller]
            fn default() -> $name {
                $name::new(0)
            }
        }

        impl $name {
            #[track_caller]
            pub(crate) fn new(value: $number) -> $name {
                $name {
                    number: shuttle::sync::atomic::$name::new(value),
                    object: steps::object(Location::caller(), 0),
                }
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $number {
                let value = self.number.load(order);
                let event = Event::Load(self.object, Value::Number(value.into()));
                steps::note(event, Some(Location::caller()));
                value
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                let old = self.number.swap(value, order);
                let (from, to) = (Value::Number(old.into()), Value::Number(value.into()));
                steps::note(Event::Swap(self.object, from, to), Some(Location::caller()));
                old
            }

            #[track_caller]
            pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                let old = self.number.fetch_add(value, order);
                let event = Event::Add(self.object, Value::Number(value.into()));
                steps::note(event, Some(Location::caller()));
                old
            }
        }
    };
}

atomic_number!(AtomicU16, u16);
atomic_number!(AtomicU64, u64);

/// The standard library's, with a step of the scheduler before each use.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    step: shuttle::sync::atomic::AtomicBool,
    object: Object,
}

impl<T> OnceLock<T> {
    #[track_caller]
    pub(crate) fn new() -> OnceLock<T> {
        OnceLock {
            value: std::sync::OnceLock::new(),
            step: shuttle::sync::atomic::AtomicBool::new(false),
            object: steps::object(Location::caller(), 0),
        }
    }

    #[track_caller]
    pub(crate) fn get(&self) -> Option<&T> {
        self.step.load(Ordering::SeqCst);
        let value = self.value.get();
        let event = Event::Look(self.object, value.is_some());
        steps::note(event, Some(Location::caller()));
        value
    }

    #[track_caller]
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.step.load(Ordering::SeqCst);
        let result = self.value.set(value);
        let event = match result {
            Ok(()) => Event::Fill(self.object),
            Err(_) => Event::Look(self.object, true),
        };
        steps::note(event, Some(Location::caller()));
        result
    }

    #[track_caller]
    pub(crate) fn get_or_init(&self, value: impl FnOnce() -> T) -> &T {
        self.step.load(Ordering::SeqCst);
        let event = match self.value.get() {
            Some(_) => Event::Look(self.object, true),
            None => Event::Fill(self.object),
        };
        steps::note(event, Some(Location::caller()));
        self.value.get_or_init(value)
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.value.take()
    }
}

/// In place of `std::thread_local`. The check of the lock order uses its value twice for each
/// lock: shuttle's macro, which looks it up in a hash map, would take a fifth of the time.
macro_rules! per_thread {
    ($(#[$comment:meta])* static $name:ident: $type:ty = const { $value:expr };) => {
        $(#[$comment])*
        static $name: $crate::sync::primitives::PerThread<$type> = {
            std::thread_local! {
                static VALUES: std::cell::RefCell<$crate::sync::primitives::Values<$type>> =
                    const { std::cell::RefCell::new((0, Vec::new())) };
            }
            $crate::sync::primitives::PerThread {
                values: &VALUES,
                new: || $value,
            }
        };
    };
}

pub(crate) use per_thread as thread_local;

/// The number of a schedule, and a value for each of its threads.
pub(crate) type Values<T> = (usize, Vec<Rc<T>>);

/// A value for each thread of the current schedule.
pub(crate) struct PerThread<T: 'static> {
    pub(crate) values: &'static std::thread::LocalKey<RefCell<Values<T>>>,
    pub(crate) new: fn() -> T,
}

impl<T> PerThread<T> {
    /// The value of the current thread.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&T) -> R) -> R {
        let thread = shuttle::current::try_get_current_task().map_or(0, usize::from);
        let value = self.values.with_borrow_mut(|(schedule, values)| {
            let current = steps::schedule();
            if *schedule != current {
                values.clear();
                *schedule = current;
            }
            while values.len() <= thread {
                values.push(Rc::new((self.new)()));
            }
            Rc::clone(&values[thread])
        });
        body(&value)
    }

    /// The same: the values are there until the next schedule.
    pub(crate) fn try_with<R>(&self, body: impl FnOnce(&T) -> R) -> Result<R, fmt::Error> {
        Ok(self.with(body))
    }
}

/// In place of prctl(2).
pub(crate) fn name_thread(name: &CStr) {
    steps::rename(name.to_string_lossy().into_owned());
}

/// In place of `std::thread`.
pub(crate) mod thread {
    use std::io;
    use std::mem;
    use std::panic::Location;
    use std::time::Duration;

    use crate::control::{count_thread, one_in, times_out, uncount_thread};
    use crate::steps::{self, Event, Origin, Place};
    pub(crate) use shuttle::thread::yield_now;
    pub(crate) use std::thread::{available_parallelism, panicking, scope};

    pub(crate) fn sleep(_: Duration) {
        yield_now();
    }

    /// Starts a thread. Its name in a report is the variable to which the handle is assigned.
    #[track_caller]
    pub(crate) fn spawn<T: Send + 'static>(
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let place = Location::caller();
        start(Origin::Variable(place, 0), place, body)
    }

    /// Starts a thread with this name.
    #[track_caller]
    pub(crate) fn spawn_named<T: Send + 'static>(
        name: &'static str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        start(Origin::Name(name.into()), Location::caller(), body)
    }

    fn start<T: Send + 'static>(
        name: Origin,
        place: Place,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let handle = shuttle::thread::spawn(|| {
            steps::begin();
            let result = body();
            steps::end(mem::needs_drop::<T>());
            result
        });
        steps::start(handle.thread().id().into(), name, place);
        JoinHandle(handle)
    }

    pub(crate) struct JoinHandle<T>(shuttle::thread::JoinHandle<T>);

    impl<T> JoinHandle<T> {
        #[track_caller]
        pub(crate) fn join(self) -> std::thread::Result<T> {
            let (thread, place) = (self.0.thread().id().into(), Location::caller());
            steps::begin_join(thread, place);
            let result = self.0.join();
            steps::note(Event::Join(thread), Some(place));
            result
        }
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

        #[track_caller]
        pub(crate) fn spawn<T: Send + 'static>(
            self,
            body: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            let place = Location::caller();
            if self.0 == "worker" && times_out() && one_in(4) {
                steps::note(Event::NoThread, Some(place));
                return Err(io::ErrorKind::WouldBlock.into());
            }
            count_thread();
            Ok(start(Origin::Name(self.0.into()), place, || {
                let result = body();
                uncount_thread();
                result
            }))
        }
    }
}
