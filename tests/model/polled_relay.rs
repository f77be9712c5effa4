//! The relay of `src/relay` on sockets that are polled: no thread of a model may block in a system call.

use std::io;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::time::Duration;

use crate::net;
use crate::real_relay;
use crate::real_relay::RelayStream;
pub(crate) use crate::real_relay::{Direction, IDLE_RELEASE, LARGE_BUFFER, max_pipes};

/// The program's relay state, whose directions take plain sockets.
#[derive(Debug, Default)]
pub(crate) struct RelayState(real_relay::RelayState);

impl RelayState {
    pub(crate) fn direction(&self, direction: Direction) -> RelayDirection<'_> {
        RelayDirection(self.0.direction(direction))
    }
}

impl Deref for RelayState {
    type Target = real_relay::RelayState;

    fn deref(&self) -> &real_relay::RelayState {
        &self.0
    }
}

pub(crate) struct RelayDirection<'a>(real_relay::RelayDirection<'a>);

impl RelayDirection<'_> {
    pub(crate) fn run(self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        self.0.run(&PolledSocket(from), &PolledSocket(to))
    }
}

/// A socket on which no thread blocks.
struct PolledSocket<'a>(&'a TcpStream);

impl RelayStream for PolledSocket<'_> {
    #[track_caller]
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        net::read(self.0, buffer)
    }

    fn wait_readable(&self, _: Duration) -> io::Result<bool> {
        Ok(true)
    }

    #[track_caller]
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        net::write_all(self.0, bytes).map(|()| bytes.len())
    }

    #[track_caller]
    fn shutdown_write(&self) {
        self.0.shutdown_write();
    }

    #[track_caller]
    fn interrupt(&self) {
        net::note("interrupts the reads of", self.0, Location::caller());
        self.0.interrupt();
    }

    fn is_disconnected(&self) -> bool {
        self.0.is_disconnected()
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
