//! Models that fail on purpose, and what the report says of each, word for word.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::sync::primitives::Mutex;
use crate::sync::{AtomicBool, Condvar, OrderedMutex, Rank, thread};

/// Two threads take two locks in opposite orders. These locks have no rank, which would
/// forbid that.
pub(crate) fn opposite_orders() {
    let savings = Arc::new(Mutex::new(()));
    let current = Arc::new(Mutex::new(()));
    let paying = thread::spawn({
        let (savings, current) = (savings.clone(), current.clone());
        move || {
            let _savings = savings.lock();
            drop(current.lock());
        }
    });
    let held = current.lock();
    drop(savings.lock());
    drop(held);
    paying.join().unwrap();
}

/// The flag is not set under the lock of the thread that waits. So the notification can come
/// after the thread has tested the flag, and before it waits.
pub(crate) fn a_lost_notification() {
    let is_ready = Arc::new(AtomicBool::new(false));
    let queue = Arc::new(OrderedMutex::new(Rank::Leaf, ()));
    let changed = Arc::new(Condvar::new());
    let waiting = thread::spawn({
        let (is_ready, queue, changed) = (is_ready.clone(), queue, changed.clone());
        move || {
            let guard = queue.lock();
            drop(guard.wait_while(&changed, |()| !is_ready.load(Ordering::SeqCst)));
        }
    });
    is_ready.store(true, Ordering::SeqCst);
    changed.notify_one();
    waiting.join().unwrap();
}

/// Two threads take the last slot: each tests under one lock, and takes under another.
pub(crate) fn a_test_before_the_lock() {
    let free = Arc::new(OrderedMutex::new(Rank::Leaf, 1_i32));
    let other = thread::spawn({
        let free = free.clone();
        move || take(&free)
    });
    take(&free);
    other.join().unwrap();
}

fn take(free: &OrderedMutex<i32>) {
    if *free.lock() > 0 {
        *free.lock() -= 1;
    }
    assert!(*free.lock() >= 0, "a slot was given twice");
}

/// A thread looks for a flag that no thread sets.
pub(crate) fn a_flag_that_is_never_set() {
    let is_done = Arc::new(AtomicBool::new(false));
    let looking = thread::spawn(move || {
        while !is_done.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    });
    looking.join().unwrap();
}

/// Runs each of these models in a process of its own and compares its report with what is
/// expected. The seed in the report must repeat the schedule.
pub(crate) fn check(names: impl Iterator<Item = &'static str>) {
    for name in names {
        let report = report_of(name, None);
        assert!(report == expected(name), "unexpected words:\n{report}");
        let (_, command) = report.rsplit_once("SHUTTLE_RANDOM_SEED=").expect("a seed");
        let seed = command.split(' ').next();
        let repeated = report_of(name, seed);
        let (steps, _) = report.rsplit_once("\n\n").expect("a last paragraph");
        assert!(repeated.starts_with(steps), "another schedule:\n{repeated}");
        println!("{name}: fails as expected, in words and twice");
    }
}

/// Runs a model, perhaps with a seed, and returns its report.
fn report_of(name: &str, seed: Option<&str>) -> String {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.arg(name).env_remove("RUST_BACKTRACE");
    match seed {
        Some(seed) => command.env("SHUTTLE_RANDOM_SEED", seed),
        None => command.env_remove("SHUTTLE_RANDOM_SEED"),
    };
    let output = command.output().expect("the model runs");
    assert!(!output.status.success(), "{name} does not fail");
    String::from_utf8(output.stderr)
        .expect("text")
        .trim()
        .to_owned()
}

/// What the report of this model says.
fn expected(model: &str) -> &'static str {
    let mut reports = include_str!("judge_words.txt").split("\n\n\n");
    let is_of = |report: &&str| report.trim_start().starts_with(&format!("{model}: "));
    reports.find(is_of).unwrap_or_default().trim()
}
