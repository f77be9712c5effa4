//! Datagrams that are dropped, counted by reason.

use std::sync::atomic::Ordering;

use crate::events::{DropReason, Drops};
use crate::sync::AtomicU64;

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
