//! Medians, percentiles and spreads.

use std::time::Duration;

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// From the least to the most, as a part of the median.
pub(crate) fn relative_range(samples: &[f64]) -> f64 {
    let least = samples.iter().copied().reduce(f64::min);
    let most = samples.iter().copied().reduce(f64::max);
    match (least, most) {
        (Some(least), Some(most)) => (most - least) / median(samples),
        _ => 0.0,
    }
}

/// What half of them, and all but one in a hundred, stay below; in
/// microseconds.
pub(crate) fn p50_p99_micros(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let rank = (times.len() - 1) * percent / 100;
        times[rank].as_secs_f64() * 1e6
    })
}
