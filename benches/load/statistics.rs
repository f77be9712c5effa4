//! Statistics of samples: median, range, percentiles.

use std::time::Duration;

/// The middle sample, or the mean of the two in the middle. Panics without samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The difference between maximum and minimum, divided by the median.
pub(crate) fn relative_range(samples: &[f64]) -> f64 {
    let minimum = samples.iter().copied().reduce(f64::min);
    let maximum = samples.iter().copied().reduce(f64::max);
    match (minimum, maximum) {
        (Some(minimum), Some(maximum)) => (maximum - minimum) / median(samples),
        _ => 0.0,
    }
}

/// The 50th and the 99th percentile, in microseconds. Panics without samples.
pub(crate) fn p50_p99_micros(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let rank = (times.len() - 1) * percent / 100;
        times[rank].as_secs_f64() * 1e6
    })
}
