//! The pumps of `src/relay`, on sockets that are asked until they answer.

use std::io;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::net;
use crate::pumping;
use crate::pumping::Leg;
pub(crate) use crate::pumping::{LARGE, LULL, MAX_PIPES};

/// The program's, whose pumps take sockets.
#[derive(Debug, Default)]
pub(crate) struct Meter(pumping::Meter);

impl Meter {
    pub(crate) fn pump_up(&self) -> Pump<'_> {
        Pump(self.0.pump_up())
    }

    pub(crate) fn pump_down(&self) -> Pump<'_> {
        Pump(self.0.pump_down())
    }
}

impl Deref for Meter {
    type Target = pumping::Meter;

    fn deref(&self) -> &pumping::Meter {
        &self.0
    }
}

pub(crate) struct Pump<'a>(pumping::Pump<'a>);

impl Pump<'_> {
    pub(crate) fn run(self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        self.0.run(&Asked(from), &Asked(to))
    }
}

/// A socket on which nobody sleeps.
struct Asked<'a>(&'a TcpStream);

impl Leg for Asked<'_> {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        net::read(self.0, buffer)
    }

    fn has_more_within(&self, _: Duration) -> io::Result<bool> {
        Ok(true)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        net::write_all(self.0, bytes).map(|()| bytes.len())
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn wake(&self) {
        self.0.wake();
    }

    fn abandon(&self) {
        self.0.abandon();
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
