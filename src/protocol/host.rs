//! The host of a destination: an address, a valid host name, or an invalid one.
//!
//! The system resolver accepts more than host names: it reads `127.1`, `0x7f000001` and
//! `2130706433` as 127.0.0.1. Rules that compare the name as text would not match them.
//! So only names of an allowed form are valid, and this is checked before any lookup.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host name in characters, without the final dot. RFC 1035, section 2.3.4, allows
/// 255 bytes in the encoded form, which has two more.
const MAX_NAME: usize = 253;

/// Longest label, the part between two dots, in characters (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// The host in a request or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A valid name, which may be looked up.
    Name(HostName),
    /// An invalid name. The request is well formed, and the server refuses it.
    Invalid(InvalidHostName),
}

impl Host {
    /// The address, if the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Host::Address(address) => Some(*address),
            Host::Name(_) | Host::Invalid(_) => None,
        }
    }

    /// The name, if the host is a valid one.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Host::Name(name) => Some(name),
            Host::Address(_) | Host::Invalid(_) => None,
        }
    }

    /// Parses the name field of a request. Beside what [`from_name`](Self::from_name) accepts,
    /// it may have an IPv6 address, as Chromium sends it, also in the brackets that it has in a
    /// URL (RFC 3986, section 3.2.2).
    ///
    /// An address with a zone (`fe80::1%eth0`) is invalid: the zone names a network interface
    /// of the client's machine (RFC 4007, section 6), and the server has others.
    pub fn from_name_field(bytes: &[u8]) -> Host {
        let between_brackets = bytes
            .strip_prefix(b"[")
            .and_then(|rest| rest.strip_suffix(b"]"));
        let text = std::str::from_utf8(between_brackets.unwrap_or(bytes)).unwrap_or_default();
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Host::Address(address.into());
        }
        let before_zone = text.split_once('%').map(|(address, _)| address);
        let reason = if before_zone.is_some_and(|it| it.parse::<Ipv6Addr>().is_ok()) {
            "the zone of an IPv6 address, after '%', is valid on one machine only"
        } else if between_brackets.is_some() {
            "only an IPv6 address may be in brackets"
        } else {
            return Host::from_name(bytes);
        };
        Host::Invalid(InvalidHostName {
            bytes: bytes.to_vec(),
            reason,
        })
    }

    /// Parses a host name. A strict dotted quad (four numbers without leading zeros) is an
    /// address, and everything else is a valid or an invalid name. A name may have one final
    /// dot, which says that it is absolute; an address may not.
    pub fn from_name(bytes: &[u8]) -> Host {
        let invalid = |reason| {
            Host::Invalid(InvalidHostName {
                bytes: bytes.to_vec(),
                reason,
            })
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if text.is_ascii() => text,
            _ => return invalid("it has bytes outside ASCII"),
        };
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Host::Address(IpAddr::V4(address));
        }
        match invalid_reason(text.strip_suffix('.').unwrap_or(text)) {
            Some(reason) => invalid(reason),
            None => Host::Name(HostName(text.to_ascii_lowercase())),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(out),
            Host::Name(name) => name.fmt(out),
            Host::Invalid(name) => write!(out, "\"{}\"", name.bytes.escape_ascii()),
        }
    }
}

/// Why this text is not a valid host name; `None` if it is valid.
fn invalid_reason(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > MAX_NAME {
        return Some("it is over 253 characters");
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.bytes().all(is_allowed) {
        return Some("it has characters other than letters, digits, '-', '_' and '.'");
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Some("it has an empty part between dots");
        }
        if label.len() > MAX_LABEL {
            return Some("it has a part over 63 characters");
        }
        if label.starts_with('-') {
            return Some("it has a part that begins with '-'");
        }
    }
    let last_label = text.rsplit('.').next().unwrap_or_default();
    if is_number(last_label) {
        return Some("its last part is a number; write an IPv4 address as a.b.c.d");
    }
    None
}

/// Does inet_aton(3) read this label as a number? getaddrinfo(3) tries it before the domain
/// name system.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A host name that is safe to look up and to print: ASCII, in lower case. `a.org` and the
/// absolute name `a.org.` are two names: the resolver may find different hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// The name without a final dot: the form in which rules compare names.
    pub fn as_str(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }

    /// The name with its final dot, if it was requested with one: the form for the resolver.
    pub fn as_requested(&self) -> &str {
        &self.0
    }

    /// The same name without a final dot: the form in which rules keep it.
    pub fn without_final_dot(&self) -> HostName {
        HostName(self.as_str().to_owned())
    }

    /// Does it have a final dot? Then it is complete, and no search list applies to it
    /// (RFC 1034, section 3.1).
    pub fn is_absolute(&self) -> bool {
        self.0.ends_with('.')
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A name field that is not a valid host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHostName {
    /// The bytes of the field, unchanged; escape them before printing.
    pub bytes: Vec<u8>,
    /// Why it is invalid, as a clause: "it is empty".
    pub reason: &'static str,
}

impl fmt::Display for InvalidHostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "\"{}\" is not a host name: {}",
            self.bytes.escape_ascii(),
            self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d19_x06_names_are_kept_in_lower_case_and_an_absolute_name_keeps_its_dot() {
        for (given, normalized) in [
            ("example.org", "example.org"),
            ("Example.ORG.", "example.org."),
            ("localhost", "localhost"),
            ("a_b-c.x1", "a_b-c.x1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("3com.com", "3com.com"),
            ("1.2.3.4.example", "1.2.3.4.example"),
            ("0xg", "0xg"),
        ] {
            let host = Host::from_name(given.as_bytes());
            assert_eq!(host, Host::Name(HostName(normalized.to_owned())), "{given}");
        }
        for (given, compared, is_absolute) in [("A.org", "a.org", false), ("A.org.", "a.org", true)]
        {
            let host = Host::from_name(given.as_bytes());
            let name = host.name().expect("a name");
            let seen = (name.as_str(), name.is_absolute());
            assert_eq!(seen, (compared, is_absolute), "{given}");
        }
    }

    #[test]
    fn d20_the_name_field_may_have_an_ipv6_address_with_or_without_brackets() {
        for (given, address) in [
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[2001:DB8::A]", "2001:db8::a"),
            ("[::ffff:10.0.0.1]", "::ffff:10.0.0.1"),
            ("fe80::1", "fe80::1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            let address = address.parse().expect("an address");
            let host = Host::from_name_field(given.as_bytes());
            assert_eq!(host, Host::Address(address), "{given}");
        }
        for (given, reason) in [
            ("[fe80::1%eth0]", "zone"),
            ("fe80::1%2", "zone"),
            ("[::1%]", "zone"),
            ("[127.0.0.1]", "brackets"),
            ("[example.org]", "brackets"),
            ("[]", "brackets"),
            ("[[::1]]", "brackets"),
            ("[::1].", "characters"),
            ("[::1", "characters"),
            ("::1]", "characters"),
            ("[::1]:80", "characters"),
            ("::1.", "characters"),
            ("1::2::3", "characters"),
            ("a%b", "characters"),
            ("", "empty"),
        ] {
            let host = Host::from_name_field(given.as_bytes());
            let Host::Invalid(invalid) = &host else {
                panic!("{given}: {host:?}");
            };
            assert!(invalid.reason.contains(reason), "{given}: {invalid}");
            assert_eq!(invalid.bytes, given.as_bytes());
        }
        let name = Host::from_name_field(b"a.org.");
        assert_eq!(name, Host::Name(HostName("a.org.".to_owned())));
    }

    #[test]
    fn d06_a_strict_dotted_quad_is_an_address() {
        for (given, address) in [
            ("127.0.0.1", Ipv4Addr::LOCALHOST),
            ("140.113.1.2", Ipv4Addr::new(140, 113, 1, 2)),
            ("0.0.0.0", Ipv4Addr::UNSPECIFIED),
        ] {
            let host = Host::from_name(given.as_bytes());
            assert_eq!(host, Host::Address(IpAddr::V4(address)), "{given}");
        }
    }

    #[test]
    fn d24_an_address_with_a_final_dot_is_refused() {
        for given in [
            "127.0.0.1.",
            "0.0.0.0.",
            "127.0.0.1..",
            "::1.",
            "[::1].",
            "::ffff:127.0.0.1.",
            "[::ffff:127.0.0.1].",
            "[::ffff:127.0.0.1.]",
        ] {
            let host = Host::from_name_field(given.as_bytes());
            assert!(matches!(host, Host::Invalid(_)), "{given}: {host:?}");
        }
        for given in ["example.org.", "1.2.3.4.example."] {
            let host = Host::from_name_field(given.as_bytes());
            assert!(host.name().is_some_and(HostName::is_absolute), "{host:?}");
        }
    }

    #[test]
    fn d06_x03_a_name_that_the_resolver_would_read_as_an_address_is_refused() {
        for given in [
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0x",
            "0",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.2.3.4",
            "a.1",
        ] {
            let host = Host::from_name(given.as_bytes());
            assert!(matches!(host, Host::Invalid(_)), "{given}: {host:?}");
        }
    }

    #[test]
    fn d04_d05_x06_an_invalid_host_name_is_refused() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}.example", ["a"; 130].join("."));
        for given in [
            "",
            ".",
            "..",
            "a..",
            "a.b..",
            "a..b",
            ".a",
            "-a",
            "a.-b",
            "a b",
            "a\tb",
            "a\n",
            "a%b",
            "*",
            "a/b",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1%lo",
            "[::1]",
            "user@host",
            "host:80",
            "bücher.example",
            "a\u{0}b",
            &long_label,
            &long_name,
        ] {
            let host = Host::from_name(given.as_bytes());
            assert!(matches!(host, Host::Invalid(_)), "{given:?}: {host:?}");
        }
        let host = Host::from_name(b"\xff\xfe");
        assert_eq!(host.to_string(), r#""\xff\xfe""#);
    }
}
