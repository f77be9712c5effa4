//! The logger thread.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::config::OutputConfig;
use super::printer::Printer;
use super::queue::{Log, Queue};
use crate::sync::wait_group::{AllDone, wait_group};
use crate::trace::{self, Wait};

/// The logger sleeps this long after each batch, too short for a reader to notice. So a
/// busy server wakes it once per batch and not once per event, which would cost as much as
/// a twentieth of a short session.
const BATCH_PAUSE: Duration = Duration::from_millis(1);

/// Events that are printed before the counts of dropped events are looked at again.
const MAX_BATCH: usize = 8192;

/// The logger thread, to be waited for at the end.
#[derive(Debug)]
pub struct Logger {
    done: AllDone,
}

impl Logger {
    /// Waits until everything is printed, for at most `limit`: a terminal that is not read
    /// must not keep the program from ending. All [`Log`]s must be dropped before.
    pub fn finish(self, limit: Duration) {
        // Disconnected means that the thread has ended.
        let _ = self.done.recv_timeout(limit);
    }
}

/// Starts the logger thread.
///
/// # Errors
///
/// The system has no thread left.
pub fn start(output: OutputConfig) -> io::Result<(Logger, Log)> {
    let (log, queue) = Log::new(output.verbosity, output.format, output.queued_events);
    let printer = Printer::new(output, log.counters());
    let (token, done) = wait_group();
    thread::Builder::new()
        .name("logger".to_owned())
        .spawn(move || {
            let _token = token;
            let _job = trace::job("logger", None);
            print_events(&queue, printer);
        })?;
    Ok((Logger { done }, log))
}

/// The body of the logger thread.
fn print_events(queue: &Queue, mut printer: Printer) {
    loop {
        let wait = trace::wait(|| Wait::LogEvent);
        let received = queue.events.recv_timeout(printer.timeout());
        drop(wait);
        match received {
            Ok(event) => {
                printer.print(event);
                let waiting = queue.events.try_iter().take(MAX_BATCH);
                waiting.for_each(|event| printer.print(event));
                let _wait = trace::wait(|| Wait::Sleep);
                thread::sleep(BATCH_PAUSE);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        note_dropped(queue, &mut printer);
        printer.print_suppressed(Instant::now());
    }
    note_dropped(queue, &mut printer);
    printer.close();
}

fn note_dropped(queue: &Queue, printer: &mut Printer) {
    let (messages, lines) = queue.take_dropped();
    printer.note_dropped(messages, lines);
}
