//! The sets in the columns of a rule: `contains` tests a known value, `matches` one that may be unknown.
//!
//! A server with 10,000 rules calls these functions 70,000 times for one verdict. They are
//! marked as inline because they are called from other files: without that, and with a loop
//! over the columns, a verdict takes 1.5 to 2.7 times as long. A `match` of more than three
//! forms becomes a jump table, which costs as much.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::networks::NetworkGroup;
use crate::config::QuotedName;
use crate::protocol::{Command, HostName, mask_v4, mask_v6};

/// The result of a comparison with a rule or with one of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    /// The value is not known yet: some possible values match, others do not.
    Unknown,
    Yes,
}

impl Match {
    /// The result of this comparison and of the next one, which is made unless this one is a
    /// `No`.
    #[inline]
    pub(super) fn and(self, other: impl FnOnce() -> Match) -> Match {
        match self {
            Match::No => Match::No,
            Match::Unknown => Match::Unknown.min(other()),
            Match::Yes => other(),
        }
    }
}

impl From<bool> for Match {
    fn from(matches: bool) -> Match {
        if matches { Match::Yes } else { Match::No }
    }
}

/// A set of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommandSet {
    pub(super) connect: bool,
    pub(super) bind: bool,
    pub(super) udp: bool,
}

impl CommandSet {
    pub(super) const ALL: CommandSet = CommandSet {
        connect: true,
        bind: true,
        udp: true,
    };

    pub(super) const NONE: CommandSet = CommandSet {
        connect: false,
        bind: false,
        udp: false,
    };

    /// Are all commands of this set in the other one?
    pub(super) fn is_within(self, other: CommandSet) -> bool {
        self.union(other) == other
    }

    /// The commands that are in one of these sets.
    pub(super) fn union(self, other: CommandSet) -> CommandSet {
        CommandSet {
            connect: self.connect || other.connect,
            bind: self.bind || other.bind,
            udp: self.udp || other.udp,
        }
    }

    #[inline]
    pub(super) fn contains(self, command: Command) -> bool {
        match command {
            Command::Connect => self.connect,
            Command::Bind => self.bind,
            Command::Associate => self.udp,
        }
    }
}

impl fmt::Display for CommandSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == CommandSet::ALL {
            return out.write_str("-");
        }
        for (letter, is_included) in [("c", self.connect), ("b", self.bind), ("u", self.udp)] {
            out.write_str(if is_included { letter } else { "" })?;
        }
        Ok(())
    }
}

/// The IPv6 addresses from which IANA allocates networks: `2000::/3` (RFC 4291, section 2.4, and
/// its registry of global unicast addresses). Hosts of the internet have no others.
const GLOBAL_UNICAST: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);
const GLOBAL_UNICAST_BITS: u8 = 3;

/// A set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressSet {
    /// Every address of either family.
    Any,
    /// The IPv4 addresses that have the bits of `value` where `mask` has ones: a range
    /// (`10.0.0.0/8`), or some octets (`*.*.99.0`). Elsewhere `value` has zeros.
    V4 { value: Ipv4Addr, mask: Ipv4Addr },
    /// The IPv6 addresses whose first `bits` bits are those of `first`.
    V6 { first: Ipv6Addr, bits: u8 },
    /// The networks of this group, of both families.
    Group(NetworkGroup),
    /// One address that ends with zeros and is written without `/32` or `/128`: a network may
    /// be meant.
    Unmasked(IpAddr),
}

impl AddressSet {
    /// The word `private`.
    pub(super) const PRIVATE: AddressSet = AddressSet::Group(NetworkGroup::Private);

    /// The set of this address alone.
    pub(super) fn one(address: IpAddr) -> AddressSet {
        let set = match address {
            IpAddr::V4(value) => AddressSet::V4 {
                value,
                mask: Ipv4Addr::BROADCAST,
            },
            IpAddr::V6(first) => AddressSet::V6 { first, bits: 128 },
        };
        match ends_with_zeros(address) {
            true => AddressSet::Unmasked(address),
            false => set,
        }
    }

    #[inline]
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (AddressSet::Any, _) => true,
            (AddressSet::V4 { value, mask }, IpAddr::V4(address)) => {
                address.to_bits() & mask.to_bits() == value.to_bits()
            }
            (AddressSet::V4 { .. }, IpAddr::V6(_)) => false,
            _ => self.contains_other(address),
        }
    }

    /// The same for the rarer forms. Apart, so that the code of the usual forms is a chain of
    /// two comparisons and no jump table.
    #[inline(never)]
    fn contains_other(&self, address: IpAddr) -> bool {
        match (self, address) {
            (AddressSet::V6 { first, bits }, IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v6(*bits) == 0
            }
            (AddressSet::Group(group), address) => group.contains(address),
            (AddressSet::Unmasked(one), address) => *one == address,
            _ => false,
        }
    }

    /// Does the set contain all IPv4 addresses, or all IPv6 addresses of the internet?
    pub(super) fn contains_a_family(&self) -> bool {
        match *self {
            AddressSet::V4 { mask, .. } => mask.is_unspecified(),
            AddressSet::V6 { bits, .. } => {
                bits <= GLOBAL_UNICAST_BITS && self.contains(GLOBAL_UNICAST.into())
            }
            _ => self.contains_all_ipv6(),
        }
    }

    /// Does the set contain all IPv6 addresses?
    pub(super) fn contains_all_ipv6(&self) -> bool {
        matches!(self, AddressSet::Any | AddressSet::V6 { bits: 0, .. })
    }

    /// The value and the mask of a set of IPv4 addresses alone.
    pub(super) fn as_ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match *self {
            AddressSet::V4 { value, mask } => Some((value, mask)),
            AddressSet::Unmasked(IpAddr::V4(value)) => Some((value, Ipv4Addr::BROADCAST)),
            _ => None,
        }
    }

    /// The first address of a range of IPv6 addresses, and how many of its bits are fixed.
    pub(super) fn as_ipv6(&self) -> Option<(Ipv6Addr, u8)> {
        match *self {
            AddressSet::V6 { first, bits } => Some((first, bits)),
            AddressSet::Unmasked(IpAddr::V6(first)) => Some((first, 128)),
            _ => None,
        }
    }

    /// If the set is one address that ends with zeros: the address, and the network that it
    /// may stand for.
    pub(super) fn likely_network(&self) -> Option<(IpAddr, String)> {
        let AddressSet::Unmasked(address) = *self else {
            return None;
        };
        let network = match address {
            _ if address.is_unspecified() => "-".to_owned(),
            IpAddr::V4(v4) => {
                let ones = 32 - v4.to_bits().trailing_zeros() / 8 * 8;
                Octets(v4, mask_v4(ones as u8)).to_string()
            }
            IpAddr::V6(v6) => format!("{v6}/{}", 128 - v6.to_bits().trailing_zeros() / 16 * 16),
        };
        Some((address, network))
    }
}

/// Does an IPv4 address end with an octet of zeros, or an IPv6 address with an interface
/// identifier of zeros (RFC 4291, section 2.5.1)?
fn ends_with_zeros(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.to_bits().trailing_zeros() >= 8,
        IpAddr::V6(v6) => v6.to_bits().trailing_zeros() >= 64,
    }
}

impl fmt::Display for AddressSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            AddressSet::Any => out.write_str("-"),
            AddressSet::V4 { value, mask } => fmt_v4(value, mask, out),
            AddressSet::V6 { first, bits: 128 } if !ends_with_zeros(first.into()) => first.fmt(out),
            AddressSet::V6 { first, bits } => write!(out, "{first}/{bits}"),
            AddressSet::Group(group) => group.fmt(out),
            AddressSet::Unmasked(address) => address.fmt(out),
        }
    }
}

/// Writes `10.0.0.5`, `10.0.0.0/8`, or `*.*.99.0` if the ones of the mask are not all at its
/// beginning.
fn fmt_v4(value: Ipv4Addr, mask: Ipv4Addr, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let ones = mask.to_bits().leading_ones();
    match ones == mask.to_bits().count_ones() {
        true if ones == 32 && !ends_with_zeros(value.into()) => write!(out, "{value}"),
        true => write!(out, "{value}/{ones}"),
        false => write!(out, "{}", Octets(value, mask)),
    }
}

/// The octets of a value and of its mask.
struct Octets(Ipv4Addr, Ipv4Addr);

impl fmt::Display for Octets {
    /// Writes `*.*.99.0`: an octet is `*` where the mask has zeros.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dot = "";
        for (octet, bits) in self.0.octets().into_iter().zip(self.1.octets()) {
            match bits {
                0 => write!(out, "{dot}*")?,
                _ => write!(out, "{dot}{octet}")?,
            }
            dot = ".";
        }
        Ok(())
    }
}

/// A set of destinations: by the resolved address, or by the requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DestinationSet {
    Addresses(AddressSet),
    /// Exactly this name.
    Name(HostName),
    /// Every name below this domain (`*.example.org`), without the domain itself.
    Subdomains(HostName),
}

impl DestinationSet {
    /// Does the set match a request? `name` is the requested name, if the request contains one;
    /// `address` is the address of the destination, if it is known.
    #[inline]
    pub(super) fn matches(&self, name: Option<&HostName>, address: Option<IpAddr>) -> Match {
        let DestinationSet::Addresses(addresses) = self else {
            return self.contains_name(name).into();
        };
        match (addresses, address) {
            (AddressSet::Any, _) => Match::Yes,
            (_, None) => Match::Unknown,
            (addresses, Some(address)) => addresses.contains(address).into(),
        }
    }

    #[inline]
    fn contains_name(&self, name: Option<&HostName>) -> bool {
        let Some(name) = name.map(HostName::as_str) else {
            return false;
        };
        match self {
            DestinationSet::Addresses(_) => false,
            DestinationSet::Name(host) => name == host.as_str(),
            DestinationSet::Subdomains(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        }
    }

    pub(super) fn contains_a_family(&self) -> bool {
        self.addresses()
            .is_some_and(|addresses| addresses.contains_a_family())
    }

    /// The addresses; `None` for names.
    pub(super) fn addresses(&self) -> Option<AddressSet> {
        match self {
            DestinationSet::Addresses(addresses) => Some(*addresses),
            DestinationSet::Name(_) | DestinationSet::Subdomains(_) => None,
        }
    }

    /// Is the set one of names whose addresses the owner of a zone chooses? The addresses of
    /// `localhost` and of names below it are those of this machine (RFC 6761, section 6.3).
    pub(super) fn is_of_a_zone(&self) -> bool {
        let (DestinationSet::Name(name) | DestinationSet::Subdomains(name)) = self else {
            return false;
        };
        let name = name.as_str().trim_end_matches('.');
        let below = name.strip_suffix("localhost");
        !below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
    }

    pub(super) fn is_name(&self) -> bool {
        self.addresses().is_none()
    }
}

impl fmt::Display for DestinationSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DestinationSet::Addresses(addresses) => addresses.fmt(out),
            DestinationSet::Name(name) => name.fmt(out),
            DestinationSet::Subdomains(domain) => write!(out, "*.{domain}"),
        }
    }
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortSet {
    Any,
    Ranges(Box<[RangeInclusive<u16>]>),
}

impl PortSet {
    /// Is this port in the set? `None`: the port is not known yet.
    #[inline]
    pub(super) fn matches(&self, port: Option<u16>) -> Match {
        match (self, port) {
            (PortSet::Any, _) => Match::Yes,
            (PortSet::Ranges(_), None) => Match::Unknown,
            (PortSet::Ranges(ranges), Some(port)) => {
                ranges.iter().any(|range| range.contains(&port)).into()
            }
        }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortSet::Ranges(ranges) = self else {
            return out.write_str("-");
        };
        for (index, range) in ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(out, "{comma}{first}")?,
                (first, last) => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A set of users, as requests or logins name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UserSet {
    Any,
    Names(Box<[Vec<u8>]>),
}

impl UserSet {
    #[inline]
    pub(super) fn contains(&self, user: &[u8]) -> bool {
        match self {
            UserSet::Any => true,
            UserSet::Names(names) => names.iter().any(|name| name == user),
        }
    }
}

impl fmt::Display for UserSet {
    /// Writes ` user=alice,"bob smith"`, or nothing.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UserSet::Names(names) = self else {
            return Ok(());
        };
        let mut separator = " user=";
        for name in names {
            match needs_quotes(name) {
                true => write!(out, "{separator}{}", QuotedName(name))?,
                false => write!(out, "{separator}{}", String::from_utf8_lossy(name))?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Is the name another one without quotes, or not printable ASCII?
fn needs_quotes(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b",#\"".contains(byte);
    matches!(name, b"-" | b"*" | [b'\'', ..]) || !name.iter().all(is_plain)
}
