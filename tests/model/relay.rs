//! The pumps of `src/relay`, on sockets that are asked until they answer.

use std::io;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::net;
use crate::pumping;
use crate::pumping::RelayStream;
pub(crate) use crate::pumping::{IDLE_RELEASE, LARGE_BUFFER, MAX_PIPES};

/// The program's, whose pumps take sockets.
#[derive(Debug, Default)]
pub(crate) struct RelayState(pumping::RelayState);

impl RelayState {
    pub(crate) fn upstream(&self) -> RelayDirection<'_> {
        RelayDirection(self.0.upstream())
    }

    pub(crate) fn downstream(&self) -> RelayDirection<'_> {
        RelayDirection(self.0.downstream())
    }
}

impl Deref for RelayState {
    type Target = pumping::RelayState;

    fn deref(&self) -> &pumping::RelayState {
        &self.0
    }
}

pub(crate) struct RelayDirection<'a>(pumping::RelayDirection<'a>);

impl RelayDirection<'_> {
    pub(crate) fn run(self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        self.0.run(&PolledSocket(from), &PolledSocket(to))
    }
}

/// A socket on which nobody sleeps.
struct PolledSocket<'a>(&'a TcpStream);

impl RelayStream for PolledSocket<'_> {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        net::read(self.0, buffer)
    }

    fn wait_readable(&self, _: Duration) -> io::Result<bool> {
        Ok(true)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        net::write_all(self.0, bytes).map(|()| bytes.len())
    }

    fn shutdown_write(&self) {
        self.0.shutdown_write();
    }

    fn interrupt_read(&self) {
        self.0.interrupt_read();
    }

    fn reset(&self) {
        self.0.reset();
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
