//! Waits for datagrams as long as the client's connection lasts.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv};

use crate::net::{self, Deadline};

/// Datagrams that are taken in a row without a look at the client's connection:
/// looking costs as much as taking one.
const IN_A_ROW: u32 = 64;

/// One of the two sockets of an association.
#[derive(Debug)]
pub(super) struct Inbox<'a> {
    socket: &'a UdpSocket,
    /// The connection over which the client has asked for the association.
    client: &'a TcpStream,
    /// What of that wakes us, apart from its being gone.
    watched: PollFlags,
    taken: u32,
}

impl<'a> Inbox<'a> {
    /// Takes notice when the client ends its connection, and reads what it sends
    /// there, which nobody wants.
    pub(super) fn of(socket: &'a UdpSocket, client: &'a TcpStream) -> Inbox<'a> {
        Inbox {
            socket,
            client,
            watched: PollFlags::POLLIN,
            taken: 0,
        }
    }

    /// Takes notice only when the connection has been shut down: the other one
    /// does that.
    pub(super) fn besides(socket: &'a UdpSocket, client: &'a TcpStream) -> Inbox<'a> {
        Inbox {
            watched: PollFlags::empty(),
            ..Inbox::of(socket, client)
        }
    }

    /// Waits for a datagram: its length, and where it comes from. `None` if the
    /// client's connection is over.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            if self.taken < IN_A_ROW
                // An error tells that none has come, or that one of those that
                // were sent has not arrived, which is no news to us.
                && let Ok(received) = self.socket.recv_from(buffer)
            {
                self.taken += 1;
                return Some(received);
            }
            self.taken = 0;
            if !self.wait() {
                return None;
            }
        }
    }

    /// Waits for something to happen; false if that is the connection's end.
    fn wait(&self) -> bool {
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.client.as_fd(), self.watched),
        ];
        if net::wait(&mut fds, Deadline::after(Duration::MAX)).is_err() {
            return false;
        }
        let [_, client] = fds;
        match client.revents() {
            Some(PollFlags::POLLIN) => self.client_stays(),
            Some(state) => state.is_empty(),
            None => false,
        }
    }

    /// Reads from the connection; false if it has ended.
    fn client_stays(&self) -> bool {
        let mut dropped = [0; 1024];
        match recv(
            self.client.as_raw_fd(),
            &mut dropped,
            MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(0) => false,
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }
}
