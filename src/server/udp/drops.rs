//! Datagrams that are dropped, counted by reason.

use std::sync::atomic::Ordering;

use crate::events::Drops;
use crate::sync::AtomicU64;

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The rules do not permit it.
    Denied,
    /// It comes from a host that is not the client, or to which the client has sent
    /// nothing.
    UnknownPeer,
    /// It has no valid header, or is a fragment.
    BadHeader,
    /// Its destination cannot be an address of another host.
    UnusableDestination,
    /// Its destination is a name that has no address, or too much waits for names already.
    Unresolved,
    /// The system cannot send it to this address.
    SendFailed,
    /// The send buffer of the socket is full.
    BufferFull,
}

/// How many datagrams of one association were dropped.
#[derive(Debug, Default)]
pub(crate) struct DropCounter {
    denied: AtomicU64,
    /// For any other reason.
    other: AtomicU64,
}

impl DropCounter {
    pub(crate) fn count(&self, reason: DropReason) {
        let counter = match reason {
            DropReason::Denied => &self.denied,
            _ => &self.other,
        };
        // Relaxed: mere counts, from which no thread concludes anything about other data.
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Drops {
        Drops {
            denied: self.denied.load(Ordering::Relaxed),
            other: self.other.load(Ordering::Relaxed),
        }
    }
}
