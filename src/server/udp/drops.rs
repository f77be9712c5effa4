//! Datagrams that are not passed on, counted.

use std::sync::atomic::Ordering;

use crate::events::Drops;
use crate::sync::AtomicU64;

/// Why a datagram is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The rules do not permit it.
    Denied,
    /// It comes from somebody from whom none is expected.
    UnknownPeer,
    /// It has no good header, or is only a fragment.
    BadHeader,
    /// It goes to nobody's address, or to ourselves.
    UnusableDestination,
    /// It would have to wait for its name with too many others, or the name has
    /// no address.
    Unresolved,
    /// The system did not take it.
    SendFailed,
}

/// How many of them there were in one association.
#[derive(Debug, Default)]
pub(crate) struct DropCounter {
    denied: AtomicU64,
    /// For any other reason.
    other: AtomicU64,
}

impl DropCounter {
    pub(crate) fn count(&self, why: DropReason) {
        let counter = match why {
            DropReason::Denied => &self.denied,
            _ => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Drops {
        Drops {
            denied: self.denied.load(Ordering::Relaxed),
            other: self.other.load(Ordering::Relaxed),
        }
    }
}
