//! 10. Backpressure: what happens if the reader is slower than the writers?
//!
//! New: a channel, which is a queue between threads. Without a limit it can fill the memory.
//! If a channel with a limit is full, the writer waits (backpressure), or it drops the
//! message; then it counts what it has dropped, so that the program can report it.
//!
//! In the server: `Log::send` in `src/logger/queue.rs` drops and counts, since no session may
//! wait for a terminal; `EventSender::send` in `cgi-bin/console/run.rs` waits.
//!
//! Explained in `docs/tour/10-backpressure.md`.
//!
//! Output:
//!
//! ```text
//! broken, no limit: 10000 lines in memory, 0 dropped, the writer has finished
//! fixed, the writer waits: 100 lines in memory, 0 dropped, the writer waits
//! fixed, the writer drops: 100 lines in memory, 9900 dropped, the writer has finished
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use lessons::ends;

const LINES: usize = 10_000;
const CAPACITY: usize = 100;

/// The sending end of the channel, and the number of dropped lines.
struct Log {
    sender: Sender<String>,
    dropped: Arc<AtomicUsize>,
}

/// If the channel is full, waits until the reader has taken a line.
fn send_or_wait(log: &Log, line: String) {
    log.sender.send(line).unwrap();
}

/// If the channel is full, drops the line and counts it. Never waits.
fn send_or_drop(log: &Log, line: String) {
    if log.sender.try_send(line).is_err() {
        // Relaxed: a count from which no thread concludes anything about other data.
        log.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Broken: the channel is never full, so this is limited by the memory only.
fn broken_no_limit() -> String {
    write_lines(unbounded(), send_or_wait)
}

/// Fixed: the writer becomes as slow as the reader.
fn fixed_writer_waits() -> String {
    write_lines(bounded(CAPACITY), send_or_wait)
}

/// Fixed: the writer never waits, and lines are missing.
fn fixed_writer_drops() -> String {
    write_lines(bounded(CAPACITY), send_or_drop)
}

/// A thread writes 10,000 lines while no line is read.
fn write_lines(channel: (Sender<String>, Receiver<String>), send: fn(&Log, String)) -> String {
    let (sender, lines) = channel;
    let dropped = Arc::new(AtomicUsize::new(0));
    let log = Log { sender, dropped: Arc::clone(&dropped) };
    let writer = thread::spawn(move || {
        for number in 0..LINES {
            send(&log, format!("line {number}"));
        }
    });
    let state = if ends(&writer) { "has finished" } else { "waits" };
    let count = dropped.load(Ordering::Relaxed);
    let report = format!("{} lines in memory, {count} dropped, the writer {state}", lines.len());
    // Now the reader reads, and a writer that waits continues. The loop ends when the
    // channel is empty and its last sender is dropped.
    let read = lines.iter().count();
    assert_eq!(read + dropped.load(Ordering::Relaxed), LINES);
    report
}

fn main() {
    println!("broken, no limit: {}", broken_no_limit());
    println!("fixed, the writer waits: {}", fixed_writer_waits());
    println!("fixed, the writer drops: {}", fixed_writer_drops());
}
