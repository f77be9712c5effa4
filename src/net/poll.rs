//! Waiting for sockets with poll(2), under a deadline.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{self, MsgFlags};

use super::deadline::Deadline;
use crate::trace::{self, Wait};

/// poll(2), repeated if a signal interrupts it, until a descriptor is ready (true) or
/// the deadline has come (false).
///
/// # Errors
///
/// As poll(2): only a lack of memory.
pub fn wait(fds: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    let _wait = trace::wait(|| Wait::Events);
    loop {
        match poll(fds, deadline.poll_timeout()) {
            Ok(0) if deadline.is_over() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until there is something to read (bytes, EOF or an error), then true, or until
/// the deadline has come.
///
/// # Errors
///
/// As [`wait`].
pub(crate) fn wait_readable(socket: &impl AsFd, deadline: Deadline) -> io::Result<bool> {
    let _wait = trace::wait(|| Wait::Readable(trace::peer(socket)));
    wait(
        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
        deadline,
    )
}

/// Copies what has arrived into the buffer, without taking it and without waiting:
/// `EAGAIN` if nothing has arrived, 0 at EOF.
pub(super) fn peek(stream: &TcpStream, buffer: &mut [u8]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    loop {
        match socket::recv(stream.as_raw_fd(), buffer, flags) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Are there bytes that were received and not read?
pub(crate) fn has_unread_bytes(stream: &TcpStream) -> bool {
    peek(stream, &mut [0]).is_ok_and(|count| count > 0)
}

/// Has the client given up, according to what poll(2) reports of it?
///
/// Bytes that the client sends early are for the relay. They are seen once, and then
/// `watched` is emptied: otherwise they would wake the caller again and again.
pub(super) fn has_given_up(
    client: &TcpStream,
    reported: PollFlags,
    watched: &mut PollFlags,
) -> bool {
    if reported.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL) {
        return true;
    }
    if !reported.contains(PollFlags::POLLIN) {
        return false;
    }
    match peek(client, &mut [0]) {
        Ok(0) => true,
        Ok(_) => {
            *watched = PollFlags::empty();
            false
        }
        Err(Errno::EAGAIN) => false,
        Err(_) => true,
    }
}

/// Is the connection gone, by an RST or in both directions? One that has only sent EOF may
/// still wait for a reply.
pub(crate) fn is_gone(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    wait(&mut fds, Deadline::after(Duration::ZERO)).unwrap_or(true)
}

/// Waits until the deadline; true if the client has stayed until then. A client has
/// left if its connection is gone, if it has sent EOF and nothing before it is unread,
/// or if its session was terminated.
pub(crate) fn client_stays_until(client: &TcpStream, deadline: Deadline) -> bool {
    let mut watched = PollFlags::POLLIN;
    loop {
        let mut fds = [PollFd::new(client.as_fd(), watched)];
        match wait(&mut fds, deadline) {
            Ok(false) => return true,
            Ok(true) => {}
            Err(_) => return false,
        }
        let [reported] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::all()));
        if has_given_up(client, reported, &mut watched) {
            return false;
        }
    }
}
