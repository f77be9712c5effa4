//! One thread per session, one bounded channel, and one thread that owns the page.
//!
//! The pattern is message passing with a single owner, as in the server's logger: the
//! session threads send events, and only the owner changes the page and writes it. So
//! no state is shared, and no lock is needed.
//!
//! The bounded channel provides backpressure. When the browser reads slowly, the write
//! to stdout blocks, the channel fills up, and the session threads block in their
//! sends. Then they stop reading, so memory use stays bounded.
//!
//! ```text
//! session threads --events--> bounded channel --> owner --> stdout
//! ```
//!
//! Shutdown: the owner returns when all senders are dropped, at the time limit, at the first
//! tick after a request to stop, or on a write error. Nothing joins the session threads; the exit of the process ends them.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::batch::EXIT_COMMAND;
use crate::failure::Failure;
use crate::row::{self, Column};
use crate::shell::{self, DisconnectedError, EventSink, SessionEnd, SessionEvent};
use crate::status::{ColumnStatus, RunStatus};
use crate::terminal::{self, Piece, Terminal};

/// Capacity of the channel in events; a full channel blocks the senders. With about
/// 16 KiB of output per event, the channel holds at most some 1 MiB.
const QUEUE_CAPACITY: usize = 64;

/// Interval at which the page updates the elapsed times, which count in seconds.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Time without a line or an object after which the text page and JSON write one: before the
/// timeout of common web servers, also if a tick comes a second late. The write detects a
/// client that has disconnected.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(9);

/// Bytes of the page to collect before a write, while more events are queued: fewer
/// system calls under load, no delay without.
const MAX_WRITE_BATCH: usize = 64 * 1024;

/// A representation of the page: it turns events into text. `index` is the index of the
/// column in [`RunStatus::columns`].
pub(crate) trait Page {
    /// Writes everything before the first event.
    fn begin(&mut self, run: &RunStatus);
    /// The state of a column has changed.
    fn status(&mut self, column: &ColumnStatus, index: usize);
    /// The shell has sent output.
    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]);
    /// A line was sent to the shell. `is_added` means that the batch file does not
    /// contain it.
    fn command(&mut self, column: &ColumnStatus, index: usize, line: &str, is_added: bool);
    /// The elapsed times have changed. A page must write something at least every ten
    /// seconds: the write detects a client that has disconnected, and the web server
    /// does not time out.
    fn tick(&mut self, run: &RunStatus);
    /// Reports whether there is a request to stop this run.
    fn is_stopped(&self) -> bool {
        false
    }
    /// Writes everything after the last event.
    fn end(&mut self, run: &RunStatus);
    /// Removes and returns the text that was not written to stdout yet. The numbers in it
    /// are those of this status.
    fn take(&mut self, run: &RunStatus) -> String;
    /// The size of that text in bytes.
    fn pending_bytes(&self) -> usize;
}

/// Runs the sessions of all valid columns, and writes the page until all sessions have
/// ended, the time limit has passed, or the run is stopped.
///
/// # Errors
///
/// Of writing: the client has disconnected, or it does not read.
pub(crate) fn run(
    columns: Vec<Column>,
    status: RunStatus,
    headers: String,
    page: &mut dyn Page,
    output: &mut impl Write,
) -> io::Result<()> {
    let mut owner = PageOwner {
        status,
        terminals: columns.iter().map(|_| Terminal::default()).collect(),
        page,
    };
    owner.page.begin(&owner.status);
    // Headers and the start of the page in one write: web servers hold back a shorter
    // first write.
    let start = headers + &owner.take_text();
    let result = output.write_all(start.as_bytes()).and_then(|()| {
        let receiver = owner.start_sessions(columns);
        let result = owner.process_events(&receiver, output);
        // Events that were queued when the loop ended. The bound keeps a busy session from
        // prolonging this.
        for (index, event) in receiver.try_iter().take(QUEUE_CAPACITY) {
            owner.apply(index, event);
        }
        result
    });
    owner.status.advance_to(Instant::now());
    // After a write error, the end of the page is produced for the file of a kept run only.
    let is_late = owner
        .status
        .deadline()
        .is_some_and(|deadline| Instant::now() >= deadline);
    let end = match &result {
        Ok(end) => end,
        Err(_) if is_late => &SessionEnd::TimedOut,
        Err(_) => &SessionEnd::Stopped,
    };
    for index in owner.status.unfinished() {
        owner.apply(index, SessionEvent::Ended(end.clone()));
    }
    owner.page.end(&owner.status);
    let rest = owner.take_text();
    result?;
    output.write_all(rest.as_bytes())
}

/// The state of the thread that owns the page. No other thread accesses it.
struct PageOwner<'a> {
    status: RunStatus,
    /// One per column: escape sequences and characters may span several events.
    terminals: Vec<Terminal>,
    page: &'a mut dyn Page,
}

impl PageOwner<'_> {
    /// Starts one thread per valid column, and ends the invalid columns.
    ///
    /// Each thread owns a clone of the sender, and the original is dropped on return.
    /// So the channel is disconnected when the last thread has ended, also by a panic.
    fn start_sessions(&mut self, columns: Vec<Column>) -> Receiver<(usize, SessionEvent)> {
        let (sender, receiver) = bounded(QUEUE_CAPACITY);
        for (index, column) in columns.into_iter().enumerate() {
            let failure = match column.plan {
                Ok(plan) => {
                    let sender = sender.clone();
                    let events = EventSender { index, sender };
                    let name = format!("shell{}", column.number);
                    let result = thread::Builder::new().name(name).spawn(move || {
                        // The error means that the page has ended: nothing to report.
                        let _ = shell::run_session(&plan, &events);
                    });
                    result.err().map(|error| {
                        let reason = format!("cannot start a thread: {error}");
                        Failure::new(reason, "The web server's machine is busy: try again later.")
                    })
                }
                Err(errors) => Some(row::combine(&errors)),
            };
            if let Some(failure) = failure {
                self.apply(index, SessionEvent::Ended(SessionEnd::Failed(failure)));
            }
        }
        receiver
    }

    /// The event loop: applies events and writes the page until all senders are dropped
    /// or the time limit has passed, or the run is stopped. Returns the end of each session
    /// that has not ended.
    ///
    /// Each wait for an event ends at the next tick, at the time limit, or when the last
    /// sender is dropped. Each write ends at the deadline of `output`.
    ///
    /// # Errors
    ///
    /// Of writing.
    fn process_events(
        &mut self,
        receiver: &Receiver<(usize, SessionEvent)>,
        output: &mut impl Write,
    ) -> io::Result<SessionEnd> {
        let deadline = self.status.deadline();
        let mut next_tick = Instant::now() + TICK_INTERVAL;
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(SessionEnd::TimedOut);
            }
            if now >= next_tick {
                if self.page.is_stopped() {
                    return Ok(SessionEnd::Stopped);
                }
                next_tick = now + TICK_INTERVAL;
                self.status.advance_to(now);
                self.page.tick(&self.status);
            }
            output.write_all(self.take_text().as_bytes())?;
            let wake = deadline.map_or(next_tick, |deadline| deadline.min(next_tick));
            match receiver.recv_deadline(wake) {
                Ok((index, event)) => {
                    self.apply(index, event);
                    self.apply_queued(receiver);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // Every thread has ended. A thread that sent no last event has
                    // panicked; its message is on stderr.
                    return Ok(SessionEnd::Failed(Failure::new(
                        "internal error of this console",
                        "The error log of the web server has more: please report it.",
                    )));
                }
            }
        }
    }

    /// Removes and returns the text that was not written to stdout yet.
    fn take_text(&mut self) -> String {
        self.page.take(&self.status)
    }

    /// Applies the events that are already queued, up to [`MAX_WRITE_BATCH`].
    fn apply_queued(&mut self, receiver: &Receiver<(usize, SessionEvent)>) {
        while self.page.pending_bytes() < MAX_WRITE_BATCH {
            match receiver.try_recv() {
                Ok((index, event)) => self.apply(index, event),
                Err(_) => return,
            }
        }
    }

    /// Applies one event to the status and to the page.
    fn apply(&mut self, index: usize, event: SessionEvent) {
        let before = self
            .status
            .columns
            .get(index)
            .map(|column| column.state.clone());
        self.status.apply(index, &event, Instant::now());
        let column = self.status.columns.get(index);
        let (Some(column), Some(terminal)) = (column, self.terminals.get_mut(index)) else {
            return;
        };
        // An escape sequence or colour that the output leaves open must not affect the
        // text after the next command.
        if !matches!(event, SessionEvent::Output(_)) {
            let last = terminal.finish();
            if !last.is_empty() {
                self.page.output(column, index, &last);
            }
        }
        if before.as_ref() != Some(&column.state) {
            self.page.status(column, index);
        }
        match event {
            SessionEvent::Output(bytes) => {
                let pieces = terminal.show(&bytes);
                self.page.output(column, index, &pieces);
            }
            SessionEvent::Command(line) => {
                let line = terminal::plain(&line);
                self.page.command(column, index, &line, false);
            }
            SessionEvent::AddedExit => self.page.command(column, index, EXIT_COMMAND, true),
            SessionEvent::Connecting | SessionEvent::Granted | SessionEvent::Ended(_) => {}
        }
    }
}

/// The sending end of the channel for one session. Dropping it disconnects the session
/// from the page.
struct EventSender {
    index: usize,
    sender: Sender<(usize, SessionEvent)>,
}

impl EventSink for EventSender {
    fn send(&self, event: SessionEvent) -> Result<(), DisconnectedError> {
        self.sender
            .send((self.index, event))
            .map_err(|_disconnected| DisconnectedError)
    }
}
