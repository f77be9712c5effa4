//! Says when a thread may check the rules file for datagrams: one check at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{OrderedMutex, Rank};

/// How long rules are used for datagrams before the next check of the file begins. A check for
/// each datagram would cost a quarter of the throughput (docs/performance.md).
pub(super) const RULES_TTL: Duration = Duration::from_millis(1);

/// The checks of one server, for all its associations together.
#[derive(Debug)]
pub(super) struct BackgroundCheck {
    /// A leaf in the lock order, never held during a check.
    last: OrderedMutex<LastCheck>,
}

#[derive(Debug, Default)]
struct LastCheck {
    began: Option<Instant>,
    is_running: bool,
}

/// The only check that is running. Its drop, also after a panic, permits the next one.
#[derive(Debug)]
pub(super) struct RunningCheck(Arc<BackgroundCheck>);

impl Default for BackgroundCheck {
    fn default() -> BackgroundCheck {
        BackgroundCheck {
            last: OrderedMutex::new(Rank::Leaf, LastCheck::default()),
        }
    }
}

impl BackgroundCheck {
    /// Begins a check. `None` if one is running, or the last one has begun less than
    /// [`RULES_TTL`] ago. A check may take long: it waits for a changed file to settle, and
    /// for a file system that hangs.
    pub(super) fn begin(self: &Arc<BackgroundCheck>) -> Option<RunningCheck> {
        let mut last = self.last.lock();
        let is_recent = last.began.is_some_and(|began| began.elapsed() < RULES_TTL);
        if last.is_running || is_recent {
            return None;
        }
        *last = LastCheck {
            began: Some(Instant::now()),
            is_running: true,
        };
        Some(RunningCheck(Arc::clone(self)))
    }
}

impl Drop for RunningCheck {
    fn drop(&mut self) {
        self.0.last.lock().is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u29_one_check_runs_at_a_time() {
        let checks = Arc::new(BackgroundCheck::default());
        let running = checks.begin().expect("the first");
        let began = Instant::now();
        while began.elapsed() < 2 * RULES_TTL {
            assert!(checks.begin().is_none());
        }
        drop(running);
        assert!(checks.begin().is_some());
    }

    #[test]
    fn u29_a_check_begins_after_a_millisecond_and_not_before() {
        let checks = Arc::new(BackgroundCheck::default());
        let (began, mut count) = (Instant::now(), 0);
        while count < 4 {
            count += u32::from(checks.begin().is_some());
        }
        assert!(began.elapsed() >= 3 * RULES_TTL);
    }

    #[test]
    fn u29_a_check_that_panics_permits_the_next_one() {
        let checks = Arc::new(BackgroundCheck::default());
        let running = checks.begin().expect("the first");
        let check = || -> () {
            let _running = running;
            panic!("in a check");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err());
        let began = Instant::now();
        while began.elapsed() < RULES_TTL {}
        assert!(checks.begin().is_some());
    }
}
