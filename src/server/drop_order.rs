//! Which of the clients without a request is dropped first: data only, without locks or clocks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use crate::source_prefix::{MAX_FACTOR, SourcePrefix, SourcePrefixes};

/// Clients in the order in which they are dropped: first those that the rules permit nothing,
/// among them those of the source that has the most, and among these the oldest.
///
/// The connections of an IPv6 network count like those of one source, divided by its
/// [factor](SourcePrefix::factor). Each operation takes logarithmic time: with thousands of
/// sources, looking at all of them for each new client would take too long.
#[derive(Debug, Default)]
pub(super) struct DropOrder {
    /// By session number. So a smaller key means an older client.
    clients: BTreeMap<u64, (Source, Instant)>,
    /// The clients of each source. No group is empty.
    groups: HashMap<Group, BTreeSet<u64>>,
    /// The oldest client of each group.
    ranking: BTreeSet<Rank>,
}

/// What is known of a client before its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    prefixes: SourcePrefixes,
    is_unpermitted: bool,
}

/// The clients with the same prefix, without or with the chance of a permit.
type Group = (bool, SourcePrefix);

/// The place of a client in the order; the greatest is dropped first. The fields are compared
/// in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) weight: Weight,
    oldest: Reverse<u64>,
    /// A client has a rank for each of its prefixes.
    prefix: SourcePrefix,
}

/// What makes a client come before others of any age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    is_unpermitted: bool,
    /// The clients of its source, divided by the factor of the prefix and multiplied by
    /// [`MAX_FACTOR`].
    share: usize,
}

impl Weight {
    /// That of the only client of a source, to which the rules can permit something.
    pub(super) const OF_ONE: Weight = Weight {
        is_unpermitted: false,
        share: MAX_FACTOR,
    };
}

impl Source {
    pub(super) fn new(client: IpAddr, is_unpermitted: bool) -> Source {
        Source {
            prefixes: SourcePrefixes::of(client),
            is_unpermitted,
        }
    }

    /// IPv4 in its own form.
    pub(super) fn client(self) -> IpAddr {
        self.prefixes.client()
    }

    /// Do the rules permit nothing to it?
    pub(super) fn is_unpermitted(self) -> bool {
        self.is_unpermitted
    }

    fn groups(self) -> impl Iterator<Item = Group> {
        let with_prefix = move |prefix| (self.is_unpermitted, prefix);
        self.prefixes.iter().map(with_prefix)
    }
}

impl Rank {
    /// The number of the client.
    pub(super) fn client(self) -> u64 {
        self.oldest.0
    }
}

impl DropOrder {
    pub(super) fn add(&mut self, client: u64, source: Source, now: Instant) {
        self.clients.insert(client, (source, now));
        self.change_groups(source, |clients| clients.insert(client));
    }

    /// Removes a client; `None` if it was removed before.
    pub(super) fn remove(&mut self, client: u64) -> Option<Source> {
        let (source, _) = self.clients.remove(&client)?;
        self.change_groups(source, |clients| clients.remove(&client));
        Some(source)
    }

    /// Changes the groups of a source, and with them the ranking.
    fn change_groups(&mut self, source: Source, change: impl Fn(&mut BTreeSet<u64>) -> bool) {
        for group in source.groups() {
            let clients = self.groups.entry(group).or_default();
            if let Some(rank) = rank(group, clients) {
                self.ranking.remove(&rank);
            }
            change(clients);
            match rank(group, clients) {
                Some(rank) => drop(self.ranking.insert(rank)),
                None => drop(self.groups.remove(&group)),
            }
        }
    }

    /// Was this client added, and not removed?
    pub(super) fn contains(&self, client: u64) -> bool {
        self.clients.contains_key(&client)
    }

    /// The oldest client, whatever its source, and when it was added.
    pub(super) fn oldest(&self) -> Option<(u64, Instant)> {
        let (&client, &(_, since)) = self.clients.first_key_value()?;
        Some((client, since))
    }

    /// The client that is to be dropped first.
    pub(super) fn first(&self) -> Option<Rank> {
        self.ranking.last().copied()
    }

    /// The weight of the clients of this source.
    pub(super) fn weight(&self, source: Source) -> Option<Weight> {
        let weights = source.groups().filter_map(|group| {
            let clients = self.groups.get(&group)?;
            Some(rank(group, clients)?.weight)
        });
        weights.max()
    }

    /// The number of clients.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }
}

/// The rank of the oldest client of a group; `None` if the group is empty.
fn rank(group: Group, clients: &BTreeSet<u64>) -> Option<Rank> {
    let (is_unpermitted, prefix) = group;
    Some(Rank {
        weight: Weight {
            is_unpermitted,
            share: clients.len() * MAX_FACTOR / prefix.factor(),
        },
        oldest: Reverse(*clients.first()?),
        prefix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients by number, from 0 to the next one.
    #[derive(Default)]
    struct Clients {
        order: DropOrder,
        next: u64,
    }

    impl Clients {
        fn add(&mut self, address: &str, is_unpermitted: bool) {
            let source = Source::new(address.parse().unwrap(), is_unpermitted);
            self.order.add(self.next, source, Instant::now());
            self.next += 1;
        }

        fn drop_first(&mut self) -> Option<u64> {
            let first = self.order.first()?.client();
            self.order.remove(first).unwrap();
            Some(first)
        }

        fn drop_all(&mut self) -> Vec<u64> {
            let dropped: Vec<u64> = std::iter::from_fn(|| self.drop_first()).collect();
            assert_eq!(self.order.len(), 0);
            assert!(self.order.groups.is_empty() && self.order.ranking.is_empty());
            dropped
        }
    }

    #[test]
    fn s26_the_source_with_the_most_clients_loses_its_oldest_one() {
        let mut clients = Clients::default();
        for address in [
            "10.0.0.1",
            "10.0.0.2",
            "10.0.0.2",
            "10.0.0.3",
            "::ffff:10.0.0.2",
        ] {
            clients.add(address, false);
        }
        // 10.0.0.2 until it has one like the others, then by age.
        assert_eq!(clients.drop_all(), [1, 2, 0, 3, 4]);
    }

    #[test]
    fn s26_a_client_that_has_left_is_not_dropped() {
        let mut clients = Clients::default();
        for address in ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"] {
            clients.add(address, false);
        }
        assert!(clients.order.remove(0).is_some());
        assert_eq!(clients.order.remove(0), None);
        assert_eq!(clients.drop_first(), Some(1));
        assert_eq!(clients.order.remove(1), None);
        assert_eq!(clients.drop_all(), [2, 3]);
    }

    #[test]
    fn s25_clients_without_a_permit_are_dropped_before_a_source_with_more() {
        let mut clients = Clients::default();
        for (address, is_unpermitted) in [
            ("10.0.0.1", false),
            ("10.0.0.1", false),
            ("10.0.0.1", false),
            ("10.0.0.2", true),
            ("10.0.0.3", true),
            ("10.0.0.3", true),
            ("10.0.0.4", false),
        ] {
            clients.add(address, is_unpermitted);
        }
        assert_eq!(clients.drop_all(), [4, 3, 5, 0, 1, 2, 6]);
    }

    #[test]
    fn s27_an_ipv6_network_of_64_bits_is_one_source() {
        let mut clients = Clients::default();
        clients.add("2001:db8:7::1", false);
        clients.add("10.0.0.1", false);
        for host in 1..=5 {
            clients.add(&format!("2001:db8:0:9::{host}"), false);
        }
        // The network loses all but one, then age decides.
        assert_eq!(clients.drop_all(), [2, 3, 4, 5, 0, 1, 6]);
    }

    #[test]
    fn s27_a_customer_with_many_networks_of_64_bits_is_one_source() {
        let mut clients = Clients::default();
        // A customer with one connection in each of 200 networks, then a home with 3.
        for network in 0..200 {
            clients.add(&format!("2001:db8:0:{network:x}::1"), false);
        }
        for _ in 0..3 {
            clients.add("2001:db8:7::1", false);
        }
        // 200 in a /56 weigh as much as 50 of a single client.
        let first: Vec<u64> = (0..188).filter_map(|_| clients.drop_first()).collect();
        assert!(first.iter().copied().eq(0..188));
        // 12 in a /56 count as much as 3 in one /64. Then the older ones are dropped.
        let next: Vec<u64> = (0..5).filter_map(|_| clients.drop_first()).collect();
        assert_eq!(next, [188, 200, 189, 190, 191]);
    }

    #[test]
    fn s27_a_site_with_many_networks_of_56_bits_is_one_source() {
        let mut clients = Clients::default();
        for network in 0..200 {
            clients.add(&format!("2001:db8:0:{network:x}00::1"), false);
        }
        clients.add("10.0.0.1", false);
        clients.add("10.0.0.1", false);
        // 33 in a /48 weigh more than 2 of a single client, 32 as much.
        let first: Vec<u64> = (0..169).filter_map(|_| clients.drop_first()).collect();
        assert!(first.iter().copied().eq(0..169));
        assert_eq!(clients.drop_first(), Some(200));
    }
}
