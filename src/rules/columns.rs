//! Parses the columns of a rule into sets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::matchers::{AddressSet, CommandSet, DestinationSet, PortSet, UserSet, mask_v4, mask_v6};
use super::networks::NetworkGroup;
use crate::protocol::Host;
use crate::protocol::socks4::MAX_USER;

/// Longest part in bytes of an invalid word that a message quotes: a message is one line.
const MAX_QUOTE: usize = 60;

/// Parses the mode: letters `c` (CONNECT), `b` (BIND) and `u` (UDP), or `-` for all.
pub(super) fn parse_commands(word: Option<&str>) -> Result<CommandSet, String> {
    let Some(word) = word else {
        return Err("the mode is missing; write c (CONNECT), b (BIND), u (UDP), several together, or - for any".to_owned());
    };
    if is_any(word) {
        return Ok(CommandSet::ALL);
    }
    let mut commands = CommandSet {
        connect: false,
        bind: false,
        udp: false,
    };
    for letter in word.chars() {
        match letter.to_ascii_lowercase() {
            'c' => commands.connect = true,
            'b' => commands.bind = true,
            'u' => commands.udp = true,
            _ => {
                return Err(format!(
                    "{} is not a mode; write c (CONNECT), b (BIND), u (UDP), \
                     several together, or - for any",
                    quote(word)
                ));
            }
        }
    }
    Ok(commands)
}

/// Parses a list of users, such as `alice,bob`.
pub(super) fn parse_users(names: &str) -> Result<UserSet, String> {
    let mut users = Vec::new();
    for name in names.split(',') {
        let is_visible = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > MAX_USER || !is_visible {
            return Err(format!(
                "user={} is not a list of users; write user=alice,bob, each of 1 to {MAX_USER} \
                 visible ASCII characters",
                quote(names)
            ));
        }
        if is_any(name) {
            return Err("to match any user, leave user= out".to_owned());
        }
        users.push(name.to_owned());
    }
    Ok(UserSet::Names(users.into()))
}

/// Does the word stand for any value?
fn is_any(word: &str) -> bool {
    word == "-" || word == "*"
}

/// Parses a source address in any of the address forms.
pub(super) fn parse_source(word: &str) -> Result<AddressSet, String> {
    match parse_addresses(word)? {
        Some(addresses) => Ok(addresses),
        None => Err(format!(
            "{} is not a source address; write one address, a prefix as 140.113., \
             a range as 10.0.0.0/8, or - for any",
            quote(word)
        )),
    }
}

/// Parses a destination: an address form, a host name, or `*.` with a domain.
pub(super) fn parse_destination(word: &str) -> Result<DestinationSet, String> {
    if let Some(addresses) = parse_addresses(word)? {
        return Ok(DestinationSet::Addresses(addresses));
    }
    let (name, is_domain) = match word.strip_prefix("*.") {
        Some(domain) => (domain, true),
        None => (word, false),
    };
    match (Host::from_name(name.as_bytes()), is_domain) {
        (Host::Name(name), false) => Ok(DestinationSet::Name(name)),
        (Host::Name(name), true) => Ok(DestinationSet::Subdomains(name)),
        _ => Err(format!(
            "{} is not a destination; write one address, a prefix as 140.113., a range \
             as 10.0.0.0/8, a host name, *.domain, or - for any",
            quote(word)
        )),
    }
}

/// Parses any of the address forms; `None` if the word has none of them, but may be a name.
fn parse_addresses(word: &str) -> Result<Option<AddressSet>, String> {
    if is_any(word) {
        return Ok(Some(AddressSet::Any));
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(Some(match address {
            IpAddr::V4(first) => AddressSet::V4 { first, bits: 32 },
            IpAddr::V6(first) => canonical_v6(first, 128),
        }));
    }
    if let Some(group) = NetworkGroup::parse(word) {
        return Ok(Some(AddressSet::Group(group)));
    }
    if let Some((address, bits)) = word.split_once('/') {
        return parse_range(word, address, bits).map(Some);
    }
    Ok(parse_prefix(word))
}

/// Parses `10.0.0.0/8` or `2001:db8::/32` (CIDR, RFC 4632).
fn parse_range(word: &str, address: &str, bits: &str) -> Result<AddressSet, String> {
    let invalid = || {
        format!(
            "{} is not an address range; write it as 10.0.0.0/8 or 2001:db8::/32",
            quote(word)
        )
    };
    let all_digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let bits: u8 = bits.parse().map_err(|_| invalid())?;
    let (first, range) = match address {
        IpAddr::V4(address) if bits <= 32 && all_digits => {
            let first = Ipv4Addr::from_bits(address.to_bits() & mask_v4(bits));
            (IpAddr::V4(first), AddressSet::V4 { first, bits })
        }
        IpAddr::V6(address) if bits <= 128 && all_digits => {
            let first = Ipv6Addr::from_bits(address.to_bits() & mask_v6(bits));
            (IpAddr::V6(first), canonical_v6(first, bits))
        }
        _ => return Err(invalid()),
    };
    if first != address {
        return Err(format!(
            "{address}/{bits} is not the first address of its range; write {first}/{bits} or \
             {address} alone"
        ));
    }
    Ok(range)
}

/// A set of IPv6 addresses; of IPv4 addresses, if all are IPv4-mapped (`::ffff:1.2.3.4`).
/// Addresses in queries are canonical, so a rule with a mapped address would never match.
fn canonical_v6(first: Ipv6Addr, bits: u8) -> AddressSet {
    match (first.to_ipv4_mapped(), bits.checked_sub(96)) {
        (Some(first), Some(bits)) => AddressSet::V4 { first, bits },
        _ => AddressSet::V6 { first, bits },
    }
}

/// Parses `140.113.` or `140.113.*.*`: up to three numbers of an IPv4 address from the left.
fn parse_prefix(word: &str) -> Option<AddressSet> {
    let mut parts: Vec<&str> = word.split('.').collect();
    if let [_, .., ""] = parts.as_slice() {
        parts.pop();
        if parts.len() > 3 {
            return None;
        }
    } else {
        if parts.len() != 4 {
            return None;
        }
        while parts.last() == Some(&"*") {
            parts.pop();
        }
    }
    let bits = u8::try_from(parts.len() * 8).ok()?;
    parts.resize(4, "0");
    let first = parts.join(".").parse().ok()?;
    Some(AddressSet::V4 { first, bits })
}

/// Parses `-`, or ports and port ranges separated by commas: `80,443,8000-8999`.
pub(super) fn parse_ports(word: &str) -> Result<PortSet, String> {
    if is_any(word) {
        return Ok(PortSet::Any);
    }
    let invalid = || {
        format!(
            "{} is not a port list; write 80, 80,443, 8000-8999, or - for any",
            quote(word)
        )
    };
    let port = |text: &str| match text.as_bytes() {
        [b'0'..=b'9', ..] => text.parse::<u16>().map_err(|_| invalid()),
        _ => Err(invalid()),
    };
    let mut ranges = Vec::new();
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = port(first)?..=port(last)?;
        if range.is_empty() {
            return Err(format!(
                "the port range {} ends before it begins; write the lower port first",
                quote(part)
            ));
        }
        ranges.push(range);
    }
    Ok(PortSet::Ranges(ranges.into()))
}

/// A word of the file as a message quotes it: escaped, and truncated to [`MAX_QUOTE`] bytes.
pub(super) fn quote(word: &str) -> String {
    quote_bytes(word.as_bytes())
}

pub(super) fn quote_bytes(bytes: &[u8]) -> String {
    match bytes.get(..MAX_QUOTE) {
        Some(beginning) if bytes.len() > MAX_QUOTE => {
            format!("\"{}...\"", beginning.escape_ascii())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
