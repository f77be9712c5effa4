//! Receiving datagrams for as long as the client's connection lasts.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv};

use crate::net::{self, Deadline};
use crate::relay::IDLE_RELEASE;

/// Datagrams that are received in a row before the client's connection is polled: a
/// poll(2) costs as much as receiving one.
const DATAGRAMS_PER_POLL: u32 = 64;

/// The largest datagram in bytes: its length field has 16 bits.
const MAX_DATAGRAM: usize = 65_535;

/// Receives from one of the two sockets of an association.
#[derive(Debug)]
pub(super) struct DatagramReceiver<'a> {
    socket: &'a UdpSocket,
    /// Released when no datagram comes for a while: silent associations need no buffer.
    buffer: Vec<u8>,
    /// The connection over which the client has requested the association.
    client: &'a TcpStream,
    received: u32,
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
        }
    }

    /// Waits for a datagram: its content, and the address that it comes from. `None` if
    /// the client's connection has ended.
    pub(super) fn next(&mut self) -> Option<(&[u8], SocketAddr)> {
        loop {
            if self.received < DATAGRAMS_PER_POLL {
                self.buffer.resize(MAX_DATAGRAM, 0);
                // An error means that no datagram is there, or that one which was sent
                // before did not arrive (ICMP), which changes nothing here.
                if let Ok((count, from)) = self.socket.recv_from(&mut self.buffer) {
                    self.received += 1;
                    return Some((self.buffer.get(..count).unwrap_or_default(), from));
                }
            }
            self.received = 0;
            if !self.wait() {
                return None;
            }
        }
    }

    /// Waits for a datagram or an event of the connection; false if the connection has
    /// ended.
    fn wait(&mut self) -> bool {
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
        let [_, client] = fds;
        match (waited, client.revents()) {
            (Ok(_), Some(PollFlags::POLLIN)) => self.drop_client_bytes(),
            (Ok(_), Some(events)) => events.is_empty(),
            (Err(_), _) | (_, None) => false,
        }
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
