//! 11. Wait group: how do you know that all threads have ended?
//!
//! New: a channel on which no message is ever sent. Each thread owns a clone of the
//! sender, a token. When the last token is dropped, the channel is disconnected, and the
//! receiver wakes. A panic drops the token too. A server has too many threads to join one
//! after the other, and `select!` can wait for a channel and for a deadline together.
//!
//! In the server: `wait_group` in `src/sync/wait_group.rs`, `MainLoop::drain` in
//! `src/server/shutdown.rs`.
//!
//! Explained in `docs/tour/11-wait-for-all.md`.
//!
//! Output:
//!
//! ```text
//! broken, a counter: 3 threads have ended, it is 1
//! broken, a token each and one more: waits for ever
//! fixed, a token each: 3 threads have ended
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{panic, thread};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use lessons::WAIT;

/// The work of threads 1 to 3. Because of a bug, it panics in thread 2.
fn work(number: usize) {
    assert_ne!(number, 2, "a bug");
}

/// Broken: a panic leaves the closure at once, so thread 2 subtracts nothing.
fn broken_counter() -> usize {
    let running = Arc::new(AtomicUsize::new(3));
    for number in 1..=3 {
        let running = Arc::clone(&running);
        let thread = thread::spawn(move || {
            work(number);
            running.fetch_sub(1, Ordering::SeqCst);
        });
        let _ = thread.join(); // An error if the thread has panicked.
    }
    running.load(Ordering::SeqCst)
}

/// A token is a sender of `Infallible`: a type without values, so no message can be sent.
fn start_threads(token: &Sender<Infallible>) {
    for number in 1..=3 {
        let token = token.clone();
        thread::spawn(move || {
            let _token = token; // Dropped at the end of the closure, also by a panic.
            work(number);
        });
    }
}

/// Broken: `token` is dropped at the end of this function, but `wait` waits for that.
fn broken_keep_a_token() -> &'static str {
    let (token, all_done) = bounded(0);
    start_threads(&token);
    wait(&all_done)
}

/// Fixed: after this `drop` only the threads have tokens.
fn fixed_drop_own_token() -> &'static str {
    let (token, all_done) = bounded(0);
    start_threads(&token);
    drop(token);
    wait(&all_done)
}

fn wait(all_done: &Receiver<Infallible>) -> &'static str {
    match all_done.recv_timeout(WAIT) {
        Err(RecvTimeoutError::Disconnected) => "3 threads have ended",
        _ => "waits for ever",
    }
}

fn main() {
    panic::set_hook(Box::new(|_| {})); // Prints nothing: these panics are on purpose.
    println!("broken, a counter: 3 threads have ended, it is {}", broken_counter());
    println!("broken, a token each and one more: {}", broken_keep_a_token());
    println!("fixed, a token each: {}", fixed_drop_own_token());
}
