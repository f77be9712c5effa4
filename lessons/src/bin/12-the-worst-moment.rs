//! 12. Randomized concurrency testing: how do you test what fails once a year?
//!
//! New: a scheduler that you control. The threads, locks and atomics of the crate shuttle
//! run one step at a time; at each lock and atomic a scheduler chooses the thread that
//! continues. So the worst moment comes soon, and a seed repeats it. (shuttle prints it.)
//!
//! The model: one thread of a relay writes bytes. Another thread aborts the relay; it sends
//! EOF if no write is going on. After EOF no byte may be written.
//!
//! In the server: `RelayState::begin_write` in `src/relay/state.rs`, `no_fin_is_invented` in
//! `tests/model/relay_directions.rs`.
//!
//! Explained in `docs/tour/12-the-worst-moment.md`.
//!
//! Output:
//!
//! ```text
//! broken, two locks to begin a write: fails in schedule 2
//! fixed, one lock to begin a write: holds in 1000 schedules
//! ```

use std::sync::atomic::AtomicUsize;

use shuttle::scheduler::RandomScheduler;
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::sync::{Arc, Mutex};
use shuttle::{Config, Runner, thread};

#[derive(Default)]
struct Relay {
    state: Mutex<State>,
    eof_sent: AtomicBool,
}

#[derive(Default)]
struct State {
    aborted: bool,
    writing: bool,
}

/// Broken: check-then-act (lesson 06). The abort may come between the two locks.
fn broken_begin_write(relay: &Relay) -> bool {
    let may_write = !relay.state.lock().unwrap().aborted;
    relay.state.lock().unwrap().writing = may_write;
    may_write
}

/// Fixed: check and act under one lock.
fn fixed_begin_write(relay: &Relay) -> bool {
    let mut state = relay.state.lock().unwrap();
    state.writing = !state.aborted;
    state.writing
}

/// Runs both threads once. What it asserts must hold in every schedule.
fn model(begin_write: fn(&Relay) -> bool) {
    let relay = Arc::new(Relay::default());
    let shared = Arc::clone(&relay);
    let writer = thread::spawn(move || {
        if begin_write(&shared) {
            assert!(!shared.eof_sent.load(SeqCst), "bytes after EOF");
            shared.state.lock().unwrap().writing = false;
        }
    });
    let mut state = relay.state.lock().unwrap();
    state.aborted = true;
    let is_writing = state.writing;
    drop(state); // Releases the lock.
    relay.eof_sent.store(!is_writing, SeqCst);
    writer.join().unwrap();
}

/// Runs the model in up to 1,000 schedules, until one fails.
fn check(begin_write: fn(&Relay) -> bool) -> String {
    static SCHEDULE: AtomicUsize = AtomicUsize::new(0);
    SCHEDULE.store(0, SeqCst);
    let run = move || {
        let runner = Runner::new(RandomScheduler::new_from_seed(1080, 1000), Config::new());
        runner.run(move || {
            SCHEDULE.fetch_add(1, SeqCst);
            model(begin_write);
        })
    };
    match std::thread::spawn(run).join() {
        Ok(schedules) => format!("holds in {schedules} schedules"),
        Err(_) => format!("fails in schedule {}", SCHEDULE.load(SeqCst)),
    }
}

fn main() {
    std::panic::set_hook(Box::new(|_| {})); // No backtrace: this panic is expected.
    println!("broken, two locks to begin a write: {}", check(broken_begin_write));
    println!("fixed, one lock to begin a write: {}", check(fixed_begin_write));
}
