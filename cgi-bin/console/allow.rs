//! The allow list of destinations, from the environment variable `CONSOLE_ALLOW`.
//!
//! Without a list, anyone who can open the console can make this machine connect to
//! any host.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use threadsocks::protocol::Host;

/// Patterns, for example `*.cs.example.edu:*, 127.0.0.1:7000-7999, [::1]:1080`.
#[derive(Debug)]
pub(crate) struct AllowList {
    /// `None` allows every destination. An empty list allows none.
    patterns: Option<Vec<Pattern>>,
}

/// One entry of the list. Host and port must both match.
#[derive(Debug)]
struct Pattern {
    host: HostPattern,
    ports: RangeInclusive<u16>,
}

/// The host of a pattern, in the canonical form of [`Host`].
#[derive(Debug)]
enum HostPattern {
    /// `*`
    Any,
    /// `*.example.edu`: the suffix with its leading dot.
    Suffix(String),
    /// A name or an address.
    Exact(String),
}

impl AllowList {
    /// Allows every destination.
    pub(crate) fn allow_all() -> AllowList {
        AllowList { patterns: None }
    }

    /// Allows no destination.
    pub(crate) fn deny_all() -> AllowList {
        AllowList {
            patterns: Some(Vec::new()),
        }
    }

    /// Parses a comma-separated list. Empty entries are ignored.
    ///
    /// # Errors
    ///
    /// The first invalid entry. The caller must then deny everything, because a
    /// part of the list is not what the administrator intended.
    pub(crate) fn parse(list: &str) -> Result<AllowList, String> {
        let entries = list.split(',').map(str::trim);
        let patterns = entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| parse_pattern(entry).ok_or_else(|| entry.to_owned()));
        Ok(AllowList {
            patterns: Some(patterns.collect::<Result<_, _>>()?),
        })
    }

    /// Reports whether a pattern matches the destination. `host` is in the canonical
    /// form of [`Host`]: a name in lower case, or an address. The final dot of an absolute
    /// name makes no difference.
    pub(crate) fn permits(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let matches = |pattern: &Pattern| {
            let host_matches = match &pattern.host {
                HostPattern::Any => true,
                HostPattern::Suffix(suffix) => host.ends_with(suffix),
                HostPattern::Exact(name) => host == name,
            };
            host_matches && pattern.ports.contains(&port)
        };
        match &self.patterns {
            Some(patterns) => patterns.iter().any(matches),
            None => true,
        }
    }
}

/// Parses `HOST:PORTS`; `None` if the entry is invalid.
fn parse_pattern(entry: &str) -> Option<Pattern> {
    let (host, ports) = entry.rsplit_once(':')?;
    let host = match host.strip_prefix('*') {
        Some("") => HostPattern::Any,
        Some(suffix) if suffix.starts_with('.') && suffix != "." => {
            HostPattern::Suffix(canonical_suffix(suffix)?)
        }
        _ => HostPattern::Exact(canonical_host(host)?),
    };
    let ports = match ports.trim().split_once('-') {
        Some((first, last)) => port_number(first.trim())?..=port_number(last.trim())?,
        None if ports.trim() == "*" => 1..=u16::MAX,
        None => {
            let port = port_number(ports.trim())?;
            port..=port
        }
    };
    (!ports.is_empty()).then_some(Pattern { host, ports })
}

/// Parses a number from 1 to 65535. Only digits are valid: `u16::from_str` alone
/// accepts a leading `+`.
pub(crate) fn port_number(text: &str) -> Option<u16> {
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| only_digits && port > 0)
}

/// Returns the host in the canonical form that the rows have. A host that no row
/// can have, such as `127.1`, is invalid.
fn canonical_host(host: &str) -> Option<String> {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return Some(address.parse::<Ipv6Addr>().ok()?.to_string());
    }
    match Host::from_name(host.as_bytes()) {
        Host::Invalid(_) => None,
        Host::Name(name) => Some(name.as_str().to_owned()),
        host => Some(host.to_string()),
    }
}

/// Returns the suffix in canonical form. Only names have suffixes: `*.0.0.1` is
/// invalid.
fn canonical_suffix(suffix: &str) -> Option<String> {
    match Host::from_name(format!("a{suffix}").as_bytes()) {
        Host::Name(name) => name.as_str().strip_prefix('a').map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w19_only_hosts_and_ports_in_a_pattern_are_allowed() {
        let list = "*.cs.example.edu:*, 127.0.0.1:7000-7999, Shell.: 22 ,[0:0:0:0:0:0:0:1]:1080,";
        let allowed = AllowList::parse(list).expect("valid patterns");
        for (host, port, permitted) in [
            ("a.cs.example.edu", 1, true),
            ("a.b.cs.example.edu", 65535, true),
            ("cs.example.edu", 80, false),
            ("evilcs.example.edu", 80, false),
            ("127.0.0.1", 7000, true),
            ("127.0.0.1", 7999, true),
            ("127.0.0.1", 6999, false),
            ("127.0.0.1", 8000, false),
            ("127.0.0.2", 7000, false),
            ("shell", 22, true),
            ("shell.", 22, true),
            ("::1", 1080, true),
            ("::2", 1080, false),
        ] {
            assert_eq!(allowed.permits(host, port), permitted, "{host}:{port}");
        }
        assert!(AllowList::allow_all().permits("a", 1));
        assert!(AllowList::parse("*:80").unwrap().permits("a", 80));
        assert!(!AllowList::parse("*:80").unwrap().permits("a", 81));
        assert!(!AllowList::parse("").unwrap().permits("a", 80));
    }

    #[test]
    fn w19_an_invalid_entry_is_reported() {
        for entry in [
            "a",
            "*.:80",
            "a:+80",
            "a:0",
            "127.1:80",
            "127.0.0.01:80",
            "*.0.0.1:80",
            "[::g]:80",
            "a:",
            "a:b",
            "a:80-70",
            "a:70-",
            ":80",
            "a*:80",
            "*a:80",
            "a:65536",
        ] {
            let list = format!("b:80, {entry}");
            assert_eq!(AllowList::parse(&list).unwrap_err(), entry);
        }
    }
}
