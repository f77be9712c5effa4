//! One thread owns the output.
//!
//! Sessions put events into a bounded channel and go on; the logger takes them
//! out one by one and prints them. A terminal that nobody reads blocks this
//! thread and nobody else: when the channel is full, events are counted instead
//! of kept, and the count is printed as soon as somebody reads again.
//!
//! When the last [`Log`] is dropped, the channel closes and the logger leaves,
//! having printed everything.

mod printer;
mod stdout;
mod writer;

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::events::{CloseReason, Event};
use printer::Printer;
pub use stdout::Stdout;

/// Events that may wait to be printed. At 10,000 requests per second nearly a
/// second's worth, and at most a few MB.
const QUEUE_CAPACITY: usize = 8192;

/// After all that was there the logger rests this long, too short for anybody to
/// see. A busy server need not wake it for each event then, which would cost as
/// much as a twentieth of a short session.
const BATCH_PAUSE: Duration = Duration::from_millis(1);

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only what keeps the server from doing its work.
    Errors,
    /// Also start and stop, and why requests are refused (at most one line a
    /// second each).
    #[default]
    Normal,
    /// Also a line for every ended session.
    Sessions,
}

/// Where the output goes, and how much of it there is.
pub struct OutputConfig {
    /// Gets the screen messages, as [`Stdout`] does; `None`: there are none.
    pub screen: Option<Box<dyn Write + Send>>,
    /// Gets everything else.
    pub diagnostics: Box<dyn Write + Send>,
    /// How much that is.
    pub detail: Verbosity,
}

/// A handle to tell the logger what happened. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Log {
    events: Sender<Event>,
    lost: Arc<DroppedCounts>,
    detail: Verbosity,
    has_screen: bool,
}

/// What found the queue full, since somebody last request.
#[derive(Debug, Default)]
struct DroppedCounts {
    /// Printer messages.
    messages: AtomicU64,
    /// Lines for stderr.
    lines: AtomicU64,
}

impl Log {
    /// Tells what happened. Never waits: if the queue is full, the event is
    /// counted as lost. Half of the queue is kept for screen messages, which
    /// are what the output is there for.
    pub fn send(&self, event: Event) {
        if !self.wants(&event) {
            return;
        }
        let (has_room, lost) = match event {
            Event::RequestAnswered(_) => (true, &self.lost.messages),
            _ => (self.events.len() < QUEUE_CAPACITY / 2, &self.lost.lines),
        };
        if !has_room || self.events.try_send(event).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Will anybody see this event?
    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::RequestAnswered(_) => self.has_screen,
            Event::Rejected(_) | Event::FileReloaded { .. } => true,
            Event::SessionClosed(closed) => match closed.ending {
                CloseReason::HandshakeFailed(_)
                | CloseReason::Refused(_)
                | CloseReason::PermitWithdrawn(_) => self.detail >= Verbosity::Normal,
                _ => self.detail >= Verbosity::Sessions,
            },
            Event::Listening(_) | Event::FileUnchanged { .. } | Event::Stopping { .. } => {
                self.detail >= Verbosity::Normal
            }
        }
    }
}

/// The logger thread, to be waited for at the end.
#[derive(Debug)]
pub struct Logger {
    left: Receiver<Infallible>,
}

impl Logger {
    /// Waits until everything is printed, at most for this long: a terminal
    /// that nobody reads must not keep the program alive. All [`Log`]s must have
    /// been dropped before.
    pub fn finish(self, limit: Duration) {
        // Disconnected means that the thread has left, and is all we wait for.
        let _ = self.left.recv_timeout(limit);
    }
}

/// Starts the logger.
///
/// It returns the thread first and the handle second, so that a caller who
/// binds both drops them in the safe order.
///
/// # Errors
///
/// The system has no thread left.
pub fn start(output: OutputConfig) -> io::Result<(Logger, Log)> {
    let (events, queue) = bounded(QUEUE_CAPACITY);
    let lost = Arc::new(DroppedCounts::default());
    let (leaving, left) = bounded(0);
    let log = Log {
        events,
        lost: Arc::clone(&lost),
        detail: output.detail,
        has_screen: output.screen.is_some(),
    };
    thread::Builder::new()
        .name("logger".to_owned())
        .spawn(move || {
            let _leaving: Sender<Infallible> = leaving;
            print_events(&queue, &lost, Printer::new(output));
        })?;
    Ok((Logger { left }, log))
}

/// The body of the logger thread.
fn print_events(queue: &Receiver<Event>, lost: &DroppedCounts, mut screen: Printer) {
    loop {
        match queue.recv_timeout(screen.patience()) {
            Ok(event) => {
                screen.show(event);
                let waiting = queue.try_iter().take(QUEUE_CAPACITY);
                waiting.for_each(|event| screen.show(event));
                thread::sleep(BATCH_PAUSE);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        note_lost(lost, &mut screen);
        screen.show_held_back(Instant::now());
    }
    note_lost(lost, &mut screen);
    screen.close();
}

fn note_lost(lost: &DroppedCounts, screen: &mut Printer) {
    screen.note_lost(
        lost.messages.swap(0, Ordering::Relaxed),
        lost.lines.swap(0, Ordering::Relaxed),
    );
}
