//! Says when a thread may check the rules file for datagrams, one check at a time, and which threads wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, OrderedMutex, Rank};

/// How long rules are used for datagrams before the next check of the file begins. A check for
/// each datagram would cost a quarter of the throughput (docs/performance.md).
pub(super) const RULES_TTL: Duration = Duration::from_millis(1);

/// After so long without a check, datagrams wait for the next one. A flow that has a datagram
/// each second never waits, even if each check takes long.
const PAUSE: Duration = Duration::from_secs(1);

/// How long datagrams wait for a check, from its beginning: twice the time in which a changed
/// file must stay the same. A file system that hangs delays no datagram longer.
const MAX_WAIT: Duration = Duration::from_millis(20);

/// The checks of one server, for all its associations together.
#[derive(Debug)]
pub(super) struct BackgroundCheck {
    /// A leaf in the lock order, never held during a check.
    last: OrderedMutex<LastCheck>,
    /// Notified when a check ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct LastCheck {
    began: Option<Instant>,
    ended: Option<Instant>,
    is_running: bool,
    /// Until when datagrams wait for its end; `None` if it has not begun after a pause.
    wait_until: Option<Instant>,
}

/// The only check that is running. Its drop, also after a panic, permits the next one.
#[derive(Debug)]
pub(super) struct RunningCheck(Arc<BackgroundCheck>);

impl Default for BackgroundCheck {
    fn default() -> BackgroundCheck {
        BackgroundCheck {
            last: OrderedMutex::new(Rank::Leaf, LastCheck::default()),
            ended: Condvar::new(),
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
        let now = Instant::now();
        let is_after_pause = last.ended.is_none_or(|ended| now - ended > PAUSE);
        last.began = Some(now);
        last.is_running = true;
        last.wait_until = is_after_pause.then(|| now + MAX_WAIT);
        Some(RunningCheck(Arc::clone(self)))
    }

    /// Waits for the end of the check that is running, if it has begun after a pause: until
    /// [`MAX_WAIT`] after its beginning, so each thread waits at most once for it.
    pub(super) fn wait_after_pause(&self) {
        let last = self.last.lock();
        let Some(until) = last.wait_until.filter(|_| last.is_running) else {
            return;
        };
        let left = until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            drop(last.wait_timeout_while(&self.ended, left, |last| last.is_running));
        }
    }
}

impl Drop for RunningCheck {
    fn drop(&mut self) {
        let mut last = self.0.last.lock();
        last.is_running = false;
        last.ended = Some(Instant::now());
        drop(last);
        self.0.ended.notify_all();
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
    fn u32_datagrams_wait_once_for_a_check_that_hangs_after_a_pause() {
        let checks = Arc::new(BackgroundCheck::default());
        let began = Instant::now();
        let running = checks.begin().expect("the first");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| checks.wait_after_pause());
            }
        });
        assert!(began.elapsed() >= MAX_WAIT);
        // Nothing waits for this check any more: with a wait each, these calls take 20 s.
        let began = Instant::now();
        for _ in 0..1000 {
            checks.wait_after_pause();
        }
        assert!(began.elapsed() < 500 * MAX_WAIT);
        drop(running);
    }

    #[test]
    fn u32_a_wait_ends_with_the_check() {
        let checks = Arc::new(BackgroundCheck::default());
        let running = checks.begin().expect("the first");
        // So long that only the end of the check ends the wait.
        checks.last.lock().wait_until = Some(Instant::now() + Duration::from_secs(600));
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| checks.wait_after_pause());
            drop(running);
            wait.join().expect("no panic");
        });
        checks.wait_after_pause();
    }

    #[test]
    fn u32_no_datagram_waits_without_a_pause() {
        let checks = Arc::new(BackgroundCheck::default());
        assert!(checks.last.lock().wait_until.is_none());
        drop(checks.begin());
        let long_ago = Instant::now()
            .checked_sub(PAUSE)
            .expect("an uptime of a second");
        for (ended, waits) in [(Instant::now(), false), (long_ago, true)] {
            let mut last = checks.last.lock();
            (last.began, last.ended) = (Some(long_ago), Some(ended));
            drop(last);
            let running = checks.begin().expect("the next");
            assert_eq!(checks.last.lock().wait_until.is_some(), waits);
            drop(running);
        }
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
