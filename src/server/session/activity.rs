//! How long nothing has moved in a session.

use std::time::{Duration, Instant};

/// What changes when something moves; pairs are up and down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ActivitySample {
    pub(super) is_relaying: bool,
    pub(super) bytes: (u64, u64),
    pub(super) ended: (bool, bool),
}

/// What the last round of the sweep, or the last table of sessions, saw. Guarded by the
/// session's lock.
#[derive(Debug)]
pub(super) struct Activity {
    sample: ActivitySample,
    since: Instant,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Activity {
        Activity {
            sample: ActivitySample::default(),
            since: now,
        }
    }

    /// Compares with a new sample, and returns for how long nothing has changed.
    pub(super) fn update(&mut self, sample: ActivitySample, now: Instant) -> Duration {
        if self.sample != sample {
            self.sample = sample;
            self.since = now;
        }
        now.saturating_duration_since(self.since)
    }
}
