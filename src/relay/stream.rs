//! What a relay needs of each of its two ends.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::net::{self, Deadline};
use crate::trace::{self, Wait};

/// A direction on which no byte has come for this long gives back its large buffer or
/// its pipe, so that thousands of silent sessions hold neither.
pub(crate) const IDLE_RELEASE: Duration = Duration::from_millis(100);

/// One end of a relayed connection. Both directions use it at the same time, each from
/// a thread of its own: one reads, the other writes.
///
/// Before the relay begins, its owner has made sure that the close of this end sends RST
/// (SO_LINGER with zero), also if the process is killed. Only
/// [`shutdown_write`](Self::shutdown_write) takes that back.
pub trait RelayStream {
    /// Waits for bytes; 0 means EOF.
    ///
    /// # Errors
    ///
    /// As read(2).
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Waits for bytes, EOF or an error without taking them, for at most `limit`; true
    /// if a read would not block.
    ///
    /// # Errors
    ///
    /// As poll(2).
    fn wait_readable(&self, limit: Duration) -> io::Result<bool>;

    /// Waits until the system has taken some of these bytes, and returns how many.
    ///
    /// # Errors
    ///
    /// As write(2); `WouldBlock` at each send timeout while the peer reads nothing.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Sends EOF (a FIN): all bytes were written. From now on the close of this end sends
    /// no RST, which would destroy what its send buffer still holds. The peer may continue
    /// to send.
    fn shutdown_write(&self);

    /// Makes a blocked or later [`read`](Self::read) return 0, and every later
    /// [`write`](Self::write) return at once if it would wait. Sends nothing.
    fn interrupt(&self);

    /// Is there no connection any more? Also true after both directions have ended
    /// with FIN.
    fn is_disconnected(&self) -> bool;

    /// The socket, if its bytes are exactly those that are read and written here: then
    /// the kernel may move them without this program (splice).
    fn socket(&self) -> Option<BorrowedFd<'_>>;
}

impl RelayStream for TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let _wait = trace::wait(|| Wait::Read(trace::peer(self)));
        io::Read::read(&mut { self }, buffer)
    }

    fn wait_readable(&self, limit: Duration) -> io::Result<bool> {
        net::wait_readable(self, Deadline::after(limit))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let _wait = trace::wait(|| Wait::Write(trace::peer(self)));
        io::Write::write(&mut { self }, bytes)
    }

    // The calls below fail with "not connected" if the connection is already gone. Then
    // nothing is left to end.

    fn shutdown_write(&self) {
        let _ = net::send_fin(self);
    }

    fn interrupt(&self) {
        net::shorten_send_timeout(self);
        let _ = self.shutdown(Shutdown::Read);
    }

    fn is_disconnected(&self) -> bool {
        self.peer_addr().is_err()
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn r18_a_connection_that_is_gone_can_be_ended_in_every_way() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("an address"));
        let (accepted, _) = listener.accept().expect("a connection");
        net::reset_on_close(&peer.expect("a connection"));
        let error = RelayStream::read(&accepted, &mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(accepted.is_disconnected());
        accepted.shutdown_write();
        accepted.interrupt();
        assert_eq!(RelayStream::read(&accepted, &mut [0]).expect("EOF"), 0);
    }
}
