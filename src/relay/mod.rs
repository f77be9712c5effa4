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

use std::convert::Infallible;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::net::{self, Deadline};

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

    /// Ends both directions at once and wakes whoever waits on them.
    fn cut(&self);
}

impl Leg for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut { self }, buffer)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut { self }, bytes)
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
    /// Nothing moves any more, because both ends have been cut. (An end that
    /// goes on sending can still be read from.)
    pub fn end(&self) {
        self.up.end();
        self.down.end();
    }
}

/// How far one direction has come. One pump writes it, anybody may read it.
#[derive(Debug, Default)]
pub struct Gauge {
    bytes: AtomicU64,
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

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// How long a pump that met an error waits for the other one to notice by
/// itself. Long enough for a thread to wake on a busy machine, too short for
/// anybody to mind.
const NOTICE: Duration = Duration::from_millis(50);

/// How long a pump reads what nobody wants any more. An end that reads at all
/// gets through what the buffers hold for it in that time; one that sends
/// without end must not be listened to for longer.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One of two pumps that know of each other.
///
/// Neither channel ever carries a message. A pump owns the sender of one and
/// drops it when it ends: the other pump sees the channel disconnected.
#[derive(Debug)]
pub struct Pump {
    running: Option<Sender<Infallible>>,
    other: Receiver<Infallible>,
    /// Set before a pump wakes the other one because of an error.
    abandoned: Arc<AtomicBool>,
}

/// Two pumps, one per direction, for one thread each.
pub fn pumps() -> (Pump, Pump) {
    let (first_running, first) = bounded(0);
    let (second_running, second) = bounded(0);
    let abandoned = Arc::new(AtomicBool::new(false));
    let up = Pump {
        running: Some(first_running),
        other: second,
        abandoned: Arc::clone(&abandoned),
    };
    let down = Pump {
        running: Some(second_running),
        other: first,
        abandoned,
    };
    (up, down)
}

impl Pump {
    /// Moves everything from one end to the other. At the end of `from` tells
    /// `to` and leaves the opposite direction open.
    ///
    /// # Errors
    ///
    /// That of the first read or write that failed. Then the opposite direction
    /// is about to end as well.
    pub fn run<A: Leg, B: Leg>(&mut self, from: &A, to: &B, gauge: &Gauge) -> io::Result<()> {
        let result = copy::copy(from, to, gauge);
        match &result {
            // An end that another pump's error has brought about is no end.
            Ok(()) if self.is_abandoned() => {}
            Ok(()) => to.finish(),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.outlive(from, to, gauge);
            }
            Err(_) => self.abandon(from, to),
        }
        gauge.end();
        self.running = None;
        result
    }

    /// `to` has said all it had to say, and then closed for good while `from`
    /// was still sending. Its last words may still be on their way to `from`,
    /// and any reset would lose them: one of ours, or that which the system
    /// sends when a socket is closed with unread bytes. So what `from` still
    /// sends is read and dropped for a while.
    fn outlive<A: Leg, B: Leg>(&mut self, from: &A, to: &B, gauge: &Gauge) {
        let deadline = Deadline::after(LAST_WORDS);
        let is_over = || deadline.is_over() || gauge.has_ended() || self.is_abandoned();
        if !copy::discard(from, is_over) {
            self.abandon(from, to);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Makes the other pump end too, in such a way that both ends learn that
    /// they did not get everything.
    fn abandon<A: Leg, B: Leg>(&mut self, from: &A, to: &B) {
        self.abandoned.store(true, Ordering::SeqCst);
        from.abandon();
        to.abandon();
        self.running = None;
        // The other pump wakes up from reading. If it is stuck writing, to an
        // end that does not read, only a cut wakes it. That sends an end of
        // stream ahead of the reset, which an end that does read could take
        // for a proper one; so it is not done before it must be.
        if self.other.recv_timeout(NOTICE) == Err(RecvTimeoutError::Timeout) {
            from.cut();
            to.cut();
        }
    }

    /// Waits for the other pump, after this one has run.
    pub fn join(self) {
        drop(self.running);
        // Fails when the sender is gone, which is all there is to wait for.
        let _ = self.other.recv();
    }
}
