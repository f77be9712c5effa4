//! A rate limit for lines that clients could make the server write.

use std::time::{Duration, Instant};

/// At most one line of a topic per interval is written; the others are counted.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The rate limit of one topic.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Option<Instant>,
    held: u64,
}

impl Throttle {
    /// May no line be written, because one was written less than an interval ago?
    fn is_closed(&self, now: Instant) -> bool {
        let is_recent = |last: Instant| now.saturating_duration_since(last) < INTERVAL;
        self.last.is_some_and(is_recent)
    }

    /// May a line be written now? If so, how many were held back before it?
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.is_closed(now) {
            self.held += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }

    /// How many lines were held back, if a line that says so may be written now.
    pub(super) fn release(&mut self, now: Instant) -> u64 {
        if self.held == 0 || self.is_closed(now) {
            return 0;
        }
        self.last = Some(now);
        std::mem::take(&mut self.held)
    }

    /// Counts lines that are held back, or that could not be written.
    pub(super) fn hold(&mut self, count: u64) {
        self.held += count;
    }

    /// Are lines held back?
    pub(super) fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// Lets the next line pass at once.
    pub(super) fn open(&mut self) {
        self.last = None;
    }
}
