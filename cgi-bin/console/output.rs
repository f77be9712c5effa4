//! Stdout, the pipe to the web server, without a buffer and with a deadline; and its error log.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use nix::libc;
use nix::poll::{PollFd, PollFlags};
use nix::unistd;
use threadsocks::net::{self, Deadline};

/// Writes to file descriptor 1 directly. The `LineWriter` of `io::stdout` would
/// split the page into one write(2) per line.
///
/// A web server reads from the pipe only as fast as its client reads. Without the
/// deadline, a client that stops reading would block this process for ever.
#[derive(Debug)]
pub(crate) struct StdoutWriter {
    deadline: Deadline,
    /// Number of bytes written so far.
    pub(crate) written: usize,
}

impl StdoutWriter {
    /// Each write waits for free space in the pipe until the deadline.
    pub(crate) fn with_deadline(deadline: Deadline) -> StdoutWriter {
        StdoutWriter {
            deadline,
            written: 0,
        }
    }
}

impl Write for StdoutWriter {
    /// Writes at most PIPE_BUF bytes. Blocks in poll(2) until the pipe has free space
    /// or the deadline has passed.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline. Other errors are those of poll(2) and write(2), for
    /// example `BrokenPipe` after the web server has closed its end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
        if !net::wait(&mut fds, self.deadline)? {
            return Err(ErrorKind::TimedOut.into());
        }
        // On Linux, poll(2) reports a pipe as writable when PIPE_BUF bytes fit. A larger write
        // could block after the deadline.
        let bytes = bytes.get(..libc::PIPE_BUF).unwrap_or(bytes);
        let written = unistd::write(&stdout, bytes)?;
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line to stderr, which is the web server's error log.
pub(crate) fn log_error(message: &str) {
    let _ = writeln!(io::stderr(), "console.cgi: {message}");
}
