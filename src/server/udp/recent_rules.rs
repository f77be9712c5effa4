//! The rules by which the datagrams of one association are judged, and their verdicts so far.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::HostName;
use crate::rules::{Rules, WeekTime};
use crate::server::background_check::RULES_TTL;
use crate::sync::{OrderedMutex, Rank};

/// Verdicts of one generation; two generations are kept. So a client that exchanges datagrams
/// with 512 hosts and ports in turn finds the verdicts on all of them. Without names, both
/// generations take 100 kB; with names of 255 bytes, 380 kB.
const GENERATION_SIZE: usize = 512;

/// What the rules judge of a datagram: the name of the other host, if the client has used
/// one, its address, if it is known, and its port. All else is the same for all datagrams
/// of an association.
pub(super) type Peer = (Option<HostName>, Option<IpAddr>, u16);

/// The rules that were in force at most [`RULES_TTL`] ago, for both directions.
///
/// Without the verdicts each datagram would take as long as all rules that do not match it:
/// a millisecond for 80,000 rules.
#[derive(Debug)]
pub(super) struct RecentRules {
    /// A leaf in the lock order.
    taken: OrderedMutex<TakenRules>,
}

#[derive(Debug)]
struct TakenRules {
    rules: Arc<Rules>,
    /// When the rules were taken.
    at: Instant,
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
    pub(super) fn new(in_force: Arc<Rules>) -> RecentRules {
        RecentRules {
            taken: OrderedMutex::new(Rank::Leaf, TakenRules::new(in_force, Instant::now())),
        }
    }

    /// May datagrams be exchanged with this peer? `in_force` returns the rules in force, after
    /// a short wait at most, and `judge` evaluates them. The lock is released during both: many
    /// rules take long.
    pub(super) fn permits(
        &self,
        peer: Peer,
        now: WeekTime,
        in_force: impl FnOnce() -> Arc<Rules>,
        judge: impl FnOnce(&Rules) -> bool,
    ) -> bool {
        let mut taken = self.taken.lock();
        if taken.at.elapsed() >= RULES_TTL {
            drop(taken);
            self.take(in_force);
            taken = self.taken.lock();
        }
        if let Some(permitted) = taken.verdicts_at(now).find(&peer) {
            return permitted;
        }
        let rules = Arc::clone(&taken.rules);
        drop(taken);
        let permitted = judge(&rules);
        let mut taken = self.taken.lock();
        if Arc::ptr_eq(&taken.rules, &rules) {
            taken.verdicts_at(now).add(peer, permitted);
        }
        permitted
    }

    /// Takes the rules in force, unless the other direction has begun to take them later: the
    /// rules never go back to an older version.
    fn take(&self, in_force: impl FnOnce() -> Arc<Rules>) {
        let at = Instant::now();
        let rules = in_force();
        let mut taken = self.taken.lock();
        if taken.at >= at {
            return;
        }
        taken.at = at;
        if !Arc::ptr_eq(&taken.rules, &rules) {
            let before = std::mem::replace(&mut *taken, TakenRules::new(rules, at));
            // After the lock is released: many rules take a while.
            drop(taken);
            drop(before);
        }
    }
}

impl TakenRules {
    fn new(rules: Arc<Rules>, at: Instant) -> TakenRules {
        TakenRules {
            depend_on_time: rules.depend_on_time(),
            rules,
            at,
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

    /// Rules that were taken so long ago that they are due to be taken again.
    fn recent(rules: &Arc<Rules>) -> RecentRules {
        let recent = RecentRules::new(Arc::clone(rules));
        expire(&recent);
        recent
    }

    fn expire(recent: &RecentRules) {
        let taken_at = recent.taken.lock().at;
        while taken_at.elapsed() < RULES_TTL {}
    }

    #[test]
    fn rules_that_were_taken_later_count() {
        let [old, new] = ["permit - -\n", "deny - -\n"].map(rules);
        let recent = recent(&old);
        recent.take(|| {
            // The other direction overtakes this one.
            recent.take(|| Arc::clone(&new));
            Arc::clone(&old)
        });
        assert_eq!(recent.taken.lock().rules, new);
    }

    #[test]
    fn rules_are_taken_again_after_a_millisecond_and_not_before() {
        let rules = Arc::new(Rules::default());
        let (began, mut count) = (Instant::now(), 0);
        let recent = RecentRules::new(Arc::clone(&rules));
        while count < 3 {
            let in_force = || {
                count += 1;
                Arc::clone(&rules)
            };
            recent.permits(peer(1), WeekTime::MONDAY, in_force, |_| true);
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
        expire(recent);
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
