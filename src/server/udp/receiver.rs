//! Receiving datagrams for as long as the client's connection lasts.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv};

use crate::net::{self, Deadline};
use crate::relay::IDLE_RELEASE;
use crate::sync::thread;
use crate::trace::{self, Wait};

/// Datagrams that are received in a row before the client's connection is polled: a
/// poll(2) costs as much as receiving one.
const DATAGRAMS_PER_POLL: u32 = 64;

/// Errors that are received without a datagram between them and without a pause. After them
/// each error costs [`ERROR_PAUSE`]: a filter of system calls can make recvfrom(2) or
/// recvmsg(2) fail always, and poll(2) would return at once.
const MAX_ERRORS_IN_A_ROW: u32 = 16;

const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The largest datagram in bytes: its length field has 16 bits.
const MAX_DATAGRAM: usize = 65_535;

/// What [`DatagramReceiver::next`] returns.
#[derive(Debug)]
pub(super) enum Received<'a> {
    /// The content of a datagram, and the address that it comes from.
    Datagram(&'a [u8], SocketAddr),
    /// ICMP errors for earlier datagrams are in the socket's error queue. The caller has to
    /// take them, and to call [`DatagramReceiver::note_error`] if it could take none.
    IcmpErrors,
}

/// Receives from one of the two sockets of an association.
#[derive(Debug)]
pub(super) struct DatagramReceiver<'a> {
    socket: &'a UdpSocket,
    /// Released when no datagram comes for a while: silent associations need no buffer.
    buffer: Vec<u8>,
    /// The connection over which the client has requested the association.
    client: &'a TcpStream,
    received: u32,
    /// Errors since the last datagram.
    errors: u32,
}

impl<'a> DatagramReceiver<'a> {
    /// Receives until the client's connection ends or is interrupted.
    pub(super) fn new(socket: &'a UdpSocket, client: &'a TcpStream) -> DatagramReceiver<'a> {
        DatagramReceiver {
            socket,
            buffer: Vec::new(),
            client,
            // So that it polls first, without a buffer.
            received: DATAGRAMS_PER_POLL,
            errors: 0,
        }
    }

    /// Waits for a datagram or an ICMP error. `None` if the client's connection has ended.
    pub(super) fn next(&mut self) -> Option<Received<'_>> {
        loop {
            if self.received < DATAGRAMS_PER_POLL {
                self.buffer.resize(MAX_DATAGRAM, 0);
                match self.socket.recv_from(&mut self.buffer) {
                    Ok((count, from)) => {
                        self.received += 1;
                        self.errors = 0;
                        let content = self.buffer.get(..count).unwrap_or_default();
                        return Some(Received::Datagram(content, from));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // A datagram that was sent before did not arrive (ICMP), and poll(2)
                    // reports POLLERR. Or the error is a lasting one.
                    Err(_) => self.note_error(),
                }
            }
            self.received = 0;
            if self.wait()? {
                return Some(Received::IcmpErrors);
            }
        }
    }

    /// Counts an error, and pauses if it is one of many: poll(2) may report it for ever.
    pub(super) fn note_error(&mut self) {
        self.errors = self.errors.saturating_add(1);
        if self.errors > MAX_ERRORS_IN_A_ROW {
            let _wait = trace::wait(|| Wait::Sleep);
            thread::sleep(ERROR_PAUSE);
        }
    }

    /// Waits for an event of the socket or the connection. True if the socket has ICMP errors;
    /// `None` if the connection has ended.
    fn wait(&mut self) -> Option<bool> {
        let wait = trace::wait(|| Wait::Datagram);
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
        ];
        let waited = net::wait(&mut fds, Deadline::after(IDLE_RELEASE)).and_then(|is_ready| {
            if is_ready {
                return Ok(true);
            }
            self.buffer = Vec::new();
            net::wait(&mut fds, Deadline::after(Duration::MAX))
        });
        drop(wait);
        let [socket, client] = fds;
        let has_errors = socket
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR));
        let is_open = match (waited, client.revents()) {
            (Ok(_), Some(PollFlags::POLLIN)) => self.drop_client_bytes(),
            (Ok(_), Some(events)) => events.is_empty(),
            (Err(_), _) | (_, None) => false,
        };
        is_open.then_some(has_errors)
    }

    /// Reads and drops bytes of the connection; false at its EOF. Both directions do it:
    /// the one that comes second finds nothing.
    fn drop_client_bytes(&mut self) -> bool {
        self.buffer.resize(MAX_DATAGRAM, 0);
        let dropped = &mut self.buffer;
        match recv(self.client.as_raw_fd(), dropped, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }
}
