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
const FAILURE: Duration = Duration::from_secs(2);

/// Who owes no more than this is heard at once: five failures, as many as a person
/// or a program with an old password makes in a row.
const CREDIT: Duration = Duration::from_secs(10);

/// Addresses that may owe something at a time, in about a megabyte.
const MOST_DEBTORS: usize = 10_000;

/// When each household (IPv4 address, IPv6 network of 64 bits) will have paid all.
#[derive(Debug, Default)]
pub(super) struct Debts(Mutex<HashMap<IpAddr, Instant>>);

impl Debts {
    /// Hears somebody of this household, who owes for one failure more unless he is
    /// known. `is_known` is asked under the same lock, so that of many who come at
    /// once no more are heard than may be. Who is known waits like the others: if he
    /// did not, a guesser would know that an answer that is late is a no, and would
    /// not wait for it.
    ///
    /// # Errors
    ///
    /// How long to wait before asking again; then nobody was heard.
    pub(super) fn hear(
        &self,
        household: IpAddr,
        now: Instant,
        is_known: impl FnOnce() -> bool,
    ) -> Result<bool, Duration> {
        let mut paid_at = lock(&self.0);
        let debt = paid_at.get(&household);
        let debt = debt.map_or(Duration::ZERO, |it| it.saturating_duration_since(now));
        if debt > CREDIT {
            return Err(debt - CREDIT);
        }
        let is_known = is_known();
        if !is_known {
            make_room(&mut paid_at, now);
            paid_at.insert(household, now + debt + FAILURE);
        }
        Ok(is_known)
    }

    /// It was no failure after all.
    pub(super) fn pay_back(&self, household: IpAddr, now: Instant) {
        let mut paid_at = lock(&self.0);
        if let Some(moment) = paid_at.get_mut(&household) {
            let earlier = moment.checked_sub(FAILURE).unwrap_or(now);
            *moment = earlier;
            if earlier <= now {
                paid_at.remove(&household);
            }
        }
    }
}

/// Forgets debts so that there is room for one more: those that are paid, or else
/// the smallest.
fn make_room(paid_at: &mut HashMap<IpAddr, Instant>, now: Instant) {
    if paid_at.len() < MOST_DEBTORS {
        return;
    }
    paid_at.retain(|_, moment| *moment > now);
    if paid_at.len() >= MOST_DEBTORS {
        let smallest = paid_at.iter().min_by_key(|(_, moment)| **moment);
        let smallest = smallest.map(|(household, _)| *household);
        smallest.and_then(|household| paid_at.remove(&household));
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

    impl Debts {
        fn fails(&self, household: IpAddr, now: Instant) -> Result<bool, Duration> {
            self.hear(household, now, || false)
        }

        fn len(&self) -> usize {
            lock(&self.0).len()
        }
    }

    #[test]
    fn v07_after_some_failures_each_try_waits_for_its_turn() {
        let (debts, start) = (Debts::default(), Instant::now());
        // The first is free, and five failures are forgiven.
        for _ in 0..6 {
            assert_eq!(debts.fails(home(1), start), Ok(false));
        }
        for wait in [2 * SECOND, SECOND] {
            let now = start + 2 * SECOND - wait;
            assert_eq!(debts.fails(home(1), now), Err(wait));
            // Nobody is heard, not even who is known.
            let unheard = debts.hear(home(1), now, || panic!("heard"));
            assert_eq!(unheard, Err(wait));
            assert_eq!(debts.hear(home(2), now, || true), Ok(true));
        }
        // From then on one every two seconds, for as long as that goes on.
        for turn in 1..1000 {
            let now = start + turn * FAILURE;
            assert_eq!(debts.hear(home(1), now, || true), Ok(true));
            assert_eq!(debts.fails(home(1), now), Ok(false));
            assert_eq!(debts.fails(home(1), now), Err(FAILURE));
        }
        // When all is paid, all is forgotten.
        let now = start + 999 * FAILURE + CREDIT + FAILURE;
        for _ in 0..6 {
            assert_eq!(debts.fails(home(1), now), Ok(false));
        }
        assert_eq!(debts.fails(home(1), now), Err(FAILURE));
        assert_eq!(debts.len(), 1);
    }

    #[test]
    fn v07_what_was_right_costs_nothing() {
        let (debts, start) = (Debts::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(debts.fails(home(1), start), Ok(false));
            debts.pay_back(home(1), start);
        }
        assert_eq!(debts.len(), 0);
        for _ in 0..100 {
            assert_eq!(debts.hear(home(1), start, || true), Ok(true));
        }
        assert_eq!(debts.len(), 0);
        // Who is right now and then still pays for what was wrong.
        for _ in 0..5 {
            assert_eq!(debts.fails(home(1), start), Ok(false));
        }
        assert_eq!(debts.fails(home(1), start), Ok(false));
        debts.pay_back(home(1), start);
        assert_eq!(debts.fails(home(1), start), Ok(false));
        assert_eq!(debts.fails(home(1), start), Err(FAILURE));
        debts.pay_back(home(7), start);
    }

    #[test]
    fn v07_of_too_many_debtors_who_owes_least_is_forgotten() {
        let (debts, start) = (Debts::default(), Instant::now());
        for _ in 0..6 {
            assert_eq!(debts.fails(home(0), start), Ok(false));
        }
        for number in 1..=10_100 {
            assert_eq!(debts.fails(home(number), start), Ok(false));
        }
        assert_eq!(debts.len(), MOST_DEBTORS);
        assert!(debts.fails(home(0), start).is_err());
        // What is paid goes first, all of it.
        let later = start + FAILURE;
        assert_eq!(debts.fails(home(1), later), Ok(false));
        assert_eq!(debts.len(), 2);
    }
}
