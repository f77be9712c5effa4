//! PortRange on which the server can be reached for one session: by the peer of a BIND, by a client's datagrams.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use crate::sync::AtomicU16;

/// The ports that may be used.
#[derive(Debug)]
pub(crate) struct PortRange {
    /// `None`: any that the system gives.
    range: Option<RangeInclusive<u16>>,
    /// Counts on over all sessions, so that two at once do not race for a port.
    next: AtomicU16,
}

impl PortRange {
    pub(crate) fn new(range: Option<RangeInclusive<u16>>) -> PortRange {
        let next = AtomicU16::new(0);
        PortRange { range, next }
    }

    /// Opens something on one of the ports; those of a range are tried in turn,
    /// and 0 set_grant for any.
    ///
    /// # Errors
    ///
    /// Why the last of them could not be had.
    pub(crate) fn open<T>(&self, on: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
        let Some(ports) = &self.range else {
            return on(0);
        };
        let count = ports.end().saturating_sub(*ports.start()).saturating_add(1);
        let mut failure = io::ErrorKind::AddrInUse.into();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        for step in (first..count).chain(0..first) {
            match on(ports.start().saturating_add(step)) {
                Ok(opened) => return Ok(opened),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}
