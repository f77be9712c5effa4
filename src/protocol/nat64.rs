//! IPv6 addresses that a NAT64 gateway translates: the IPv4 address in each (RFC 6052).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A prefix of such addresses: a gateway translates them into the IPv4 addresses that they
/// contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64Prefix {
    first: Ipv6Addr,
    /// How many bits the prefix has.
    length: u8,
}

/// The lengths that a prefix may have (RFC 6052, section 2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The octet with the bits 64 to 71: it is zero, and no part of the IPv4 address.
const RESERVED_OCTET: usize = 8;

impl Nat64Prefix {
    /// The prefix of every NAT64 gateway (RFC 6052, section 2.1).
    const WELL_KNOWN: Nat64Prefix = Nat64Prefix {
        first: Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, 0, 0),
        length: 96,
    };

    /// Parses a prefix of a network's own gateway, such as `2001:db8:64::/96`.
    ///
    /// # Errors
    ///
    /// A clause that states what a prefix is.
    pub fn parse(text: &str) -> Result<Nat64Prefix, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(first, length)| {
            Some(Nat64Prefix {
                first: first.parse().ok()?,
                length: length.parse().ok()?,
            })
        });
        let Some(prefix) = parsed.filter(|prefix| LENGTHS.contains(&prefix.length)) else {
            return Err(format!(
                "{text:?} is not a NAT64 prefix; write one of 32, 40, 48, 56, 64 or 96 bits, as \
                 2001:db8:64::/96"
            ));
        };
        let Nat64Prefix { first, length } = prefix;
        if first.to_bits() << length != 0 || first.octets().get(RESERVED_OCTET) != Some(&0) {
            return Err(format!(
                "{first} has bits after its first {length}, or among its bits 64 to 71, which \
                 must be zero"
            ));
        }
        if !may_be_a_networks_own(first) {
            return Err(format!(
                "{text} is reserved; a network's own prefix is in 2000::/3, fc00::/7 or \
                 64:ff9b:1::/48"
            ));
        }
        Ok(prefix)
    }

    /// Do all addresses whose first `bits` bits are those of `first` begin with the prefix?
    pub fn contains_range(self, first: Ipv6Addr, bits: u8) -> bool {
        bits >= self.length && self.embedded(first).is_some()
    }

    /// Do some addresses begin with both prefixes? Then it is not clear which IPv4 address these
    /// contain. No prefix that [`parse`](Self::parse) accepts overlaps the well-known one.
    pub fn overlaps(self, other: Nat64Prefix) -> bool {
        self.contains_range(other.first, other.length)
            || other.contains_range(self.first, self.length)
    }

    /// The IPv4 address in this address; `None` if it does not begin with the prefix. The bits
    /// after the IPv4 address may have any value: a gateway ignores them.
    fn embedded(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let differing = self.first.to_bits() ^ address.to_bits();
        if differing.leading_zeros() < u32::from(self.length) {
            return None;
        }
        let octets = address.octets().into_iter().enumerate();
        let after_prefix = octets.skip(usize::from(self.length / 8));
        let embedded = after_prefix.filter(|(place, _)| *place != RESERVED_OCTET);
        let bits = embedded
            .take(4)
            .fold(0, |bits, (_, octet)| bits << 8 | u32::from(octet));
        Some(Ipv4Addr::from_bits(bits))
    }
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.length)
    }
}

/// Can a network have this prefix for itself? Global unicast addresses (RFC 4291) except 6to4
/// (RFC 3056) and Teredo (RFC 4380), unique local addresses (RFC 4193), and the local
/// prefix of RFC 8215. Elsewhere an address of this machine, such as ::1, could begin with it.
fn may_be_a_networks_own(first: Ipv6Addr) -> bool {
    match first.segments() {
        [0x2002, ..] | [0x2001, 0, ..] => false,
        [0x64, 0xFF9B, 1, ..] => true,
        [segment, ..] => matches!(segment, 0x2000..=0x3FFF | 0xFC00..=0xFDFF),
    }
}

/// The address by which the rules judge a destination: of an IPv4-mapped IPv6 address, and of
/// an address with the well-known NAT64 prefix or one of these, the IPv4 address in it.
pub fn judged_address(address: IpAddr, nat64: &[Nat64Prefix]) -> IpAddr {
    let address = address.to_canonical();
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let mut prefixes = [Nat64Prefix::WELL_KNOWN].iter().chain(nat64);
    let embedded = prefixes.find_map(|prefix| prefix.embedded(v6));
    embedded.map_or(address, IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Nat64Prefix {
        Nat64Prefix::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"))
    }

    /// The examples of RFC 6052, section 2.4.
    #[test]
    fn x12_the_ipv4_address_is_found_after_a_prefix_of_each_length() {
        for (own, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ] {
            let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 33));
            let v6: IpAddr = address.parse().expect(address);
            assert_eq!(judged_address(v6, &[prefix(own)]), v4, "{own}");
            assert_eq!(judged_address(v6, &[]), v6, "without {own}");
            assert_eq!(prefix(own).to_string(), own);
        }
    }

    #[test]
    fn x12_only_addresses_with_a_prefix_are_judged_as_ipv4() {
        let own = [prefix("2001:db8:64::/96"), prefix("64:ff9b:1::/48")];
        for (address, judged) in [
            ("64:ff9b::127.0.0.1", "127.0.0.1"),
            ("64:ff9b::", "0.0.0.0"),
            ("64:ff9b::1:0:0", "64:ff9b::1:0:0"),
            (
                "64:ff9a:ffff:ffff:ffff:ffff::1",
                "64:ff9a:ffff:ffff:ffff:ffff::1",
            ),
            ("2001:db8:64::10.0.0.1", "10.0.0.1"),
            ("2001:db8:64::1:0:1", "2001:db8:64::1:0:1"),
            ("2001:db8:65::10.0.0.1", "2001:db8:65::10.0.0.1"),
            ("64:ff9b:1:7f00:0:100::", "127.0.0.1"),
            // The bits after the IPv4 address, and bits 64 to 71, have no meaning.
            ("64:ff9b:1:7f00:ff00:1ff:ffff:ffff", "127.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
        ] {
            let (address, expected) = (address.parse().unwrap(), judged.parse::<IpAddr>());
            assert_eq!(
                judged_address(address, &own),
                expected.unwrap(),
                "{address}"
            );
        }
    }

    #[test]
    fn x27_prefixes_overlap_if_one_contains_the_other() {
        for (one, other, overlap) in [
            ("2001:db8::/32", "2001:db8::/32", true),
            ("2001:db8::/32", "2001:db8:64::/96", true),
            ("2001:db8:100::/40", "2001:db8:122::/48", true),
            ("2001:db8:64::/96", "2001:db8:65::/96", false),
            ("2001:db8::/96", "2001:db8:1::/48", false),
            ("64:ff9b:1::/48", "64:ff9b:1:fffe::/96", true),
        ] {
            let (first, second) = (prefix(one), prefix(other));
            assert_eq!(first.overlaps(second), overlap, "{one} {other}");
            assert_eq!(second.overlaps(first), overlap, "{other} {one}");
            assert!(!first.overlaps(Nat64Prefix::WELL_KNOWN), "{one}");
        }
    }

    #[test]
    fn x12_a_prefix_that_no_network_can_have_is_refused() {
        for (text, reason) in [
            ("", "not a NAT64 prefix"),
            ("2001:db8::", "not a NAT64 prefix"),
            ("2001:db8::/33", "not a NAT64 prefix"),
            ("2001:db8::/128", "not a NAT64 prefix"),
            ("2001:db8::/0", "not a NAT64 prefix"),
            ("10.0.0.0/32", "not a NAT64 prefix"),
            ("2001:db8::1/96", "must be zero"),
            ("2001:db8:1::/32", "must be zero"),
            ("2001:db8:0:0:100::/96", "must be zero"),
            ("::/96", "is reserved"),
            ("::ffff:0:0/96", "is reserved"),
            ("64:ff9b::/32", "is reserved"),
            ("64:ff9b::/64", "is reserved"),
            ("64:ff9b::/96", "is reserved"),
            ("64:ff9b:2::/48", "is reserved"),
            ("2002::/32", "is reserved"),
            ("2001::/32", "is reserved"),
            ("fe80::/64", "is reserved"),
            ("ff00::/32", "is reserved"),
        ] {
            let error = Nat64Prefix::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
