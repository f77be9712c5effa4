//! A measurement interval: the work done and the CPU time used between two samples.

use std::thread;
use std::time::{Duration, Instant};

use crate::running_contender::RunningContender;

/// Pause before the first sample, in which socket buffers grow and threads start.
const WARM_UP: Duration = Duration::from_millis(100);

/// The differences between two samples.
pub(crate) struct Interval {
    pub(crate) seconds: f64,
    pub(crate) count: f64,
    /// CPU seconds of the contender; `None` for the direct connection.
    pub(crate) cpu_seconds: Option<f64>,
}

impl Interval {
    /// Samples `count` and the CPU time at the beginning and at the end of `window`, while
    /// other threads do the work.
    pub(crate) fn measure(
        contender: &RunningContender,
        window: Duration,
        count: impl Fn() -> u64,
    ) -> Interval {
        thread::sleep(WARM_UP);
        let (began, count_before, cpu_before) = (Instant::now(), count(), contender.cpu_time());
        thread::sleep(window);
        let (elapsed, count_after, cpu_after) = (began.elapsed(), count(), contender.cpu_time());
        let cpu = cpu_before.zip(cpu_after);
        Interval {
            seconds: elapsed.as_secs_f64(),
            count: (count_after - count_before) as f64,
            cpu_seconds: cpu.map(|(before, after)| after.saturating_sub(before).as_secs_f64()),
        }
    }
}
