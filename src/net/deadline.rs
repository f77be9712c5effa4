//! A point in time by which something must be done.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// A point in time. It may lie so far in the future that the clock cannot express it;
/// then it never comes.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline that never comes.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// This long from now.
    pub fn after(duration: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(duration))
    }

    /// Is it in the past?
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// The time left; zero if it is over.
    pub fn remaining(self) -> Duration {
        match self.0 {
            Some(instant) => instant.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// The earlier of this deadline and the one this long from now.
    pub(crate) fn min_after(self, duration: Duration) -> Deadline {
        Deadline::after(self.remaining().min(duration))
    }

    /// The time left as poll(2) takes it, rounded up: rounded down, the last wait would
    /// end before the deadline and the caller would spin. What poll(2) cannot express
    /// (more than 25 days) takes several waits.
    pub(super) fn poll_timeout(self) -> PollTimeout {
        if self.0.is_none() {
            return PollTimeout::NONE;
        }
        let millis = self.remaining().as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }
}
