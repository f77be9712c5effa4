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
//! error ends both. The [`RelayState`] shows from outside how far they have come.

mod copy;
#[cfg(target_os = "linux")]
mod splice;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::{self, Deadline};
use crate::sync::{AtomicBool, AtomicU64, thread};

pub(crate) use copy::{IDLE_RELEASE, LARGE_BUFFER};
#[cfg(target_os = "linux")]
pub(crate) use splice::MAX_PIPES;
/// Where nothing is spliced.
#[cfg(not(target_os = "linux"))]
pub(crate) const MAX_PIPES: usize = 0;

/// One end of a relayed connection. The client's may later be more than a
/// socket (a stream with protection around it), so the pumps ask for no more
/// than this.
pub trait RelayStream {
    /// Waits for bytes; 0 means that this end sends no more.
    ///
    /// # Errors
    ///
    /// As read(2).
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Waits for bytes, an end or an error without taking them, at most for
    /// this long; true if there is something to read.
    ///
    /// # Errors
    ///
    /// As poll(2).
    fn wait_readable(&self, limit: Duration) -> io::Result<bool>;

    /// Waits until some of these bytes are on their way, and says how many.
    ///
    /// # Errors
    ///
    /// As write(2); `WouldBlock` now and then while this end reads nothing.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Tells this end that no more will come; it may go on sending.
    fn shutdown_write(&self);

    /// Wakes whoever waits to read from this end, sends it nothing, and keeps
    /// nobody waiting any more who writes to it.
    fn interrupt_read(&self);

    /// Gives up what is on its way, so that this end learns that it did not get
    /// everything; wakes whoever waits to read from it, and sends nothing yet.
    fn reset(&self);

    /// Is there no connection any more? Also true after both directions have
    /// properly ended.
    fn is_gone(&self) -> bool;

    /// The socket, if what goes through it is just what was read and written
    /// here: then bytes may go past this program.
    fn socket(&self) -> Option<BorrowedFd<'_>>;
}

impl RelayStream for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut { self }, buffer)
    }

    fn wait_readable(&self, limit: Duration) -> io::Result<bool> {
        net::wait_readable(self, Deadline::after(limit))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut { self }, bytes)
    }

    fn is_gone(&self) -> bool {
        self.peer_addr().is_err()
    }

    // A connection that is already gone can fail each of the following with
    // "not connected", and then there is nothing left to end.

    fn shutdown_write(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn interrupt_read(&self) {
        net::shorten_send_timeout(self);
        let _ = self.shutdown(Shutdown::Read);
    }

    fn reset(&self) {
        net::reset_on_close(self);
        self.interrupt_read();
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// How far both directions have come; what their two pumps know of each other.
#[derive(Debug, Default)]
pub struct RelayState {
    /// From client to remote.
    pub up: DirectionState,
    /// From remote to client.
    pub down: DirectionState,
    /// Neither direction will come to its end: one of the pumps has met an error,
    /// or somebody else ends them.
    aborted: AtomicBool,
    /// Somebody else ends both directions, in which nothing moves.
    cut: AtomicBool,
}

impl RelayState {
    /// The pump from client to remote.
    pub fn upstream(&self) -> RelayDirection<'_> {
        RelayDirection {
            direction: &self.up,
            back: &self.down,
            state: self,
        }
    }

    /// The pump from remote to client.
    pub fn downstream(&self) -> RelayDirection<'_> {
        RelayDirection {
            direction: &self.down,
            back: &self.up,
            state: self,
        }
    }

    /// Ends both directions from outside, and wakes the pumps from reading. From
    /// a write that waits for its reader they look up by themselves, within half a
    /// second.
    ///
    /// Where nothing moves any more, a direction ends properly, unless its pump
    /// still holds bytes. Otherwise both ends are reset, since nobody may take a
    /// cut for an end.
    pub fn terminate<A: RelayStream, B: RelayStream>(
        &self,
        client: &A,
        remote: &B,
        is_at_rest: bool,
    ) {
        if is_at_rest {
            self.cut.store(true, Ordering::SeqCst);
            client.interrupt_read();
            remote.interrupt_read();
        } else {
            self.abort(client, remote);
        }
    }

    /// Both ends learn that they did not get everything, once all is over. The
    /// pumps wake up from reading, and write nothing any more.
    fn abort<A: RelayStream, B: RelayStream>(&self, one: &A, other: &B) {
        self.aborted.store(true, Ordering::SeqCst);
        one.reset();
        other.reset();
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    fn is_terminated(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Is nothing to be moved any more?
    fn is_over(&self) -> bool {
        self.is_aborted() || self.is_terminated()
    }
}

/// How far one direction has come. One pump writes it, anybody may read it.
#[derive(Debug, Default)]
pub struct DirectionState {
    bytes: AtomicU64,
    /// Does the pump hold bytes that are not written yet, or has it met an error
    /// and is about to deal with it?
    writing: AtomicBool,
    ended: AtomicBool,
}

impl DirectionState {
    /// Bytes handed on so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Has this direction come to its end?
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::SeqCst);
    }

    fn is_writing(&self) -> bool {
        self.writing.load(Ordering::SeqCst) && !self.has_ended()
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// How often a pump looks what the other one is doing, when it must wait for it.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How long a pump reads what nobody wants any more, so that last words on
/// their way in the other direction are not lost: two seconds, and one more for
/// each of these many bytes that went that way, at most a minute. That is more
/// than the buffers hold for an end that reads at 1 Mbit/s.
const MIN_LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_PER_SECOND: u64 = 64 << 10;
const MAX_LINGER: Duration = Duration::from_secs(60);

/// One of the two pumps; each is for one thread, and runs once.
#[derive(Clone, Copy, Debug)]
pub struct RelayDirection<'a> {
    direction: &'a DirectionState,
    /// The direction of the opposite direction.
    back: &'a DirectionState,
    state: &'a RelayState,
}

impl RelayDirection<'_> {
    /// Moves everything from one end to the other, and measures it. At the end
    /// of `from` tells `to`, and leaves the opposite direction open.
    ///
    /// # Errors
    ///
    /// That of the first read or write that failed. Then the opposite direction
    /// is about to end as well.
    pub fn run<A: RelayStream, B: RelayStream>(self, from: &A, to: &B) -> io::Result<()> {
        let result = copy::copy(from, to, self.direction, || self.state.is_over());
        match &result {
            // It is cut, and some bytes were read and not written.
            Ok(()) if self.state.is_terminated() && self.direction.is_writing() => {
                self.state.abort(from, to)
            }
            Ok(()) if self.eof_hides_reset(from) => {}
            Ok(()) => to.shutdown_write(),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // No reset has been told to this pump.
                self.direction.set_writing(false);
                self.linger(from, to);
            }
            Err(_) => self.state.abort(from, to),
        }
        self.direction.end();
        result
    }

    /// Was this end of stream brought about by an error that the other pump met,
    /// or by a cut that left bytes in its hands?
    ///
    /// The system tells of a reset only once. If the other pump was just writing
    /// to `from`, it was told, and this one reads an end. The other is about to
    /// give up then: no write to a connection that is gone takes long, and none
    /// in a session that was cut goes on for long.
    fn eof_hides_reset<A: RelayStream>(self, from: &A) -> bool {
        let is_odd = || from.is_gone() || self.state.is_terminated();
        while is_odd() && self.back.is_writing() && !self.state.is_aborted() {
            thread::sleep(POLL_INTERVAL);
        }
        self.state.is_aborted()
    }

    /// `to` has said all it had to say, and then closed for good while `from`
    /// was still sending. Its last words may still be on their way to `from`,
    /// and any reset would lose them: one of ours, or that which the system
    /// sends when a socket is closed with unread bytes. So what `from` still
    /// sends is read and dropped, slowly, for a while.
    fn linger<A: RelayStream, B: RelayStream>(self, from: &A, to: &B) {
        let more = Duration::from_secs(self.back.bytes() / LINGER_BYTES_PER_SECOND);
        let deadline = Deadline::after((MIN_LINGER + more).min(MAX_LINGER));
        let is_over = || deadline.is_over() || self.state.is_over();
        if !copy::drain(from, is_over) && !self.state.is_terminated() {
            self.state.abort(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn r18_a_connection_that_is_gone_can_be_ended_in_every_way() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("an address"));
        let (near, _) = listener.accept().expect("a connection");
        net::reset_on_close(&far.expect("a connection"));
        let error = RelayStream::read(&near, &mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(near.is_gone());
        near.shutdown_write();
        near.reset();
        assert_eq!(RelayStream::read(&near, &mut [0]).expect("an end"), 0);
    }
}
