//! The rules in force answer whether one connection may be made.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use crate::wire::{Command, HostName};

/// All rules of one file, in its order. The first that matches decides; where
/// none does, the answer is no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// One line of `socks.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) line: usize,
    pub(super) permits: bool,
    pub(super) modes: Modes,
    pub(super) source: Addresses,
    pub(super) source_ports: Ports,
    pub(super) destination: Destination,
    pub(super) destination_ports: Ports,
}

/// One connection somebody asks for: exactly what would be dialled or awaited.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is asked.
    pub command: Command,
    /// The client.
    pub source: SocketAddr,
    /// The name the client asked for, if it asked by name.
    pub name: Option<&'a HostName>,
    /// The address that would be dialled or awaited.
    pub address: IpAddr,
    /// The port of the request.
    pub port: u16,
}

/// The answer to a [`Question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// May the connection be made?
    pub permitted: bool,
    /// The line of the rule that decided; none if no rule matched.
    pub line: Option<usize>,
}

impl Verdict {
    fn by(rule: Option<&Rule>) -> Verdict {
        Verdict {
            permitted: rule.is_some_and(|rule| rule.permits),
            line: rule.map(|rule| rule.line),
        }
    }
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        Rules { rules }
    }

    /// Judges one connection: the first rule that matches decides.
    pub fn judge(&self, question: &Question<'_>) -> Verdict {
        let source = canonical(question.source);
        let address = question.address.to_canonical();
        let decides = |rule: &&Rule| {
            rule.modes.has(question.command)
                && rule.source.has(source.ip())
                && rule.source_ports.has(source.port())
                && rule.destination.has(question.name, address)
                && rule.destination_ports.has(question.port)
        };
        Verdict::by(self.rules.iter().find(decides))
    }

    /// The best that [`judge`](Rules::judge) could say about any address: yes by
    /// some rule, or no, by the one that leaves nothing to those behind it.
    ///
    /// Asked before the address is known: before a name is looked up, so that
    /// nobody without a permit makes us ask the resolver, and (with no port)
    /// before BIND waits for whoever may come. `None` as port means any port.
    pub fn at_best(
        &self,
        command: Command,
        source: SocketAddr,
        name: Option<&HostName>,
        port: Option<u16>,
    ) -> Verdict {
        let source = canonical(source);
        let concerns = |rule: &&Rule| {
            rule.modes.has(command)
                && rule.source.has(source.ip())
                && rule.source_ports.has(source.port())
                && rule.destination.could_have(name)
                && port.is_none_or(|port| rule.destination_ports.has(port))
        };
        // A deny ends the search only if no address and port escape it.
        let ends = |rule: &&Rule| {
            rule.permits
                || rule.destination.has_every_address(name)
                    && (port.is_some() || rule.destination_ports == Ports::Any)
        };
        Verdict::by(self.rules.iter().filter(concerns).find(ends))
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Is there no rule at all, so that everything is denied?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Is there a rule for which the client's port matters?
    pub fn ask_for_source_port(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.source_ports != Ports::Any)
    }

    /// The rules in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The line of the first rule that lets anybody connect to anywhere: with
    /// it the server is an open relay.
    pub fn open_relay(&self) -> Option<usize> {
        let open = |rule: &&Rule| {
            rule.permits
                && rule.modes.has(Command::Connect)
                && rule.source.has_every_ipv4()
                && rule.source_ports == Ports::Any
                && rule.destination.has_every_ipv4()
                && rule.destination_ports == Ports::Any
        };
        self.rules.iter().find(open).map(|rule| rule.line)
    }

    /// The lines that deny a destination by name. Whoever asks for the same
    /// host by address walks around them.
    pub fn denials_by_name(&self) -> Vec<usize> {
        let by_name = |rule: &&Rule| !rule.permits && rule.destination.is_name();
        let lines = self.rules.iter().filter(by_name).map(|rule| rule.line);
        lines.collect()
    }
}

impl fmt::Display for Rules {
    /// Writes how many there are: "1 rule", "2 rules".
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            1 => out.write_str("1 rule"),
            count => write!(out, "{count} rules"),
        }
    }
}

impl Rule {
    /// The line it stands on, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for Rule {
    /// Writes the rule in the full four-column form of `socks.conf`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = if self.permits { "permit" } else { "deny" };
        write!(
            out,
            "{action:6} {} {} {} {} {}",
            self.modes, self.source, self.source_ports, self.destination, self.destination_ports
        )
    }
}

/// IPv4 in IPv6's clothes (`::ffff:1.2.3.4`) is judged as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The commands a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) connect: bool,
    pub(super) bind: bool,
    pub(super) udp: bool,
}

impl Modes {
    pub(super) const ALL: Modes = Modes {
        connect: true,
        bind: true,
        udp: true,
    };

    fn has(self, command: Command) -> bool {
        match command {
            Command::Connect => self.connect,
            Command::Bind => self.bind,
        }
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Modes::ALL {
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
pub(super) enum Addresses {
    /// Every address of either family.
    Any,
    /// Those that begin with the same bits.
    V4 { first: Ipv4Addr, bits: u8 },
    /// The same for IPv6.
    V6 { first: Ipv6Addr, bits: u8 },
}

impl Addresses {
    fn has(self, address: IpAddr) -> bool {
        match (self, address) {
            (Addresses::Any, _) => true,
            (Addresses::V4 { first, bits }, IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v4(bits) == 0
            }
            (Addresses::V6 { first, bits }, IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()) & mask_v6(bits) == 0
            }
            _ => false,
        }
    }

    fn has_every_ipv4(self) -> bool {
        matches!(self, Addresses::Any | Addresses::V4 { bits: 0, .. })
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

impl fmt::Display for Addresses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addresses::Any => out.write_str("-"),
            Addresses::V4 { first, bits: 32 } => first.fmt(out),
            Addresses::V4 { first, bits } => write!(out, "{first}/{bits}"),
            Addresses::V6 { first, bits: 128 } => first.fmt(out),
            Addresses::V6 { first, bits } => write!(out, "{first}/{bits}"),
        }
    }
}

/// A set of destinations: by the resolved address, or by the requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Addresses(Addresses),
    /// Exactly this name.
    Name(HostName),
    /// Every name below this one (`*.example.org`), but not itself.
    Below(HostName),
}

impl Destination {
    fn has(&self, name: Option<&HostName>, address: IpAddr) -> bool {
        match self {
            Destination::Addresses(addresses) => addresses.has(address),
            Destination::Name(_) | Destination::Below(_) => self.has_name(name),
        }
    }

    fn has_name(&self, name: Option<&HostName>) -> bool {
        let Some(name) = name.map(HostName::as_str) else {
            return false;
        };
        match self {
            Destination::Addresses(_) => false,
            Destination::Name(host) => name == host.as_str(),
            Destination::Below(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|front| front.ends_with('.')),
        }
    }

    /// Does it match some address this name may have?
    fn could_have(&self, name: Option<&HostName>) -> bool {
        matches!(self, Destination::Addresses(_)) || self.has_name(name)
    }

    /// Does it match whatever address this name has?
    fn has_every_address(&self, name: Option<&HostName>) -> bool {
        *self == Destination::Addresses(Addresses::Any) || self.has_name(name)
    }

    fn has_every_ipv4(&self) -> bool {
        matches!(self, Destination::Addresses(addresses) if addresses.has_every_ipv4())
    }

    fn is_name(&self) -> bool {
        !matches!(self, Destination::Addresses(_))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Addresses(addresses) => addresses.fmt(out),
            Destination::Name(name) => name.fmt(out),
            Destination::Below(domain) => write!(out, "*.{domain}"),
        }
    }
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    Any,
    Among(Vec<RangeInclusive<u16>>),
}

impl Ports {
    fn has(&self, port: u16) -> bool {
        match self {
            Ports::Any => true,
            Ports::Among(ranges) => ranges.iter().any(|range| range.contains(&port)),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports::Among(ranges) = self else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::parse;
    use crate::wire::Host;

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("good rules")
    }

    fn name(text: &str) -> HostName {
        match Host::from_name(text.as_bytes()) {
            Host::Name(name) => name,
            other => panic!("{other:?}"),
        }
    }

    /// `c 10.0.0.5 [name=]address port`: permitted, and by which line?
    fn judge(rules: &Rules, question: &str) -> (bool, Option<usize>) {
        let words: Vec<&str> = question.split_whitespace().collect();
        let &[mode, source, target, port] = words.as_slice() else {
            panic!("{question}")
        };
        let (asked, address) = match target.split_once('=') {
            Some((asked, address)) => (Some(name(asked)), address),
            None => (None, target),
        };
        let verdict = rules.judge(&Question {
            command: if mode == "c" {
                Command::Connect
            } else {
                Command::Bind
            },
            source: SocketAddr::new(source.parse().unwrap(), 50_000),
            name: asked.as_ref(),
            address: address.parse().unwrap(),
            port: port.parse().unwrap(),
        });
        (verdict.permitted, verdict.line)
    }

    #[test]
    fn f10_the_first_match_decides_and_no_match_is_a_no() {
        let rules = rules(
            "permit c - - 140.113. -  # [NCTU only]\n\
             permit b 140.114.*.*\n\
             deny   cb 10.0.0.0/8 - *.internal.example 1-1023\n\
             permit c 10.0.0.0/8 - - 80,443,8000-8999\n\
             permit cb 10.9.9.9 - www.example.org -\n\
             permit c 2001:db8::/32 - ::1 -\n",
        );
        for (question, permitted, line) in [
            ("c 1.2.3.4 140.113.255.1 80", true, Some(1)),
            ("c 1.2.3.4 140.114.0.1 80", false, None),
            ("b 1.2.3.4 140.113.0.1 80", false, None),
            ("b 1.2.3.4 140.114.0.1 0", true, Some(2)),
            (
                "c 10.0.0.5 db.internal.example=10.1.1.1 443",
                false,
                Some(3),
            ),
            (
                "c 10.0.0.5 db.internal.example=10.1.1.1 8080",
                true,
                Some(4),
            ),
            ("c 10.0.0.5 internal.example=10.1.1.1 443", true, Some(4)),
            ("c 10.0.0.5 xinternal.example=10.1.1.1 443", true, Some(4)),
            ("c 10.0.0.5 10.1.1.1 443", true, Some(4)),
            ("c 10.0.0.5 10.1.1.1 444", false, None),
            ("c 10.0.0.5 10.1.1.1 8999", true, Some(4)),
            ("c 10.0.0.5 10.1.1.1 9000", false, None),
            ("c 11.0.0.5 10.1.1.1 443", false, None),
            ("c ::ffff:10.0.0.5 10.1.1.1 443", true, Some(4)),
            ("c ::ffff:10.0.0.5 ::ffff:140.113.1.1 9", true, Some(1)),
            ("b 10.9.9.9 www.example.org=1.1.1.1 0", true, Some(5)),
            ("b 10.9.9.9 web.example.org=1.1.1.1 0", false, None),
            ("b 10.9.9.9 1.1.1.1 0", false, None),
            ("c 2001:db8::7 ::1 80", true, Some(6)),
            ("c 2001:db9::7 ::1 80", false, None),
        ] {
            assert_eq!(judge(&rules, question), (permitted, line), "{question}");
        }
    }

    #[test]
    fn f10_addresses_are_compared_number_by_number() {
        let rules = rules("permit c 140.113.1.*\n");
        assert!(judge(&rules, "c 1.1.1.1 140.113.1.0 80").0);
        assert!(judge(&rules, "c 1.1.1.1 140.113.1.255 80").0);
        assert!(!judge(&rules, "c 1.1.1.1 140.113.10.1 80").0);
        assert!(!judge(&rules, "c 1.1.1.1 140.113.11.1 80").0);
    }

    #[test]
    fn f10_every_prefix_length_covers_what_it_should() {
        for bits in 0..=32_u32 {
            let first = 0xAAAA_AAAA_u32 & mask_v4(bits as u8);
            let text = format!("permit c {}/{bits}\n", Ipv4Addr::from_bits(first));
            let rules = rules(&text);
            for address in [first, first | !mask_v4(bits as u8), 0xAAAA_AAAA] {
                let question = format!("c 1.1.1.1 {} 80", Ipv4Addr::from_bits(address));
                assert!(judge(&rules, &question).0, "{text}{question}");
            }
            if let Some(below) = first.checked_sub(1) {
                let question = format!("c 1.1.1.1 {} 80", Ipv4Addr::from_bits(below));
                assert!(!judge(&rules, &question).0 || bits == 0);
            }
        }
    }

    #[test]
    fn at_best_it_says_no_only_where_every_judgement_would() {
        for (text, connect_by_name, bind_by_anyone) in [
            ("", false, false),
            ("permit - -\n", true, true),
            ("permit c 10.0.0.0/8\n", true, false),
            ("permit b 10.0.0.0/8 20\n", false, true),
            ("deny - -\npermit - -\n", false, false),
            ("deny - 10.0.0.0/8\npermit - -\n", true, true),
            ("deny - - 22\npermit - -\n", true, true),
            ("deny - - 80\npermit - -\n", false, true),
            ("deny c a.org\npermit - -\n", false, true),
            ("deny c b.org\npermit - -\n", true, true),
            ("permit c *.org\n", true, false),
            ("permit - 9.9.9.9 - - -\n", false, false),
        ] {
            let rules = rules(text);
            let source = "1.2.3.4:5000".parse().unwrap();
            let asked = name("a.org");
            let connect = rules.at_best(Command::Connect, source, Some(&asked), Some(80));
            let bind = rules.at_best(Command::Bind, source, None, None);
            let permitted = (connect.permitted, bind.permitted);
            assert_eq!(permitted, (connect_by_name, bind_by_anyone), "{text}");
        }
    }

    #[test]
    fn x05_warnings_find_the_open_relay_and_the_denial_by_name() {
        let open = rules("permit c 10.0.0.0/8 - - -\npermit c *.*.*.*\n");
        assert_eq!(open.open_relay(), Some(2));
        assert_eq!(rules("permit b -\npermit c - 80\n").open_relay(), None);
        let by_name = rules("permit c a.org\ndeny c b.org\ndeny c *.c.org\n");
        assert_eq!(by_name.denials_by_name(), [2, 3]);
    }

    /// Whoever cuts a file short must not open the gate: with first match and
    /// default deny, leading rules permit no more than the whole file did.
    #[test]
    fn f05_f10_leading_lines_permit_a_subset() {
        let text = "permit c 1.0.0.0/8\ndeny c 2.0.0.0/8\npermit c 2.2.0.0/16\npermit c 3.\n";
        let whole = rules(text);
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        for end in std::iter::once(0).chain(ends) {
            let part = rules(&text[..end]);
            for first in 0..=4 {
                let question = format!("c 9.9.9.9 {first}.2.1.1 80");
                assert!(judge(&whole, &question).0 || !judge(&part, &question).0);
            }
        }
    }
}
