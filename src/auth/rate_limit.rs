//! A rate limit on failed logins, per source address.
//!
//! Each failure costs some seconds, which pass by waiting. An address whose cost is small
//! is admitted at once, so a user who mistypes a password notices nothing. The algorithm
//! is called GCRA: a token bucket that stores only one time stamp for each address, the time
//! at which all failures are paid for (in GCRA, the theoretical arrival time).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::sync::{OrderedMutex, Rank};

/// What one failure costs: 1,800 attempts an hour from one address. A password of eight
/// random letters withstands that for thousands of years.
const COST_PER_FAILURE: Duration = Duration::from_secs(2);

/// An address that owes no more than this is admitted at once: it may owe for five failures
/// and try a sixth time, as a person does, or a program with an old password.
const BURST: Duration = Duration::from_secs(10);

/// Addresses that are tracked at a time, in about a megabyte.
const MAX_TRACKED: usize = 10_000;

/// For each source prefix the time at which its failures are paid for.
#[derive(Debug)]
pub(crate) struct LoginRateLimiter {
    /// A leaf in the lock order.
    paid_at: OrderedMutex<HashMap<IpAddr, Instant>>,
}

impl Default for LoginRateLimiter {
    fn default() -> LoginRateLimiter {
        LoginRateLimiter {
            paid_at: OrderedMutex::new(Rank::Leaf, HashMap::new()),
        }
    }
}

impl LoginRateLimiter {
    /// Admits one login attempt, and returns whether its credentials are cached. Charges one
    /// failure in advance, unless they are: so parallel attempts cannot exceed the limit.
    /// [`refund`](Self::refund) takes the charge back.
    ///
    /// A login with cached credentials waits like any other. Otherwise every delayed answer
    /// would mean "wrong", and an attacker could give up early and try the next password. For
    /// the same reason `is_cached` is not called while the address has to wait. It is called
    /// without the lock.
    ///
    /// # Errors
    ///
    /// How long to wait before the next attempt; then nothing was charged.
    pub(crate) fn admit(
        &self,
        source_prefix: IpAddr,
        now: Instant,
        is_cached: impl FnOnce() -> bool,
    ) -> Result<bool, Duration> {
        check_owed(owed(&self.paid_at.lock(), source_prefix, now))?;
        let is_cached = is_cached();
        let mut paid_at = self.paid_at.lock();
        // Again: another attempt may have been charged meanwhile.
        let owed = owed(&paid_at, source_prefix, now);
        check_owed(owed)?;
        if !is_cached {
            evict(&mut paid_at, now);
            paid_at.insert(source_prefix, now + owed + COST_PER_FAILURE);
        }
        Ok(is_cached)
    }

    /// Takes the charge of one attempt back: the login did not fail.
    pub(crate) fn refund(&self, source_prefix: IpAddr, now: Instant) {
        let mut paid_at = self.paid_at.lock();
        if let Some(time) = paid_at.get_mut(&source_prefix) {
            let earlier = time.checked_sub(COST_PER_FAILURE).unwrap_or(now);
            *time = earlier;
            if earlier <= now {
                paid_at.remove(&source_prefix);
            }
        }
    }
}

/// How long it takes until all failures of this address are paid for.
fn owed(paid_at: &HashMap<IpAddr, Instant>, source_prefix: IpAddr, now: Instant) -> Duration {
    let time = paid_at.get(&source_prefix);
    time.map_or(Duration::ZERO, |time| time.saturating_duration_since(now))
}

/// Admits an address that owes this much, or says how long it has to wait.
fn check_owed(owed: Duration) -> Result<(), Duration> {
    match owed.saturating_sub(BURST) {
        Duration::ZERO => Ok(()),
        wait => Err(wait),
    }
}

/// Frees a place in a full table: removes all addresses that owe nothing, or else the one
/// that owes least.
fn evict(paid_at: &mut HashMap<IpAddr, Instant>, now: Instant) {
    if paid_at.len() < MAX_TRACKED {
        return;
    }
    paid_at.retain(|_, time| *time > now);
    if paid_at.len() >= MAX_TRACKED {
        let first = paid_at.iter().min_by_key(|(_, time)| **time);
        let first = first.map(|(source_prefix, _)| *source_prefix);
        first.and_then(|source_prefix| paid_at.remove(&source_prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    impl LoginRateLimiter {
        /// One attempt with wrong credentials.
        fn fail(&self, source_prefix: IpAddr, now: Instant) -> Result<(), Duration> {
            self.admit(source_prefix, now, || false).map(drop)
        }

        /// One attempt with cached credentials.
        fn reuse(&self, source_prefix: IpAddr, now: Instant) -> Result<(), Duration> {
            self.admit(source_prefix, now, || true).map(drop)
        }

        fn len(&self) -> usize {
            self.paid_at.lock().len()
        }
    }

    #[test]
    fn v07_after_some_failures_each_attempt_waits() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        // The sixth is admitted while five are owed for.
        for _ in 0..6 {
            assert_eq!(limiter.fail(source(1), start), Ok(()));
        }
        for wait in [2 * SECOND, SECOND] {
            let now = start + 2 * SECOND - wait;
            assert_eq!(limiter.fail(source(1), now), Err(wait));
            let unread = || panic!("the cache is read");
            assert_eq!(limiter.admit(source(1), now, unread), Err(wait));
            // A login with cached credentials waits as well.
            assert_eq!(limiter.reuse(source(1), now), Err(wait));
            assert_eq!(limiter.reuse(source(2), now), Ok(()));
        }
        // From then on one every two seconds, for as long as that goes on.
        for turn in 1..1000 {
            let now = start + turn * COST_PER_FAILURE;
            assert_eq!(limiter.reuse(source(1), now), Ok(()));
            assert_eq!(limiter.fail(source(1), now), Ok(()));
            assert_eq!(limiter.fail(source(1), now), Err(COST_PER_FAILURE));
        }
        // When all is paid, the address is like new.
        let now = start + 999 * COST_PER_FAILURE + BURST + COST_PER_FAILURE;
        for _ in 0..6 {
            assert_eq!(limiter.fail(source(1), now), Ok(()));
        }
        assert_eq!(limiter.fail(source(1), now), Err(COST_PER_FAILURE));
        assert_eq!(limiter.len(), 1);
    }

    #[test]
    fn v07_a_login_that_does_not_fail_costs_nothing() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(limiter.fail(source(1), start), Ok(()));
            limiter.refund(source(1), start);
        }
        assert_eq!(limiter.len(), 0);
        for _ in 0..100 {
            assert_eq!(limiter.reuse(source(1), start), Ok(()));
        }
        assert_eq!(limiter.len(), 0);
        // A right login between wrong ones takes back its own charge only.
        for _ in 0..5 {
            assert_eq!(limiter.fail(source(1), start), Ok(()));
        }
        assert_eq!(limiter.fail(source(1), start), Ok(()));
        limiter.refund(source(1), start);
        assert_eq!(limiter.fail(source(1), start), Ok(()));
        assert_eq!(limiter.fail(source(1), start), Err(COST_PER_FAILURE));
        limiter.refund(source(7), start);
    }

    #[test]
    fn v07_of_too_many_addresses_the_one_that_owes_least_is_evicted() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        for _ in 0..6 {
            assert_eq!(limiter.fail(source(0), start), Ok(()));
        }
        for number in 1..=10_100 {
            assert_eq!(limiter.fail(source(number), start), Ok(()));
        }
        assert_eq!(limiter.len(), MAX_TRACKED);
        assert!(limiter.fail(source(0), start).is_err());
        // Addresses that owe nothing are evicted first, all of them.
        let later = start + COST_PER_FAILURE;
        assert_eq!(limiter.fail(source(1), later), Ok(()));
        assert_eq!(limiter.len(), 2);
    }
}
