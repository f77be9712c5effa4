//! 06. Check-then-act: is a limit of 10 sessions kept?
//!
//! New: `Mutex`, a lock. Two things must happen under one lock: the check (is a slot
//! free?) and the act (take it). Between two locks other threads run. And a guard (RAII): a
//! value whose `Drop` gives the slot back, however the thread ends, also by a panic.
//!
//! In the server: `KeyedSemaphore::try_acquire` and `SlotGuard` in `src/sync/semaphore.rs`.
//!
//! Explained in `docs/tour/06-check-then-act.md`.
//!
//! Output:
//!
//! ```text
//! broken, a lock to check and a lock to act: 50 slots are in use
//! fixed, one lock for both: 10 slots are in use
//! fixed, after a panic of a thread with a slot: 9 slots are in use
//! ```

use std::sync::{Arc, Barrier, Mutex};
use std::{panic, thread};

const LIMIT: usize = 10;
const CLIENTS: usize = 50;

/// How many slots are in use. All clones share one count.
#[derive(Clone, Default)]
struct Semaphore(Arc<Mutex<usize>>);

/// One slot in use. It is given back when this guard is dropped.
struct SlotGuard(Semaphore);

impl Drop for SlotGuard {
    fn drop(&mut self) {
        // `lock` fails only if a thread has panicked while it held this lock.
        *self.0.0.lock().unwrap() -= 1;
    }
}

/// Broken: after the check the lock is free, so all threads can check before one acts.
fn broken_check_then_act(semaphore: &Semaphore, worst_moment: &Barrier) -> Option<SlotGuard> {
    // The lock is released at the end of this statement.
    let in_use = *semaphore.0.lock().unwrap();
    // Usually a thread leaves this place before the next one comes. The barrier stops each
    // thread until all 50 are here, which otherwise happens once a year: the worst moment.
    worst_moment.wait();
    if in_use >= LIMIT {
        return None;
    }
    *semaphore.0.lock().unwrap() += 1;
    Some(SlotGuard(semaphore.clone()))
}

/// Fixed: the variable `in_use` holds the lock until the function returns.
fn fixed_one_lock(semaphore: &Semaphore, _: &Barrier) -> Option<SlotGuard> {
    let mut in_use = semaphore.0.lock().unwrap();
    if *in_use >= LIMIT {
        return None;
    }
    *in_use += 1;
    Some(SlotGuard(semaphore.clone()))
}

/// Each client wants a slot, in a thread of its own. Returns the slots that were given.
fn run(acquire: fn(&Semaphore, &Barrier) -> Option<SlotGuard>) -> Vec<SlotGuard> {
    let (semaphore, barrier) = (Semaphore::default(), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        let start = |_| scope.spawn(|| acquire(&semaphore, &barrier));
        let threads: Vec<_> = (0..CLIENTS).map(start).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

fn main() {
    let guards = run(broken_check_then_act);
    println!("broken, a lock to check and a lock to act: {} slots are in use", guards.len());
    let mut guards = run(fixed_one_lock);
    println!("fixed, one lock for both: {} slots are in use", guards.len());
    panic::set_hook(Box::new(|_| {})); // Prints nothing: this panic is on purpose.
    let guard = guards.pop();
    let thread = thread::spawn(move || {
        let _guard = guard;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let SlotGuard(semaphore) = &guards[0];
    let in_use = *semaphore.0.lock().unwrap();
    println!("fixed, after a panic of a thread with a slot: {in_use} slots are in use");
}
