//! Waiting for a fact: a test polls until a condition holds, instead of sleeping for a guess.

use std::thread;
use std::time::{Duration, Instant};

/// Time limit of all waits and socket operations. On a loaded machine a test may need
/// seconds; after this time a fact is taken for missing.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Polls `fact` until it returns `Some`, and returns the value. Fails after [`TIMEOUT`]
/// with `what` in the message.
pub(crate) fn until<T>(what: &str, fact: impl FnMut() -> Option<T>) -> T {
    until_within(TIMEOUT, what, fact)
}

/// As [`until`], with another time limit.
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
