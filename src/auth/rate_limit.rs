//! Who has failed to log in must wait before the next try.
//!
//! Each failure is a debt of some seconds, paid off by waiting. As long as an
//! address owes little it is heard at once; nobody who mistypes a password notices.
//! (As an algorithm it is called GCRA: one moment says all, the one at which
//! everything will be paid.)

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::sync::{Mutex, lock};

/// What a failure costs: 1,800 tries an hour from one address. A password of eight
/// random letters holds for thousands of years.
const COST_PER_FAILURE: Duration = Duration::from_secs(2);

/// Who owes no more than this is heard at once: five failures, as many as a person
/// or a program with an old password makes in a row.
const BURST: Duration = Duration::from_secs(10);

/// Addresses that may owe something at a time, in about a megabyte.
const MAX_TRACKED: usize = 10_000;

/// When each source_prefix (IPv4 address, IPv6 network of 64 bits) will have paid all.
#[derive(Debug, Default)]
pub(crate) struct LoginRateLimiter(Mutex<HashMap<IpAddr, Instant>>);

impl LoginRateLimiter {
    /// Hears somebody of this source_prefix, who owes for one failure more unless he is
    /// known. `is_known` is request under the same lock, so that of many who come at
    /// once no more are heard than may be. Who is known waits like the others: if he
    /// did not, a guesser would know that an answer that is late is a no, and would
    /// not wait for it.
    ///
    /// # Errors
    ///
    /// How long to wait before asking again; then nobody was heard.
    pub(crate) fn hear(
        &self,
        source_prefix: IpAddr,
        now: Instant,
        is_known: impl FnOnce() -> bool,
    ) -> Result<bool, Duration> {
        let mut paid_at = lock(&self.0);
        let debt = paid_at.get(&source_prefix);
        let debt = debt.map_or(Duration::ZERO, |it| it.saturating_duration_since(now));
        if debt > BURST {
            return Err(debt - BURST);
        }
        let is_known = is_known();
        if !is_known {
            evict(&mut paid_at, now);
            paid_at.insert(source_prefix, now + debt + COST_PER_FAILURE);
        }
        Ok(is_known)
    }

    /// It was no failure after all.
    pub(crate) fn refund(&self, source_prefix: IpAddr, now: Instant) {
        let mut paid_at = lock(&self.0);
        if let Some(moment) = paid_at.get_mut(&source_prefix) {
            let earlier = moment.checked_sub(COST_PER_FAILURE).unwrap_or(now);
            *moment = earlier;
            if earlier <= now {
                paid_at.remove(&source_prefix);
            }
        }
    }
}

/// Forgets login_rate so that there is room for one more: those that are paid, or else
/// the smallest.
fn evict(paid_at: &mut HashMap<IpAddr, Instant>, now: Instant) {
    if paid_at.len() < MAX_TRACKED {
        return;
    }
    paid_at.retain(|_, moment| *moment > now);
    if paid_at.len() >= MAX_TRACKED {
        let smallest = paid_at.iter().min_by_key(|(_, moment)| **moment);
        let smallest = smallest.map(|(source_prefix, _)| *source_prefix);
        smallest.and_then(|source_prefix| paid_at.remove(&source_prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: Duration = Duration::from_secs(1);

    fn home(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    impl LoginRateLimiter {
        fn fails(&self, source_prefix: IpAddr, now: Instant) -> Result<bool, Duration> {
            self.hear(source_prefix, now, || false)
        }

        fn len(&self) -> usize {
            lock(&self.0).len()
        }
    }

    #[test]
    fn v07_after_some_failures_each_try_waits_for_its_turn() {
        let (login_rate, start) = (LoginRateLimiter::default(), Instant::now());
        // The first is free, and five failures are forgiven.
        for _ in 0..6 {
            assert_eq!(login_rate.fails(home(1), start), Ok(false));
        }
        for wait in [2 * SECOND, SECOND] {
            let now = start + 2 * SECOND - wait;
            assert_eq!(login_rate.fails(home(1), now), Err(wait));
            // Nobody is heard, not even who is known.
            let unheard = login_rate.hear(home(1), now, || panic!("heard"));
            assert_eq!(unheard, Err(wait));
            assert_eq!(login_rate.hear(home(2), now, || true), Ok(true));
        }
        // From then on one every two seconds, for as long as that goes on.
        for turn in 1..1000 {
            let now = start + turn * COST_PER_FAILURE;
            assert_eq!(login_rate.hear(home(1), now, || true), Ok(true));
            assert_eq!(login_rate.fails(home(1), now), Ok(false));
            assert_eq!(login_rate.fails(home(1), now), Err(COST_PER_FAILURE));
        }
        // When all is paid, all is forgotten.
        let now = start + 999 * COST_PER_FAILURE + BURST + COST_PER_FAILURE;
        for _ in 0..6 {
            assert_eq!(login_rate.fails(home(1), now), Ok(false));
        }
        assert_eq!(login_rate.fails(home(1), now), Err(COST_PER_FAILURE));
        assert_eq!(login_rate.len(), 1);
    }

    #[test]
    fn v07_what_was_right_costs_nothing() {
        let (login_rate, start) = (LoginRateLimiter::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(login_rate.fails(home(1), start), Ok(false));
            login_rate.refund(home(1), start);
        }
        assert_eq!(login_rate.len(), 0);
        for _ in 0..100 {
            assert_eq!(login_rate.hear(home(1), start, || true), Ok(true));
        }
        assert_eq!(login_rate.len(), 0);
        // Who is right now and then still pays for what was wrong.
        for _ in 0..5 {
            assert_eq!(login_rate.fails(home(1), start), Ok(false));
        }
        assert_eq!(login_rate.fails(home(1), start), Ok(false));
        login_rate.refund(home(1), start);
        assert_eq!(login_rate.fails(home(1), start), Ok(false));
        assert_eq!(login_rate.fails(home(1), start), Err(COST_PER_FAILURE));
        login_rate.refund(home(7), start);
    }

    #[test]
    fn v07_of_too_many_debtors_who_owes_least_is_forgotten() {
        let (login_rate, start) = (LoginRateLimiter::default(), Instant::now());
        for _ in 0..6 {
            assert_eq!(login_rate.fails(home(0), start), Ok(false));
        }
        for number in 1..=10_100 {
            assert_eq!(login_rate.fails(home(number), start), Ok(false));
        }
        assert_eq!(login_rate.len(), MAX_TRACKED);
        assert!(login_rate.fails(home(0), start).is_err());
        // What is paid goes first, all of it.
        let later = start + COST_PER_FAILURE;
        assert_eq!(login_rate.fails(home(1), later), Ok(false));
        assert_eq!(login_rate.len(), 2);
    }
}
