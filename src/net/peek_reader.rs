//! A reader that takes exactly one message and leaves what follows in the socket.

use std::io::{self, BufRead, Read};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::deadline::Deadline;
use super::poll::{peek, wait_readable};
use crate::sync::AtomicBool;

/// Bytes that one peek sees: more than the longest message of a client has.
const PEEK_BUFFER: usize = 1024;

/// Reads a connection under one total deadline.
///
/// It is a [`BufRead`] whose buffer is the kernel's: [`fill_buf`](BufRead::fill_buf)
/// peeks, and [`consume`](BufRead::consume) takes only what a message needed. What the
/// client has sent early stays in the socket, where the relay finds it.
#[derive(Debug)]
pub struct PeekReader<'a> {
    stream: &'a TcpStream,
    deadline: Deadline,
    /// False while the thread is blocked in a wait for bytes.
    is_active: Option<&'a AtomicBool>,
    /// Copies of the bytes that were seen and not consumed.
    seen: [u8; PEEK_BUFFER],
    count: usize,
}

impl<'a> PeekReader<'a> {
    /// Starts reading this connection.
    pub fn new(stream: &'a TcpStream, deadline: Deadline) -> PeekReader<'a> {
        PeekReader {
            stream,
            deadline,
            is_active: None,
            seen: [0; PEEK_BUFFER],
            count: 0,
        }
    }

    /// From now on this flag is set, except while the reader waits for bytes.
    pub(crate) fn with_flag(mut self, is_active: &'a AtomicBool) -> PeekReader<'a> {
        self.is_active = Some(is_active);
        self.set_active(true);
        self
    }

    fn set_active(&self, is_active: bool) {
        if let Some(flag) = self.is_active {
            // Relaxed: the flag publishes no other data.
            flag.store(is_active, Ordering::Relaxed);
        }
    }
}

impl BufRead for PeekReader<'_> {
    /// Waits for bytes and shows them; an empty slice means EOF.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.count == 0 {
            // Peek first: where bytes are there already, that saves the poll(2).
            match peek(self.stream, &mut self.seen) {
                Ok(0) => break,
                Ok(count) => self.count = count,
                Err(Errno::EAGAIN) => {
                    self.set_active(false);
                    let is_readable = wait_readable(self.stream, self.deadline);
                    self.set_active(true);
                    if !is_readable? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.seen.get(..self.count).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.count);
        let taken = self.seen.get_mut(..count).unwrap_or_default();
        // These bytes were seen in the kernel's buffer, so the read returns all of them
        // at once. A reset in between shows at the next use of the socket.
        let _ = self.stream.read_exact(taken);
        self.seen.copy_within(count..self.count, 0);
        self.count -= count;
    }
}

impl Read for PeekReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
