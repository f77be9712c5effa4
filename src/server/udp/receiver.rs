//! Waits for datagrams as long as the client's connection lasts.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv};

use crate::net::{self, Deadline};
use crate::relay::IDLE_RELEASE;

/// Datagrams that are taken in a row without a look at the client's connection:
/// looking costs as much as taking one.
const DATAGRAMS_PER_POLL: u32 = 64;

/// No datagram is larger, in bytes: its length field has 16 bits.
const MAX_DATAGRAM: usize = 65_535;

/// One of the two sockets of an association.
#[derive(Debug)]
pub(crate) struct DatagramReceiver<'a> {
    socket: &'a UdpSocket,
    /// Given back after a lull: thousands of silent associations need none.
    buffer: Vec<u8>,
    /// The connection over which the client has request for the association.
    client: &'a TcpStream,
    /// What of that wakes us, apart from its being gone.
    watched: PollFlags,
    taken: u32,
}

impl<'a> DatagramReceiver<'a> {
    /// Takes notice when the client ends its connection, and reads what it sends
    /// there, which nobody wants.
    pub(crate) fn of(socket: &'a UdpSocket, client: &'a TcpStream) -> DatagramReceiver<'a> {
        DatagramReceiver {
            socket,
            buffer: Vec::new(),
            client,
            watched: PollFlags::POLLIN,
            // First it waits, without a buffer.
            taken: DATAGRAMS_PER_POLL,
        }
    }

    /// Takes notice only when the connection has been shut down: the other one
    /// does that.
    pub(crate) fn besides(socket: &'a UdpSocket, client: &'a TcpStream) -> DatagramReceiver<'a> {
        DatagramReceiver {
            watched: PollFlags::empty(),
            ..DatagramReceiver::of(socket, client)
        }
    }

    /// Waits for a datagram: what is in it, and where it comes from. `None` if the
    /// client's connection is over.
    pub(crate) fn next(&mut self) -> Option<(&[u8], SocketAddr)> {
        loop {
            if self.taken < DATAGRAMS_PER_POLL {
                self.buffer.resize(MAX_DATAGRAM, 0);
                // An error tells that none has come, or that one of those that were
                // sent has not arrived, which is no news to us.
                if let Ok((count, from)) = self.socket.recv_from(&mut self.buffer) {
                    self.taken += 1;
                    return Some((self.buffer.get(..count).unwrap_or_default(), from));
                }
            }
            self.taken = 0;
            if !self.wait() {
                return None;
            }
        }
    }

    /// Waits for something to happen; false if that is the connection's end.
    fn wait(&mut self) -> bool {
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.client.as_fd(), self.watched),
        ];
        let happened = net::wait(&mut fds, Deadline::after(IDLE_RELEASE)).and_then(|soon| {
            if soon {
                return Ok(true);
            }
            self.buffer = Vec::new();
            net::wait(&mut fds, Deadline::after(Duration::MAX))
        });
        let [_, client] = fds;
        match (happened, client.revents()) {
            (Ok(_), Some(PollFlags::POLLIN)) => self.client_stays(),
            (Ok(_), Some(state)) => state.is_empty(),
            (Err(_), _) | (_, None) => false,
        }
    }

    /// Reads from the connection, whatever it is; false if it has ended.
    fn client_stays(&mut self) -> bool {
        self.buffer.resize(MAX_DATAGRAM, 0);
        let dropped = &mut self.buffer;
        match recv(self.client.as_raw_fd(), dropped, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }
}
