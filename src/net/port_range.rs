//! The ports on which the server waits for one session: for the peer of a BIND, or for a client's datagrams.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use crate::sync::AtomicU16;

/// The ports of `--bind-ports`.
#[derive(Debug)]
pub(crate) struct PortRange {
    /// `None`: any port that the system chooses.
    range: Option<RangeInclusive<u16>>,
    /// Where the next search begins. Each session takes another start, so that two
    /// sessions at once do not try the same ports in the same order.
    next: AtomicU16,
}

impl PortRange {
    pub(crate) fn new(range: Option<RangeInclusive<u16>>) -> PortRange {
        let next = AtomicU16::new(0);
        PortRange { range, next }
    }

    /// Opens a socket on one of the ports: `open` is called for each in turn until it
    /// succeeds, or once with 0, which lets the system choose.
    ///
    /// # Errors
    ///
    /// The error for the port that was tried last.
    pub(crate) fn open<T>(&self, open: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
        let Some(ports) = &self.range else {
            return open(0);
        };
        let count = ports.end().saturating_sub(*ports.start()).saturating_add(1);
        let mut failure = io::ErrorKind::AddrInUse.into();
        // Relaxed: any start is right, a unique one is only faster.
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        for step in (first..count).chain(0..first) {
            match open(ports.start().saturating_add(step)) {
                Ok(opened) => return Ok(opened),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}
