//! What a model controls: randomness, timeouts, and the threads that the program has started.

use std::cell::Cell;
use std::panic::Location;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::steps::{self, Awaited};

/// A program that waits for so short a time looks again then, and does not rely on a notification.
const SHORT_WAIT: Duration = Duration::from_millis(10);

thread_local! {
    // All threads of an execution run on the same thread of the system.
    static TIMEOUTS: Cell<bool> = const { Cell::new(false) };
    static THREADS: Cell<usize> = const { Cell::new(0) };
}

/// A thread of the program has started.
pub(crate) fn count_thread() {
    THREADS.set(THREADS.get() + 1);
}

/// A thread of the program has ended.
pub(crate) fn uncount_thread() {
    THREADS.set(THREADS.get() - 1);
}

/// At the start of an execution: may timeouts run out, and may the system lack threads?
pub(crate) fn begin(timeouts: bool) {
    TIMEOUTS.set(timeouts);
    THREADS.set(0);
}

/// From now on no timeout runs out, except short ones: every wait must end by itself.
pub(crate) fn disable_timeouts() {
    TIMEOUTS.set(false);
}

/// Does a wait of this length run out at this moment? A short one does so in each model.
pub(crate) fn runs_out(limit: Duration) -> bool {
    times_out() || !TIMEOUTS.get() && limit <= SHORT_WAIT
}

/// Does a timeout run out at this moment?
pub(crate) fn times_out() -> bool {
    TIMEOUTS.get() && one_in(4)
}

/// True once in so many calls, at random.
pub(crate) fn one_in(times: u32) -> bool {
    thread_rng().gen_ratio(1, times)
}

/// One of these values, at random.
pub(crate) fn any<T: Copy>(values: &[T]) -> T {
    values[thread_rng().gen_range(0..values.len())]
}

/// Lets other threads run for a random time.
pub(crate) fn pause() {
    while !one_in(3) {
        thread::yield_now();
    }
}

/// Waits until all threads that the program has started have ended.
#[track_caller]
pub(crate) fn wait_for_all_threads() {
    let place = Location::caller();
    while THREADS.get() > 0 {
        steps::polls(place, || Awaited::Until("until all threads have ended"));
        thread::yield_now();
    }
}
