//! 08. Deadlock and lock order: can a thread wait for itself?
//!
//! New: deadlock. A thread that holds a lock and takes it again waits for ever. That is
//! easy to overlook: a `Drop` may take a lock, and a value may be dropped anywhere. Two
//! threads that take two locks in opposite orders can wait for each other for ever.
//!
//! In the server: `Registry::live` in `src/server/session/registry.rs` (why does it collect
//! first?), `Rank` in `src/sync/lock.rs` (the lock order, which debug builds check).
//!
//! Explained in `docs/tour/08-deadlock.md`.
//!
//! Output:
//!
//! ```text
//! broken, drop under the lock: waits for ever
//! fixed, drop after the lock: ends
//! broken, two locks in two orders: waits for ever
//! fixed, two locks in one order: ends
//! ```

use std::sync::{Arc, Barrier, Mutex};
use std::{mem, process, thread};

use lessons::ends;

#[derive(Default)]
struct Registry(Mutex<Vec<Session>>);

struct Session(Arc<Registry>);

impl Drop for Session {
    fn drop(&mut self) {
        // A server would report how many sessions are left.
        let _left = self.0.0.lock().unwrap().len();
    }
}

/// Broken: the lock is held until the end of the statement, so also by `Session::drop`.
fn broken_drop_under_lock() {
    let registry = registry_of_one();
    registry.0.lock().unwrap().clear();
}

/// Fixed: one statement takes the sessions out, and the next one drops them.
fn fixed_drop_after_lock() {
    let registry = registry_of_one();
    let sessions = mem::take(&mut *registry.0.lock().unwrap());
    drop(sessions);
}

fn registry_of_one() -> Arc<Registry> {
    let registry = Arc::new(Registry::default());
    registry.0.lock().unwrap().push(Session(Arc::clone(&registry)));
    registry
}

/// Broken: each thread holds one lock and waits for the other one.
fn broken_two_orders() {
    let (a, b, worst_moment) = (Mutex::new(()), Mutex::new(()), Barrier::new(2));
    let take = |first: &Mutex<()>, second: &Mutex<()>| {
        let _first = first.lock().unwrap();
        worst_moment.wait(); // Both threads have their first lock.
        let _second = second.lock().unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| take(&a, &b));
        take(&b, &a);
    });
}

/// Fixed: a thread that has `a` will get `b`: a thread that has `b` never waits for `a`.
fn fixed_one_order() {
    let (a, b) = (Mutex::new(()), Mutex::new(()));
    let take = || drop((a.lock().unwrap(), b.lock().unwrap()));
    thread::scope(|scope| {
        scope.spawn(take);
        take();
    });
}

fn run(name: &str, work: fn()) {
    let has_ended = ends(&thread::spawn(work));
    println!("{name}: {}", if has_ended { "ends" } else { "waits for ever" });
}

fn main() {
    run("broken, drop under the lock", broken_drop_under_lock);
    run("fixed, drop after the lock", fixed_drop_after_lock);
    run("broken, two locks in two orders", broken_two_orders);
    run("fixed, two locks in one order", fixed_one_order);
    process::exit(0); // Some threads still wait.
}
