//! One thread per shell, one channel, and this thread, which owns the page.
//!
//! The pattern is that of the server's logger: whoever has something to send
//! sends it, and one thread writes it down. Here the channel also holds the
//! shells back: when the reader of the page is slow, writing waits, the channel
//! fills, and the shells' threads wait too, so that nothing piles up.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::batch::EXIT_COMMAND;
use crate::row::Column;
use crate::shell::{self, DisconnectedError, EventSink, SessionEnd, SessionEvent};
use crate::status::{ColumnStatus, RunStatus};
use crate::terminal::{self, Piece, Terminal};

/// Messages on their way from the shells to the page. With the 16 KiB that a
/// shell's thread reads in one go, they run a megabyte.
const QUEUE_CAPACITY: usize = 64;

/// How often the clocks on the page move on.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes put together before they are written, if more is waiting anyway.
const MAX_WRITE_BATCH: usize = 64 * 1024;

/// A form of the page: it turns what happens into text. Columns are known by
/// their index on the run.
pub(crate) trait Page {
    /// What comes before everything else.
    fn begin(&mut self, run: &RunStatus);
    /// A column stands differently.
    fn status(&mut self, column: &ColumnStatus, index: usize);
    /// The shell said this.
    fn output(&mut self, column: &ColumnStatus, index: usize, pieces: &[Piece]);
    /// This was sent to the shell, though the batch file may not have it.
    fn command(&mut self, column: &ColumnStatus, index: usize, line: &str, is_added: bool);
    /// Time has passed. By writing something now and then the program learns
    /// that its reader has left, and the web server that it is alive.
    fn tick(&mut self, run: &RunStatus);
    /// What comes after everything else.
    fn end(&mut self, run: &RunStatus);
    /// What is to be written now.
    fn take(&mut self) -> String;
    /// Bytes of it.
    fn pending_bytes(&self) -> usize;
}

/// Runs all columns that can run, and writes the page until all have ended or
/// the limit is over.
///
/// # Errors
///
/// Of writing: the reader has left, or reads nothing.
pub(crate) fn run(
    columns: Vec<Column>,
    limit: Duration,
    head: String,
    page: &mut impl Page,
    output: &mut impl Write,
) -> io::Result<()> {
    let started = Instant::now();
    let mut owner = PageOwner {
        status: RunStatus::new(&columns, started),
        terminals: columns.iter().map(|_| Terminal::default()).collect(),
        page,
    };
    owner.page.begin(&owner.status);
    // Headers and the beginning of the page in one piece: shorter first pieces
    // are held back on the way.
    output.write_all((head + &owner.page.take()).as_bytes())?;
    let receiver = owner.start_sessions(columns);
    let end = owner.process_events(&receiver, started, limit, output)?;
    for (index, event) in receiver.try_iter().take(QUEUE_CAPACITY) {
        owner.apply(index, event);
    }
    owner.status.advance_to(Instant::now());
    for index in owner.status.unfinished() {
        owner.apply(index, SessionEvent::Ended(end.clone()));
    }
    owner.page.end(&owner.status);
    output.write_all(owner.page.take().as_bytes())
}

/// The thread that owns the page.
struct PageOwner<'a, P> {
    status: RunStatus,
    terminals: Vec<Terminal>,
    page: &'a mut P,
}

impl<P: Page> PageOwner<'_, P> {
    /// Starts a thread for every column that can run. The receiver is
    /// disconnected when the last thread has ended.
    fn start_sessions(&mut self, columns: Vec<Column>) -> Receiver<(usize, SessionEvent)> {
        let (sender, receiver) = bounded(QUEUE_CAPACITY);
        for (index, column) in columns.into_iter().enumerate() {
            let failed = match column.plan {
                Ok(plan) => {
                    let sender = sender.clone();
                    let events = EventSender { index, sender };
                    let name = format!("shell{}", column.number);
                    let started = thread::Builder::new().name(name).spawn(move || {
                        // If nobody listens any more, the page is over.
                        let _ = shell::run_session(&plan, &events);
                    });
                    started
                        .err()
                        .map(|error| format!("no thread for it: {error}"))
                }
                Err(errors) => {
                    let reasons: Vec<String> =
                        errors.into_iter().map(|error| error.reason).collect();
                    Some(reasons.join("; "))
                }
            };
            if let Some(why) = failed {
                self.apply(index, SessionEvent::Ended(SessionEnd::Failed(why)));
            }
        }
        receiver
    }

    /// Writes down what happens, until all threads have ended or the limit is
    /// over. What that means for a column of which no end is known is returned.
    fn process_events(
        &mut self,
        receiver: &Receiver<(usize, SessionEvent)>,
        started: Instant,
        limit: Duration,
        output: &mut impl Write,
    ) -> io::Result<SessionEnd> {
        let deadline = started.checked_add(limit);
        let mut next_tick = started + TICK_INTERVAL;
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(SessionEnd::TimedOut);
            }
            if now >= next_tick {
                next_tick = now + TICK_INTERVAL;
                self.status.advance_to(now);
                self.page.tick(&self.status);
            }
            output.write_all(self.page.take().as_bytes())?;
            let wake = deadline.map_or(next_tick, |deadline| deadline.min(next_tick));
            match receiver.recv_deadline(wake) {
                Ok((index, event)) => {
                    self.apply(index, event);
                    self.apply_queued(receiver);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let why = "ended by a fault of this console; its web server's log has more";
                    return Ok(SessionEnd::Failed(why.to_owned()));
                }
            }
        }
    }

    /// What is waiting already, up to a chunk.
    fn apply_queued(&mut self, receiver: &Receiver<(usize, SessionEvent)>) {
        while self.page.pending_bytes() < MAX_WRITE_BATCH {
            match receiver.try_recv() {
                Ok((index, event)) => self.apply(index, event),
                Err(_) => return,
            }
        }
    }

    /// One piece of event, for the run and the page.
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
        // Nothing that output leaves open reaches beyond the next command.
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

/// A shell thread's way to the page.
struct EventSender {
    index: usize,
    sender: Sender<(usize, SessionEvent)>,
}

impl EventSink for EventSender {
    fn send(&self, event: SessionEvent) -> Result<(), DisconnectedError> {
        self.sender
            .send((self.index, event))
            .map_err(|_gone| DisconnectedError)
    }
}
