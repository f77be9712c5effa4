//! Replies: sending a short message, and closing so that it arrives.

use std::io::{self, BufRead};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{self, MsgFlags};

use super::deadline::Deadline;
use super::options::send_fin;
use super::peek_reader::PeekReader;
use super::poll::wait;

/// How long a lingering close usually waits for the peer.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(2);

/// How many bytes it drops at most while it waits.
const LINGER_BYTES: usize = 64 << 10;

/// Sends a short message without waiting. The few bytes of a reply always fit the send
/// buffer of a connection on which nothing else was sent.
///
/// # Errors
///
/// As send(2); `WriteZero` if only a part fitted.
pub(crate) fn send_nonblocking(stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    // No signal if the connection is gone: Rust programs ignore SIGPIPE.
    match socket::send(stream.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT)? {
        sent if sent == message.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Sends all of a long message, for as long as the peer reads it before the deadline.
///
/// # Errors
///
/// As send(2) and poll(2); `TimedOut` at the deadline.
pub(crate) fn send_all(
    stream: &TcpStream,
    mut message: &[u8],
    deadline: Deadline,
) -> io::Result<()> {
    while !message.is_empty() {
        match socket::send(stream.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT) {
            Ok(sent) => message = message.get(sent..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut room = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
                if !wait(&mut room, deadline)? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        // A peer that reads a byte now and then keeps the socket ready.
        if deadline.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Sends FIN, then reads and drops what still comes until the peer closes as well, or until
/// the deadline.
///
/// A socket that is closed with unread bytes sends RST, which can overtake the reply
/// that was sent before it (RFC 1122, section 4.2.2.13).
pub(crate) fn lingering_close(stream: &TcpStream, deadline: Deadline) {
    if send_fin(stream).is_err() {
        return;
    }
    let mut rest = PeekReader::new(stream, deadline);
    let mut dropped = 0;
    while dropped < LINGER_BYTES {
        match rest.fill_buf() {
            Ok([]) | Err(_) => return,
            Ok(bytes) => {
                let count = bytes.len();
                dropped += count;
                rest.consume(count);
            }
        }
    }
}
