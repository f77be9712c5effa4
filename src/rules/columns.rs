//! Parses the columns of a rule into sets.

use super::addresses::{is_any, parse_addresses};
use super::matchers::{AddressSet, CommandSet, DestinationSet, PortSet, UserSet};
use super::networks::NetworkGroup;
use super::quote::quote;
use crate::config::{Unquoted, unquote};
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

/// Parses a list of users, such as `alice,"bob smith"`.
pub(super) fn parse_users(names: &str) -> Result<UserSet, String> {
    let invalid = |reason: &str| {
        let option = format!("user={names}");
        format!("{} is not a list of users; {reason}", quote(&option))
    };
    let mut users = Vec::new();
    let mut rest = Some(names.as_bytes());
    while let Some(text) = rest {
        let (name, after) = parse_user(text).map_err(|reason| invalid(&reason))?;
        if !(1..=MAX_USER).contains(&name.len()) || name.iter().any(|byte| b"\0\r\n".contains(byte))
        {
            return Err(invalid(&format!(
                "a name has 1 to {MAX_USER} bytes, without NUL and line ends; write \
                 user=alice,\"bob smith\""
            )));
        }
        users.push(name);
        rest = match after {
            [] => None,
            [b',', after @ ..] => Some(after),
            _ => return Err(invalid("write a comma between two names")),
        };
    }
    Ok(UserSet::Names(users.into()))
}

/// Parses the first name of a list: the name, and the text after it.
fn parse_user(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    if let Some(Unquoted { bytes, rest }) = unquote(text).map_err(|error| error.to_string())? {
        return Ok((bytes, rest));
    }
    let end = text.iter().position(|byte| *byte == b',');
    let (name, after) = text.split_at(end.unwrap_or(text.len()));
    // A blank outside ASCII looks like the end of the name, but an option after it would be a
    // part of the name.
    let is_odd = |it: char| it == '"' || it.is_whitespace();
    match name {
        b"-" | b"*" => Err("to match any user, leave user= out".to_owned()),
        [b'\'', ..] => Err("write double quotes around a name".to_owned()),
        _ if String::from_utf8_lossy(name).contains(is_odd) => {
            Err("write quotes around the whole name".to_owned())
        }
        _ => Ok((name.to_vec(), after)),
    }
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
            None => Ok(DestinationSet::Name(name.without_final_dot())),
        },
        (Host::Name(name), true) => Ok(DestinationSet::Subdomains(name.without_final_dot())),
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
        "rfc1918" | "rfc4193" => Some("write private for private networks"),
        "ipv4" => Some("write 0.0.0.0/0 for any IPv4 address"),
        "ipv6" => Some("write ::/0 for any IPv6 address"),
        "ident" | "auth" | "local" => Some("it is an option, without a dot"),
        _ if NetworkGroup::parse(name).is_some() => {
            Some("it is a word for networks, without a dot")
        }
        _ if NetworkGroup::is_misspelled(name) => Some(
            "the words for networks are loopback, linklocal, private and metadata; write a host \
             as its full name with a domain",
        ),
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
