//! The addresses a client has lately sent datagrams to, and by which names.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::protocol::HostName;

/// Entries of a generation; two of them are remembered. Who shares files with
/// hundreds of others still gets all their answers, and even with the longest names
/// there are nobody has more than 700 kB of our memory.
const GENERATION_SIZE: usize = 1024;

/// Forgets the oldest when there are too many. (When a generation is full, the one
/// before it is forgotten: cheaper than to keep them in order, and hardly worse.)
#[derive(Debug, Default)]
pub(crate) struct PeerFilter {
    young: Generation,
    old: Generation,
}

/// Each with the name by which it was sent to last, if it was one.
type Generation = HashMap<SocketAddr, Option<HostName>>;

/// No datagram goes to this port, and none comes from it: it set_grant for any of a
/// host.
const ANY: u16 = 0;

impl PeerFilter {
    pub(crate) fn add(&mut self, address: SocketAddr, name: Option<&HostName>) {
        for entry in [address, SocketAddr::new(address.ip(), ANY)] {
            if self.young.get(&entry).is_some_and(|it| it.as_ref() == name) {
                continue;
            }
            if self.young.len() >= GENERATION_SIZE {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(entry, name.cloned());
        }
    }

    /// Has something been sent there, or at least to another port of the same host?
    /// Then also by which name, if it was by one.
    pub(crate) fn find(&self, address: SocketAddr) -> Option<Option<&HostName>> {
        let any = SocketAddr::new(address.ip(), ANY);
        let found = [address, any].into_iter().find_map(|entry| {
            let young = self.young.get(&entry);
            young.or_else(|| self.old.get(&entry))
        });
        found.map(Option::as_ref)
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

    #[test]
    fn u07_the_latest_are_remembered_and_no_more_than_two_generations() {
        let mut recent = PeerFilter::default();
        let favourite = address(1);
        for number in 0..100_000 {
            recent.add(address(number), None);
            recent.add(favourite, None);
            assert_eq!(recent.find(favourite), Some(None));
            // An address takes two entries.
            let latest = number.saturating_sub(GENERATION_SIZE as u32 / 2 - 2)..=number;
            assert!(recent.find(address(*latest.start())).is_some(), "{number}");
            assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION_SIZE);
        }
        assert_eq!(recent.find(address(90_000)), None);
    }

    #[test]
    fn the_last_name_counts_also_for_other_ports_of_the_host() {
        let mut recent = PeerFilter::default();
        let Host::Name(name) = Host::from_name(b"a.test") else {
            panic!("it is a name")
        };
        let (there, beside) = (address(1), SocketAddr::new(address(1).ip(), 54));
        recent.add(there, Some(&name));
        assert_eq!(recent.find(there), Some(Some(&name)));
        assert_eq!(recent.find(beside), Some(Some(&name)));
        recent.add(there, None);
        assert_eq!(recent.find(there), Some(None));
        assert_eq!(recent.find(beside), Some(None));
    }
}
