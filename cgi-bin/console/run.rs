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

use crate::board::Board;
use crate::row::Column;
use crate::shell::{self, End, Listener, News, Unheard};

/// Messages on their way from the shells to the page. Together they hold less
/// than two megabytes.
const ROOM: usize = 64;

/// How often the clocks on the page move on. This is also the heartbeat: only
/// by writing does anybody notice that the reader has left.
const TICK: Duration = Duration::from_secs(1);

/// Bytes put together before they are written, if more is waiting anyway.
const CHUNK: usize = 64 * 1024;

/// A form of the page: it turns what happens into text.
pub(crate) trait Page {
    /// What comes before everything else.
    fn begin(&mut self, board: &Board);
    /// Something happened in the column with this index.
    fn show(&mut self, board: &Board, index: usize, news: &News);
    /// Time has passed.
    fn tick(&mut self, board: &Board);
    /// What comes after everything else.
    fn end(&mut self, board: &Board);
    /// What is to be written now.
    fn take(&mut self) -> String;
    /// Bytes of it.
    fn waiting(&self) -> usize;
}

/// Runs all columns that can run, and writes the page until all have ended or
/// the limit is over.
///
/// # Errors
///
/// Of writing: the reader has left.
pub(crate) fn run(
    columns: Vec<Column>,
    limit: Duration,
    head: String,
    page: &mut impl Page,
    output: &mut impl Write,
) -> io::Result<()> {
    let began = Instant::now();
    let over = began.checked_add(limit);
    let mut board = Board::new(&columns, began);
    page.begin(&board);
    // Headers and the beginning of the page in one piece: shorter first pieces
    // are held back on the way.
    write(output, &(head + &page.take()))?;
    let inbox = start(columns, &mut board, page);
    let mut next_tick = began + TICK;
    loop {
        let now = Instant::now();
        if over.is_some_and(|over| now >= over) {
            break;
        }
        if now >= next_tick {
            next_tick = now + TICK;
            board.now(now);
            page.tick(&board);
        }
        write(output, &page.take())?;
        let wake = over.map_or(next_tick, |over| over.min(next_tick));
        match inbox.recv_deadline(wake) {
            Ok((index, news)) => {
                let more = inbox.try_iter();
                for (index, news) in std::iter::once((index, news)).chain(more) {
                    note(&mut board, page, index, &news);
                    if page.waiting() > CHUNK {
                        break;
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    board.now(Instant::now());
    for index in board.unfinished() {
        note(&mut board, page, index, &News::Ended(End::TimedOut));
    }
    page.end(&board);
    write(output, &page.take())
}

fn note(board: &mut Board, page: &mut impl Page, index: usize, news: &News) {
    board.note(index, news, Instant::now());
    page.show(board, index, news);
}

fn write(output: &mut impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    output.write_all(text.as_bytes())?;
    output.flush()
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

/// Starts a thread for every column that can run. The receiver is disconnected
/// when the last thread has ended.
fn start(columns: Vec<Column>, board: &mut Board, page: &mut impl Page) -> Receiver<(usize, News)> {
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
            note(board, page, index, &News::Ended(End::Failed(why)));
        }
    }
    inbox
}
