//! Whether and why a session ends.

use crate::events::CloseReason;
use crate::sync::wait_group::{AllDone, Token, wait_group};

/// Guarded by the session's lock. The thread that sets a reason also acts on it while it
/// holds the lock.
#[derive(Debug, Default)]
pub(super) struct CloseState {
    /// The first reason counts.
    reason: Option<CloseReason>,
    /// A cancellation token: dropped when the session is terminated, which wakes the thread
    /// that waits for that.
    not_terminated: Option<Token>,
}

impl CloseState {
    /// Sets why the session ends, unless another reason was set before.
    pub(super) fn set_reason(&mut self, reason: CloseReason) {
        self.reason.get_or_insert(reason);
    }

    /// Sets why the session is terminated, and wakes the thread that waits for that.
    pub(super) fn terminate(&mut self, reason: CloseReason) {
        self.set_reason(reason);
        self.not_terminated = None;
    }

    /// Is there a reason to end?
    pub(super) fn is_closing(&self) -> bool {
        self.reason.is_some()
    }

    /// A channel that is disconnected when the session is terminated; at once if that has
    /// happened already. For one thread at a time: a later call wakes the earlier caller.
    pub(super) fn terminated(&mut self) -> AllDone {
        let (token, terminated) = wait_group();
        self.not_terminated = (!self.is_closing()).then_some(token);
        terminated
    }

    /// The reason, at the end of the session.
    pub(super) fn take_reason(&mut self) -> Option<CloseReason> {
        self.reason.take()
    }
}
