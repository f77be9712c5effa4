//! What counts as one client: an IPv4 address, or a part of the IPv6 address.

use std::net::{IpAddr, Ipv6Addr};

/// A group of addresses that share a limit: one IPv4 address, or the IPv6 addresses that
/// begin with the same 64, 56 or 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourcePrefix {
    /// The first address of the group; IPv4 in its own form.
    first: IpAddr,
    /// Bits that all addresses of the group share.
    bits: u8,
}

/// The largest [factor](SourcePrefix::factor); each factor divides it.
pub(crate) const MAX_FACTOR: usize = 16;

/// The prefixes under which a client is counted, all at once.
///
/// A host has all addresses of a /64. A customer has a /56 or a /48 (RFC 6177), and could
/// change the /64 with each connection. On the other hand, each phone of a mobile network
/// has a /64 of its own, so a /56 may be many clients. So all three are counted, and the
/// limit grows with the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourcePrefixes {
    /// IPv4 in its own form.
    client: IpAddr,
}

impl SourcePrefix {
    fn new(client: IpAddr, bits: u8) -> SourcePrefix {
        let first = match client {
            IpAddr::V6(v6) => {
                let host_bits = 128 - u32::from(bits);
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
            v4 => v4,
        };
        SourcePrefix { first, bits }
    }

    /// How many times the limit of a single client this prefix may have: 4 for a /56, and
    /// 16 for a /48.
    pub(crate) fn factor(self) -> usize {
        match (self.first, self.bits) {
            (IpAddr::V6(_), 56) => 4,
            (IpAddr::V6(_), 48) => MAX_FACTOR,
            _ => 1,
        }
    }
}

impl SourcePrefixes {
    pub(crate) fn of(client: IpAddr) -> SourcePrefixes {
        SourcePrefixes {
            client: client.to_canonical(),
        }
    }

    /// The smallest group: the IPv4 address, or the /64 of one host or network.
    pub(crate) fn smallest(self) -> SourcePrefix {
        let bits = match self.client {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 64,
        };
        SourcePrefix::new(self.client, bits)
    }

    /// The address of the client; IPv4 in its own form.
    pub(crate) fn client(self) -> IpAddr {
        self.client
    }

    /// The prefixes, the smallest group first: one of an IPv4 address, three of an IPv6
    /// address.
    pub(crate) fn iter(self) -> impl Iterator<Item = SourcePrefix> {
        let bits: &[u8] = match self.client {
            IpAddr::V4(_) => &[32],
            IpAddr::V6(_) => &[64, 56, 48],
        };
        bits.iter()
            .map(move |&bits| SourcePrefix::new(self.client, bits))
    }

    /// The prefixes and their factors, as a `KeyedSemaphore` takes them.
    pub(crate) fn with_factors(self) -> impl Iterator<Item = (SourcePrefix, usize)> {
        self.iter().map(|prefix| (prefix, prefix.factor()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_s23_a_client_is_an_ipv4_address_or_three_ipv6_prefixes() {
        for (client, expected) in [
            ("127.0.0.2", vec![("127.0.0.2", 32, 1)]),
            ("::ffff:127.0.0.2", vec![("127.0.0.2", 32, 1)]),
            (
                "2001:db8:1:2:3:4:5:6",
                vec![
                    ("2001:db8:1:2::", 64, 1),
                    ("2001:db8:1::", 56, 4),
                    ("2001:db8:1::", 48, 16),
                ],
            ),
            (
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                vec![
                    ("2001:db8:ffff:ffff::", 64, 1),
                    ("2001:db8:ffff:ff00::", 56, 4),
                    ("2001:db8:ffff::", 48, 16),
                ],
            ),
            ("::1", vec![("::", 64, 1), ("::", 56, 4), ("::", 48, 16)]),
        ] {
            let found: Vec<_> = SourcePrefixes::of(client.parse().unwrap())
                .with_factors()
                .map(|(prefix, factor)| (prefix.first, prefix.bits, factor))
                .collect();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(first, bits, factor)| (first.parse::<IpAddr>().unwrap(), bits, factor))
                .collect();
            assert_eq!(found, expected, "{client}");
        }
    }

    #[test]
    fn s23_prefixes_of_different_lengths_are_different_keys() {
        let of = |client: &str| -> Vec<_> {
            SourcePrefixes::of(client.parse().unwrap()).iter().collect()
        };
        let keys = of("2001:db8::1");
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        // Another /64 of the same /56, another /56 of the same /48, another /48.
        for (other, shared) in [
            ("2001:db8::2", 3),
            ("2001:db8:0:1::1", 2),
            ("2001:db8:0:100::1", 1),
            ("2001:db8:1::1", 0),
        ] {
            let keys_of_other = of(other);
            let count = keys_of_other.iter().filter(|it| keys.contains(it)).count();
            assert_eq!(count, shared, "{other}");
        }
    }
}
