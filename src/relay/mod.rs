//! The relay: two pumps between two ends, until both directions have ended.
//!
//! Each pump is a blocking loop for one direction, run by a thread of its own:
//!
//! ```text
//!                up: client to remote
//!     client  ===========================>  remote
//!             <===========================
//!               down: remote to client
//! ```
//!
//! The end of one direction is passed on and leaves the other one open; an
//! error ends both. The [`Meter`] shows from outside how far they have come.

mod copy;
#[cfg(target_os = "linux")]
mod splice;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::net::{self, Deadline};

#[cfg(target_os = "linux")]
pub(crate) use splice::MAX_PIPES;
/// Where nothing is spliced.
#[cfg(not(target_os = "linux"))]
pub(crate) const MAX_PIPES: usize = 0;

/// One end of a relayed connection. The client's may later be more than a
/// socket (a stream with protection around it), so the pumps ask for no more
/// than this.
pub trait Leg {
    /// Waits for bytes; 0 means that this end sends no more.
    ///
    /// # Errors
    ///
    /// As read(2).
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Waits until all these bytes are on their way.
    ///
    /// # Errors
    ///
    /// As write(2).
    fn write_all(&self, bytes: &[u8]) -> io::Result<()>;

    /// Tells this end that no more will come; it may go on sending.
    fn finish(&self);

    /// Gives up what is on its way, so that this end learns that it did not get
    /// everything; wakes whoever waits to read from it, and sends nothing yet.
    fn abandon(&self);

    /// Is there no connection any more? Also true after both directions have
    /// properly ended.
    fn is_gone(&self) -> bool;

    /// Ends both directions at once and wakes whoever waits on them.
    fn cut(&self);

    /// The socket, if what goes through it is just what was read and written
    /// here: then bytes may go past this program.
    fn socket(&self) -> Option<BorrowedFd<'_>>;
}

impl Leg for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut { self }, buffer)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut { self }, bytes)
    }

    fn is_gone(&self) -> bool {
        self.peer_addr().is_err()
    }

    // A connection that is already gone can fail each of the following with
    // "not connected", and then there is nothing left to end.

    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn abandon(&self) {
        net::reset_on_close(self);
        let _ = self.shutdown(Shutdown::Read);
    }

    fn cut(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// How far both directions have come.
#[derive(Debug, Default)]
pub struct Meter {
    /// From client to remote.
    pub up: Gauge,
    /// From remote to client.
    pub down: Gauge,
}

impl Meter {
    /// Nothing moves any more, because both ends are about to be cut. (An end
    /// that goes on sending could still be read from.)
    pub fn end(&self) {
        self.up.ended.store(true, Ordering::Relaxed);
        self.down.ended.store(true, Ordering::Relaxed);
    }
}

/// How far one direction has come. One pump writes it, anybody may read it.
#[derive(Debug, Default)]
pub struct Gauge {
    bytes: AtomicU64,
    /// Is the pump busy with a write, or with what a failed one has led to?
    writing: AtomicBool,
    ended: AtomicBool,
}

impl Gauge {
    /// Bytes handed on so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Has this direction come to its end?
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn add(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::SeqCst);
    }

    fn is_writing(&self) -> bool {
        self.writing.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.set_writing(false);
    }
}

/// How long a pump waits before it looks again whether the other one is stuck.
/// Long enough for a thread to wake on a busy machine, too short for anybody to
/// mind.
const NOTICE: Duration = Duration::from_millis(50);

/// How long a pump reads what nobody wants any more, so that last words on
/// their way in the other direction are not lost: two seconds, and one more for
/// each of these many bytes that went that way, at most a minute. That is more
/// than the buffers hold for an end that reads at 1 Mbit/s.
const LAST_WORDS: Duration = Duration::from_secs(2);
const LAST_WORDS_PER_SECOND: u64 = 64 << 10;
const LONGEST_LAST_WORDS: Duration = Duration::from_secs(60);

/// One of two pumps that know of each other.
///
/// A pump owns the sender of one channel and drops it when it ends: the other
/// pump sees the channel disconnected. Before that it says one word at most.
#[derive(Debug)]
pub struct Pump {
    word: Sender<Abandoned>,
    other: Receiver<Abandoned>,
    /// Stands as soon as the word is said.
    abandoned: Arc<AtomicBool>,
}

/// "I have met an error, and am about to wake you up because of it."
#[derive(Debug)]
struct Abandoned;

/// Two pumps, one per direction, for one thread each.
pub fn pumps() -> (Pump, Pump) {
    let (first_word, first) = bounded(1);
    let (second_word, second) = bounded(1);
    let abandoned = Arc::new(AtomicBool::new(false));
    let up = Pump {
        word: first_word,
        other: second,
        abandoned: Arc::clone(&abandoned),
    };
    let down = Pump {
        word: second_word,
        other: first,
        abandoned,
    };
    (up, down)
}

impl Pump {
    /// Moves everything from one end to the other, and measures it; `back` is
    /// the gauge of the opposite direction. At the end of `from` tells `to`, and
    /// leaves the opposite direction open.
    ///
    /// # Errors
    ///
    /// That of the first read or write that failed. Then the opposite direction
    /// is about to end as well.
    pub fn run<A: Leg, B: Leg>(
        &self,
        from: &A,
        to: &B,
        gauge: &Gauge,
        back: &Gauge,
    ) -> io::Result<()> {
        let result = copy::copy(from, to, gauge, || self.is_abandoned());
        match &result {
            // Both ends have been cut on purpose, and what was sent before is
            // on its way: there is nothing to be done, least of all a reset.
            _ if gauge.has_ended() => {}
            Ok(()) if self.was_no_end(from, back) => {}
            Ok(()) => to.finish(),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // No reset has been told to this pump.
                gauge.set_writing(false);
                self.outlive(from, to, gauge, back);
            }
            Err(_) => self.abandon(from, to, back),
        }
        gauge.end();
        result
    }

    /// Ends this pump and waits for the other one.
    pub fn join(self) {
        drop(self.word);
        // Ends when the other pump's sender is gone, after a word or without.
        self.other.iter().for_each(drop);
    }

    /// Was this end of stream brought about by an error that the other pump met?
    ///
    /// The system tells of a reset only once. If the other pump was just writing
    /// to `from`, it was told, and this one reads an end. The other is about to
    /// say its word then: no write to a connection that is gone takes long.
    fn was_no_end<A: Leg>(&self, from: &A, back: &Gauge) -> bool {
        while from.is_gone() && back.is_writing() && !self.is_abandoned() {
            let _ = self.other.recv_timeout(Duration::from_millis(1));
        }
        self.is_abandoned()
    }

    /// `to` has said all it had to say, and then closed for good while `from`
    /// was still sending. Its last words may still be on their way to `from`,
    /// and any reset would lose them: one of ours, or that which the system
    /// sends when a socket is closed with unread bytes. So what `from` still
    /// sends is read and dropped, slowly, for a while.
    fn outlive<A: Leg, B: Leg>(&self, from: &A, to: &B, gauge: &Gauge, back: &Gauge) {
        let more = Duration::from_secs(back.bytes() / LAST_WORDS_PER_SECOND);
        let deadline = Deadline::after((LAST_WORDS + more).min(LONGEST_LAST_WORDS));
        let is_over = || deadline.is_over() || gauge.has_ended() || self.is_abandoned();
        if !copy::discard(from, is_over) && !gauge.has_ended() {
            self.abandon(from, to, back);
        }
    }

    /// Makes the other pump end too, in such a way that both ends learn that
    /// they did not get everything.
    fn abandon<A: Leg, B: Leg>(&self, from: &A, to: &B, back: &Gauge) {
        if self.abandoned.swap(true, Ordering::SeqCst) {
            // The other pump is doing just that.
            return;
        }
        let _ = self.word.try_send(Abandoned);
        from.abandon();
        to.abandon();
        // The other pump wakes up from reading. If it is stuck writing, to an
        // end that does not read, only a cut wakes it. That sends an end of
        // stream ahead of the reset, which an end that does read could take
        // for a proper one; so it is not done before it must be.
        while let Err(RecvTimeoutError::Timeout) = self.other.recv_timeout(NOTICE) {
            if back.is_writing() {
                from.cut();
                to.cut();
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }
}
