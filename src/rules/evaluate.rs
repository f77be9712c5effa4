//! The rules in force answer whether one connection may be made.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::matchers::{AddressSet, CommandSet, DestinationSet, Match, PortSet, UserSet};
use super::schedule::{Schedule, WeekTime};
use crate::protocol::{Command, HostName};

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
    pub(super) modes: CommandSet,
    pub(super) source: AddressSet,
    pub(super) source_ports: PortSet,
    pub(super) destination: DestinationSet,
    pub(super) destination_ports: PortSet,
    pub(super) users: UserSet,
    pub(super) hours: Schedule,
    pub(super) ident: bool,
    pub(super) auth: bool,
}

/// One connection somebody asks for: exactly what would be dialled or awaited.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuery<'a> {
    /// What is asked.
    pub command: Command,
    /// The client.
    pub source: SocketAddr,
    /// The user id of the request, or who has logged in; opaque bytes.
    pub user: &'a [u8],
    /// Has the user logged in?
    pub logged_in: bool,
    /// The name the client asked for, if it asked by name.
    pub name: Option<&'a HostName>,
    /// The address that would be dialled or awaited. `None`: not known yet,
    /// because the name is still to be looked up, anybody may come, or datagrams
    /// may go to anybody.
    pub address: Option<IpAddr>,
    /// The port of the request. `None`: any.
    pub port: Option<u16>,
    /// When it is asked.
    pub moment: WeekTime,
}

/// The answer to a [`AccessQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// May the connection be made?
    pub permitted: bool,
    /// Must identd confirm the user first, or would a login have done? Only of what
    /// is permitted.
    pub ident: bool,
    /// Would a login do in place of identd? Only where identd must confirm.
    pub auth: bool,
    /// The line of the rule that decided; none if no rule matched.
    pub line: Option<usize>,
}

impl Verdict {
    /// Does it permit this to a client of whom identd has confirmed the user, or
    /// has not?
    pub fn grants(self, confirmed: bool) -> bool {
        self.permitted && (confirmed || !self.ident)
    }

    fn by(rule: Option<&Rule>, asked: &AccessQuery<'_>) -> Verdict {
        Verdict {
            permitted: rule.is_some_and(|rule| rule.permits),
            ident: rule.is_some_and(|rule| rule.wants_proof(asked)),
            auth: rule.is_some_and(|rule| rule.wants_proof(asked) && !rule.ident),
            line: rule.map(|rule| rule.line),
        }
    }
}

impl fmt::Display for Verdict {
    /// Writes the reason, a clause.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.permitted, self.ident) {
            (None, _, _) => out.write_str("no rule permits it"),
            (Some(line), false, _) => write!(out, "rule on line {line} denies it"),
            (Some(line), true, false) => write!(out, "rule on line {line} permits it"),
            (Some(line), true, true) => {
                let who = match self.auth {
                    true => "to who has logged in, or with SOCKS4 is confirmed by identd",
                    false => "if identd confirms the user",
                };
                write!(out, "rule on line {line} permits it {who}")
            }
        }
    }
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The command.
    Mode,
    /// The client's address.
    Source,
    /// The client's port.
    SourcePort,
    /// The address or name asked for.
    DestinationSet,
    /// The port asked for.
    DestinationPort,
    /// The user id.
    User,
    /// The moment.
    Time,
}

impl fmt::Display for Column {
    /// Writes it as the columns of `socks.conf` are called.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Column::Mode => "mode",
            Column::Source => "src-ip",
            Column::SourcePort => "src-port",
            Column::DestinationSet => "dst-ip",
            Column::DestinationPort => "dst-port",
            Column::User => "user",
            Column::Time => "time",
        })
    }
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        Rules { rules }
    }

    /// Judges one connection: the first rule that matches decides.
    ///
    /// Where the address or port is not known yet, this is the best that could
    /// be said about any: yes by some rule, first of all by one that needs no
    /// identd, or no, by the one that leaves nothing to those behind it. So
    /// nobody without a permit makes us ask the resolver, or wait for a peer.
    pub fn evaluate(&self, query: &AccessQuery<'_>) -> Verdict {
        let query = query.canonical();
        match query.is_of_any_datagram() {
            true => self.decide(&query, |rule| rule.fit_any_datagram(&query)),
            false => self.decide(&query, |rule| rule.fit(&query)),
        }
    }

    fn decide(&self, query: &AccessQuery<'_>, fit: impl Fn(&Rule) -> Match) -> Verdict {
        let mut with_ident = None;
        for rule in &self.rules {
            match fit(rule) {
                Match::No => {}
                Match::Unknown if !rule.permits => {}
                Match::Unknown if rule.wants_proof(query) => {
                    with_ident.get_or_insert(rule);
                }
                Match::Unknown => return Verdict::by(Some(rule), query),
                Match::Yes if rule.permits && !rule.wants_proof(query) => {
                    return Verdict::by(Some(rule), query);
                }
                // A no, or one more that wants identd.
                Match::Yes => return Verdict::by(with_ident.or(Some(rule)), query),
            }
        }
        Verdict::by(with_ident, query)
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
            .any(|rule| rule.source_ports != PortSet::Any)
    }

    /// Is there a rule for which the user matters?
    pub fn ask_for_user(&self) -> bool {
        let asks = |rule: &Rule| rule.users != UserSet::Any || rule.is_strict();
        self.rules.iter().any(asks)
    }

    /// Is there a rule that does not count all the time?
    pub fn ask_for_time(&self) -> bool {
        self.rules.iter().any(|rule| rule.hours != Schedule::Always)
    }

    /// The rules in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The line of the first rule that lets anybody connect, or send datagrams, to
    /// anywhere: with it the server is an open relay.
    pub fn open_relay(&self) -> Option<usize> {
        let open = |rule: &&Rule| {
            rule.permits
                && (rule.modes.has(Command::Connect) || rule.modes.has(Command::Associate))
                && rule.source.has_a_family()
                && rule.source_ports == PortSet::Any
                && rule.destination.has_a_family()
                && rule.destination_ports == PortSet::Any
                && rule.users == UserSet::Any
                && (!rule.auth || rule.is_for_socks4())
        };
        self.rules.iter().find(open).map(|rule| rule.line)
    }

    /// The lines that permit users whom any client can claim to be.
    pub fn unchecked_users(&self) -> Vec<usize> {
        self.lines(|rule| rule.permits && rule.users != UserSet::Any && !rule.is_strict())
    }

    /// The lines that trust the identd of any machine, whose owner lets it say
    /// what he likes: also those with `auth`, since a client of SOCKS4 has no other
    /// way to prove itself.
    pub fn foreign_idents(&self) -> Vec<usize> {
        let asks_identd = |rule: &Rule| rule.ident || rule.auth && rule.is_for_socks4();
        self.lines(|rule| asks_identd(rule) && rule.source.has_a_family())
    }

    /// The lines that permit clients of SOCKS4 without any proof.
    pub fn without_proof(&self) -> Vec<usize> {
        self.lines(|rule| rule.permits && rule.is_for_socks4() && !rule.is_strict())
    }

    /// The lines that want a login.
    pub fn logins(&self) -> Vec<usize> {
        self.lines(|rule| rule.auth)
    }

    /// The lines that deny a destination by name. Whoever asks for the same
    /// host by address walks around them.
    pub fn denials_by_name(&self) -> Vec<usize> {
        self.lines(|rule| !rule.permits && rule.destination.is_name())
    }

    /// The lines that deny users. Whoever claims to be another walks around them.
    pub fn denials_by_user(&self) -> Vec<usize> {
        self.lines(|rule| !rule.permits && rule.users != UserSet::Any)
    }

    fn lines(&self, of: impl Fn(&Rule) -> bool) -> Vec<usize> {
        let found = self.rules.iter().filter(|rule| of(rule));
        found.map(|rule| rule.line).collect()
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

    /// Does it want the user to be proven, in one way or the other?
    fn is_strict(&self) -> bool {
        self.ident || self.auth
    }

    /// Does it want a proof that this client still owes? A login is one, but not
    /// where identd is asked for by name.
    fn wants_proof(&self, asked: &AccessQuery<'_>) -> bool {
        self.ident || self.auth && !asked.logged_in
    }

    /// What of the query the rule does not match, in the order of its columns;
    /// nothing if it matches, or may match when the address is known.
    pub fn mismatches(&self, query: &AccessQuery<'_>) -> Vec<Column> {
        let asked = query.canonical();
        let parts = [
            (Column::Mode, self.modes.has(asked.command).into()),
            (Column::Source, self.source.has(asked.source.ip()).into()),
            (
                Column::SourcePort,
                self.source_ports.fit(Some(asked.source.port())),
            ),
            (Column::DestinationSet, self.fit_destination(&asked)),
            (
                Column::DestinationPort,
                self.destination_ports.fit(asked.port),
            ),
            (Column::User, self.users.has(asked.user).into()),
            (Column::Time, self.hours.has(asked.moment).into()),
        ];
        let differs = |&(part, fit)| (fit == Match::No).then_some(part);
        parts.iter().filter_map(differs).collect()
    }

    /// May it be about something that a client of SOCKS4 can ask for?
    fn is_for_socks4(&self) -> bool {
        self.modes.has(Command::Connect) || self.modes.has(Command::Bind)
    }

    /// Does the rule match some datagram of an association?
    fn fit_any_datagram(&self, asked: &AccessQuery<'_>) -> Match {
        let destination = self.fit_destination(asked);
        match self.mismatches(asked).as_slice() {
            [] => destination.min(self.destination_ports.fit(asked.port)),
            _ => Match::No,
        }
    }

    fn fit_destination(&self, asked: &AccessQuery<'_>) -> Match {
        match self.destination.fit(asked.name, asked.address) {
            // It may have the name that this rule is about.
            Match::No if asked.is_of_any_datagram() => Match::Unknown,
            fit => fit,
        }
    }

    /// Does the rule match? It does where it has no [mismatches](Rule::mismatches);
    /// but this is asked of ten thousand rules. So it stops at the first no, and
    /// begins with what most rules differ in: the rest of them is then not even
    /// fetched from memory.
    fn fit(&self, asked: &AccessQuery<'_>) -> Match {
        let may_match = self.modes.has(asked.command)
            && self.source.has(asked.source.ip())
            && self.source_ports.fit(Some(asked.source.port())) == Match::Yes;
        if !may_match {
            return Match::No;
        }
        let destination = self.destination.fit(asked.name, asked.address);
        if destination == Match::No || !self.users.has(asked.user) || !self.hours.has(asked.moment)
        {
            return Match::No;
        }
        destination.min(self.destination_ports.fit(asked.port))
    }
}

impl AccessQuery<'_> {
    /// Is it about some datagram of an association, to whatever address or name?
    fn is_of_any_datagram(&self) -> bool {
        self.command == Command::Associate && self.address.is_none() && self.name.is_none()
    }

    /// With addresses as they are judged.
    fn canonical(&self) -> AccessQuery<'_> {
        AccessQuery {
            source: canonical(self.source),
            address: self.address.map(|address| address.to_canonical()),
            ..*self
        }
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
        )?;
        write!(out, "{}{}", self.users, self.hours)?;
        out.write_str(if self.ident { " ident" } else { "" })?;
        out.write_str(if self.auth { " auth" } else { "" })
    }
}

/// IPv4 in IPv6's clothes (`::ffff:1.2.3.4`) is judged as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::protocol::Host;
    use crate::rules::matchers::mask_v4;
    use crate::rules::parse;

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("good rules")
    }

    fn name(text: &str) -> HostName {
        match Host::from_name(text.as_bytes()) {
            Host::Name(name) => name,
            other => panic!("{other:?}"),
        }
    }

    /// Monday morning.
    fn moment() -> WeekTime {
        WeekTime::parse("mon/09:00").expect("a moment")
    }

    /// `c 10.0.0.5 [name=]address port`: permitted, and by which line?
    fn evaluate(rules: &Rules, query: &str) -> (bool, Option<usize>) {
        let words: Vec<&str> = query.split_whitespace().collect();
        let &[mode, source, target, port] = words.as_slice() else {
            panic!("{query}")
        };
        let (asked, address) = match target.split_once('=') {
            Some((asked, address)) => (Some(name(asked)), address),
            None => (None, target),
        };
        let verdict = rules.evaluate(&AccessQuery {
            command: if mode == "c" {
                Command::Connect
            } else {
                Command::Bind
            },
            source: SocketAddr::new(source.parse().unwrap(), 50_000),
            user: b"",
            logged_in: false,
            name: asked.as_ref(),
            address: Some(address.parse().unwrap()),
            port: Some(port.parse().unwrap()),
            moment: moment(),
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
        for (query, permitted, line) in [
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
            assert_eq!(evaluate(&rules, query), (permitted, line), "{query}");
        }
    }

    #[test]
    fn f10_addresses_are_compared_number_by_number() {
        let rules = rules("permit c 140.113.1.*\n");
        assert!(evaluate(&rules, "c 1.1.1.1 140.113.1.0 80").0);
        assert!(evaluate(&rules, "c 1.1.1.1 140.113.1.255 80").0);
        assert!(!evaluate(&rules, "c 1.1.1.1 140.113.10.1 80").0);
        assert!(!evaluate(&rules, "c 1.1.1.1 140.113.11.1 80").0);
    }

    #[test]
    fn f10_every_prefix_length_covers_what_it_should() {
        for bits in 0..=32_u32 {
            let first = 0xAAAA_AAAA_u32 & mask_v4(bits as u8);
            let text = format!("permit c {}/{bits}\n", Ipv4Addr::from_bits(first));
            let rules = rules(&text);
            for address in [first, first | !mask_v4(bits as u8), 0xAAAA_AAAA] {
                let query = format!("c 1.1.1.1 {} 80", Ipv4Addr::from_bits(address));
                assert!(evaluate(&rules, &query).0, "{text}{query}");
            }
            if let Some(below) = first.checked_sub(1) {
                let query = format!("c 1.1.1.1 {} 80", Ipv4Addr::from_bits(below));
                assert!(!evaluate(&rules, &query).0 || bits == 0);
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
            let asked = name("a.org");
            let unseen = AccessQuery {
                command: Command::Connect,
                source: "1.2.3.4:5000".parse().unwrap(),
                user: b"",
                logged_in: false,
                name: Some(&asked),
                address: None,
                port: Some(80),
                moment: moment(),
            };
            let connect = rules(text).evaluate(&unseen);
            let bind = rules(text).evaluate(&AccessQuery {
                command: Command::Bind,
                name: None,
                port: None,
                ..unseen
            });
            let permitted = (connect.permitted, bind.permitted);
            assert_eq!(permitted, (connect_by_name, bind_by_anyone), "{text}");
        }
    }

    /// A CONNECT to 1.2.3.4:80 by this user at this moment; permitted, with
    /// identd, by which line?
    fn judge_user(text: &str, user: &str, at: &str) -> (bool, bool, Option<usize>) {
        let verdict = rules(text).evaluate(&AccessQuery {
            command: Command::Connect,
            source: "10.0.0.5:5000".parse().unwrap(),
            user: user.as_bytes(),
            logged_in: false,
            name: None,
            address: Some(Ipv4Addr::new(1, 2, 3, 4).into()),
            port: Some(80),
            moment: WeekTime::parse(at).expect(at),
        });
        (verdict.permitted, verdict.ident, verdict.line)
    }

    #[test]
    fn people_and_hours_are_columns_like_others() {
        let text = "deny c - user=mallory\n\
                    permit c - 80 user=alice,bob time=mon-fri/08:00-18:00\n\
                    permit c - user=carol ident\n\
                    deny c - 80 time=sat-sun/00:00-24:00\n\
                    permit c - user=alice ident time=18:00-20:00\n";
        for (user, at, expected) in [
            ("mallory", "mon/09:00", (false, false, Some(1))),
            ("alice", "mon/09:00", (true, false, Some(2))),
            ("bob", "fri/17:59", (true, false, Some(2))),
            ("Bob", "fri/17:59", (false, false, None)),
            ("bob2", "fri/17:59", (false, false, None)),
            ("", "mon/09:00", (false, false, None)),
            ("carol", "sun/03:00", (true, true, Some(3))),
            ("alice", "fri/18:00", (true, true, Some(5))),
            ("alice", "fri/20:00", (false, false, None)),
            ("alice", "sat/19:00", (false, false, Some(4))),
        ] {
            assert_eq!(judge_user(text, user, at), expected, "{user} {at}");
        }
    }

    #[test]
    fn before_the_address_is_known_a_permit_without_identd_is_the_best() {
        for (text, expected) in [
            ("permit c 1. ident\npermit c 2.\n", (true, false, Some(2))),
            (
                "permit c 1. ident\npermit c 2. ident\n",
                (true, true, Some(1)),
            ),
            (
                "permit c 1. ident\ndeny c -\npermit c -\n",
                (true, true, Some(1)),
            ),
            (
                "permit c 1. ident\npermit c - ident\n",
                (true, true, Some(1)),
            ),
            ("permit c 1. ident\npermit c -\n", (true, false, Some(2))),
            ("permit c - ident\npermit c -\n", (true, true, Some(1))),
        ] {
            let asked = name("a.org");
            let verdict = rules(text).evaluate(&AccessQuery {
                command: Command::Connect,
                source: "10.0.0.5:5000".parse().unwrap(),
                user: b"",
                logged_in: false,
                name: Some(&asked),
                address: None,
                port: Some(80),
                moment: moment(),
            });
            let Verdict {
                permitted,
                ident,
                line,
                ..
            } = verdict;
            assert_eq!((permitted, ident, line), expected, "{text}");
        }
    }

    #[test]
    fn a_login_is_a_proof_for_auth_and_none_for_ident() {
        let judged = |text: &str, logged_in| {
            let asked = name("a.org");
            let query = AccessQuery {
                command: Command::Connect,
                source: "10.0.0.5:5000".parse().unwrap(),
                user: b"alice",
                logged_in,
                name: Some(&asked),
                address: None,
                port: Some(80),
                moment: moment(),
            };
            let verdict = rules(text).evaluate(&query);
            assert!(verdict.permitted);
            (verdict.ident, verdict.auth, verdict.line)
        };
        for (text, with, without) in [
            (
                "permit c - auth\n",
                (false, false, Some(1)),
                (true, true, Some(1)),
            ),
            (
                "permit c - ident\n",
                (true, false, Some(1)),
                (true, false, Some(1)),
            ),
            (
                "permit c - auth ident\n",
                (true, false, Some(1)),
                (true, false, Some(1)),
            ),
            // What needs nothing more is the best, while the address is unknown.
            (
                "permit c 1. auth\npermit c 2.\n",
                (false, false, Some(1)),
                (false, false, Some(2)),
            ),
            (
                "permit c 1. ident\npermit c 2. auth\n",
                (false, false, Some(2)),
                (true, false, Some(1)),
            ),
        ] {
            assert_eq!(judged(text, true), with, "{text}");
            assert_eq!(judged(text, false), without, "{text}");
        }
    }

    #[test]
    fn warnings_know_what_auth_is_worth() {
        let text = "permit c 10. - - - auth\npermit c - user=a auth\n\
                    permit c 10. - - - user=a\npermit c 10. - - - ident\ndeny c -\n";
        let rules = rules(text);
        assert_eq!(rules.unchecked_users(), [3]);
        assert_eq!(rules.foreign_idents(), [2]);
        assert_eq!(rules.without_proof(), [3]);
        assert_eq!(rules.logins(), [1, 2]);
        assert!(rules.ask_for_user());
    }

    #[test]
    fn a_rule_tells_what_it_does_not_match() {
        let text = "permit b 11. 1-2 a.org 443 user=bob time=tue/08:00-09:00\n\
                    permit c 10. 5000 1. 80\n\
                    permit c - 443 user=alice\n";
        let query = AccessQuery {
            command: Command::Connect,
            source: "10.0.0.5:5000".parse().unwrap(),
            user: b"alice",
            logged_in: false,
            name: None,
            address: Some(Ipv4Addr::new(1, 2, 3, 4).into()),
            port: Some(80),
            moment: moment(),
        };
        let rules = rules(text);
        let told: Vec<_> = rules.iter().map(|rule| rule.mismatches(&query)).collect();
        let all = vec![
            Column::Mode,
            Column::Source,
            Column::SourcePort,
            Column::DestinationSet,
            Column::DestinationPort,
            Column::User,
            Column::Time,
        ];
        assert_eq!(told, [all, vec![], vec![Column::DestinationPort]]);
    }

    #[test]
    fn x05_warnings_find_the_open_relay_and_the_denial_by_name() {
        let open = rules("permit c 10.0.0.0/8 - - -\npermit c *.*.*.*\n");
        assert_eq!(open.open_relay(), Some(2));
        assert_eq!(rules("permit b -\npermit c - 80\n").open_relay(), None);
        assert_eq!(rules("permit u -\n").open_relay(), Some(1));
        let logins = rules("permit u - - - - auth\npermit u - - - -\npermit cu - - - - auth\n");
        assert_eq!(logins.foreign_idents(), [3]);
        assert_eq!(logins.without_proof(), [0; 0]);
        assert_eq!(rules("permit u - - - - auth\n").open_relay(), None);
        assert_eq!(rules("permit c - - - - auth\n").open_relay(), Some(1));
        assert_eq!(rules("permit c ::/0 - ::/0\n").open_relay(), Some(1));
        let people = "permit c - user=a\npermit c - user=a ident\n\
                      permit c 10. - - - user=a ident\ndeny c - user=a\npermit c 10. - - - ident\n";
        assert_eq!(rules(people).unchecked_users(), [1]);
        assert_eq!(rules(people).foreign_idents(), [2]);
        assert_eq!(rules(people).denials_by_user(), [4]);
        assert_eq!(rules(people).open_relay(), None);
        assert_eq!(rules("permit c - ident\n").open_relay(), Some(1));
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
                let query = format!("c 9.9.9.9 {first}.2.1.1 80");
                assert!(evaluate(&whole, &query).0 || !evaluate(&part, &query).0);
            }
        }
    }
}
