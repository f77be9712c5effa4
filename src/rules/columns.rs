//! Parses the columns of a rule into sets.

use super::addresses::{is_any, parse_addresses};
use super::matchers::{AddressSet, CommandSet, DestinationSet, PortSet, UserSet};
use super::networks::NetworkGroup;
use super::quote::quote;
use crate::protocol::socks4::MAX_USER;
use crate::protocol::{Host, HostName};

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

/// Parses a source address in any of the address forms.
pub(super) fn parse_source(word: &str) -> Result<AddressSet, String> {
    match parse_addresses(word)? {
        Some(addresses) => Ok(addresses),
        None => Err(format!(
            "{} is not a source address; write one address, a prefix as 140.113., \
             a range as 10.0.0.0/8, loopback, linklocal, private, metadata, or - for any",
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
        (Host::Name(name), false) => match meaning_in_rules(&name) {
            Some(meaning) => Err(format!(
                "{} is not a host name here; {meaning}",
                quote(word)
            )),
            None => Ok(DestinationSet::Name(name)),
        },
        (Host::Name(name), true) => Ok(DestinationSet::Subdomains(name)),
        _ => Err(format!(
            "{} is not a destination; write one address, a prefix as 140.113., a range \
             as 10.0.0.0/8, a host name, *.domain, loopback, linklocal, private, metadata, \
             or - for any",
            quote(word)
        )),
    }
}

/// What this name means in rules, where it cannot be the name of a host. With a dot at the
/// end too: a name is displayed without it.
fn meaning_in_rules(name: &HostName) -> Option<&'static str> {
    let name = name.as_str().trim_end_matches('.');
    match name {
        "any" | "all" => Some("write - for any address"),
        "link-local" | "link_local" => Some("write linklocal for link-local addresses"),
        "ident" | "auth" => Some("it is an option, without a dot"),
        _ if NetworkGroup::parse(name).is_some() => {
            Some("it is a word for networks, without a dot")
        }
        _ => None,
    }
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
