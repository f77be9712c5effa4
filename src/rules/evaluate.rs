//! All rules of one file: the first rule that matches decides.

use std::fmt;

use super::matchers::{AddressSet, Match, PortSet, UserSet};
use super::networks::is_local;
use super::query::{AccessQuery, Verdict};
use super::rule::{Column, Rule};
use super::schedule::Schedule;
use crate::config::SyntaxError;
use crate::protocol::Nat64Prefix;

/// How many rules at the beginning of a file are compared with a rule after them, to find out
/// whether it never decides. It bounds the time of a reload, 14 ms for a file of 10,000 rules, and
/// of a verdict.
const MAX_COVERING: usize = 100;

/// All rules of one file, in its order. Where no rule matches, the answer is no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        Rules { rules }
    }

    /// Judges one query: the first rule that matches decides.
    ///
    /// While the address or port is not known, the verdict is the best among all
    /// addresses: a permit, preferably by a rule that needs no confirmation, or a denial if
    /// every address is denied. So a client that no rule permits does not make the server
    /// use the resolver or wait for a peer.
    pub fn evaluate(&self, query: &AccessQuery<'_>) -> Verdict {
        let query = query.canonical();
        let mut needs_confirmation = None;
        for rule in &self.rules {
            match rule.matches(&query) {
                Match::No => {}
                Match::Unknown if !rule.permits || self.is_denied_before(rule) => {}
                Match::Unknown if rule.lacks_confirmation(&query) => {
                    needs_confirmation.get_or_insert(rule);
                }
                Match::Unknown => return verdict(Some(rule), &query),
                Match::Yes if rule.permits && !rule.lacks_confirmation(&query) => {
                    return verdict(Some(rule), &query);
                }
                // A denial, or one more rule that needs a confirmation.
                Match::Yes => return verdict(needs_confirmation.or(Some(rule)), &query),
            }
        }
        Verdict {
            lacks_local: self.lacks_local(&query),
            ..verdict(needs_confirmation, &query)
        }
    }

    /// Is each query that this rule matches denied by an earlier rule?
    fn is_denied_before(&self, rule: &Rule) -> bool {
        self.covering(rule).any(|earlier| !earlier.permits)
    }

    /// Those of the first [`MAX_COVERING`] rules that are before this one, and match each query
    /// that it matches.
    pub(super) fn covering(&self, rule: &Rule) -> impl Iterator<Item = &Rule> {
        let earlier = self.rules.iter().take(MAX_COVERING);
        let earlier = earlier.take_while(|earlier| earlier.line < rule.line);
        earlier.filter(|earlier| rule.is_covered_by(earlier))
    }

    /// The line of the first rule that would permit the name of this query, but has no option
    /// `local`, which the address needs.
    fn lacks_local(&self, query: &AccessQuery<'_>) -> Option<usize> {
        query.name?;
        query.address.filter(|address| is_local(*address))?;
        let lacks_local = |rule: &&Rule| {
            rule.permits
                && rule.destination.is_of_a_zone()
                && rule.mismatches(query) == [Column::Local]
        };
        let rule = self.rules.iter().find(lacks_local);
        rule.map(|rule| rule.line)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Is there no rule? Then every request is denied.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Does a rule depend on the client's port?
    pub fn depend_on_source_port(&self) -> bool {
        self.iter().any(|rule| rule.source_ports != PortSet::Any)
    }

    /// Does a rule depend on the user?
    pub fn depend_on_user(&self) -> bool {
        self.iter()
            .any(|rule| rule.users != UserSet::Any || rule.requires_confirmation())
    }

    /// Does a rule depend on the time?
    pub fn depend_on_time(&self) -> bool {
        self.first_with_time().is_some()
    }

    /// The line of the first rule that depends on the time.
    pub fn first_with_time(&self) -> Option<usize> {
        let mut rules = self.iter();
        let first = rules.find(|rule| rule.schedule != Schedule::Always);
        first.map(Rule::line)
    }

    /// Requires that no rule has only addresses with one of these NAT64 prefixes: queries have
    /// the IPv4 addresses in them, so the rule would never match.
    ///
    /// # Errors
    ///
    /// The first such rule.
    pub fn check_nat64(&self, prefixes: &[Nat64Prefix]) -> Result<(), SyntaxError> {
        let never_matches = |rule: &&Rule| {
            let columns = [Some(rule.source), rule.destination.addresses()];
            let mut ranges = columns.iter().flatten().filter_map(AddressSet::as_ipv6);
            ranges.any(|(first, bits)| prefixes.iter().any(|it| it.contains_range(first, bits)))
        };
        match self.iter().find(never_matches) {
            None => Ok(()),
            Some(rule) => Err(SyntaxError {
                line: rule.line,
                reason: "addresses with a prefix of --nat64 are judged as the IPv4 addresses in \
                         them; write the IPv4 addresses"
                    .to_owned(),
            }),
        }
    }

    /// The rules in the order in which they are tested.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}

/// The verdict of the rule that decides, if there is one.
fn verdict(rule: Option<&Rule>, query: &AccessQuery<'_>) -> Verdict {
    let lacks_confirmation = |rule: &&Rule| rule.lacks_confirmation(query);
    Verdict {
        permitted: rule.is_some_and(|rule| rule.permits),
        ident: rule.as_ref().is_some_and(lacks_confirmation),
        auth: rule.is_some_and(|rule| rule.lacks_confirmation(query) && !rule.ident),
        line: rule.map(|rule| rule.line),
        lacks_local: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    use crate::protocol::mask_v4;
    use crate::protocol::{Command, Host, HostName};
    use crate::rules::{WeekTime, parse};

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("valid rules")
    }

    fn name(text: &str) -> HostName {
        match Host::from_name(text.as_bytes()) {
            Host::Name(name) => name,
            other => panic!("{other:?}"),
        }
    }

    /// Monday morning.
    fn time() -> WeekTime {
        WeekTime::parse("mon/09:00").expect("a time")
    }

    /// `c 10.0.0.5 [name=]address port`: is it permitted, and by which line?
    fn evaluate(rules: &Rules, query: &str) -> (bool, Option<usize>) {
        let words: Vec<&str> = query.split_whitespace().collect();
        let &[mode, source, destination, port] = words.as_slice() else {
            panic!("{query}")
        };
        let (requested, address) = match destination.split_once('=') {
            Some((requested, address)) => (Some(name(requested)), address),
            None => (None, destination),
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
            name: requested.as_ref(),
            address: Some(address.parse().unwrap()),
            port: Some(port.parse().unwrap()),
            time: time(),
            nat64: &[],
        });
        (verdict.permitted, verdict.line)
    }

    /// A BIND for any peer, and a name before its lookup.
    #[test]
    fn m08_a_rule_that_never_decides_grants_nothing_while_the_address_is_unknown() {
        let permits = |text: &str, command| {
            let rules = rules(text);
            let named = name("a.example");
            let query = AccessQuery {
                command,
                source: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 50_000),
                user: b"",
                logged_in: false,
                name: (command == Command::Connect).then_some(&named),
                address: None,
                port: None,
                time: time(),
                nat64: &[],
            };
            rules.evaluate(&query).permitted
        };
        for command in [Command::Bind, Command::Associate, Command::Connect] {
            let covered = "deny - - - private -\npermit - - - 10. -\n";
            assert!(!permits(covered, command), "{command}");
            for text in [
                "deny - - - 10. -\npermit - - - private -\n",
                "deny - - - private 80\npermit - - - 10. -\n",
                "deny - - - private -\npermit - - - 10. -\npermit - - - 192.0.2.1 -\n",
            ] {
                assert!(permits(text, command), "{command}: {text}");
            }
        }
    }

    #[test]
    fn a_denial_of_a_local_address_names_the_rule_that_permits_the_name() {
        let rules = rules("permit c 10. - a.example 80\n");
        let named = name("a.example");
        let reason = |source: [u8; 4], address: [u8; 4]| {
            let query = AccessQuery {
                command: Command::Connect,
                source: SocketAddr::new(source.into(), 50_000),
                user: b"",
                logged_in: false,
                name: Some(&named),
                address: Some(address.into()),
                port: Some(80),
                time: time(),
                nat64: &[],
            };
            rules.evaluate(&query).to_string()
        };
        let lacks_local = reason([10, 0, 0, 1], [127, 0, 0, 1]);
        assert!(lacks_local.starts_with("rule on line 1 permits the name, but"));
        assert_eq!(
            reason([10, 0, 0, 1], [192, 0, 2, 1]),
            "rule on line 1 permits it"
        );
        assert_eq!(reason([11, 0, 0, 1], [127, 0, 0, 1]), "no rule permits it");
    }

    #[test]
    fn f10_the_first_match_decides_and_no_match_is_a_denial() {
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
    fn f14_octets_are_compared_where_the_rule_has_numbers() {
        let rules = rules("permit c *.*.99.0\npermit c 1.*.3.*\npermit c 10.*.0.1 - 9.9.9.9\n");
        for (query, line) in [
            ("c 2.2.2.2 140.113.99.0 80", Some(1)),
            ("c 2.2.2.2 0.255.99.0 80", Some(1)),
            ("c 2.2.2.2 140.113.99.1 80", None),
            ("c 2.2.2.2 140.113.98.0 80", None),
            ("c 2.2.2.2 1.255.3.255 80", Some(2)),
            ("c 2.2.2.2 1.0.2.0 80", None),
            ("c 2.2.2.2 2.0.3.0 80", None),
            ("c 10.7.0.1 9.9.9.9 80", Some(3)),
            ("c 10.7.1.1 9.9.9.9 80", None),
            ("c ::ffff:10.7.0.1 ::ffff:9.9.9.9 80", Some(3)),
            ("c 2.2.2.2 2001:db8::6300 80", None),
        ] {
            assert_eq!(evaluate(&rules, query), (line.is_some(), line), "{query}");
        }
    }

    #[test]
    fn f10_every_prefix_length_covers_its_addresses() {
        for bits in 0..=32_u32 {
            let mask = mask_v4(bits as u8).to_bits();
            let first = 0xAAAA_AAAA_u32 & mask;
            let text = format!("permit c {}/{bits}\n", Ipv4Addr::from_bits(first));
            let rules = rules(&text);
            for address in [first, first | !mask, 0xAAAA_AAAA] {
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
    fn an_unknown_address_is_denied_only_if_every_address_is() {
        for (text, connect_by_name, bind_any_peer) in [
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
            let requested = name("a.org");
            let unresolved = AccessQuery {
                command: Command::Connect,
                source: "1.2.3.4:5000".parse().unwrap(),
                user: b"",
                logged_in: false,
                name: Some(&requested),
                address: None,
                port: Some(80),
                time: time(),
                nat64: &[],
            };
            let connect = rules(text).evaluate(&unresolved);
            let bind = rules(text).evaluate(&AccessQuery {
                command: Command::Bind,
                name: None,
                port: None,
                ..unresolved
            });
            let permitted = (connect.permitted, bind.permitted);
            assert_eq!(permitted, (connect_by_name, bind_any_peer), "{text}");
        }
    }

    /// A CONNECT to 1.2.3.4:80 by this user at this time: is it permitted, does identd have
    /// to confirm the user, and which line decides?
    fn verdict_for_user(text: &str, user: &str, at: &str) -> (bool, bool, Option<usize>) {
        let verdict = rules(text).evaluate(&AccessQuery {
            command: Command::Connect,
            source: "10.0.0.5:5000".parse().unwrap(),
            user: user.as_bytes(),
            logged_in: false,
            name: None,
            address: Some(Ipv4Addr::new(1, 2, 3, 4).into()),
            port: Some(80),
            time: WeekTime::parse(at).expect(at),
            nat64: &[],
        });
        (verdict.permitted, verdict.ident, verdict.line)
    }

    #[test]
    fn users_and_times_are_columns_like_others() {
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
            assert_eq!(verdict_for_user(text, user, at), expected, "{user} {at}");
        }
    }

    #[test]
    fn for_an_unknown_address_a_permit_without_identd_is_preferred() {
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
            let requested = name("a.org");
            let verdict = rules(text).evaluate(&AccessQuery {
                command: Command::Connect,
                source: "10.0.0.5:5000".parse().unwrap(),
                user: b"",
                logged_in: false,
                name: Some(&requested),
                address: None,
                port: Some(80),
                time: time(),
                nat64: &[],
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
    fn a_login_satisfies_auth_and_not_ident() {
        let judged = |text: &str, logged_in| {
            let requested = name("a.org");
            let query = AccessQuery {
                command: Command::Connect,
                source: "10.0.0.5:5000".parse().unwrap(),
                user: b"alice",
                logged_in,
                name: Some(&requested),
                address: None,
                port: Some(80),
                time: time(),
                nat64: &[],
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
            // While the address is unknown, a rule that needs no confirmation is preferred.
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

    /// A file that is cut short must permit no more than before: that follows from first
    /// match and default deny.
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
