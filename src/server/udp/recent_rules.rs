//! The rules of at most a millisecond ago, and their verdicts on datagrams so far.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::HostName;
use crate::rules::{Rules, WeekTime};
use crate::sync::{OrderedMutex, Rank};

/// How long the rules are used before the file is checked again. A check for each datagram
/// would cost a quarter of the throughput (docs/performance.md).
const RULES_TTL: Duration = Duration::from_millis(1);

/// Verdicts of one generation; two generations are kept. So a client that exchanges datagrams
/// with 512 hosts and ports in turn finds the verdicts on all of them. Without names, both
/// generations take 100 kB; with names of 255 bytes, 380 kB.
const GENERATION_SIZE: usize = 512;

/// What the rules judge of a datagram: the name of the other host, if the client has used
/// one, its address, if it is known, and its port. All else is the same for all datagrams
/// of an association.
pub(super) type Peer = (Option<HostName>, Option<IpAddr>, u16);

/// The rules at the last check of the file, for both directions.
///
/// Without the verdicts each datagram would take as long as all rules that do not match it:
/// a millisecond for 80,000 rules.
#[derive(Debug)]
pub(super) struct RecentRules {
    /// A leaf in the lock order.
    checked: OrderedMutex<Checked>,
}

#[derive(Debug)]
struct Checked {
    rules: Arc<Rules>,
    /// When the check began.
    began: Instant,
    depend_on_time: bool,
    /// What these rules have said, at this time if they depend on it.
    verdicts: Verdicts,
    time: WeekTime,
}

/// The verdicts on the last peers.
///
/// When the current generation is full, it replaces the previous one. A verdict that is used
/// again moves to the current generation, so only those that are not used are removed.
#[derive(Debug, Default)]
struct Verdicts {
    current: HashMap<Peer, bool>,
    previous: HashMap<Peer, bool>,
}

impl RecentRules {
    /// `rules` were in force at this time or later.
    pub(super) fn new(rules: Arc<Rules>, began: Instant) -> RecentRules {
        RecentRules {
            checked: OrderedMutex::new(Rank::Leaf, Checked::new(rules, began)),
        }
    }

    /// May datagrams be exchanged with this peer? `check` returns the rules in force, and
    /// `judge` evaluates them. The lock is released during both: they may take long.
    pub(super) fn permits(
        &self,
        peer: Peer,
        now: WeekTime,
        check: impl FnOnce() -> Arc<Rules>,
        judge: impl FnOnce(&Rules) -> bool,
    ) -> bool {
        let mut checked = self.checked.lock();
        if checked.began.elapsed() >= RULES_TTL {
            drop(checked);
            self.check_again(check);
            checked = self.checked.lock();
        }
        if let Some(permitted) = checked.verdicts_at(now).find(&peer) {
            return permitted;
        }
        let rules = Arc::clone(&checked.rules);
        drop(checked);
        let permitted = judge(&rules);
        let mut checked = self.checked.lock();
        if Arc::ptr_eq(&checked.rules, &rules) {
            checked.verdicts_at(now).add(peer, permitted);
        }
        permitted
    }

    /// Takes the rules that `check` returns, unless the other direction has begun its check
    /// later: the rules never go back to an older version.
    fn check_again(&self, check: impl FnOnce() -> Arc<Rules>) {
        let began = Instant::now();
        let rules = check();
        let mut checked = self.checked.lock();
        if checked.began >= began {
            return;
        }
        checked.began = began;
        if !Arc::ptr_eq(&checked.rules, &rules) {
            *checked = Checked::new(rules, began);
        }
    }
}

impl Checked {
    fn new(rules: Arc<Rules>, began: Instant) -> Checked {
        Checked {
            depend_on_time: rules.depend_on_time(),
            rules,
            began,
            verdicts: Verdicts::default(),
            time: WeekTime::MONDAY,
        }
    }

    /// The verdicts at this time. Removes those of another minute, if the rules depend on
    /// the time.
    fn verdicts_at(&mut self, now: WeekTime) -> &mut Verdicts {
        if self.depend_on_time && self.time != now {
            self.time = now;
            self.verdicts = Verdicts::default();
        }
        &mut self.verdicts
    }
}

impl Verdicts {
    fn find(&mut self, peer: &Peer) -> Option<bool> {
        if let Some(&permitted) = self.current.get(peer) {
            return Some(permitted);
        }
        let (peer, permitted) = self.previous.remove_entry(peer)?;
        self.add(peer, permitted);
        Some(permitted)
    }

    fn add(&mut self, peer: Peer, permitted: bool) {
        if self.current.len() >= GENERATION_SIZE {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(peer, permitted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::parse;

    fn rules(text: &str) -> Arc<Rules> {
        Arc::new(parse(text.as_bytes()).expect("valid rules"))
    }

    fn peer(port: u16) -> Peer {
        (None, Some([192, 0, 2, 1].into()), port)
    }

    /// Rules that are due to be checked again.
    fn recent(rules: &Arc<Rules>) -> RecentRules {
        let began = Instant::now();
        while began.elapsed() < RULES_TTL {}
        RecentRules::new(Arc::clone(rules), began)
    }

    #[test]
    fn a_check_that_began_later_counts() {
        let [old, new] = ["permit - -\n", "deny - -\n"].map(rules);
        let recent = recent(&old);
        recent.check_again(|| {
            // The other direction overtakes this check.
            recent.check_again(|| Arc::clone(&new));
            Arc::clone(&old)
        });
        assert_eq!(recent.checked.lock().rules, new);
    }

    #[test]
    fn a_check_is_repeated_after_a_millisecond_and_not_before() {
        let rules = Arc::new(Rules::default());
        let (began, mut checks) = (Instant::now(), 0);
        let recent = RecentRules::new(Arc::clone(&rules), began);
        while checks < 3 {
            let check = || {
                checks += 1;
                Arc::clone(&rules)
            };
            recent.permits(peer(1), WeekTime::MONDAY, check, |_| true);
        }
        assert!(began.elapsed() >= 3 * RULES_TTL);
    }

    /// The verdict, and whether these rules were evaluated for it.
    fn permits(
        recent: &RecentRules,
        peer: Peer,
        now: WeekTime,
        (rules, verdict): (&Arc<Rules>, bool),
    ) -> (bool, bool) {
        let checked = recent.checked.lock().began;
        while checked.elapsed() < RULES_TTL {}
        let mut was_evaluated = false;
        let judge = |_: &Rules| {
            was_evaluated = true;
            verdict
        };
        let permitted = recent.permits(peer, now, || Arc::clone(rules), judge);
        (permitted, was_evaluated)
    }

    #[test]
    fn u22_a_verdict_counts_until_the_rules_change() {
        let [permit, deny] = ["permit - -\n", "deny - -\n"].map(rules);
        let recent = recent(&deny);
        let monday = WeekTime::MONDAY;
        let tuesday = WeekTime::parse("tue/00:00").expect("a time");
        for (rules, permitted) in [(&permit, true), (&deny, false), (&permit, true)] {
            let rules = (rules, permitted);
            assert_eq!(permits(&recent, peer(1), monday, rules), (permitted, true));
            assert_eq!(permits(&recent, peer(2), monday, rules), (permitted, true));
            assert_eq!(
                permits(&recent, peer(1), tuesday, rules),
                (permitted, false)
            );
        }
        // Equal rules that were read again are other rules.
        let again = self::rules("permit - -\n");
        assert_eq!(
            permits(&recent, peer(1), monday, (&again, true)),
            (true, true)
        );
    }

    #[test]
    fn u22_a_verdict_counts_for_a_minute_if_rules_depend_on_the_time() {
        let rules = rules("permit - - time=mon/00:00-00:01\n");
        let recent = recent(&rules);
        let next_minute = WeekTime::parse("mon/00:01").expect("a time");
        for (now, was_evaluated) in [
            (WeekTime::MONDAY, true),
            (WeekTime::MONDAY, false),
            (next_minute, true),
            (next_minute, false),
        ] {
            let judged = permits(&recent, peer(1), now, (&rules, true));
            assert_eq!(judged, (true, was_evaluated), "{now}");
        }
    }

    #[test]
    fn u28_the_number_of_verdicts_is_bounded() {
        let mut verdicts = Verdicts::default();
        for port in 0..5000 {
            verdicts.add(peer(port), true);
            let count = verdicts.current.len() + verdicts.previous.len();
            assert!(count <= 2 * GENERATION_SIZE);
        }
        assert_eq!(verdicts.find(&peer(0)), None);
    }

    #[test]
    fn u28_as_many_peers_in_turn_as_one_generation_has_are_judged_once() {
        let mut verdicts = Verdicts::default();
        let count = GENERATION_SIZE as u16;
        let others = 2 * count..;
        for (round, other) in (0..4).zip(others) {
            for port in 0..count {
                let known = verdicts.find(&peer(port));
                assert_eq!(known, (round > 0).then_some(port % 2 == 0), "{port}");
                if known.is_none() {
                    verdicts.add(peer(port), port % 2 == 0);
                }
            }
            // One more peer begins a generation, and removes none that is used in turn.
            verdicts.add(peer(other), true);
        }
    }
}
