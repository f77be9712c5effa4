//! The names to which one client sends datagrams: their addresses, and what waits for them.
//!
//! It is pure data: it says what to do with a datagram, and the association does it. No
//! thread is started and nothing is sent while the cache is locked.
//!
//! ```text
//! unknown ── look up ──> waiting ── a lookup is free ──> looked up ──> resolved
//!                           datagrams are queued until here ───┘      a flow per port
//! ```

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::name_flows::{NameFlows, Route};
use crate::events::DropReason;
use crate::protocol::HostName;

/// Bytes of one association that wait for names at most: some fifty first datagrams of QUIC
/// connections (1,250 bytes each), or a thousand small ones. Further datagrams are dropped.
const MAX_QUEUED_BYTES: usize = 64 << 10;

/// Names of one association, cached or waiting: a client that asks all trackers of its
/// torrents has some hundred. For one more, the name that was used longest ago is removed,
/// those without established flows first.
const MAX_NAMES: usize = 256;

/// Addresses of one name that are used: the first ones of the lookup, in which the families
/// alternate. The rules may deny a whole family, or the system may have no route for it.
const MAX_ADDRESSES_PER_NAME: usize = 32;

/// Flows of one association, each to a port of a name: as many as a client uses that scans
/// the ports of a host. They take at most 270 kB: 96 bytes each, vectors with room for twice
/// as many and at least four, and a list of their ages while some are removed. For one more,
/// those that were used longest ago are removed, those that are not established first.
const MAX_FLOWS: usize = 1024;

/// Flows that are removed at a time, so that not each new flow has to compare all.
const REMOVED_FLOWS: usize = MAX_FLOWS / 8;

/// How long addresses are used before the name is looked up again; meanwhile they still
/// serve. The resolver does not report the TTL of DNS, and the addresses of busy hosts
/// change within a minute.
const POSITIVE_TTL: Duration = Duration::from_secs(30);

/// How long a name that was not found is not looked up again.
const NEGATIVE_TTL: Duration = Duration::from_secs(2);

/// What to do with a datagram to a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameAction {
    /// Send it. If the addresses are expired, look the name up again as well.
    Send { route: Route, is_expired: bool },
    /// The datagram was queued until its name is resolved.
    Queued,
    /// The name is unknown: look it up.
    LookUp,
    /// Drop it: too many bytes wait for names.
    Drop(DropReason),
}

/// A datagram that waits for its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueuedDatagram {
    pub(super) port: u16,
    pub(super) data: Vec<u8>,
}

/// The names of one association.
#[derive(Debug)]
pub(super) struct NameCache {
    entries: HashMap<HostName, CachedName>,
    /// Names that wait for a lookup, in their order.
    waiting: VecDeque<HostName>,
    /// Lookups that are running.
    lookups: usize,
    /// Lookups at a time.
    max_lookups: usize,
    /// Is the association in the queue for lookups?
    is_in_queue: bool,
    /// Bytes of all queues.
    queued_bytes: usize,
}

#[derive(Debug)]
struct CachedName {
    /// Does a lookup wait, or is one going on?
    is_pending: bool,
    /// The datagrams that wait for the lookup; `None` once all of them are sent.
    queue: Option<Vec<QueuedDatagram>>,
    /// Empty before the first lookup has ended, or if that lookup has found no address.
    addresses: Vec<IpAddr>,
    /// When the name is to be looked up again.
    expires: Instant,
    flows: NameFlows,
    last_used: Instant,
}

impl NameCache {
    /// A cache for an association that may have so many lookups at a time.
    pub(super) fn new(max_lookups: usize) -> NameCache {
        NameCache {
            entries: HashMap::new(),
            waiting: VecDeque::new(),
            lookups: 0,
            max_lookups,
            is_in_queue: false,
            queued_bytes: 0,
        }
    }

    /// Says what to do with a datagram to this name, and queues it if the name is being
    /// looked up.
    pub(super) fn route(
        &mut self,
        name: &HostName,
        port: u16,
        data: &[u8],
        now: Instant,
    ) -> NameAction {
        let has_room = self.has_room(data);
        let Some(entry) = self.entries.get_mut(name) else {
            return NameAction::LookUp;
        };
        entry.last_used = now;
        match &mut entry.queue {
            Some(queue) if has_room => {
                self.queued_bytes += cost(data);
                let data = data.to_vec();
                queue.push(QueuedDatagram { port, data });
                NameAction::Queued
            }
            Some(_) => NameAction::Drop(DropReason::Unresolved),
            None if entry.addresses.is_empty() && entry.expires <= now => NameAction::LookUp,
            None => {
                let is_expired = entry.expires <= now && !entry.is_pending;
                let route = entry.flows.next_route(port, &entry.addresses, now);
                let route = route.unwrap_or_else(|| self.begin_flow(name, port, now));
                NameAction::Send {
                    is_expired: is_expired && !route.is_established,
                    route,
                }
            }
        }
    }

    /// Notes that a name is to be looked up, and queues the first datagram for it. True if
    /// the association has to enter the queue for lookups.
    ///
    /// # Errors
    ///
    /// Too many names or bytes wait.
    pub(super) fn begin_lookup(
        &mut self,
        name: HostName,
        port: u16,
        data: &[u8],
        now: Instant,
    ) -> Result<bool, DropReason> {
        let has_place = self.entries.contains_key(&name) || self.evict(now);
        if !has_place || !self.has_room(data) {
            return Err(DropReason::Unresolved);
        }
        self.queued_bytes += cost(data);
        let data = data.to_vec();
        let entry = CachedName {
            is_pending: true,
            queue: Some(vec![QueuedDatagram { port, data }]),
            addresses: Vec::new(),
            expires: now,
            flows: NameFlows::default(),
            last_used: now,
        };
        self.entries.insert(name.clone(), entry);
        Ok(self.wait(name))
    }

    /// Notes that an expired name is to be looked up again. Returns the same as
    /// [`begin_lookup`](Self::begin_lookup).
    pub(super) fn begin_refresh(&mut self, name: &HostName) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        entry.is_pending = true;
        self.wait(name.clone())
    }

    fn wait(&mut self, name: HostName) -> bool {
        self.waiting.push_back(name);
        self.enter_queue()
    }

    /// Notes that the association enters the queue for lookups. False if it stands there
    /// already, no name waits, or it has all the lookups that it may have.
    fn enter_queue(&mut self) -> bool {
        let enters =
            !self.is_in_queue && !self.waiting.is_empty() && self.lookups < self.max_lookups;
        self.is_in_queue |= enters;
        enters
    }

    /// The association has its turn: the name that has waited longest, whose lookup begins
    /// now. Also says whether the association has to enter the queue again.
    pub(super) fn next_lookup(&mut self) -> Option<(HostName, bool)> {
        self.is_in_queue = false;
        let name = self.waiting.pop_front()?;
        self.lookups += 1;
        Some((name, self.enter_queue()))
    }

    /// A lookup has ended. True if the association has to enter the queue again.
    pub(super) fn end_lookup(&mut self) -> bool {
        self.lookups -= 1;
        self.enter_queue()
    }

    /// The association has its turn, but no thread can look up a name: removes the names that
    /// wait, unless they have older addresses. Returns how many datagrams are dropped.
    pub(super) fn drop_waiting(&mut self) -> usize {
        self.is_in_queue = false;
        let mut dropped = 0;
        for name in std::mem::take(&mut self.waiting) {
            let Entry::Occupied(mut entry) = self.entries.entry(name) else {
                continue;
            };
            entry.get_mut().is_pending = false;
            if let Some(queue) = &entry.get().queue {
                self.queued_bytes -= cost_of_all(queue);
                dropped += queue.len();
                entry.remove();
            }
        }
        dropped
    }

    /// The resolver has answered. Returns the datagrams that have waited; the caller sends
    /// them and calls this again, until none is returned. Only then do later datagrams
    /// pass without waiting: the order is kept.
    pub(super) fn resolved(
        &mut self,
        name: &HostName,
        addresses: &[IpAddr],
        now: Instant,
    ) -> Vec<QueuedDatagram> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Vec::new();
        };
        entry.is_pending = false;
        if addresses.is_empty() {
            // Older addresses still serve.
            entry.expires = now + NEGATIVE_TTL;
        } else {
            entry.addresses = addresses
                .iter()
                .copied()
                .take(MAX_ADDRESSES_PER_NAME)
                .collect();
            entry.expires = now + POSITIVE_TTL;
        }
        let queue = entry.queue.take().unwrap_or_default();
        if !queue.is_empty() {
            entry.queue = Some(Vec::new());
        }
        self.queued_bytes -= cost_of_all(&queue);
        queue
    }

    /// Where a datagram that has waited goes.
    pub(super) fn next_route(&mut self, name: &HostName, port: u16, now: Instant) -> Route {
        let entry = self.entries.get_mut(name);
        let route = entry.and_then(|entry| entry.flows.next_route(port, &entry.addresses, now));
        route.unwrap_or_else(|| self.begin_flow(name, port, now))
    }

    fn begin_flow(&mut self, name: &HostName, port: u16, now: Instant) -> Route {
        self.make_room_for_flow(now);
        let entry = self.entries.get_mut(name);
        entry.map_or_else(Route::default, |entry| {
            entry.flows.begin(port, &entry.addresses, now)
        })
    }

    /// The datagram has gone to another address of the name than the first that
    /// [`route`](Self::route) returned.
    pub(super) fn set_address(
        &mut self,
        name: &HostName,
        port: u16,
        address: IpAddr,
        now: Instant,
    ) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.flows.set_address(port, address, now);
        }
    }

    /// A datagram has come from this address: the flows to it are kept there. If the client has
    /// sent to this port by address (`is_exact`), it is no answer to another port of the host.
    ///
    /// Tests all names: the same host may have several.
    pub(super) fn answered(&mut self, from: SocketAddr, is_exact: bool, now: Instant) {
        let mut is_answer = false;
        for entry in self.entries.values_mut() {
            is_answer |= entry.flows.answered(from, &entry.addresses, now);
        }
        if !is_answer && !is_exact {
            let names = self.entries.values_mut();
            names.for_each(|entry| entry.flows.answered_from_other_port(from.ip(), now));
        }
    }

    /// An ICMP error says that a datagram to this address has not arrived.
    pub(super) fn unreachable(&mut self, to: SocketAddr, now: Instant) {
        let names = self.entries.values_mut();
        names.for_each(|entry| entry.flows.unreachable(to, now));
    }

    /// May these bytes be queued as well?
    fn has_room(&self, data: &[u8]) -> bool {
        self.queued_bytes + cost(data) <= MAX_QUEUED_BYTES
    }

    /// Makes room for one more name: if the cache is full, removes the name that was used
    /// longest ago, those without established flows first. False if lookups or datagrams
    /// wait for all of them.
    fn evict(&mut self, now: Instant) -> bool {
        if self.entries.len() < MAX_NAMES {
            return true;
        }
        let is_idle = |entry: &CachedName| !entry.is_pending && entry.queue.is_none();
        let idle = self.entries.iter().filter(|(_, entry)| is_idle(entry));
        let oldest =
            idle.min_by_key(|(_, entry)| (entry.flows.is_established(now), entry.last_used));
        let oldest = oldest.map(|(name, _)| name.clone());
        oldest.is_some_and(|name| self.entries.remove(&name).is_some())
    }

    /// Makes room for one more flow: if there are [`MAX_FLOWS`], removes [`REMOVED_FLOWS`] of
    /// them, those with the smallest [`NameFlows::ages`].
    fn make_room_for_flow(&mut self, now: Instant) {
        let names = self.entries.values();
        if names.map(|entry| entry.flows.len()).sum::<usize>() < MAX_FLOWS {
            return;
        }
        let names = self.entries.values();
        let mut ages: Vec<_> = names.flat_map(|entry| entry.flows.ages(now)).collect();
        let (_, &mut last, _) = ages.select_nth_unstable(REMOVED_FLOWS - 1);
        for entry in self.entries.values_mut() {
            entry.flows.remove_up_to(last, now);
        }
    }
}

/// Bytes that a queued datagram takes: an empty one is not free.
fn cost(data: &[u8]) -> usize {
    data.len() + size_of::<QueuedDatagram>()
}

fn cost_of_all(queue: &[QueuedDatagram]) -> usize {
    queue.iter().map(|queued| cost(&queued.data)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Host;
    use std::net::Ipv4Addr;

    const MAX_LOOKUPS: usize = 4;
    const ADDRESS: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

    fn name(text: &str) -> HostName {
        match Host::from_name(text.as_bytes()) {
            Host::Name(name) => name,
            other => panic!("{other} is not a name"),
        }
    }

    fn data_of(queue: Vec<QueuedDatagram>) -> Vec<Vec<u8>> {
        queue.into_iter().map(|queued| queued.data).collect()
    }

    /// Begins a lookup of this name for a datagram to port 1.
    fn begin(cache: &mut NameCache, text: &str, data: &[u8]) -> Result<bool, DropReason> {
        cache.begin_lookup(name(text), 1, data, Instant::now())
    }

    /// Carries out the lookup, and returns how many datagrams have waited.
    fn resolve(cache: &mut NameCache, text: &str, addresses: &[IpAddr]) -> usize {
        cache.waiting.retain(|waiting| *waiting != name(text));
        let mut queues = std::iter::from_fn(|| {
            let queue = cache.resolved(&name(text), addresses, Instant::now());
            (!queue.is_empty()).then_some(queue.len())
        });
        let sent = queues.by_ref().sum();
        assert!(queues.next().is_none());
        sent
    }

    fn send(addresses: &[IpAddr], is_expired: bool) -> NameAction {
        let route = Route {
            addresses: addresses.to_vec(),
            is_established: false,
        };
        NameAction::Send { route, is_expired }
    }

    #[test]
    fn datagrams_wait_for_their_name_and_keep_their_order() {
        let (mut cache, now, a) = (NameCache::new(MAX_LOOKUPS), Instant::now(), name("a.test"));
        assert_eq!(cache.route(&a, 1, b"1", now), NameAction::LookUp);
        assert_eq!(cache.begin_lookup(a.clone(), 1, b"1", now), Ok(true));
        assert_eq!(cache.route(&a, 2, b"2", now), NameAction::Queued);
        assert_eq!(cache.next_lookup(), Some((a.clone(), false)));
        let queue = cache.resolved(&a, &ADDRESS, now);
        assert_eq!(data_of(queue), [b"1", b"2"]);
        // One that comes while these are sent waits as well.
        assert_eq!(cache.route(&a, 3, b"3", now), NameAction::Queued);
        assert_eq!(cache.next_route(&a, 1, now).addresses, ADDRESS);
        assert_eq!(data_of(cache.resolved(&a, &ADDRESS, now)), [b"3"]);
        assert!(cache.resolved(&a, &ADDRESS, now).is_empty());
        assert_eq!(cache.route(&a, 4, b"4", now), send(&ADDRESS, false));
        let later = now + POSITIVE_TTL;
        assert_eq!(cache.route(&a, 5, b"5", later), send(&ADDRESS, true));
        // Only one lookup begins, and the older addresses serve meanwhile.
        assert!(cache.begin_refresh(&a));
        assert_eq!(cache.route(&a, 6, b"6", later), send(&ADDRESS, false));
        assert_eq!(cache.next_lookup(), Some((a.clone(), false)));
        // A refresh that finds nothing leaves the old addresses.
        assert!(cache.resolved(&a, &[], later).is_empty());
        assert_eq!(cache.route(&a, 7, b"7", later), send(&ADDRESS, false));
        let later = later + NEGATIVE_TTL;
        assert_eq!(cache.route(&a, 8, b"8", later), send(&ADDRESS, true));
        assert_eq!(cache.queued_bytes, 0);
    }

    #[test]
    fn a_name_that_was_not_found_is_looked_up_again_after_its_ttl() {
        let (mut cache, now, a) = (NameCache::new(MAX_LOOKUPS), Instant::now(), name("a.test"));
        begin(&mut cache, "a.test", b"1").expect("room");
        assert_eq!(data_of(cache.resolved(&a, &[], now)), [b"1"]);
        assert!(cache.resolved(&a, &[], now).is_empty());
        assert_eq!(cache.route(&a, 1, b"2", now), send(&[], false));
        let later = now + NEGATIVE_TTL;
        assert_eq!(cache.route(&a, 1, b"3", later), NameAction::LookUp);
        assert_eq!(begin(&mut cache, "a.test", b"3"), Ok(false));
        assert_eq!(cache.route(&a, 1, b"4", later), NameAction::Queued);
    }

    #[test]
    fn u17_names_wait_for_their_lookup_in_order() {
        let mut cache = NameCache::new(MAX_LOOKUPS);
        let names: Vec<String> = (0..50).map(|number| format!("{number}.test")).collect();
        for (number, text) in names.iter().enumerate() {
            // Only the first has to request a lookup.
            assert_eq!(begin(&mut cache, text, b"x"), Ok(number == 0));
        }
        for (number, text) in names.iter().enumerate() {
            let next = cache.next_lookup();
            assert_eq!(next, Some((name(text), number < 49)));
            assert_eq!(resolve(&mut cache, text, &ADDRESS), 1);
            assert!(!cache.end_lookup());
        }
        assert_eq!(cache.next_lookup(), None);
        assert_eq!(begin(&mut cache, "more.test", b"x"), Ok(true));
    }

    #[test]
    fn u18_an_association_has_only_some_lookups_at_a_time() {
        let mut cache = NameCache::new(MAX_LOOKUPS);
        for number in 0..10 {
            begin(&mut cache, &format!("{number}.test"), b"x").expect("room");
        }
        for number in 1..=MAX_LOOKUPS {
            let enters = number < MAX_LOOKUPS;
            let next = cache.next_lookup().map(|(_, enters)| enters);
            assert_eq!(next, Some(enters));
        }
        // It enters the queue once for each lookup that ends.
        assert_eq!(begin(&mut cache, "more.test", b"x"), Ok(false));
        assert_eq!((cache.end_lookup(), cache.end_lookup()), (true, false));
        let next = cache.next_lookup().map(|(_, enters)| enters);
        assert_eq!(next, Some(true));
    }

    #[test]
    fn u17_waiting_names_and_bytes_are_bounded() {
        let too_many = Err(DropReason::Unresolved);
        let mut cache = NameCache::new(MAX_LOOKUPS);
        for number in 0..MAX_NAMES {
            let text = format!("{number}.test");
            begin(&mut cache, &text, b"").expect("room");
        }
        assert_eq!(begin(&mut cache, "more.test", b""), too_many);
        // A name that does not wait makes room.
        assert_eq!(resolve(&mut cache, "7.test", &ADDRESS), 1);
        begin(&mut cache, "more.test", b"").expect("room");
        assert!(!cache.entries.contains_key(&name("7.test")));

        let (mut cache, now) = (NameCache::new(MAX_LOOKUPS), Instant::now());
        let half = vec![0; MAX_QUEUED_BYTES / 2];
        begin(&mut cache, "a.test", &half).expect("room");
        assert_eq!(begin(&mut cache, "b.test", &half), too_many);
        let dropped = NameAction::Drop(DropReason::Unresolved);
        assert_eq!(cache.route(&name("a.test"), 1, &half, now), dropped);
        // Empty datagrams count too.
        let fits =
            |cache: &mut NameCache| cache.route(&name("a.test"), 1, b"", now) == NameAction::Queued;
        let count = (0..10_000).take_while(|_| fits(&mut cache)).count();
        assert!((500..2000).contains(&count), "{count}");
        assert_eq!(resolve(&mut cache, "a.test", &ADDRESS), count + 1);
        begin(&mut cache, "b.test", &half).expect("room");
        assert_eq!(resolve(&mut cache, "b.test", &ADDRESS), 1);
        assert_eq!(cache.queued_bytes, 0);
    }

    #[test]
    fn u17_without_a_thread_the_names_that_wait_are_dropped() {
        let (mut cache, now) = (NameCache::new(MAX_LOOKUPS), Instant::now());
        for text in ["old.test", "looked-up.test", "waiting.test", "also.test"] {
            begin(&mut cache, text, b"x").expect("room");
        }
        resolve(&mut cache, "old.test", &ADDRESS);
        let next = cache.next_lookup();
        assert_eq!(next, Some((name("looked-up.test"), true)));
        cache.begin_refresh(&name("old.test"));
        cache.route(&name("also.test"), 1, b"y", now);
        assert_eq!(cache.drop_waiting(), 3);
        assert_eq!((cache.drop_waiting(), cache.next_lookup()), (0, None));
        assert_eq!(begin(&mut cache, "new.test", b""), Ok(true));
        assert_eq!(resolve(&mut cache, "new.test", &[]), 1);
        assert_eq!(resolve(&mut cache, "looked-up.test", &ADDRESS), 1);
        let action = cache.route(&name("old.test"), 1, b"", now);
        assert_eq!(action, send(&ADDRESS, false));
        let action = cache.route(&name("also.test"), 1, b"", now);
        assert_eq!(action, NameAction::LookUp);
        assert_eq!((cache.queued_bytes, cache.entries.len()), (0, 3));
    }

    #[test]
    fn u17_the_name_that_was_used_longest_ago_is_removed() {
        let (mut cache, now) = (NameCache::new(MAX_LOOKUPS), Instant::now());
        begin(&mut cache, "flow.test", b"").expect("room");
        resolve(&mut cache, "flow.test", &ADDRESS);
        for number in 1..1000 {
            let later = now + Duration::from_millis(number);
            let text = format!("{number}.test");
            let first = cache.begin_lookup(name(&text), 1, b"", later);
            first.expect("room");
            resolve(&mut cache, &text, &ADDRESS);
            let action = cache.route(&name("flow.test"), 1, b"", later);
            assert_eq!(action, send(&ADDRESS, false));
            assert!(cache.entries.len() <= MAX_NAMES);
        }
    }

    #[test]
    fn u16_an_established_flow_outlives_many_newer_names() {
        let (mut cache, now) = (NameCache::new(MAX_LOOKUPS), Instant::now());
        let flow = name("flow.test");
        begin(&mut cache, "flow.test", b"").expect("room");
        resolve(&mut cache, "flow.test", &ADDRESS);
        cache.route(&flow, 1, b"", now);
        cache.answered((ADDRESS[0], 1).into(), true, now);
        for number in 0..1000 {
            let later = now + Duration::from_millis(number);
            let text = format!("{number}.test");
            let first = cache.begin_lookup(name(&text), 1, b"", later);
            first.expect("room");
            resolve(&mut cache, &text, &ADDRESS);
        }
        assert!(cache.entries.contains_key(&flow));
        // After its end it is a name like others.
        let later = now + Duration::from_secs(301);
        cache
            .begin_lookup(name("late.test"), 1, b"", later)
            .expect("room");
        assert!(!cache.entries.contains_key(&flow));
    }

    #[test]
    fn u16_each_port_of_a_name_keeps_its_address() {
        let (mut cache, now, a) = (NameCache::new(MAX_LOOKUPS), Instant::now(), name("a.test"));
        let [one, two] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        begin(&mut cache, "a.test", b"").expect("room");
        resolve(&mut cache, "a.test", &[one, two]);
        let first = |cache: &mut NameCache, port, now| {
            let action = cache.route(&a, port, b"", now);
            let NameAction::Send { route, is_expired } = action else {
                panic!("{action:?}")
            };
            (route.addresses[0], is_expired)
        };
        assert_eq!(first(&mut cache, 53, now), (one, false));
        cache.answered((one, 53).into(), true, now);
        // DNS returns the other order. Flows that are answered need no new lookup.
        let later = now + 2 * POSITIVE_TTL;
        assert_eq!(first(&mut cache, 53, later), (one, false));
        assert_eq!(first(&mut cache, 54, later), (one, true));
        cache.resolved(&a, &[two, one], later);
        cache.unreachable((one, 54).into(), later);
        assert_eq!(first(&mut cache, 54, later), (two, false));
        assert_eq!(first(&mut cache, 53, later), (one, false));
    }

    /// The client also sends to another port of the first address, by address. What comes from
    /// there is no answer to the flow; what comes from an unknown port may be one (TFTP).
    #[test]
    fn u20_answers_to_other_destinations_do_not_keep_a_flow_at_its_address() {
        for (is_exact, used_later) in [(true, 2), (false, 1)] {
            let (mut cache, now, a) = (NameCache::new(MAX_LOOKUPS), Instant::now(), name("a.test"));
            let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
            begin(&mut cache, "a.test", b"").expect("room");
            resolve(&mut cache, "a.test", &addresses);
            let mut last = addresses[0];
            for second in 0..4 {
                let now = now + Duration::from_secs(second);
                last = cache.next_route(&a, 1, now).addresses[0];
                cache.answered((addresses[0], 53).into(), is_exact, now);
            }
            assert_eq!(last, addresses[used_later - 1]);
        }
    }

    fn flow_count(cache: &NameCache) -> usize {
        let names = cache.entries.values();
        names.map(|entry| entry.flows.len()).sum()
    }

    /// The client uses five thousand ports of one name in turn, and exchanges datagrams with
    /// a hundred ports of another one meanwhile.
    #[test]
    fn u25_established_flows_outlive_a_thousand_newer_ones() {
        let (mut cache, mut now) = (NameCache::new(MAX_LOOKUPS), Instant::now());
        let [one, two] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let (a, b) = (name("a.test"), name("b.test"));
        for text in ["a.test", "b.test"] {
            begin(&mut cache, text, b"").expect("room");
            resolve(&mut cache, text, &[one, two]);
        }
        let first = |cache: &mut NameCache, name, port, now| {
            let route = cache.next_route(name, port, now);
            (route.addresses[0], route.is_established)
        };
        let is_at_one = |port: u16| port.is_multiple_of(2);
        for port in 1..=100 {
            first(&mut cache, &a, port, now);
            cache.set_address(&a, port, if is_at_one(port) { one } else { two }, now);
            let address = if is_at_one(port) { one } else { two };
            cache.answered((address, port).into(), true, now);
        }
        for port in 1..=5000 {
            now += Duration::from_millis(1);
            first(&mut cache, &b, port, now);
            let count = flow_count(&cache);
            assert!(count <= MAX_FLOWS, "{count}");
            // The newest ones remain.
            let newest = port.saturating_sub(MAX_FLOWS as u16 - REMOVED_FLOWS as u16 - 101);
            assert!(cache.entries[&b].flows.has(newest.max(1)), "{port}");
        }
        for port in 1..=100 {
            let address = if is_at_one(port) { one } else { two };
            assert_eq!(first(&mut cache, &a, port, now), (address, true));
        }
    }

    #[test]
    fn u25_the_flow_that_was_used_longest_ago_is_removed() {
        let (mut cache, now, a) = (NameCache::new(MAX_LOOKUPS), Instant::now(), name("a.test"));
        begin(&mut cache, "a.test", b"").expect("room");
        resolve(&mut cache, "a.test", &ADDRESS);
        let answered = |cache: &mut NameCache, port, millis| {
            let now = now + Duration::from_millis(millis);
            cache.next_route(&a, port, now);
            cache.answered((ADDRESS[0], port).into(), true, now);
        };
        let ports = 1..=MAX_FLOWS as u16;
        ports
            .clone()
            .for_each(|port| answered(&mut cache, port, u64::from(port)));
        // All are established. The first half is used again.
        let half = MAX_FLOWS as u16 / 2;
        (1..=half).for_each(|port| answered(&mut cache, port, 2000));
        answered(&mut cache, 5000, 2000);
        let removed = half + 1..=half + REMOVED_FLOWS as u16;
        for port in ports {
            let is_kept = cache.entries[&name("a.test")].flows.has(port);
            assert_eq!(is_kept, !removed.contains(&port), "{port}");
        }
    }

    #[test]
    fn u27_both_families_are_among_the_addresses_of_a_name() {
        let (mut cache, now, a) = (NameCache::new(MAX_LOOKUPS), Instant::now(), name("a.test"));
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let v4 = |last: u8| IpAddr::from([192, 0, 2, last]);
        // In the order in which a lookup returns them.
        let many: Vec<IpAddr> = (1..=100).map(v6).chain([v4(1), v4(2)]).collect();
        let many = crate::net::interleave(many, IpAddr::is_ipv6);
        begin(&mut cache, "a.test", b"").expect("room");
        resolve(&mut cache, "a.test", &many);
        let used = cache.next_route(&a, 1, now).addresses;
        assert_eq!(used[..4], [v6(1), v4(1), v6(2), v4(2)]);
        assert_eq!((used.len(), used[31]), (MAX_ADDRESSES_PER_NAME, v6(30)));
        assert_eq!(
            cache.entries[&a].addresses.capacity(),
            MAX_ADDRESSES_PER_NAME
        );
    }
}
