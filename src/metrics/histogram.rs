//! A histogram: durations, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds as text and in microseconds. The last bucket has no
/// bound.
const BOUNDS: [(&str, u64); 6] = [
    ("0.001", 1_000),
    ("0.01", 10_000),
    ("0.1", 100_000),
    ("1", 1_000_000),
    ("10", 10_000_000),
    ("+Inf", u64::MAX),
];

/// Durations, counted in buckets.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Relaxed, as the sum: mere counts, from which no thread concludes anything else.
    counts: [AtomicU64; BOUNDS.len()],
    /// The sum of all durations, in microseconds: enough for half a million years.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut buckets = BOUNDS.iter().zip(&self.counts);
        if let Some((_, count)) = buckets.find(|((_, bound), _)| micros <= *bound) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Each bound with the number of durations up to it. The last number is that of all.
    pub(super) fn cumulative(&self) -> [(&'static str, u64); BOUNDS.len()] {
        let mut total = 0;
        let mut counts = self.counts.iter();
        BOUNDS.map(|(bound, _)| {
            total += counts.next().map_or(0, |it| it.load(Ordering::Relaxed));
            (bound, total)
        })
    }

    /// The sum of all durations, in seconds.
    pub(super) fn sum(&self) -> f64 {
        Duration::from_micros(self.sum.load(Ordering::Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l20_a_duration_belongs_to_all_buckets_from_its_bound_on() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 20_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let counts = histogram.cumulative().map(|(_, count)| count);
        assert_eq!(counts, [2, 3, 3, 3, 3, 4]);
        assert_eq!(histogram.sum(), 20.002_001);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.cumulative()[5], ("+Inf", 5));
    }
}
