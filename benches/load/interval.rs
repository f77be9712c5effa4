//! A window of time, cut out of the middle of something that goes on.

use std::thread;
use std::time::{Duration, Instant};

use crate::running_contender::RunningContender;

/// Until buffers have grown and threads are warm.
const WARM_UP: Duration = Duration::from_millis(100);

/// What happened in a window.
pub(crate) struct Interval {
    pub(crate) seconds: f64,
    pub(crate) count: f64,
    /// CPU seconds of the contender; none of the direct connection.
    pub(crate) cpu_seconds: Option<f64>,
}

impl Interval {
    /// Looks twice at how far the work has come that others do.
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
