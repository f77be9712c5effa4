//! Groups of networks that have a word in rules: `loopback`, `linklocal`, `private`, `metadata`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A group of networks of both address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetworkGroup {
    /// This machine.
    Loopback,
    /// Hosts on the same link.
    LinkLocal,
    /// Networks that are not routed on the internet.
    Private,
    /// Services of clouds, from which any process of a machine gets the machine's credentials.
    Metadata,
}

/// The networks of one family: the first address, and how many of its first bits are fixed.
type Networks<Address> = &'static [(Address, u32)];

/// RFC 1122, section 3.2.1.3.
const LOOPBACK_V4: Networks<Ipv4Addr> = &[(Ipv4Addr::new(127, 0, 0, 0), 8)];
/// RFC 4291, section 2.5.3.
const LOOPBACK_V6: Networks<Ipv6Addr> = &[(Ipv6Addr::LOCALHOST, 128)];

/// RFC 3927.
const LINK_LOCAL_V4: Networks<Ipv4Addr> = &[(Ipv4Addr::new(169, 254, 0, 0), 16)];
/// RFC 4291, section 2.5.6.
const LINK_LOCAL_V6: Networks<Ipv6Addr> = &[(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 0), 10)];

/// RFC 1918. Without 100.64.0.0/10 (RFC 6598): there the neighbours are the other customers
/// of a provider.
const PRIVATE_V4: Networks<Ipv4Addr> = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];
/// Unique local addresses (RFC 4193), and the site-local ones before them (RFC 3879), which
/// QEMU still gives its guests.
const PRIVATE_V6: Networks<Ipv6Addr> = &[
    (Ipv6Addr::new(0xFC00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// Each from the manual of its provider.
const METADATA_V4: Networks<Ipv4Addr> = &[
    // AWS, Azure, Google, Oracle, OpenStack, Akamai, DigitalOcean and others.
    (Ipv4Addr::new(169, 254, 169, 254), 32),
    // AWS: tasks of ECS, pods of EKS.
    (Ipv4Addr::new(169, 254, 170, 2), 32),
    (Ipv4Addr::new(169, 254, 170, 23), 32),
    // Scaleway.
    (Ipv4Addr::new(169, 254, 42, 42), 32),
    // Tencent.
    (Ipv4Addr::new(169, 254, 0, 23), 32),
    // Alibaba.
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    // Azure: WireServer.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Oracle Classic.
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];
/// Each from the manual of its provider.
const METADATA_V6: Networks<Ipv6Addr> = &[
    // AWS, and its pods of EKS.
    (Ipv6Addr::new(0xFD00, 0xEC2, 0, 0, 0, 0, 0, 0x254), 128),
    (Ipv6Addr::new(0xFD00, 0xEC2, 0, 0, 0, 0, 0, 0x23), 128),
    // Google.
    (Ipv6Addr::new(0xFD20, 0xCE, 0, 0, 0, 0, 0, 0x254), 128),
    // Oracle.
    (Ipv6Addr::new(0xFD00, 0xC1, 0, 0, 0, 0, 0xA9FE, 0xA9FE), 128),
    // OpenStack.
    (Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0xA9FE, 0xA9FE), 128),
    // Akamai.
    (Ipv6Addr::new(0xFD00, 0xA9FE, 0xA9FE, 0, 0, 0, 0, 1), 128),
    // Scaleway.
    (Ipv6Addr::new(0xFD00, 0x42, 0, 0, 0, 0, 0, 0x42), 128),
    // Alibaba.
    (Ipv6Addr::new(0xFD00, 0x100, 0, 0, 0, 0, 0x100, 0x200), 128),
];

/// Is this an address of this machine, of its link, or of a metadata service? Only the
/// operator may let a name stand for such an address.
pub(super) fn is_local(address: IpAddr) -> bool {
    let groups = [
        NetworkGroup::Loopback,
        NetworkGroup::LinkLocal,
        NetworkGroup::Metadata,
    ];
    address.is_unspecified() || groups.iter().any(|group| group.contains(address))
}

impl NetworkGroup {
    /// All groups.
    pub(super) const ALL: [NetworkGroup; 4] = [
        NetworkGroup::Loopback,
        NetworkGroup::LinkLocal,
        NetworkGroup::Private,
        NetworkGroup::Metadata,
    ];

    /// The group with this word, in any case.
    pub(super) fn parse(word: &str) -> Option<NetworkGroup> {
        let mut groups = NetworkGroup::ALL.into_iter();
        groups.find(|group| word.eq_ignore_ascii_case(group.word()))
    }

    /// Has the name one letter more or less at its end than a word for a group?
    pub(super) fn is_misspelled(name: &str) -> bool {
        let mut words = NetworkGroup::ALL.into_iter().map(NetworkGroup::word);
        words.any(|word| match name.len().checked_sub(word.len()) {
            Some(more) => more == 1 && name.starts_with(word),
            None => word.len() - name.len() == 1 && word.starts_with(name),
        })
    }

    /// The word in rules.
    pub(super) fn word(self) -> &'static str {
        match self {
            NetworkGroup::Loopback => "loopback",
            NetworkGroup::LinkLocal => "linklocal",
            NetworkGroup::Private => "private",
            NetworkGroup::Metadata => "metadata",
        }
    }

    /// Is the address in a network of the group? An IPv4-mapped IPv6 address is in the
    /// networks of its IPv4 address.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4().iter().any(|(first, bits)| {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= *bits
            }),
            IpAddr::V6(address) => self.v6().iter().any(|(first, bits)| {
                (first.to_bits() ^ address.to_bits()).leading_zeros() >= *bits
            }),
        }
    }

    /// Does an IPv4 network of the group contain all addresses that have the bits of `value`
    /// where `mask` has ones?
    pub(super) fn contains_ipv4(self, value: Ipv4Addr, mask: Ipv4Addr) -> bool {
        self.v4().iter().any(|(first, bits)| {
            let equal_bits = (first.to_bits() ^ value.to_bits()).leading_zeros();
            equal_bits.min(mask.to_bits().leading_ones()) >= *bits
        })
    }

    /// Are all addresses of an IPv4 network of the group among these?
    pub(super) fn is_within_ipv4(self, value: Ipv4Addr, mask: Ipv4Addr) -> bool {
        let is_within = |(first, bits): &(Ipv4Addr, u32)| {
            32 - mask.to_bits().trailing_zeros() <= *bits && *first & mask == value
        };
        self.v4().iter().any(is_within)
    }

    /// Does an IPv6 network of the group have an address in this range?
    pub(super) fn meets_ipv6(self, first: Ipv6Addr, bits: u8) -> bool {
        self.v6().iter().any(|(network, network_bits)| {
            let equal_bits = (network.to_bits() ^ first.to_bits()).leading_zeros();
            equal_bits >= u32::from(bits).min(*network_bits)
        })
    }

    fn v4(self) -> Networks<Ipv4Addr> {
        match self {
            NetworkGroup::Loopback => LOOPBACK_V4,
            NetworkGroup::LinkLocal => LINK_LOCAL_V4,
            NetworkGroup::Private => PRIVATE_V4,
            NetworkGroup::Metadata => METADATA_V4,
        }
    }

    fn v6(self) -> Networks<Ipv6Addr> {
        match self {
            NetworkGroup::Loopback => LOOPBACK_V6,
            NetworkGroup::LinkLocal => LINK_LOCAL_V6,
            NetworkGroup::Private => PRIVATE_V6,
            NetworkGroup::Metadata => METADATA_V6,
        }
    }
}

impl fmt::Display for NetworkGroup {
    /// Writes the word.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the groups that contain this address.
    fn words_of(address: &str) -> String {
        let address: IpAddr = address.parse().expect(address);
        let groups = NetworkGroup::ALL.into_iter();
        let words = groups.filter(|group| group.contains(address));
        words.map(NetworkGroup::word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn f16_each_group_has_its_networks_of_both_families() {
        for (address, words) in [
            ("127.0.0.0", "loopback"),
            ("127.255.255.255", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("::2", ""),
            ("::", ""),
            ("126.255.255.255", ""),
            ("128.0.0.0", ""),
            ("0.0.0.0", ""),
            ("169.254.0.0", "linklocal"),
            ("169.254.255.255", "linklocal"),
            ("169.253.255.255", ""),
            ("169.255.0.0", ""),
            ("fe80::1", "linklocal"),
            ("febf:ffff::", "linklocal"),
            ("fe7f:ffff::", ""),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("::ffff:10.0.0.1", "private"),
            ("9.255.255.255", ""),
            ("11.0.0.0", ""),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("172.15.255.255", ""),
            ("172.32.0.0", ""),
            ("192.168.0.0", "private"),
            ("192.168.255.255", "private"),
            ("192.167.255.255", ""),
            ("192.169.0.0", ""),
            ("100.64.0.1", ""),
            ("fc00::", "private"),
            ("fdff:ffff::1", "private"),
            ("fbff:ffff::1", ""),
            ("fe00::", ""),
            ("fec0::2", "private"),
            ("feff:ffff::1", "private"),
            ("ff00::", ""),
            ("169.254.169.254", "linklocal metadata"),
            ("::ffff:169.254.169.254", "linklocal metadata"),
            ("169.254.170.2", "linklocal metadata"),
            ("169.254.170.23", "linklocal metadata"),
            ("169.254.42.42", "linklocal metadata"),
            ("169.254.0.23", "linklocal metadata"),
            ("100.100.100.200", "metadata"),
            ("100.100.100.201", ""),
            ("168.63.129.16", "metadata"),
            ("192.0.0.192", "metadata"),
            ("fd00:ec2::254", "private metadata"),
            ("fd00:ec2::23", "private metadata"),
            ("fd20:ce::254", "private metadata"),
            ("fd00:c1::a9fe:a9fe", "private metadata"),
            ("fe80::a9fe:a9fe", "linklocal metadata"),
            ("fd00:a9fe:a9fe::1", "private metadata"),
            ("fd00:42::42", "private metadata"),
            ("fd00:100::100:200", "private metadata"),
            ("140.113.1.2", ""),
            ("2001:db8::1", ""),
        ] {
            assert_eq!(words_of(address), words, "{address}");
        }
    }

    #[test]
    fn f16_each_word_is_parsed_in_any_case() {
        for group in NetworkGroup::ALL {
            assert_eq!(NetworkGroup::parse(group.word()), Some(group));
            let upper = group.to_string().to_uppercase();
            assert_eq!(NetworkGroup::parse(&upper), Some(group));
        }
        assert_eq!(NetworkGroup::parse("link-local"), None);
        assert_eq!(NetworkGroup::parse("loopback."), None);
    }
}
