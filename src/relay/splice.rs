//! Bulk data of one direction: the kernel moves the bytes through a pipe, with splice(2).
//!
//! A copy takes every byte into this program and out of it again. splice(2) moves
//! references to pages instead: from a socket to a pipe, and from the pipe to the other
//! socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc;
use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{SockaddrStorage, getpeername};
use nix::unistd::pipe2;

use super::state::{Direction, RelayState, SpliceStop};
use super::stream::IDLE_RELEASE;
use crate::net::{self, Deadline};
use crate::sync::semaphore::{KeyedSemaphore, SlotGuard};
use crate::trace::{self, Wait};

/// Pipes in the whole process at a time, each with two descriptors. Further directions
/// with bulk data copy: with 32 of them the processors are busy anyway. The limit on
/// sessions leaves room for these descriptors.
const MAX_PIPES: usize = 32;

/// At most an eighth of all descriptors is for pipes, which have two each.
const DESCRIPTORS_PER_PIPE: u64 = 16;

/// Pipes in the whole process at a time, if it may have this many descriptors.
pub(crate) fn max_pipes(descriptors: u64) -> usize {
    let count = usize::try_from(descriptors / DESCRIPTORS_PER_PIPE);
    count.unwrap_or(usize::MAX).min(MAX_PIPES)
}

/// Bytes that a pipe may hold. The default of sixteen pages is less than a socket has
/// ready. All pipes together stay below what the system grants a user without privilege
/// (16,384 pages).
const PIPE_CAPACITY: usize = 1 << 20;

/// Bytes that one splice(2) moves out of the pipe, at first. The kernel sends a few pages
/// at a time, and each of these sends may wait for the send timeout. So one splice(2) to a
/// slow peer can take many send timeouts (two seconds with parts of this size), and delays
/// a termination. Parts grow only while the peer is fast.
const MIN_PART: usize = 32 << 10;

/// Larger parts save hardly any time.
const MAX_PART: usize = 256 << 10;

/// A peer that takes a part in less time is fast.
const FAST: Duration = Duration::from_millis(50);

/// The pipes that exist now; without keys.
static PIPES: LazyLock<KeyedSemaphore<()>> = LazyLock::new(|| {
    // The first pipe opens long after the start, which raises the soft limit.
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let max = max_pipes(descriptors);
    KeyedSemaphore::new(max, max)
});

/// A pipe for one call of [`Pipe::splice`]; an error or a stop can leave bytes in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// After the descriptors: the slot is free when they are closed.
    _slot: SlotGuard<()>,
}

impl Pipe {
    /// Opens a pipe; none if all slots are in use or the system has no descriptors.
    pub(super) fn open() -> Option<Pipe> {
        let slot = PIPES.try_acquire([]).ok()?;
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).ok()?;
        // If the system refuses, a smaller pipe works as well.
        let _ = fcntl(&write_end, FcntlArg::F_SETPIPE_SZ(PIPE_CAPACITY as i32));
        Some(Pipe {
            read_end,
            write_end,
            _slot: slot,
        })
    }

    /// Moves bytes from one socket to the other, until none come for
    /// [`IDLE_RELEASE`] or another reason stops it.
    ///
    /// # Errors
    ///
    /// The first splice(2) that failed, as for read(2) and write(2).
    pub(super) fn splice(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        state: &RelayState,
        direction: Direction,
    ) -> io::Result<SpliceStop> {
        let mut is_first = true;
        let mut part = MIN_PART;
        loop {
            if !net::wait_readable(&from, Deadline::after(IDLE_RELEASE))? {
                return Ok(SpliceStop::Idle);
            }
            let wait = trace::wait(|| Wait::SpliceFrom(trace::peer(&from)));
            let spliced = splice_once(from, self.write_end.as_fd(), PIPE_CAPACITY);
            drop(wait);
            let count = match spliced {
                // EOF, or the mark of an urgent byte: read(2) tells which.
                Ok(0) => return Ok(SpliceStop::Idle),
                Ok(count) => count,
                // These sockets have no splice, or (EPERM, EACCES) a policy forbids it.
                Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM | Errno::EACCES) if is_first => {
                    return Ok(SpliceStop::Unsupported);
                }
                Err(error) => return Err(error.into()),
            };
            is_first = false;
            if !state.begin_write(direction) {
                return Ok(SpliceStop::Aborted);
            }
            if !self.write_from_pipe(count, &mut part, to, state, direction)? {
                return Ok(SpliceStop::Aborted);
            }
            state.end_write(direction);
        }
    }

    /// Moves `count` bytes from the pipe to the socket, in parts whose size follows the
    /// speed of the peer. False if the relay was aborted before all were moved.
    ///
    /// If a reset comes during a splice(2), the call returns the count and not the error.
    /// The next call fails with EPIPE, which can also mean that the peer has closed both
    /// directions without a reset. So EPIPE counts as a reset if no EOF of the peer came
    /// before it.
    fn write_from_pipe(
        &self,
        count: usize,
        part: &mut usize,
        to: BorrowedFd<'_>,
        state: &RelayState,
        direction: Direction,
    ) -> io::Result<bool> {
        let mut had_sent_eof = false;
        let mut left = count;
        while left > 0 {
            // Tested before each part: a connection that is gone reports nothing any more.
            had_sent_eof = had_sent_eof || has_sent_eof(to)?;
            let began = Instant::now();
            let wait = trace::wait(|| Wait::SpliceTo(trace::peer(&to)));
            let spliced = splice_once(self.read_end.as_fd(), to, left.min(*part));
            drop(wait);
            let moved = match spliced {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(moved) => moved,
                // The send timeout.
                Err(Errno::EAGAIN) => 0,
                Err(Errno::EPIPE) if left < count && !had_sent_eof => {
                    return Err(Errno::ECONNRESET.into());
                }
                Err(error) => return Err(error.into()),
            };
            *part = match began.elapsed() < FAST {
                true => (*part * 2).min(MAX_PART),
                false => MIN_PART,
            };
            state.add(direction, moved);
            left = left.saturating_sub(moved);
            if left > 0 && state.is_aborted() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Has this end sent EOF, and does its connection still exist?
fn has_sent_eof(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // nix has this flag for epoll only.
    let peer_closed = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut fds = [PollFd::new(socket, peer_closed)];
    Ok(net::wait(&mut fds, Deadline::after(Duration::ZERO))?
        && getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok())
}

/// splice(2), repeated if a signal interrupts it.
fn splice_once(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> nix::Result<usize> {
    loop {
        match splice(from, None, to, None, count, SpliceFFlags::empty()) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
