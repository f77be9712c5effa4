//! The way to the web server: unbuffered, and patient only up to a point.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use nix::libc;
use nix::poll::{PollFd, PollFlags};
use nix::unistd;
use threadsocks::net::{self, Deadline};

/// Standard output, without the standard library's buffer, which would cut the
/// page at its lines.
///
/// A web server reads from it as fast as its client does, and a client that
/// stops reading must not keep this program for ever.
#[derive(Debug)]
pub(crate) struct StdoutWriter {
    deadline: Deadline,
    /// Bytes that were written.
    pub(crate) written: usize,
}

impl StdoutWriter {
    /// Waits for the reader up to the deadline.
    pub(crate) fn with_deadline(deadline: Deadline) -> StdoutWriter {
        StdoutWriter {
            deadline,
            written: 0,
        }
    }
}

impl Write for StdoutWriter {
    /// # Errors
    ///
    /// `TimedOut` at the deadline; others, as `BrokenPipe`, from write(2).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
        if !net::wait(&mut fds, self.deadline)? {
            return Err(ErrorKind::TimedOut.into());
        }
        // So much has room without waiting, once anything has.
        let bytes = bytes.get(..libc::PIPE_BUF).unwrap_or(bytes);
        let written = unistd::write(&stdout, bytes)?;
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
