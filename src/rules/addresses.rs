//! Parses the forms of addresses in rules, and refuses words that only look like addresses.

use std::net::{IpAddr, Ipv6Addr};

use super::matchers::AddressSet;
use super::networks::NetworkGroup;
use super::quote::quote;
use crate::protocol::{Network, NetworkError, judged_address, mask_v4};

/// Does the word stand for any value?
pub(super) fn is_any(word: &str) -> bool {
    word == "-" || word == "*"
}

/// Parses any of the address forms; `None` if the word has none of them, and may be a name.
///
/// # Errors
///
/// A sentence: the word looks like an address or a range, and is none.
pub(super) fn parse_addresses(word: &str) -> Result<Option<AddressSet>, String> {
    if is_any(word) {
        return Ok(Some(AddressSet::Any));
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        check_not_compatible(address, word)?;
        return Ok(Some(AddressSet::one(judged_address(address, &[]))));
    }
    if let Some(group) = NetworkGroup::parse(word) {
        return Ok(Some(AddressSet::Group(group)));
    }
    if let Some(octets) = parse_octets(word) {
        return Ok(Some(octets));
    }
    if let Some(correction) = correction(word) {
        return Err(format!("{} is not an address; {correction}", quote(word)));
    }
    match word.contains('/') {
        true => parse_range(word).map(Some),
        false => Ok(None),
    }
}

/// Refuses an IPv4-compatible IPv6 address (RFC 4291, section 2.5.5.1): no host has one, so the rule
/// would never match. `::1:80` is one, where the port 80 of `::1` may be meant.
fn check_not_compatible(address: IpAddr, word: &str) -> Result<(), String> {
    match address {
        IpAddr::V6(v6) if (2..=u128::from(u32::MAX)).contains(&v6.to_bits()) => Err(format!(
            "{} is an address that no host has (::/96); write a port in the column after the \
             address, and an IPv4 address in its own form",
            quote(word)
        )),
        _ => Ok(()),
    }
}

/// Parses `10.0.0.0/8` or `2001:db8::/32` (CIDR, RFC 4632).
fn parse_range(word: &str) -> Result<AddressSet, String> {
    let network = Network::parse(word).map_err(|error| match error {
        NetworkError::Invalid => format!("{} {error}", quote(word)),
        NetworkError::NotFirst { .. } => error.to_string(),
    })?;
    Ok(match network.first() {
        IpAddr::V4(value) => {
            let mask = mask_v4(network.bits());
            AddressSet::V4 { value, mask }
        }
        IpAddr::V6(first) => canonical_v6(first, network.bits()),
    })
}

/// A range of IPv6 addresses; of IPv4 addresses, if all are IPv4-mapped (`::ffff:1.2.3.4`) or
/// NAT64 addresses (`64:ff9b::1.2.3.4`). Queries have the IPv4 addresses of these, so a rule
/// with them would never match.
fn canonical_v6(first: Ipv6Addr, bits: u8) -> AddressSet {
    match (judged_address(first.into(), &[]), bits.checked_sub(96)) {
        (IpAddr::V4(value), Some(bits)) => {
            let mask = mask_v4(bits);
            AddressSet::V4 { value, mask }
        }
        _ => AddressSet::V6 { first, bits },
    }
}

/// Parses `*.*.99.0`, `140.113.*` or `140.113.`: each octet is a number, or `*` or `-` for
/// any. After a dot or a wildcard at the end, the octets that are left out can be any.
fn parse_octets(word: &str) -> Option<AddressSet> {
    let (octets, ends_with_dot) = match word.strip_suffix('.') {
        Some(octets) => (octets, true),
        None => (word, false),
    };
    let octets: Vec<&str> = octets.split('.').collect();
    let is_complete = match octets.as_slice() {
        // `*.` is the beginning of `*.example.org`, and no address.
        octets if ends_with_dot => octets.len() < 4 && !octets.iter().all(|octet| is_any(octet)),
        [_, .., last] => octets.len() == 4 || octets.len() < 4 && is_any(last),
        _ => false,
    };
    if !is_complete {
        return None;
    }
    let (mut value, mut mask) = ([0; 4], [0; 4]);
    for ((octet, value), mask) in octets.iter().zip(&mut value).zip(&mut mask) {
        if !is_any(octet) {
            *value = parse_octet(octet)?;
            *mask = u8::MAX;
        }
    }
    let (value, mask) = (value.into(), mask.into());
    Some(AddressSet::V4 { value, mask })
}

/// Parses a decimal number from 0 to 255 without leading zeros.
fn parse_octet(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => text.parse().ok(),
        _ => None,
    }
}

/// What to write in place of a word that looks like an address and is none; `None` if the
/// word is a range, or may be a name.
fn correction(word: &str) -> Option<String> {
    if word.contains("://") {
        return Some("write the host alone, without the protocol and the path".to_owned());
    }
    if word.contains('/') {
        return None;
    }
    if word.contains(':') {
        return Some(correction_v6(word).to_owned());
    }
    if !looks_like_ipv4(word) {
        return None;
    }
    let parts: Vec<&str> = word.split('.').collect();
    let is_octet = |part: &&str| parse_octet(part).is_some();
    Some(match parts.as_slice() {
        parts if parts.len() < 4 && parts.iter().all(is_octet) => format!(
            "an address has four numbers; write {word}. for all addresses that begin with these"
        ),
        [octets @ .., ""] if octets.iter().all(is_octet) => {
            "write it without the dot at the end".to_owned()
        }
        _ if word.contains(',') => "write one rule for each address".to_owned(),
        _ if word.contains('-') => {
            "write a range as 10.0.0.0/28, or one rule for each address".to_owned()
        }
        _ => "an address has four decimal numbers from 0 to 255 without leading zeros; * stands \
              for any of them"
            .to_owned(),
    })
}

/// The same for a word with a colon, which no host name has.
fn correction_v6(word: &str) -> &'static str {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match word.rsplit_once(':') {
        _ if word.contains('%') => "write it without the zone after %",
        Some((host, port)) if is_port(port) && (!host.contains(':') || host.ends_with(']')) => {
            "write the port in the column after it"
        }
        _ if word.starts_with('[') => "write it without brackets",
        _ => "write an IPv6 address as 2001:db8::1, and a range as 2001:db8::/32",
    }
}

/// Does the word consist of parts as an IPv4 address has them, so that it is no host name?
///
/// The last part of a host name has a letter, and a top-level domain begins with one (RFC
/// 1123, section 2.1). Parts before the last can be numbers: `1.0.0.127.example`. So a word is
/// no name if its last part is a number, also a hexadecimal one, or has digits and no
/// letter; or if all of several parts begin with a digit, or are one letter, as in `10.0.0.x`.
/// Where there are four parts, `xxx`, `any` and `all` count as one letter. After three decimal
/// octets, the last part must be a possible top-level domain: `10.0.0.a-f` is no name.
fn looks_like_ipv4(word: &str) -> bool {
    let name = word.strip_suffix('.').unwrap_or(word);
    let parts: Vec<&str> = name.split('.').collect();
    let begins_with_digit = |part: &&str| part.starts_with(char::is_numeric);
    let has_letter = |part: &str| part.contains(char::is_alphabetic);
    let last = parts.last().copied().unwrap_or_default();
    let is_hexadecimal = last
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case("0x"))
        && last.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit());
    if is_hexadecimal || last.contains(char::is_numeric) && !has_letter(last) {
        return true;
    }
    if let [octets @ .., last] = parts.as_slice()
        && octets.len() == 3
        && octets.iter().all(|octet| parse_octet(octet).is_some())
        && !may_be_top_level_domain(last)
    {
        return true;
    }
    let is_repeated = |part: &str| part.chars().all(|letter| part.starts_with(letter));
    let is_placeholder = |part: &str| match parts.len() {
        4 => {
            is_repeated(part)
                || ["any", "all"]
                    .iter()
                    .any(|any| part.eq_ignore_ascii_case(any))
        }
        _ => part.chars().count() == 1,
    };
    let is_like_octet =
        |part: &&str| begins_with_digit(part) || !has_letter(part) || is_placeholder(part);
    parts.len() > 1 && parts.iter().any(begins_with_digit) && parts.iter().all(is_like_octet)
}

/// Has this label the form of a top-level domain: letters, or a name in another alphabet (RFC
/// 5890, section 2.3.2.1: `xn--`)?
fn may_be_top_level_domain(label: &str) -> bool {
    let prefix = label.get(..4);
    label.chars().all(char::is_alphabetic)
        || prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &str) -> Result<Option<String>, String> {
        Ok(parse_addresses(word)?.map(|addresses| addresses.to_string()))
    }

    #[test]
    fn f14_an_octet_can_be_any_in_every_place() {
        for (word, expected) in [
            ("140.113.*", "140.113.0.0/16"),
            ("140.*", "140.0.0.0/8"),
            ("140.-", "140.0.0.0/8"),
            ("140.113.-.-", "140.113.0.0/16"),
            ("140.113.*.-", "140.113.0.0/16"),
            ("140.113.*.", "140.113.0.0/16"),
            ("*.*.99.0", "*.*.99.0"),
            ("-.-.99.0", "*.*.99.0"),
            ("*.1.2.3", "*.1.2.3"),
            ("1.*.3.*", "1.*.3.*"),
            ("1.*.3.", "1.*.3.*"),
            ("1.2.*.4", "1.2.*.4"),
            ("*.113.", "*.113.*.*"),
            ("0.0.*.0", "0.0.*.0"),
            ("*.*", "0.0.0.0/0"),
            ("*.*.*.*", "0.0.0.0/0"),
            ("255.255.255.*", "255.255.255.0/24"),
        ] {
            assert_eq!(parsed(word), Ok(Some(expected.to_owned())), "{word}");
            assert_eq!(parsed(expected), Ok(Some(expected.to_owned())), "{word}");
        }
        // The beginning of `*.example.org`, and an address with a dot too many.
        for word in ["*.", "-.", "*.*.", "*.*.*.*.*"] {
            assert_eq!(parsed(word), Ok(None), "{word}");
        }
        for word in ["*.99", "*.99.0", "1.2.3.4.*", "1.2.3.4.", "256.*"] {
            assert!(parsed(word).is_err(), "{word}");
        }
    }

    #[test]
    fn f18_a_word_that_looks_like_an_address_is_refused_with_the_right_form() {
        let (four, dot, range) = ("from 0 to 255", "without the dot", "write a range as");
        for (word, reason) in [
            ("10.0.0", "write 10.0.0. for all"),
            ("140.113", "write 140.113. for all"),
            ("10", "write 10. for all"),
            ("10.0.0.256", four),
            ("300.1.2.3", four),
            ("10.9.9.9.9", four),
            ("01.2.3.4", four),
            ("0177.0.0.1", four),
            ("0x7f.1", four),
            ("0X7F000001", four),
            ("0x", four),
            ("2130706433", four),
            ("1.2.3.0x4", four),
            ("a.0x7f", four),
            ("10..0.1", four),
            ("10.0.0.1a", four),
            ("10.0.0.O", four),
            ("10.0.0.x", four),
            ("10.0.0.xxx", four),
            ("10.XX.xx.nn", four),
            ("192.168.1.any", four),
            ("192.168.All.*", four),
            ("140.113.X.X", four),
            ("10.0.0.b1", four),
            ("10.0.0.a_f", four),
            ("10.0.0.1%eth0", four),
            ("10.0.0.1/33.", "not an address range"),
            ("1_2", four),
            ("example.123", four),
            ("*.0.0.1a", four),
            ("\u{ff11}\u{ff10}.0.0.1", four),
            ("10.0.0.1.", dot),
            ("10.0.0.1-5", range),
            ("10.0.0.1-10.0.0.5", range),
            ("10.0-3.0.1", range),
            ("10-0-0-1", range),
            ("-1.2.3.4", range),
            ("10.0.0.a-f", range),
            ("192.168.1.x-y.", range),
            ("10.0.0.1,10.0.0.2", "one rule for each"),
            ("10.0.0.1:80", "in the column after it"),
            ("a.org:80", "in the column after it"),
            ("[::1]:80", "in the column after it"),
            ("::1:80", "write a port in the column after"),
            ("::10.0.0.1", "an IPv4 address in its own form"),
            ("::2", "an address that no host has"),
            ("[::1]", "without brackets"),
            ("fe80::1%eth0", "without the zone"),
            ("2001:db8:*", "a range as 2001:db8::/32"),
            ("1:2:3", "a range as 2001:db8::/32"),
            ("http://a.org/", "the host alone"),
            ("10.0.0.0/255.0.0.0", "not an address range"),
            ("10/8", "not an address range"),
            ("1.2.3.4/33", "not an address range"),
        ] {
            let error = parsed(word).expect_err(word);
            assert!(error.contains(reason), "{word}: {error}");
        }
    }

    #[test]
    fn f18_host_names_with_numbers_stay_host_names() {
        for word in [
            "4chan.org",
            "4chan",
            "1e100.net",
            "10.example",
            "10.0.0.1.example",
            "1.0.0.127.bl.example",
            "1.168.192.in-addr.arpa",
            "*.1password.com",
            "*.3com.com",
            "10.my-lan",
            "10.0.0.example",
            "10.0.0.xn--p1ai",
            "10.0.web.dc-1",
            "x.org",
            "a.b",
            "*.x",
            "ip-10-0-0-1.internal",
            "10-0-0-1.example",
            "0xg",
            "fe80",
            "xn--p1ai",
            "1.xn--p1ai",
            "localhost",
            "a_b-c.x1",
            "10.aaa",
            "10.0.www.org",
        ] {
            assert_eq!(parsed(word), Ok(None), "{word}");
        }
    }
}
