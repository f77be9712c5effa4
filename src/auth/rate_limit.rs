//! A rate limit on failed logins: per source address and user, and per source address.
//!
//! Each failure adds some time to the key, and the time passes by waiting. A login whose user
//! name has little time left is admitted at once, so a user who mistypes a password notices nothing. The algorithm
//! is called GCRA: a token bucket that stores only one time stamp for each key, the time
//! at which all failures are paid for (in GCRA, the theoretical arrival time).
//!
//! The limit of a user name delays a guesser, and no other user at the same address (with
//! NAT, many users have the same one). The larger limit of the address delays a guesser who
//! tries one password with many names. Every name has a limit, whether the user exists or
//! not.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::{OrderedMutex, Rank};

/// What one failure costs the user name at its address: 1,800 attempts an hour. A password
/// of eight random letters withstands that for thousands of years.
const COST_OF_USER: Duration = Duration::from_secs(2);

/// A user name that owes no more than this is admitted at once: it may owe for five failures
/// and try a sixth time, as a person does, or a program with an old password.
const BURST_OF_USER: Duration = Duration::from_secs(10);

/// What one failure costs the address, whatever the user name is: four failures a second,
/// as many as eight programs with an old password cause.
const COST_OF_SOURCE: Duration = Duration::from_millis(250);

/// An address that owes no more than this is admitted at once: twenty failures. More at once
/// would delay the hashes of other addresses.
const BURST_OF_SOURCE: Duration = Duration::from_secs(5);

/// A login that waits for the turn of its address may take the turn earlier than a new one,
/// by this part of the time that it has waited: the login that has waited longest comes
/// first. So an address has at most a tenth more failures than the four a second.
const HEAD_START: u32 = 10;

/// Keys that are tracked at a time.
const MAX_TRACKED: usize = 20_000;

/// The most memory in bytes of all these keys: of the table, and of the smaller one before it grows.
pub(crate) const MEMORY_OF_FAILURES: u64 = 3 << 20;

/// What one limit counts: the failures from a source prefix, with one user name or with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LoginKey {
    prefix: SourcePrefix,
    /// A keyed hash of the user name: a name can have 255 bytes, and an attacker cannot
    /// find two names with the same hash. `None`: all names.
    user: Option<u64>,
}

/// The keys under which one login is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginKeys {
    source: SourcePrefixes,
    user: u64,
}

/// For each key the time at which its failures are paid for.
#[derive(Debug)]
pub(crate) struct LoginRateLimiter {
    /// A leaf in the lock order.
    paid_at: OrderedMutex<HashMap<LoginKey, Instant>>,
    /// The key of the hash of user names: random, never shown.
    hasher: RandomState,
}

impl LoginKey {
    /// What a failure costs this key. A prefix for several clients may have more failures.
    fn cost(self) -> Duration {
        let cost = match self.user {
            Some(_) => COST_OF_USER,
            None => COST_OF_SOURCE,
        };
        // The factor is a small number.
        cost / self.prefix.factor() as u32
    }

    /// The key has to wait while it owes more than this.
    fn burst(self) -> Duration {
        match self.user {
            Some(_) => BURST_OF_USER,
            None => BURST_OF_SOURCE,
        }
    }
}

impl LoginKeys {
    /// The keys of the user name at its address.
    fn of_user(self) -> impl Iterator<Item = LoginKey> {
        let user = Some(self.user);
        self.source
            .iter()
            .map(move |prefix| LoginKey { prefix, user })
    }

    /// The keys of the address alone.
    fn of_source(self) -> impl Iterator<Item = LoginKey> {
        let user = None;
        self.source
            .iter()
            .map(move |prefix| LoginKey { prefix, user })
    }

    /// The keys of the user name at its address with their factors, as a `KeyedSemaphore`
    /// takes them.
    pub(crate) fn of_user_with_factors(self) -> impl Iterator<Item = (LoginKey, usize)> {
        self.of_user().map(|key| (key, key.prefix.factor()))
    }
}

impl Default for LoginRateLimiter {
    fn default() -> LoginRateLimiter {
        LoginRateLimiter {
            paid_at: OrderedMutex::new(Rank::Leaf, HashMap::new()),
            hasher: RandomState::new(),
        }
    }
}

impl LoginRateLimiter {
    /// The keys of a login from this address with this user name, which may be any bytes.
    pub(crate) fn keys(&self, client: IpAddr, user: &[u8]) -> LoginKeys {
        LoginKeys {
            source: SourcePrefixes::of(client),
            user: self.hasher.hash_one(user),
        }
    }

    /// Admits one attempt of a user name at its address, and returns whether its credentials
    /// are cached. If they are not, charges one failure in advance, so parallel attempts
    /// cannot exceed the limit. [`refund_user`](Self::refund_user) takes the charge back.
    ///
    /// While the user name has to wait, `is_cached` is not called, so right credentials wait
    /// like wrong ones. Otherwise every delayed answer would mean "wrong", and an attacker
    /// could give up early and try the next password. It is called without the lock.
    ///
    /// # Errors
    ///
    /// How long to wait before the next attempt; then nothing was charged.
    pub(crate) fn admit_user(
        &self,
        login: LoginKeys,
        now: Instant,
        is_cached: impl FnOnce() -> bool,
    ) -> Result<bool, Duration> {
        check_wait(&self.paid_at.lock(), login.of_user(), now)?;
        let is_cached = is_cached();
        let mut paid_at = self.paid_at.lock();
        // Again: another attempt may have been charged meanwhile.
        check_wait(&paid_at, login.of_user(), now)?;
        if !is_cached {
            charge(&mut paid_at, login.of_user(), now);
        }
        Ok(is_cached)
    }

    /// Takes a turn of the address for a login that has waited for it so long, and charges
    /// one failure to the address in advance.
    ///
    /// The attempt was charged to its user name before. So a guesser who disconnects because
    /// of the delay saves nothing.
    ///
    /// # Errors
    ///
    /// How long to wait before the next attempt; then nothing was charged.
    pub(crate) fn take_turn(
        &self,
        login: LoginKeys,
        now: Instant,
        waited: Duration,
    ) -> Result<(), Duration> {
        let mut paid_at = self.paid_at.lock();
        let wait = wait_of(&paid_at, login.of_source(), now);
        match wait.saturating_sub(waited / HEAD_START) {
            Duration::ZERO => {
                charge(&mut paid_at, login.of_source(), now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Takes back what [`admit_user`](Self::admit_user) has charged: the login did not fail.
    pub(crate) fn refund_user(&self, login: LoginKeys, now: Instant) {
        refund(&mut self.paid_at.lock(), login.of_user(), now);
    }

    /// Takes back what [`take_turn`](Self::take_turn) has charged: the login did not fail.
    pub(crate) fn refund_turn(&self, login: LoginKeys, now: Instant) {
        refund(&mut self.paid_at.lock(), login.of_source(), now);
    }
}

/// How long it takes until all failures of this key are paid for.
fn owed(paid_at: &HashMap<LoginKey, Instant>, key: LoginKey, now: Instant) -> Duration {
    let time = paid_at.get(&key);
    time.map_or(Duration::ZERO, |time| time.saturating_duration_since(now))
}

/// How long these keys have to wait until none of them owes more than its burst.
fn wait_of(
    paid_at: &HashMap<LoginKey, Instant>,
    keys: impl Iterator<Item = LoginKey>,
    now: Instant,
) -> Duration {
    let waits = keys.map(|key| owed(paid_at, key, now).saturating_sub(key.burst()));
    waits.max().unwrap_or_default()
}

fn check_wait(
    paid_at: &HashMap<LoginKey, Instant>,
    keys: impl Iterator<Item = LoginKey>,
    now: Instant,
) -> Result<(), Duration> {
    match wait_of(paid_at, keys, now) {
        Duration::ZERO => Ok(()),
        wait => Err(wait),
    }
}

fn charge(
    paid_at: &mut HashMap<LoginKey, Instant>,
    keys: impl Iterator<Item = LoginKey>,
    now: Instant,
) {
    for key in keys {
        if !paid_at.contains_key(&key) {
            evict(paid_at, now);
        }
        let owed = owed(paid_at, key, now);
        paid_at.insert(key, now + owed + key.cost());
    }
}

fn refund(
    paid_at: &mut HashMap<LoginKey, Instant>,
    keys: impl Iterator<Item = LoginKey>,
    now: Instant,
) {
    for key in keys {
        if let Some(time) = paid_at.get_mut(&key) {
            let earlier = time.checked_sub(key.cost()).unwrap_or(now);
            *time = earlier;
            if earlier <= now {
                paid_at.remove(&key);
            }
        }
    }
}

/// Frees a place in a full table: removes all keys that owe nothing, or else the one that owes
/// for the fewest failures. So a key with many failures is removed only after all keys with
/// fewer, and a full table locks no user out.
fn evict(paid_at: &mut HashMap<LoginKey, Instant>, now: Instant) {
    if paid_at.len() < MAX_TRACKED {
        return;
    }
    paid_at.retain(|_, time| *time > now);
    if paid_at.len() >= MAX_TRACKED {
        let failures = |key: LoginKey, time: Instant| {
            time.saturating_duration_since(now).as_nanos() / key.cost().as_nanos()
        };
        let least = paid_at
            .iter()
            .min_by_key(|(key, time)| (failures(**key, **time), **time));
        let least = least.map(|(key, _)| *key);
        least.and_then(|key| paid_at.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::net::Ipv4Addr;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    impl LoginRateLimiter {
        /// One attempt with wrong credentials, which waits for nothing.
        fn fail(&self, client: IpAddr, user: &str, now: Instant) -> Result<(), Duration> {
            let login = self.keys(client, user.as_bytes());
            assert!(!self.admit_user(login, now, || false)?);
            self.take_turn(login, now, Duration::ZERO)
        }

        /// The attempt has not failed.
        fn refund(&self, login: LoginKeys, now: Instant) {
            self.refund_user(login, now);
            self.refund_turn(login, now);
        }

        /// One attempt with cached credentials.
        fn reuse(&self, client: IpAddr, user: &str, now: Instant) -> Result<(), Duration> {
            let login = self.keys(client, user.as_bytes());
            self.admit_user(login, now, || true).map(drop)
        }

        fn len(&self) -> usize {
            self.paid_at.lock().len()
        }
    }

    #[test]
    fn v07_after_some_failures_each_attempt_of_the_user_waits() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        // The sixth is admitted while five are owed for.
        for _ in 0..6 {
            assert_eq!(limiter.fail(address(1), "a", start), Ok(()));
        }
        for wait in [2 * SECOND, SECOND] {
            let now = start + 2 * SECOND - wait;
            assert_eq!(limiter.fail(address(1), "a", now), Err(wait));
            let unread = || panic!("the cache is read");
            let login = limiter.keys(address(1), b"a");
            assert_eq!(limiter.admit_user(login, now, unread), Err(wait));
            // A login with cached credentials waits as well.
            assert_eq!(limiter.reuse(address(1), "a", now), Err(wait));
            assert_eq!(limiter.reuse(address(2), "a", now), Ok(()));
        }
        // From then on one every two seconds, for as long as that goes on.
        for turn in 1..1000 {
            let now = start + turn * COST_OF_USER;
            assert_eq!(limiter.reuse(address(1), "a", now), Ok(()));
            assert_eq!(limiter.fail(address(1), "a", now), Ok(()));
            assert_eq!(limiter.fail(address(1), "a", now), Err(COST_OF_USER));
        }
        // When all is paid, the user name is like new.
        let now = start + 999 * COST_OF_USER + BURST_OF_USER + COST_OF_USER;
        for _ in 0..6 {
            assert_eq!(limiter.fail(address(1), "a", now), Ok(()));
        }
        assert_eq!(limiter.fail(address(1), "a", now), Err(COST_OF_USER));
    }

    #[test]
    fn v13_failures_of_one_user_delay_no_other_user_of_the_address() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        // Eight programs with an old password try all the time, for an hour.
        for tick in 0..3600 * 2 {
            let now = start + tick * SECOND / 2;
            for program in 0..8 {
                // An attempt that its own limit delays costs the address nothing.
                let _ = limiter.fail(address(1), &program.to_string(), now);
            }
            assert_eq!(limiter.reuse(address(1), "bob", now), Ok(()));
            let newcomer = limiter.keys(address(1), b"new");
            assert_eq!(limiter.admit_user(newcomer, now, || false), Ok(false));
            match limiter.take_turn(newcomer, now, Duration::ZERO) {
                Ok(()) => limiter.refund_turn(newcomer, now),
                Err(wait) => assert!(wait <= 8 * COST_OF_SOURCE, "{wait:?}"),
            }
            limiter.refund_user(newcomer, now);
        }
    }

    #[test]
    fn v14_an_address_that_tries_many_names_waits() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        let name = |number: u32| number.to_string();
        // The 21st is admitted while twenty are owed for.
        for number in 0..21 {
            assert_eq!(limiter.fail(address(1), &name(number), start), Ok(()));
        }
        let next = limiter.fail(address(1), &name(21), start);
        assert_eq!(next, Err(COST_OF_SOURCE));
        // The attempt is charged to its user name all the same: a guesser who disconnects
        // because of the delay saves nothing.
        for _ in 1..6 {
            let again = limiter.fail(address(1), &name(21), start);
            assert_eq!(again, Err(COST_OF_SOURCE));
        }
        let again = limiter.fail(address(1), &name(21), start);
        assert_eq!(again, Err(COST_OF_USER));
        // Cached credentials do not wait for the failures of others, nor does another address.
        assert_eq!(limiter.reuse(address(1), "known", start), Ok(()));
        assert_eq!(limiter.fail(address(2), &name(21), start), Ok(()));
        // From then on four a second.
        for turn in 1..1000 {
            let now = start + turn * COST_OF_SOURCE;
            let name = name(100 + turn);
            assert_eq!(limiter.fail(address(1), &name, now), Ok(()));
            assert_eq!(limiter.fail(address(1), &name, now), Err(COST_OF_SOURCE));
        }
    }

    #[test]
    fn v22_the_login_that_has_waited_longest_takes_the_next_turn() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        let new_name = |number: u32| limiter.keys(address(1), &number.to_be_bytes());
        // Each login has a name of its own. A new one comes every 100 ms, and tries all the
        // time for thirty seconds. These are more than twice as many as the limit admits.
        let mut waiting = VecDeque::new();
        let (mut turns, mut ages) = (0, Vec::new());
        for tick in 0..1200 {
            let now = start + tick * SECOND / 10;
            waiting.push_back((new_name(tick), now));
            waiting.retain(|(_, since)| now - *since <= 30 * SECOND);
            // The newest is the first to try.
            let taken = (0..waiting.len()).rev().find(|&place| {
                let (login, since) = waiting[place];
                limiter.take_turn(login, now, now - since).is_ok()
            });
            if let Some((_, since)) = taken.and_then(|place| waiting.remove(place)) {
                turns += 1;
                ages.push(now - since);
            }
        }
        // Twenty-one at once, four a second for 120 seconds, and a tenth of 30 seconds more.
        let most = 21 + 4 * 120 + 12;
        assert!((most - 1..=most).contains(&turns), "{turns}");
        // While more wait than can be served, the oldest ones are served.
        let late = &ages[ages.len() - 100..];
        assert!(late.iter().all(|age| *age > 29 * SECOND), "{late:?}");
    }

    #[test]
    fn v15_ipv6_networks_of_several_clients_have_larger_limits() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        let client = |network: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, 1]);
        let count = |mut attempt: Box<dyn FnMut(u16) -> bool + '_>| {
            (0..2000).take_while(|number| attempt(*number)).count()
        };
        // One name, each time from another /64 of the same /56: 5 x 4 owed for, and one.
        let one_name = |number| limiter.fail(client(number % 256), "a", start).is_ok();
        assert_eq!(count(Box::new(one_name)), 21);
        // From all /56 of the /48: four times as many, those before included.
        let network = |number: u16| client((1 + number % 255) << 8);
        let one_name = |number| limiter.fail(network(number), "a", start).is_ok();
        assert_eq!(count(Box::new(one_name)), 81 - 21);
        // Many names.
        let many = LoginRateLimiter::default();
        let fail = |number: u16| many.fail(client(number), &number.to_string(), start);
        assert_eq!(count(Box::new(|number| fail(number % 256).is_ok())), 81);
        let other = many.fail(IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]), "a", start);
        assert_eq!(other, Ok(()));
    }

    #[test]
    fn v07_a_login_that_does_not_fail_costs_nothing() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        let login = limiter.keys(address(1), b"a");
        for _ in 0..100 {
            assert_eq!(limiter.fail(address(1), "a", start), Ok(()));
            limiter.refund(login, start);
        }
        assert_eq!(limiter.len(), 0);
        for _ in 0..100 {
            assert_eq!(limiter.reuse(address(1), "a", start), Ok(()));
        }
        assert_eq!(limiter.len(), 0);
        // A right login between wrong ones takes back its own charge only.
        for _ in 0..5 {
            assert_eq!(limiter.fail(address(1), "a", start), Ok(()));
        }
        assert_eq!(limiter.fail(address(1), "a", start), Ok(()));
        limiter.refund(login, start);
        assert_eq!(limiter.fail(address(1), "a", start), Ok(()));
        assert_eq!(limiter.fail(address(1), "a", start), Err(COST_OF_USER));
        limiter.refund(limiter.keys(address(7), b"a"), start);
    }

    #[test]
    fn v16_of_too_many_keys_the_one_with_the_fewest_failures_is_evicted() {
        let (limiter, start) = (LoginRateLimiter::default(), Instant::now());
        for _ in 0..6 {
            assert_eq!(limiter.fail(address(0), "a", start), Ok(()));
        }
        for number in 1..=10_100 {
            assert_eq!(limiter.fail(address(number), "a", start), Ok(()));
        }
        assert_eq!(limiter.len(), MAX_TRACKED);
        assert_eq!(limiter.fail(address(0), "a", start), Err(COST_OF_USER));
        // The failures of the address are in the table as well: fifteen more are admitted.
        let more = (0..100).take_while(|number: &u32| {
            let name = number.to_string();
            limiter.fail(address(0), &name, start).is_ok()
        });
        assert_eq!(more.count(), 15);
        // A table that is full locks no user out.
        assert_eq!(limiter.fail(address(20_000), "a", start), Ok(()));
        assert_eq!(limiter.len(), MAX_TRACKED);
        // Keys that owe nothing are evicted first, all of them.
        let later = start + BURST_OF_USER + 2 * COST_OF_USER;
        assert_eq!(limiter.fail(address(1), "b", later), Ok(()));
        assert_eq!(limiter.len(), 2);
    }
}
