//! How long nothing has moved in a session.

use std::time::{Duration, Instant};

/// A session is at rest if no byte has moved since the last round of the sweep, and no
/// round of the last two seconds has seen a byte move: a peer may pause for a shorter time
/// between two parts of a message. Rounds are at most 30 s apart.
const REST_TIME: Duration = Duration::from_secs(2);

/// What changes when something moves; pairs are up and down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ActivitySample {
    pub(super) is_relaying: bool,
    pub(super) bytes: (u64, u64),
    pub(super) ended: (bool, bool),
}

/// What the last round of the sweep saw. Guarded by the session's lock.
#[derive(Debug)]
pub(super) struct Activity {
    sample: ActivitySample,
    since: Instant,
    /// The last round that saw a change in the bytes.
    moved: Option<Instant>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Activity {
        Activity {
            sample: ActivitySample::default(),
            since: now,
            moved: None,
        }
    }

    /// Compares with a new sample, and returns for how long nothing has changed.
    pub(super) fn update(&mut self, sample: ActivitySample, now: Instant) -> Duration {
        if self.sample != sample {
            if self.sample.bytes != sample.bytes {
                self.moved = Some(now);
            }
            self.sample = sample;
            self.since = now;
        }
        now.saturating_duration_since(self.since)
    }

    /// Have bytes moved since the last round?
    pub(super) fn moved_since_last_round(&self, sample: ActivitySample) -> bool {
        self.sample.bytes != sample.bytes
    }

    /// Has a round lately seen that bytes have moved?
    pub(super) fn moved_recently(&self) -> bool {
        self.moved.is_some_and(|moved| moved.elapsed() < REST_TIME)
    }
}
