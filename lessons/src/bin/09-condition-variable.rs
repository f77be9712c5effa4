//! 09. Condition variable: how does a thread wait for work?
//!
//! New: `Condvar`. Its `wait` releases the lock, sleeps until a notification comes, and
//! takes the lock again. A notification is not stored: it is lost if no thread waits (lost
//! wake-up). So test the data before each wait, in a loop: another thread may have taken
//! the job, and `wait` may return without a notification (spurious wake-up).
//!
//! In the server: `PoolShared::next_job` and `JobSlot::send` in `src/sync/thread_pool.rs`.
//!
//! Explained in `docs/tour/09-condition-variable.md`.
//!
//! Output:
//!
//! ```text
//! broken, wait without a test: sleeps, though there is a job
//! fixed, wait while there is no job: takes the job
//! broken, 50 threads share a Condvar: a job wakes 50
//! fixed, each thread has a Condvar: a job wakes 1
//! ```

use std::sync::{Arc, Condvar, Mutex};
use std::{process, thread};

use lessons::{ends, is_true_in_time};

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    added: Condvar,
}

#[derive(Default)]
struct State {
    jobs: usize,
    waiting: usize,
    wake_ups: usize,
}

/// `notify_one` would wake one thread, but the system chooses it. With a Condvar for each
/// thread, the program chooses.
fn add_job(queue: &Queue) {
    queue.state.lock().unwrap().jobs += 1;
    queue.added.notify_all();
}

/// Broken: if the job is there already, its notification has been sent, and is lost.
fn broken_take(queue: &Queue) {
    let state = queue.state.lock().unwrap();
    queue.added.wait(state).unwrap().jobs -= 1;
}

/// Fixed: the loop tests before the first wait and after each wait (as `wait_while` does).
fn fixed_take(queue: &Queue) {
    let mut state = queue.state.lock().unwrap();
    state.waiting += 1;
    while state.jobs == 0 {
        state = queue.added.wait(state).unwrap();
        state.wake_ups += 1;
    }
    state.jobs -= 1;
}

/// The job is added before the thread starts.
fn job_comes_first(take: fn(&Queue)) -> &'static str {
    let queue = Queue::default();
    add_job(&queue);
    let thread = thread::spawn(move || take(&queue));
    if ends(&thread) { "takes the job" } else { "sleeps, though there is a job" }
}

/// How many of 50 threads does one job wake, if they share this number of condition variables?
fn count_wake_ups(condvars: usize) -> usize {
    let queues: Vec<Arc<Queue>> = (0..condvars).map(|_| Arc::default()).collect();
    for number in 0..50 {
        let queue = Arc::clone(&queues[number % condvars]);
        thread::spawn(move || fixed_take(&queue));
    }
    let sum = |count: fn(&State) -> usize| -> usize {
        queues.iter().map(|queue| count(&queue.state.lock().unwrap())).sum()
    };
    // A thread that has counted itself holds the lock until it waits. At 50, all wait.
    while sum(|state| state.waiting) < 50 {
        thread::yield_now();
    }
    add_job(&queues[0]);
    is_true_in_time(|| sum(|state| state.wake_ups) == 50);
    sum(|state| state.wake_ups)
}

fn main() {
    println!("broken, wait without a test: {}", job_comes_first(broken_take));
    println!("fixed, wait while there is no job: {}", job_comes_first(fixed_take));
    println!("broken, 50 threads share a Condvar: a job wakes {}", count_wake_ups(1));
    println!("fixed, each thread has a Condvar: a job wakes {}", count_wake_ups(50));
    process::exit(0); // Some threads still wait.
}
