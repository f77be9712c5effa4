//! A rate limit for lines that clients could make the server write.

use std::time::{Duration, Instant};

/// At most one line of a topic per interval is written; the others are counted.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The rate limit of one topic.
#[derive(Debug)]
pub(super) struct Throttle {
    interval: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::every(INTERVAL)
    }
}

impl Throttle {
    /// A rate limit of one line in this time.
    pub(super) fn every(interval: Duration) -> Throttle {
        Throttle {
            interval,
            last: None,
            suppressed: 0,
        }
    }

    /// May no line be written, because one was written less than an interval ago?
    pub(super) fn is_limited(&self, now: Instant) -> bool {
        let is_recent = |last: Instant| now.saturating_duration_since(last) < self.interval;
        self.last.is_some_and(is_recent)
    }

    /// May a line be written now? If so, how many were suppressed before it?
    pub(super) fn try_pass(&mut self, now: Instant) -> Option<u64> {
        if self.is_limited(now) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }

    /// How many lines were suppressed, if a line that says so may be written now.
    pub(super) fn take_suppressed(&mut self, now: Instant) -> u64 {
        if self.suppressed == 0 || self.is_limited(now) {
            return 0;
        }
        self.last = Some(now);
        std::mem::take(&mut self.suppressed)
    }

    /// Counts lines that are suppressed, or that could not be written.
    pub(super) fn add_suppressed(&mut self, count: u64) {
        self.suppressed += count;
    }

    /// Is there a count that is not reported yet?
    pub(super) fn has_suppressed(&self) -> bool {
        self.suppressed > 0
    }

    /// Does it limit nothing: no line in the last interval, and none to be counted?
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.suppressed == 0 && !self.is_limited(now)
    }

    /// Lets the next line pass at once.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}
