//! Waits that end when the program's thread is gone, or when a signal comes for it.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::call::Call;

/// Interval at which a wait tests for pending signals: the kernel gives no notice of a signal
/// whose handler cannot run before the call is answered.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Why a wait has ended without its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A signal has come that the program handles.
    Signal,
    /// The program's thread has ended.
    Gone,
    /// The time is over.
    TimedOut,
}

/// Looks whether the wait of this call is to end.
///
/// # Errors
///
/// The reason.
pub(crate) fn look(call: &Call<'_>) -> Result<(), Stop> {
    // An answered call has no thread that waits.
    if call.is_answered() {
        return Ok(());
    }
    if !call.is_waiting() {
        return Err(Stop::Gone);
    }
    if call.has_signal() {
        return Err(Stop::Signal);
    }
    Ok(())
}

/// Waits for an event of this descriptor.
///
/// # Errors
///
/// Why it ended without one.
pub(crate) fn wait_for(
    call: &Call<'_>,
    descriptor: BorrowedFd<'_>,
    event: PollFlags,
    deadline: Option<Instant>,
) -> Result<(), Stop> {
    loop {
        let mut descriptors = [PollFd::new(descriptor, event)];
        let interval = PollTimeout::try_from(LOOK_INTERVAL).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, interval) {
            Ok(0) | Err(Errno::EINTR) => look(call)?,
            _ => return Ok(()),
        }
        if deadline.is_some_and(|it| it <= Instant::now()) {
            return Err(Stop::TimedOut);
        }
    }
}

/// The program's own socket, on which a request is negotiated. It works the same whether the
/// socket blocks or not, and does not change its options.
pub(crate) struct Negotiation<'a> {
    call: &'a Call<'a>,
    socket: BorrowedFd<'a>,
    deadline: Instant,
    /// Why a wait has ended early.
    pub(crate) stop: Cell<Option<Stop>>,
}

impl<'a> Negotiation<'a> {
    pub(crate) fn new(call: &'a Call<'a>, socket: &'a impl AsFd, deadline: Instant) -> Self {
        Negotiation {
            call,
            socket: socket.as_fd(),
            deadline,
            stop: Cell::new(None),
        }
    }

    fn wait(&self, event: PollFlags) -> io::Result<()> {
        let result = wait_for(self.call, self.socket, event, Some(self.deadline));
        result.map_err(|stop| {
            self.stop.set(Some(stop));
            io::Error::from(ErrorKind::TimedOut)
        })
    }
}

impl Read for Negotiation<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::POLLIN)?;
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl Write for Negotiation<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::POLLOUT)?;
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Err(Errno::EAGAIN) => {}
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
