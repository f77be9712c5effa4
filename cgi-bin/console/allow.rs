//! Where the administrator lets this program go: `CONSOLE_ALLOW`.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use threadsocks::protocol::Host;

/// Patterns as in `*.cs.example.edu:*, 127.0.0.1:7000-7999, [::1]:1080`.
#[derive(Debug)]
pub(crate) struct AllowList {
    /// `None`: everywhere.
    patterns: Option<Vec<Pattern>>,
}

#[derive(Debug)]
struct Pattern {
    host: HostPattern,
    ports: RangeInclusive<u16>,
}

#[derive(Debug)]
enum HostPattern {
    Any,
    /// What a name must end with, the dot included.
    Suffix(String),
    Exact(String),
}

impl AllowList {
    /// Everywhere.
    pub(crate) fn allow_all() -> AllowList {
        AllowList { patterns: None }
    }

    /// Nowhere.
    pub(crate) fn deny_all() -> AllowList {
        AllowList {
            patterns: Some(Vec::new()),
        }
    }

    /// Understands the list.
    ///
    /// # Errors
    ///
    /// The first entry that is no pattern. Nothing is allowed then: half of a
    /// list is not what the administrator meant.
    pub(crate) fn parse(list: &str) -> Result<AllowList, String> {
        let entries = list.split(',').map(str::trim);
        let patterns = entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| parse_pattern(entry).ok_or_else(|| entry.to_owned()));
        Ok(AllowList {
            patterns: Some(patterns.collect::<Result<_, _>>()?),
        })
    }

    /// May it go there? The host is a name in lower case or an address.
    pub(crate) fn permits(&self, host: &str, port: u16) -> bool {
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

/// A number from 1 to 65535, in digits only.
pub(crate) fn port_number(text: &str) -> Option<u16> {
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| only_digits && port > 0)
}

/// A host as the rows will have it. What none can ever have, such as `127.1`, is
/// a mistake.
fn canonical_host(host: &str) -> Option<String> {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return Some(address.parse::<Ipv6Addr>().ok()?.to_string());
    }
    match Host::from_name(host.as_bytes()) {
        Host::Invalid(_) => None,
        host => Some(host.to_string()),
    }
}

/// What names end with. Addresses have no such order.
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
