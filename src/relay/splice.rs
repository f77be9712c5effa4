//! One direction in bulk: the kernel moves the bytes, through a pipe.
//!
//! Copying takes every byte into this program and out of it again. splice(2)
//! hands over the pages instead: from a socket to a pipe, and from the pipe to
//! the other socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{SockaddrStorage, getpeername};
use nix::unistd::pipe2;

use super::DirectionState;
use super::copy::{IDLE_RELEASE, SpliceStop};
use crate::net::{self, Deadline};

/// Pipes at a time, each with two descriptors, in the whole process. More
/// directions than these in bulk at once are copied: by then the processor is
/// busy anyway. The limit of sessions leaves room for them.
pub(crate) const MAX_PIPES: usize = 32;

/// Bytes a pipe may hold. It makes a pipe of sixteen pages one that takes what a
/// socket has; all of ours together stay below what the system grants a user
/// (16,384 pages).
const PIPE_CAPACITY: usize = 1 << 20;

/// Bytes moved out of the pipe by one splice(2), at first. The system sends a few
/// pages at a time and waits for each of these sends as long as for a write: a
/// slow reader, as long as it reads on, keeps a splice from us for many times that.
/// So parts grow only while the reader is quick.
const MIN_PART: usize = 32 << 10;

/// Larger parts save hardly any time.
const MAX_PART: usize = 256 << 10;

/// A reader that takes a part in less time is quick.
const QUICK: Duration = Duration::from_millis(50);

/// Pipes that exist now.
static PIPES: AtomicUsize = AtomicUsize::new(0);

/// A pipe, empty between two calls of [`Pipe::pump`].
#[derive(Debug)]
pub(super) struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    _place: Place,
}

/// One of the [`MAX_PIPES`].
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let take_one = |count| (count < MAX_PIPES).then_some(count + 1);
        PIPES
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
            .ok()
            .map(|_| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    /// A pipe, if there is one to be had.
    pub(super) fn open() -> Option<Pipe> {
        let place = Place::take()?;
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).ok()?;
        // A smaller one works too.
        let _ = fcntl(&write_end, FcntlArg::F_SETPIPE_SZ(PIPE_CAPACITY as i32));
        Some(Pipe {
            read_end,
            write_end,
            _place: place,
        })
    }

    /// Moves what comes from one socket to the other, until there is a pause.
    ///
    /// # Errors
    ///
    /// That of the first splice(2) that failed, as those of read(2) and write(2).
    pub(super) fn pump(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        state: &DirectionState,
        is_over: &impl Fn() -> bool,
    ) -> io::Result<SpliceStop> {
        let mut is_first = true;
        let mut part = MIN_PART;
        loop {
            if !net::wait_readable(&from, Deadline::after(IDLE_RELEASE))? {
                return Ok(SpliceStop::Idle);
            }
            let count = match pass(from, self.write_end.as_fd(), PIPE_CAPACITY) {
                // The end, or the mark of an urgent byte: reading will tell.
                Ok(0) => return Ok(SpliceStop::Idle),
                Ok(count) => count,
                // These sockets cannot, or (EPERM, EACCES) a policy forbids it.
                Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM | Errno::EACCES) if is_first => {
                    return Ok(SpliceStop::Unsupported);
                }
                Err(error) => return Err(error.into()),
            };
            is_first = false;
            // As in `copy`.
            state.set_writing(true);
            if is_over() {
                return Ok(SpliceStop::Stopped);
            }
            if !self.empty(count, &mut part, to, state, is_over)? {
                return Ok(SpliceStop::Stopped);
            }
            state.set_writing(false);
        }
    }

    /// Moves these bytes from the pipe to the socket, in parts that suit the
    /// reader; false if this was over before it had taken all.
    ///
    /// When the connection is reset in the middle of it, splice(2) tells how far
    /// it came and forgets the reset; what follows is told of a broken pipe, as
    /// if the other end had closed for good after a proper end.
    fn empty(
        &self,
        count: usize,
        part: &mut usize,
        to: BorrowedFd<'_>,
        state: &DirectionState,
        is_over: &impl Fn() -> bool,
    ) -> io::Result<bool> {
        let mut had_ended = false;
        let mut left = count;
        while left > 0 {
            // Before each part: one that is gone does not say it any more.
            had_ended = had_ended || says_no_more(to)?;
            let began = Instant::now();
            let moved = match pass(self.read_end.as_fd(), to, left.min(*part)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(moved) => moved,
                Err(Errno::EAGAIN) => 0,
                Err(Errno::EPIPE) if left < count && !had_ended => {
                    return Err(Errno::ECONNRESET.into());
                }
                Err(error) => return Err(error.into()),
            };
            *part = match began.elapsed() < QUICK {
                true => (*part * 2).min(MAX_PART),
                false => MIN_PART,
            };
            state.add(moved);
            left = left.saturating_sub(moved);
            if left > 0 && is_over() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Has this end said that it sends no more, and is still there?
fn says_no_more(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // nix knows the flag for epoll only.
    let no_more = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut fds = [PollFd::new(socket, no_more)];
    Ok(net::wait(&mut fds, Deadline::after(Duration::ZERO))?
        && getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok())
}

/// splice(2), again after an interrupting signal.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> nix::Result<usize> {
    loop {
        match splice(from, None, to, None, count, SpliceFFlags::empty()) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
