//! The body of a POST request, from stdin, with a limit and a deadline.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::unistd;
use threadsocks::net::{self, Deadline};

/// Maximum length of a body in bytes: 28 values of the maximum length fit, unless most
/// of their characters are percent-encoded.
const MAX_LENGTH: usize = 64 * 1024;

/// Time for the whole body. A client that sends it slower must not keep this process.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the body. `content_length` is the variable `CONTENT_LENGTH`; without a number
/// in it the body is empty (RFC 3875, section 4.1.2).
///
/// # Errors
///
/// The body is too long, incomplete, or late.
pub(crate) fn read(content_length: &str) -> io::Result<Vec<u8>> {
    let length = content_length.parse().unwrap_or(0);
    if length > MAX_LENGTH {
        let reason = format!("more than {MAX_LENGTH} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, reason));
    }
    let deadline = Deadline::after(TIMEOUT);
    let stdin = io::stdin();
    let mut body = vec![0; length];
    let mut rest = body.as_mut_slice();
    while !rest.is_empty() {
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if !net::wait(&mut fds, deadline)? {
            return Err(ErrorKind::TimedOut.into());
        }
        let count = unistd::read(&stdin, rest)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        rest = rest.get_mut(count..).unwrap_or_default();
    }
    Ok(body)
}
