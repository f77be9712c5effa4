//! What the columns of a rule may say, each a set.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::protocol::{Command, HostName};

/// Does something belong to a set?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    /// It is not known yet, and there are some that do and some that do not.
    Unknown,
    Yes,
}

impl From<bool> for Match {
    fn from(has: bool) -> Match {
        if has { Match::Yes } else { Match::No }
    }
}

/// The commands a rule is about.
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

    pub(super) fn has(self, command: Command) -> bool {
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
        for (letter, has) in [("c", self.connect), ("b", self.bind), ("u", self.udp)] {
            out.write_str(if has { letter } else { "" })?;
        }
        Ok(())
    }
}

/// A set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressSet {
    /// Every address of either family.
    Any,
    /// Those that begin with the same bits.
    V4 { first: Ipv4Addr, bits: u8 },
    /// The same for IPv6.
    V6 { first: Ipv6Addr, bits: u8 },
}

impl AddressSet {
    pub(super) fn has(self, address: IpAddr) -> bool {
        match (self, address) {
            (AddressSet::Any, _) => true,
            (AddressSet::V4 { first, bits }, IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v4(bits) == 0
            }
            (AddressSet::V6 { first, bits }, IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v6(bits) == 0
            }
            _ => false,
        }
    }

    /// Are all addresses of a family in it?
    pub(super) fn has_a_family(self) -> bool {
        matches!(
            self,
            AddressSet::Any | AddressSet::V4 { bits: 0, .. } | AddressSet::V6 { bits: 0, .. }
        )
    }
}

/// The first `bits` bits set. (Shifting by all 32 overflows: then none is.)
pub(super) fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

/// The first `bits` bits set.
pub(super) fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl fmt::Display for AddressSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressSet::Any => out.write_str("-"),
            AddressSet::V4 { first, bits: 32 } => first.fmt(out),
            AddressSet::V4 { first, bits } => write!(out, "{first}/{bits}"),
            AddressSet::V6 { first, bits: 128 } => first.fmt(out),
            AddressSet::V6 { first, bits } => write!(out, "{first}/{bits}"),
        }
    }
}

/// A set of destinations: by the resolved address, or by the requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DestinationSet {
    AddressSet(AddressSet),
    /// Exactly this name.
    Name(HostName),
    /// Every name below this one (`*.example.org`), but not itself.
    Below(HostName),
}

impl DestinationSet {
    /// Does it match a request for this name (if it was one) that leads to this
    /// address (if it is known)?
    // As a call it takes half as long again: what is asked goes through memory.
    #[inline]
    pub(super) fn matches(&self, name: Option<&HostName>, address: Option<IpAddr>) -> Match {
        match (self, address) {
            (DestinationSet::AddressSet(AddressSet::Any), _) => Match::Yes,
            (DestinationSet::AddressSet(_), None) => Match::Unknown,
            (DestinationSet::AddressSet(addresses), Some(address)) => addresses.has(address).into(),
            (DestinationSet::Name(_) | DestinationSet::Below(_), _) => self.has_name(name).into(),
        }
    }

    fn has_name(&self, name: Option<&HostName>) -> bool {
        let Some(name) = name.map(HostName::as_str) else {
            return false;
        };
        match self {
            DestinationSet::AddressSet(_) => false,
            DestinationSet::Name(host) => name == host.as_str(),
            DestinationSet::Below(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|front| front.ends_with('.')),
        }
    }

    pub(super) fn has_a_family(&self) -> bool {
        matches!(self, DestinationSet::AddressSet(addresses) if addresses.has_a_family())
    }

    pub(super) fn is_name(&self) -> bool {
        !matches!(self, DestinationSet::AddressSet(_))
    }
}

impl fmt::Display for DestinationSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DestinationSet::AddressSet(addresses) => addresses.fmt(out),
            DestinationSet::Name(name) => name.fmt(out),
            DestinationSet::Below(domain) => write!(out, "*.{domain}"),
        }
    }
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortSet {
    Any,
    Among(Box<[RangeInclusive<u16>]>),
}

impl PortSet {
    /// Is this port, if it is known, among them?
    #[inline]
    pub(super) fn matches(&self, port: Option<u16>) -> Match {
        match (self, port) {
            (PortSet::Any, _) => Match::Yes,
            (PortSet::Among(_), None) => Match::Unknown,
            (PortSet::Among(ranges), Some(port)) => {
                ranges.iter().any(|range| range.contains(&port)).into()
            }
        }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortSet::Among(ranges) = self else {
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

/// A set of users, by the user id of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UserSet {
    Any,
    Among(Box<[String]>),
}

impl UserSet {
    pub(super) fn has(&self, user: &[u8]) -> bool {
        match self {
            UserSet::Any => true,
            UserSet::Among(names) => names.iter().any(|name| name.as_bytes() == user),
        }
    }
}

impl fmt::Display for UserSet {
    /// Writes ` user=alice,bob`, or nothing.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserSet::Any => Ok(()),
            UserSet::Among(names) => write!(out, " user={}", names.join(",")),
        }
    }
}
