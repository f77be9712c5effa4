//! From which peers a client may receive datagrams: those to which it has sent some lately.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::protocol::HostName;

/// Entries of one generation; two generations are kept. A client that exchanges files with
/// hundreds of peers still gets all their answers, and even with the longest names one
/// client takes at most 760 kB.
const GENERATION_SIZE: usize = 1024;

/// The peers to which one client has sent datagrams, the oldest removed first.
///
/// When the young generation is full, it replaces the old one. That is cheaper than
/// keeping all entries in order, and removes hardly more.
#[derive(Debug, Default)]
pub(super) struct PeerFilter {
    young: Generation,
    old: Generation,
}

/// Each peer with the name by which the client has sent to it last, if it was a name.
type Generation = HashMap<SocketAddr, Option<HostName>>;

/// A peer from which the client may receive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KnownPeer<'a> {
    /// The name by which the client has sent to it last, if it was a name.
    pub(super) name: Option<&'a HostName>,
    /// Has the client sent to this port, and not only to another port of the host?
    pub(super) is_exact: bool,
}

/// Stands for any port of a host: no datagram is sent to port 0, and none comes from it.
const ANY_PORT: u16 = 0;

impl PeerFilter {
    /// Notes that the client sends to this address, by this name if it used one.
    pub(super) fn add(&mut self, address: SocketAddr, name: Option<&HostName>) {
        for entry in [address, SocketAddr::new(address.ip(), ANY_PORT)] {
            if self
                .young
                .get(&entry)
                .is_some_and(|known| known.as_ref() == name)
            {
                continue;
            }
            if self.young.len() >= GENERATION_SIZE {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(entry, name.cloned());
        }
    }

    /// The peer, if the client has sent to this address, or at least to another port of this
    /// host.
    pub(super) fn find(&self, address: SocketAddr) -> Option<KnownPeer<'_>> {
        let any_port = SocketAddr::new(address.ip(), ANY_PORT);
        let entries = [(address, true), (any_port, false)];
        entries.into_iter().find_map(|(entry, is_exact)| {
            let young = self.young.get(&entry);
            let name = young.or_else(|| self.old.get(&entry))?.as_ref();
            Some(KnownPeer { name, is_exact })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::protocol::Host;

    fn address(number: u32) -> SocketAddr {
        (Ipv4Addr::from_bits(number), 53).into()
    }

    fn known(name: Option<&HostName>, is_exact: bool) -> Option<KnownPeer<'_>> {
        Some(KnownPeer { name, is_exact })
    }

    #[test]
    fn u07_recent_peers_are_kept_in_at_most_two_generations() {
        let mut filter = PeerFilter::default();
        let frequent = address(1);
        for number in 0..100_000 {
            filter.add(address(number), None);
            filter.add(frequent, None);
            assert_eq!(filter.find(frequent), known(None, true));
            // An address takes two entries.
            let latest = number.saturating_sub(GENERATION_SIZE as u32 / 2 - 2)..=number;
            assert!(filter.find(address(*latest.start())).is_some(), "{number}");
            assert!(filter.young.len() + filter.old.len() <= 2 * GENERATION_SIZE);
        }
        assert_eq!(filter.find(address(90_000)), None);
    }

    #[test]
    fn the_last_name_also_counts_for_other_ports_of_the_host() {
        let mut filter = PeerFilter::default();
        let Host::Name(name) = Host::from_name(b"a.test") else {
            panic!("it is a name")
        };
        let (first, other_port) = (address(1), SocketAddr::new(address(1).ip(), 54));
        filter.add(first, Some(&name));
        assert_eq!(filter.find(first), known(Some(&name), true));
        assert_eq!(filter.find(other_port), known(Some(&name), false));
        filter.add(first, None);
        assert_eq!(filter.find(first), known(None, true));
        assert_eq!(filter.find(other_port), known(None, false));
    }
}
