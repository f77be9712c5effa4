//! Warnings about rules that permit more than an operator may expect.

use super::RulesFile;
use super::conditions::MAX_CONDITIONS;
use super::evaluate::Rules;
use super::matchers::{AddressSet, UserSet};
use super::rule::Rule;
use super::schedule::WeekTime;
use crate::config::ClientKinds;
use crate::protocol::Command;

/// A rule with so many destination ports limits no client to some services: the system ports,
/// 1 to 1023 (RFC 6335), with mail, SSH and the web among them, are as many. A list of services
/// has some tens.
const MANY_PORTS: usize = 1023;

impl RulesFile {
    /// Remarks on the rules in force, a sentence each.
    pub fn remarks(&self, now: WeekTime, clients: ClientKinds) -> Vec<String> {
        let rules = self.content();
        let cut_off = self.unterminated_line().map(|line| rules.cut_off(line));
        let writable = self.is_writable_by_everyone().then(|| {
            format!(
                "every account of this machine can change this file; run: chmod o-w {}",
                self.path().display()
            )
        });
        let warnings = cut_off.into_iter().chain(writable);
        let warnings = warnings.map(|warning| format!("warning: {warning}"));
        let remarks = rules.remarks(now, clients).into_iter();
        remarks.chain(warnings).collect()
    }
}

impl Rules {
    /// A warning of the last line, which has no newline at its end. A rule that permits may
    /// have lost a part of a column or an option; without the lines after it, and with a
    /// shorter denial as the last rule, a file permits no more.
    fn cut_off(&self, line: usize) -> String {
        let effect = match self.iter().last() {
            Some(last) if last.permits && last.line == line => "it may permit more than meant",
            _ => "rules are missing",
        };
        format!("line {line} has no newline at its end; if it is cut off, {effect}")
    }

    /// Remarks on these rules, a sentence each: warnings, and the time if rules depend on it.
    /// However many rules there are, a remark for each kind of warning.
    pub fn remarks(&self, now: WeekTime, clients: ClientKinds) -> Vec<String> {
        let warnings = self.warnings(clients).into_iter();
        let warnings = warnings.chain(self.login_warning(clients));
        let mut remarks: Vec<String> = warnings
            .map(|warning| format!("warning: {warning}"))
            .collect();
        if self.depend_on_time() {
            remarks.push(format!(
                "some rules depend on the local time; the clock shows {now}"
            ));
        }
        remarks
    }

    fn warnings(&self, clients: ClientKinds) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_empty() {
            warnings.push("there is no rule, so every request is denied".to_owned());
        }
        if let Some(line) = self.open_relay(clients) {
            warnings.push(format!(
                "line {line} permits any client to reach any destination: an open relay if \
                 strangers can reach the port; name the clients in src-ip"
            ));
        }
        warnings.extend(warn_of_lines(
            &self.denials_by_name(),
            "denies a name, but not a request for its address; deny the address too",
        ));
        warnings.extend(warn_of_lines(
            &self.denials_of_ipv4_only(),
            "denies IPv4 addresses only, and a later line permits any address, also of IPv6; deny \
             IPv6 addresses too (the words loopback, linklocal, private and metadata stand for both)",
        ));
        warnings.extend(warn_of_lines(
            &self.denials_by_user(clients),
            "denies users, but a client can claim another user; permit users with ident or auth \
             instead",
        ));
        warnings.extend(warn_of_lines(
            &self.unconfirmed_users(clients),
            "permits every client that claims this user; add ident to have it confirmed, or auth \
             for a login",
        ));
        warnings.extend(warn_of_lines(
            &self.trusting_any_identd(clients),
            "trusts the identd of every machine; name the hosts whose identd you trust in src-ip",
        ));
        warnings.extend(warn_of_lines(
            &self.lines(|rule| rule.ident && clients.proxied),
            "has ident, but identd cannot be asked for the clients of a proxy (--proxy-from): they \
             are refused",
        ));
        warnings.extend(warn_of_lines(
            &self.lines(Rule::trusts_a_zone),
            "has local: the owner of the name's zone can lead clients to this machine, its link and \
             metadata services; write local only for names in zones of your own",
        ));
        warnings.extend(self.zeros_at_the_end());
        warnings.extend(self.never_decide());
        warnings
    }

    /// A warning of rules that never decide, since an earlier one matches all their requests.
    fn never_decide(&self) -> Option<String> {
        let covered = |rule: &Rule| {
            let earlier = self.covering(rule).next();
            earlier.map(|earlier| (rule.line, earlier.line))
        };
        let pairs: Vec<(usize, usize)> = self.iter().filter_map(covered).collect();
        let (_, first) = pairs.first()?;
        let lines: Vec<usize> = pairs.iter().map(|(line, _)| *line).collect();
        let what = format!(
            "never decides: line {first} matches all its requests; move it before that line, or \
             delete it"
        );
        warn_of_lines(&lines, &what)
    }

    /// A warning of addresses that end with zeros and have no mask: `140.113.0.0` is one
    /// address, where `140.113.0.0/16` may be meant. Such an address with `/32`, or `/128`,
    /// is deliberate.
    fn zeros_at_the_end(&self) -> Option<String> {
        let lines = self.lines(|rule| rule.likely_network().is_some());
        let (address, network) = self.iter().find_map(Rule::likely_network)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let what = format!(
            "has {address}, which is one address; did you mean {network}? If not, write \
             {address}/{bits}"
        );
        warn_of_lines(&lines, &what)
    }

    /// A note for `--check` about names whose addresses may be in private networks, unless an
    /// earlier rule denies these networks under conditions that are not narrower. Many rules
    /// are for names of inner hosts, so the server does not print it.
    pub fn private_networks_by_name(&self) -> Option<String> {
        let (mut denials, mut exposed) = (Vec::<&Rule>::new(), Vec::new());
        for rule in self.iter() {
            let is_denied = |denial: &&Rule| {
                rule.commands.is_within(denial.commands) && rule.conditions_are_within(denial)
            };
            match (rule.permits, rule.destination.addresses()) {
                (true, _) if rule.destination.is_of_a_zone() => {
                    exposed.extend((!denials.iter().any(is_denied)).then_some(rule.line));
                }
                (false, Some(AddressSet::PRIVATE | AddressSet::Any))
                    if denials.len() < MAX_CONDITIONS && !denials.iter().any(is_denied) =>
                {
                    denials.push(rule);
                }
                _ => {}
            }
        }
        let note = warn_of_lines(
            &exposed,
            "permits a name, also if the owner of its zone leads it to a private network; if you \
             do not want that, deny private before",
        );
        note.map(|note| format!("note: {note}"))
    }

    /// A warning that depends on whether SOCKS5 clients can log in.
    fn login_warning(&self, clients: ClientKinds) -> Option<String> {
        if clients.logged_in && clients.socks4 {
            warn_of_lines(
                &self.permitting_socks4_unconfirmed(),
                "permits SOCKS4 clients, which cannot log in; add auth, or turn SOCKS4 off with \
                 --socks 5",
            )
        } else if clients.anonymous && !clients.logged_in {
            warn_of_lines(
                &self.requiring_login(),
                "requires a login, which SOCKS5 clients cannot do without --users",
            )
        } else {
            None
        }
    }

    /// The line of the first rule that lets any client connect, or send datagrams, to any
    /// host, at 1,023 ports or more: with it the server is an open relay. A client that must
    /// log in is not any client. Source ports do not count, since each client chooses its own.
    /// Several rules that permit parts of all addresses, or few ports each, are not found.
    pub fn open_relay(&self, clients: ClientKinds) -> Option<usize> {
        let connects = |rule: &Rule| rule.commands.contains(Command::Connect);
        let is_for_anonymous = |rule: &Rule| {
            !rule.auth && (connects(rule) || rule.commands.contains(Command::Associate))
        };
        let is_open = |rule: &&Rule| {
            rule.permits
                && rule.source.contains_a_family()
                && rule.destination.contains_a_family()
                && rule.destination_ports.count_usable() >= MANY_PORTS
                && rule.users == UserSet::Any
                && (clients.anonymous && is_for_anonymous(rule) || clients.socks4 && connects(rule))
        };
        self.iter().find(is_open).map(|rule| rule.line)
    }

    /// The lines that permit users without a confirmation: any SOCKS4 client can claim to be
    /// one.
    fn unconfirmed_users(&self, clients: ClientKinds) -> Vec<usize> {
        self.lines(|rule| {
            clients.socks4
                && rule.permits
                && rule.users != UserSet::Any
                && !rule.requires_confirmation()
        })
    }

    /// The lines that trust the identd of any host, whose owner decides what it replies. Also
    /// those with `auth`, since a SOCKS4 client has no other confirmation.
    fn trusting_any_identd(&self, clients: ClientKinds) -> Vec<usize> {
        let depends_on_identd =
            |rule: &Rule| rule.ident || rule.auth && clients.socks4 && covers_socks4(rule);
        self.lines(|rule| depends_on_identd(rule) && rule.source.contains_a_family())
    }

    /// The lines that permit SOCKS4 clients without any confirmation.
    fn permitting_socks4_unconfirmed(&self) -> Vec<usize> {
        self.lines(|rule| rule.permits && covers_socks4(rule) && !rule.requires_confirmation())
    }

    /// The lines that require a login.
    fn requiring_login(&self) -> Vec<usize> {
        self.lines(|rule| rule.auth)
    }

    /// The lines that deny a destination by name. A client that requests its address
    /// instead avoids them.
    fn denials_by_name(&self) -> Vec<usize> {
        self.lines(|rule| !rule.permits && rule.destination.is_name())
    }

    /// The lines that deny users. A client that claims to be another, or does not log in,
    /// avoids them.
    fn denials_by_user(&self, clients: ClientKinds) -> Vec<usize> {
        let can_avoid = clients.socks4 || clients.anonymous;
        self.lines(|rule| can_avoid && !rule.permits && rule.users != UserSet::Any)
    }

    fn lines(&self, condition: impl Fn(&Rule) -> bool) -> Vec<usize> {
        let found = self.iter().filter(|rule| condition(rule));
        found.map(|rule| rule.line).collect()
    }
}

/// Does the rule cover a command that SOCKS4 has?
fn covers_socks4(rule: &Rule) -> bool {
    rule.commands.contains(Command::Connect) || rule.commands.contains(Command::Bind)
}

/// One warning for all these lines, since there may be thousands; `None` if there are none.
fn warn_of_lines(lines: &[usize], what: &str) -> Option<String> {
    match lines {
        [] => None,
        [line] => Some(format!("line {line} {what}")),
        [line, others @ ..] => Some(format!("line {line} (and {} more) {what}", others.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::parse;

    /// Clients of every kind.
    const ALL: ClientKinds = ClientKinds {
        socks4: true,
        logged_in: true,
        anonymous: true,
        proxied: false,
    };

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("valid rules")
    }

    #[test]
    fn warnings_take_auth_into_account() {
        let text = "permit c 10. - - - auth\npermit c - user=a auth\n\
                    permit c 10. - - - user=a\npermit c 10. - - - ident\ndeny c -\n";
        let rules = rules(text);
        assert_eq!(rules.unconfirmed_users(ALL), [3]);
        assert_eq!(rules.trusting_any_identd(ALL), [2]);
        assert_eq!(rules.permitting_socks4_unconfirmed(), [3]);
        assert_eq!(rules.requiring_login(), [1, 2]);
        assert!(rules.depend_on_user());
    }

    #[test]
    fn x33_rules_with_ident_are_a_warning_if_clients_come_through_proxies() {
        let text = "permit c 10. - - - user=a ident\npermit c 10. - - - auth\n";
        let remarks = |proxied| {
            let clients = ClientKinds { proxied, ..ALL };
            rules(text).remarks(WeekTime::MONDAY, clients)
        };
        assert_eq!(remarks(false), [""; 0]);
        let [remark] = &remarks(true)[..] else {
            panic!("{:?}", remarks(true));
        };
        assert!(
            remark.starts_with("warning: line 1 has ident, but"),
            "{remark}"
        );
    }

    #[test]
    fn h23_no_warning_is_about_clients_of_a_version_that_is_off() {
        let only_logins = ClientKinds {
            socks4: false,
            anonymous: false,
            ..ALL
        };
        let text = "permit c 10. user=a\ndeny c - user=a\npermit c 10.\npermit c - - - - auth\n";
        let rules = rules(text);
        let all = rules.remarks(WeekTime::MONDAY, ALL);
        assert_eq!(all.len(), 5, "{all:#?}");
        assert_eq!(rules.remarks(WeekTime::MONDAY, only_logins), [""; 0]);
        let only_socks4 = ClientKinds {
            logged_in: false,
            anonymous: false,
            ..ALL
        };
        // Only clients of SOCKS5 can log in.
        assert_eq!(rules.remarks(WeekTime::MONDAY, only_socks4), all[..4]);
        // SOCKS4 has no datagrams, and strangers cannot log in.
        let open = |text: &str, clients| parse(text.as_bytes()).unwrap().open_relay(clients);
        assert_eq!(open("permit u -", only_socks4), None);
        assert_eq!(open("permit c -", only_socks4), Some(1));
        assert_eq!(open("permit cu -", only_logins), None);
    }

    #[test]
    fn m08_a_rule_that_never_decides_is_a_warning() {
        let warning = |text: &str| {
            let all = rules(text).remarks(WeekTime::MONDAY, ALL);
            all.into_iter().find(|it| it.contains("never decides"))
        };
        for (earlier, later) in [
            ("deny - - - - -", "permit c 10. - 10.1.2.3 80"),
            (
                "permit c 10. - 10. 1-1023",
                "permit c 10.1.2.3 - 10.0.0.1 80,443",
            ),
            (
                "permit cb private - private -",
                "deny c 10. - 192.168.1.1 -",
            ),
            ("deny - - - *.a.org -", "permit c 10. - b.a.org 80"),
            ("deny - - - *.a.org -", "permit c 10. - *.b.a.org 80"),
            (
                "permit c 10. - a.org 80 auth",
                "permit c 10. - A.ORG 80 user=b",
            ),
            ("permit c 10. - a.org 80 local", "deny c 10. - a.org 80"),
            ("deny c 10. - a.org 80", "permit c 10. - a.org 80 local"),
            (
                "deny c - - 2001:db8::/32 -",
                "permit c - - 2001:db8:1::/48 -",
            ),
            (
                "permit c - - - - time=8:00-9:00",
                "permit c 10. - 10. - time=8:00-9:00",
            ),
        ] {
            let both = format!("# first\n{earlier}\n\n{later}\n");
            let found = warning(&both).unwrap_or_else(|| panic!("{both}"));
            let expected = "warning: line 4 never decides: line 2 matches all its requests;";
            assert!(found.starts_with(expected), "{found}");
        }
        for text in [
            "permit c 10. - - -\npermit b 10. - - -\n",
            "deny c 10. 1-1023 - -\npermit c 10. - - -\n",
            "permit c 10. - - 80\npermit c 10. - - 80,443\n",
            "deny c 10. - a.org -\npermit c 10. - *.a.org -\n",
            "deny c 10. - *.a.org -\npermit c 10. - a.org -\n",
            "deny c 10. - 10.0.0.1 -\npermit c 10. - a.org -\n",
            "permit c 10. - - - user=a auth\npermit c 10. - - - auth\n",
            "permit c - - - - time=8:00-9:00\npermit c 10. - 10. -\n",
            // It does not match the addresses of this machine.
            "permit c 10. - a.org 80\ndeny c 10. - a.org 80\n",
            "permit c 10. - a.org 80\npermit c 10. - a.org 80 local\n",
        ] {
            assert_eq!(warning(text), None, "{text}");
        }
        let many = format!("permit c - - - -\n{}", "deny c 10. - - -\n".repeat(1500));
        let found = warning(&many).expect("a warning");
        assert!(
            found.starts_with("warning: line 2 (and 1499 more) never decides"),
            "{found}"
        );
    }

    #[test]
    fn l14_denials_by_name_are_one_warning() {
        let text: String = (0..1500)
            .map(|it| format!("deny - ads{it}.example\n"))
            .collect();
        let remarks = rules(&text).remarks(WeekTime::MONDAY, ALL);
        let [warning] = remarks.as_slice() else {
            panic!("{remarks:#?}");
        };
        assert!(warning.starts_with("warning: line 1 (and 1499 more) denies a name"));
    }

    #[test]
    fn f32_x16_a_narrower_denial_of_private_networks_does_not_count() {
        for (text, is_warned_of) in [
            ("deny - private\npermit - a.org\n", false),
            ("deny - -\npermit - a.org\n", false),
            ("deny c private\npermit c a.org\n", false),
            ("deny c private 1-1023\npermit c a.org 80,443\n", false),
            ("permit - a.org\ndeny - private\n", true),
            ("deny c private\npermit cb a.org\n", true),
            ("deny - private 80\npermit - a.org\n", true),
            ("deny - 10. - private\npermit - a.org\n", true),
            ("deny - private user=bob\npermit - a.org\n", true),
            (
                "deny - private time=mon/08:00-09:00\npermit - a.org\n",
                true,
            ),
            ("deny - 10.\npermit - a.org\n", true),
        ] {
            let warning = rules(text).private_networks_by_name();
            assert_eq!(warning.is_some(), is_warned_of, "{text}");
        }
    }

    #[test]
    fn f15_an_address_that_ends_with_zeros_is_reported_with_its_network() {
        for (rule, network) in [
            ("permit c 140.113.0.0", Some("140.113.*.*")),
            ("permit c 140.113.9.0", Some("140.113.9.*")),
            ("permit c 10.0.0.0 - a.org", Some("10.*.*.*")),
            ("permit b 0.0.0.0", Some("-")),
            ("permit b ::", Some("-")),
            ("deny c 2001:db8::", Some("2001:db8::/32")),
            ("deny c 2001:db8:0:1::", Some("2001:db8:0:1::/64")),
            ("deny c ::ffff:10.0.0.0", Some("10.*.*.*")),
            ("permit c 140.113.0.0/32", None),
            ("permit c 140.113.0.0/16", None),
            ("permit c *.*.99.0", None),
            ("permit c 140.113.0.1", None),
            ("permit c 2001:db8::1", None),
            ("permit c 2001:db8::/128", None),
            ("deny c loopback - private", None),
            ("permit c a.org", None),
        ] {
            let expected = network.map(|network| format!("did you mean {network}? If not, write "));
            let warning = rules(rule).zeros_at_the_end();
            match (&warning, expected) {
                (Some(warning), Some(expected)) => {
                    assert!(warning.contains(&expected), "{warning}")
                }
                (None, None) => {}
                _ => panic!("{rule}: {warning:?}"),
            }
        }
        let several = rules("permit c 1.2.3.4\ndeny c 10.0.0.0\ndeny c 2.0.0.0 - -\n");
        assert_eq!(
            several.zeros_at_the_end().as_deref(),
            Some(
                "line 2 (and 1 more) has 10.0.0.0, which is one address; did you mean \
                 10.*.*.*? If not, write 10.0.0.0/32"
            )
        );
        let remarks = several.remarks(WeekTime::MONDAY, ALL);
        assert!(
            remarks
                .iter()
                .any(|remark| remark.starts_with("warning: line 2"))
        );
    }

    #[test]
    fn x26_an_open_relay_is_found_in_every_spelling() {
        let open = |rule: &str| rules(rule).open_relay(ALL).is_some();
        for ports in ["1-65535", "0-65535", "1-1023,1024-65535", "443-65535,1-443"] {
            assert!(open(&format!("permit c - {ports}\n")), "{ports}");
            let rule = format!("permit u 0.0.0.0/0 1024-65535 0.0.0.0/0 {ports}\n");
            assert!(open(&rule), "{rule}");
        }
        for addresses in [
            "*",
            "*.*.*.*",
            "-.-.-.-",
            "0.0.0.0/0",
            "::/0",
            "2000::/3",
            "::/1",
            "::ffff:0:0/96",
        ] {
            let rule = format!("permit c {addresses} - {addresses} -\n");
            assert!(open(&rule), "{rule}");
        }
        assert!(open(
            "permit c - 1024-65535 - 1-65535 time=mon-sun/00:00-24:00\n"
        ));
        for rule in [
            "permit c 10. 1-65535 - 1-65535",
            "permit c fc00::/7 - -",
            "permit c 4000::/3 - -",
            "permit c 2000::/4 - -",
            "permit c - 1-65535 10. 1-65535",
            "permit b - 1-65535 - 1-65535",
            "deny - - 1-65535 - 1-65535",
            "permit c - 1-65535 - 1-65535 user=bob",
            // Parts of all addresses in several rules.
            "permit c 0.0.0.0/1 - - -\npermit c 128.0.0.0/1 - - -",
        ] {
            assert!(!open(rule), "{rule}");
        }
    }

    #[test]
    fn x28_source_ports_make_no_relay_closed() {
        for ports in [
            "-",
            "0",
            "7",
            "1-1023",
            "1024-65535",
            "32768-65535",
            "5000,6000",
        ] {
            for rule in [
                format!("permit c - {ports} - -"),
                format!("permit u ::/0 {ports} - 1-65535"),
            ] {
                assert_eq!(rules(&rule).open_relay(ALL), Some(1), "{rule}");
            }
            for rule in [
                format!("permit c 10. {ports} - -"),
                format!("permit c - {ports} 10. -"),
                format!("permit c - {ports} - 80,443"),
                format!("permit c - {ports} - - user=bob"),
                format!("deny c - {ports} - -"),
            ] {
                assert_eq!(rules(&rule).open_relay(ALL), None, "{rule}");
            }
        }
    }

    #[test]
    fn x29_so_many_destination_ports_make_an_open_relay() {
        let list = |ports: std::ops::Range<usize>| {
            let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
            ports.join(",")
        };
        for ports in [
            "1-65534",
            "2-65535",
            "1-1024,1025-65535",
            "1-24,26-65535",
            "1-1023",
            "0-1023",
            "1024-65535",
            "49152-65535",
            "1-500,501-1023",
            "1-1000,500-1023",
            &list(1..1024),
        ] {
            let rule = format!("permit c - {ports}");
            assert_eq!(rules(&rule).open_relay(ALL), Some(1), "{rule}");
            let of_hosts = format!("permit c 10. - - {ports}\npermit c - - 10. {ports}");
            assert_eq!(rules(&of_hosts).open_relay(ALL), None, "{of_hosts}");
        }
        for ports in [
            "80,443",
            "0",
            "0-1022",
            "1-1022",
            "21,60000-60999",
            "1-1000,1-1000,1-1000",
            "1-100,50-200",
            &list(1..1023),
        ] {
            let rule = format!("permit c - {ports}");
            assert_eq!(rules(&rule).open_relay(ALL), None, "{rule}");
        }
    }

    #[test]
    fn x05_warnings_find_the_open_relay_and_the_denial_by_name() {
        let open = rules("permit c 10.0.0.0/8 - - -\npermit c *.*.*.*\n");
        assert_eq!(open.open_relay(ALL), Some(2));
        assert_eq!(rules("permit b -\npermit c - 80\n").open_relay(ALL), None);
        assert_eq!(rules("permit u -\n").open_relay(ALL), Some(1));
        let logins = rules("permit u - - - - auth\npermit u - - - -\npermit cu - - - - auth\n");
        assert_eq!(logins.trusting_any_identd(ALL), [3]);
        assert_eq!(logins.permitting_socks4_unconfirmed(), [0; 0]);
        assert_eq!(rules("permit u - - - - auth\n").open_relay(ALL), None);
        assert_eq!(rules("permit c - - - - auth\n").open_relay(ALL), Some(1));
        assert_eq!(rules("permit c ::/0 - ::/0\n").open_relay(ALL), Some(1));
        let by_user = "permit c - user=a\npermit c - user=a ident\n\
                      permit c 10. - - - user=a ident\ndeny c - user=a\npermit c 10. - - - ident\n";
        assert_eq!(rules(by_user).unconfirmed_users(ALL), [1]);
        assert_eq!(rules(by_user).trusting_any_identd(ALL), [2]);
        assert_eq!(rules(by_user).denials_by_user(ALL), [4]);
        assert_eq!(rules(by_user).open_relay(ALL), None);
        assert_eq!(rules("permit c - ident\n").open_relay(ALL), Some(1));
        let by_name = rules("permit c a.org\ndeny c b.org\ndeny c *.c.org\n");
        assert_eq!(by_name.denials_by_name(), [2, 3]);
    }
}
