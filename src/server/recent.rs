//! The addresses a client has lately sent datagrams to.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

/// Entries of a generation; two of them are remembered. Who shares files with
/// hundreds of others still gets all their answers, and nobody more than 200 kB
/// of our memory.
const GENERATION: usize = 1024;

/// Forgets the oldest when there are too many. (When a generation is full, the one
/// before it is forgotten: cheaper than to keep them in order, and hardly worse.)
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashSet<SocketAddr>,
    old: HashSet<SocketAddr>,
}

/// No datagram goes to this port: it stands for any of a host.
const ANY: u16 = 0;

impl Recent {
    pub(super) fn add(&mut self, address: SocketAddr) {
        for entry in [address, SocketAddr::new(address.ip(), ANY)] {
            if self.young.contains(&entry) {
                continue;
            }
            if self.young.len() >= GENERATION {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(entry);
        }
    }

    /// Has something been sent there?
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.young.contains(&address) || self.old.contains(&address)
    }

    /// Has something been sent to any port there?
    pub(super) fn has_host(&self, ip: IpAddr) -> bool {
        self.has(SocketAddr::new(ip, ANY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> SocketAddr {
        (Ipv4Addr::from_bits(number), 53).into()
    }

    #[test]
    fn u07_the_latest_are_remembered_and_no_more_than_two_generations() {
        let mut recent = Recent::default();
        let favourite = address(1);
        for number in 0..100_000 {
            recent.add(address(number));
            recent.add(favourite);
            assert!(recent.has(favourite));
            // An address takes two entries.
            let latest = number.saturating_sub(GENERATION as u32 / 2 - 2)..=number;
            assert!(recent.has(address(*latest.start())), "{number}");
            assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION);
        }
        assert!(!recent.has(address(90_000)));
        assert!(recent.has_host(favourite.ip()));
        assert!(!recent.has_host(address(90_000).ip()));
        assert!(!recent.has(SocketAddr::new(favourite.ip(), 54)));
    }
}
