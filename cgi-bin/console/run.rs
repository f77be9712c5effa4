//! One thread per shell, one channel, and this thread, which owns the page.
//!
//! The pattern is that of the server's logger: whoever has something to tell
//! sends it, and one thread writes it down. Here the channel also holds the
//! shells back: when the reader of the page is slow, writing waits, the channel
//! fills, and the shells' threads wait too, so that nothing piles up.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::batch::EXIT;
use crate::board::{Board, Standing};
use crate::row::Column;
use crate::shell::{self, End, Listener, News, Unheard};
use crate::terminal::{self, Piece, Terminal};

/// Messages on their way from the shells to the page. With the 16 KiB that a
/// shell's thread reads in one go, they hold a megabyte.
const ROOM: usize = 64;

/// How often the clocks on the page move on.
const TICK: Duration = Duration::from_secs(1);

/// Bytes put together before they are written, if more is waiting anyway.
const CHUNK: usize = 64 * 1024;

/// A form of the page: it turns what happens into text. Columns are known by
/// their index on the board.
pub(crate) trait Page {
    /// What comes before everything else.
    fn begin(&mut self, board: &Board);
    /// A column stands differently.
    fn status(&mut self, standing: &Standing, index: usize);
    /// The shell said this.
    fn output(&mut self, standing: &Standing, index: usize, pieces: &[Piece]);
    /// This was sent to the shell, though the batch file may not have it.
    fn command(&mut self, standing: &Standing, index: usize, line: &str, is_added: bool);
    /// Time has passed. By writing something now and then the program learns
    /// that its reader has left, and the web server that it is alive.
    fn tick(&mut self, board: &Board);
    /// What comes after everything else.
    fn end(&mut self, board: &Board);
    /// What is to be written now.
    fn take(&mut self) -> String;
    /// Bytes of it.
    fn pending(&self) -> usize;
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
    let began = Instant::now();
    let mut owner = Owner {
        board: Board::new(&columns, began),
        terminals: columns.iter().map(|_| Terminal::default()).collect(),
        page,
    };
    owner.page.begin(&owner.board);
    // Headers and the beginning of the page in one piece: shorter first pieces
    // are held back on the way.
    output.write_all((head + &owner.page.take()).as_bytes())?;
    let inbox = owner.start(columns);
    let end = owner.attend(&inbox, began, limit, output)?;
    for (index, news) in inbox.try_iter().take(ROOM) {
        owner.note(index, news);
    }
    owner.board.advance_to(Instant::now());
    for index in owner.board.unfinished() {
        owner.note(index, News::Ended(end.clone()));
    }
    owner.page.end(&owner.board);
    output.write_all(owner.page.take().as_bytes())
}

/// The thread that owns the page.
struct Owner<'a, P> {
    board: Board,
    terminals: Vec<Terminal>,
    page: &'a mut P,
}

impl<P: Page> Owner<'_, P> {
    /// Starts a thread for every column that can run. The receiver is
    /// disconnected when the last thread has ended.
    fn start(&mut self, columns: Vec<Column>) -> Receiver<(usize, News)> {
        let (outbox, inbox) = bounded(ROOM);
        for (index, column) in columns.into_iter().enumerate() {
            let failed = match column.plan {
                Ok(visit) => {
                    let outbox = outbox.clone();
                    let teller = Teller { index, outbox };
                    let name = format!("shell{}", column.number);
                    let started = thread::Builder::new().name(name).spawn(move || {
                        // If nobody listens any more, the page is over.
                        let _ = shell::visit(&visit, &teller);
                    });
                    started
                        .err()
                        .map(|error| format!("no thread for it: {error}"))
                }
                Err(faults) => {
                    let reasons: Vec<String> = faults.into_iter().map(|fault| fault.why).collect();
                    Some(reasons.join("; "))
                }
            };
            if let Some(why) = failed {
                self.note(index, News::Ended(End::Failed(why)));
            }
        }
        inbox
    }

    /// Writes down what happens, until all threads have ended or the limit is
    /// over. What that means for a column of which no end is known is returned.
    fn attend(
        &mut self,
        inbox: &Receiver<(usize, News)>,
        began: Instant,
        limit: Duration,
        output: &mut impl Write,
    ) -> io::Result<End> {
        let over = began.checked_add(limit);
        let mut next_tick = began + TICK;
        loop {
            let now = Instant::now();
            if over.is_some_and(|over| now >= over) {
                return Ok(End::TimedOut);
            }
            if now >= next_tick {
                next_tick = now + TICK;
                self.board.advance_to(now);
                self.page.tick(&self.board);
            }
            output.write_all(self.page.take().as_bytes())?;
            let wake = over.map_or(next_tick, |over| over.min(next_tick));
            match inbox.recv_deadline(wake) {
                Ok((index, news)) => {
                    self.note(index, news);
                    self.note_more(inbox);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let why = "ended by a fault of this console; its web server's log has more";
                    return Ok(End::Failed(why.to_owned()));
                }
            }
        }
    }

    /// What is waiting already, up to a chunk.
    fn note_more(&mut self, inbox: &Receiver<(usize, News)>) {
        while self.page.pending() < CHUNK {
            match inbox.try_recv() {
                Ok((index, news)) => self.note(index, news),
                Err(_) => return,
            }
        }
    }

    /// One piece of news, for the board and the page.
    fn note(&mut self, index: usize, news: News) {
        let before = self.board.standings.get(index).map(|it| it.state.clone());
        self.board.note(index, &news, Instant::now());
        let standing = self.board.standings.get(index);
        let (Some(standing), Some(terminal)) = (standing, self.terminals.get_mut(index)) else {
            return;
        };
        // Nothing that output leaves open reaches beyond the next command.
        if !matches!(news, News::Output(_)) {
            let last = terminal.finish();
            if !last.is_empty() {
                self.page.output(standing, index, &last);
            }
        }
        if before.as_ref() != Some(&standing.state) {
            self.page.status(standing, index);
        }
        match news {
            News::Output(bytes) => {
                let pieces = terminal.show(&bytes);
                self.page.output(standing, index, &pieces);
            }
            News::Command(line) => {
                let line = terminal::plain(&line);
                self.page.command(standing, index, &line, false);
            }
            News::AddedExit => self.page.command(standing, index, EXIT, true),
            News::Connecting | News::Granted | News::Ended(_) => {}
        }
    }
}

/// A shell thread's way to the page.
struct Teller {
    index: usize,
    outbox: Sender<(usize, News)>,
}

impl Listener for Teller {
    fn tell(&self, news: News) -> Result<(), Unheard> {
        self.outbox
            .send((self.index, news))
            .map_err(|_gone| Unheard)
    }
}
