//! Waiting for a fact: a test asks again until something is true, and never sleeps blindly.

use std::thread;
use std::time::{Duration, Instant};

/// A fact that takes longer than this on a loaded machine will not come at all.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until `fact` returns something, and fails the test if it does not within
/// [`TIMEOUT`].
pub(crate) fn until<T>(what: &str, fact: impl FnMut() -> Option<T>) -> T {
    until_within(TIMEOUT, what, fact)
}

/// The same with another limit.
pub(crate) fn until_within<T>(
    limit: Duration,
    what: &str,
    mut fact: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = fact() {
            return value;
        }
        assert!(began.elapsed() < limit, "timed out waiting for {what}");
        // Polling interval: short against every time limit of a test.
        thread::park_timeout(Duration::from_millis(2));
    }
}
