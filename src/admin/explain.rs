//! `--explain`: which rule decides about a connection, and why the rules before it do not match.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::config::{QuotedName, unquote};
use crate::net::resolve;
use crate::protocol::{Command, Host, Nat64Prefix, judged_address};
use crate::rules::{self, AccessQuery, Column, Rule, Rules, WeekTime};

/// A query for the verdict on one connection, as the operator writes it:
/// `MODE SRC-IP [SRC-PORT] DST PORT [user=NAME|login=NAME] [time=DAY/HH:MM]`. DST is an
/// address or a name; `login=` means that the user has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuery {
    command: Command,
    source: IpAddr,
    /// `None`: the operator has given none.
    source_port: Option<u16>,
    host: Host,
    port: u16,
    /// `None`: the operator has given none. Empty: the request contains no user.
    user: Option<Vec<u8>>,
    /// Has the user logged in?
    logged_in: bool,
    /// `None`: the current time.
    time: Option<WeekTime>,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// For each address of the destination, which line decides and which columns of the lines
    /// before it do not match.
    pub report: String,
    /// Do the rules permit one of the addresses, or a peer of a BIND?
    pub permitted: bool,
}

/// The syntax of a query.
const USAGE: &str = "write it as \"MODE SRC-IP [SRC-PORT] DST PORT [user=NAME|login=NAME] \
                     [time=DAY/HH:MM]\", for example \"c 10.0.0.5 140.113.1.2 80\"";

impl ExplainQuery {
    /// Parses a query.
    ///
    /// # Errors
    ///
    /// A sentence that says what to write instead.
    pub fn parse(text: &str) -> Result<ExplainQuery, String> {
        let mut user = None;
        let mut login = None;
        let mut time = None;
        let mut words = Vec::new();
        for word in rules::split_words(text).map_err(|error| error.to_string())? {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let is_repeated = match key.to_ascii_lowercase().as_str() {
                "user" if key != word => user.replace(parse_user(value)?).is_some(),
                "login" if key != word => login.replace(parse_login(value)?).is_some(),
                "time" if key != word => time.replace(parse_time(value)?).is_some(),
                _ if key != word => return Err(USAGE.to_owned()),
                _ => {
                    words.push(word);
                    false
                }
            };
            if is_repeated {
                return Err(format!("{key}= is given twice"));
            }
        }
        if user.is_some() && login.is_some() {
            return Err(
                "write either user= or login=, not both; login=NAME: this user has logged in"
                    .to_owned(),
            );
        }
        let (mode, source, source_port, host, port) = match *words.as_slice() {
            [mode, source, host, port] => (mode, source, None, host, port),
            [mode, source, source_port, host, port] => {
                (mode, source, Some(source_port), host, port)
            }
            _ => return Err(USAGE.to_owned()),
        };
        let command = match mode {
            "c" => Command::Connect,
            "b" => Command::Bind,
            "u" => Command::Associate,
            _ => return Err("the mode must be c (CONNECT), b (BIND) or u (UDP)".to_owned()),
        };
        let source: IpAddr = source.parse().map_err(|_| {
            format!(
                "\"{}\" is not an address of a client; write one as 10.0.0.5",
                source.escape_default()
            )
        })?;
        let host = Host::from_name_field(host.as_bytes());
        if let Host::Invalid(name) = host {
            return Err(name.to_string());
        }
        Ok(ExplainQuery {
            command,
            source,
            source_port: source_port.map(parse_port).transpose()?,
            host,
            port: parse_port(port)?,
            logged_in: login.is_some(),
            user: login.or(user),
            time,
        })
    }

    /// Explains the verdict of these rules. A name is looked up, as for a request.
    ///
    /// # Errors
    ///
    /// A sentence: the name has no address, or the query is not complete.
    pub fn explain(
        &self,
        path: &str,
        rules: &Rules,
        now: WeekTime,
        nat64: &[Nat64Prefix],
    ) -> Result<Explained, String> {
        self.check_complete(path, rules)?;
        let query = AccessQuery {
            command: self.command,
            source: SocketAddr::new(self.source, self.source_port.unwrap_or(0)),
            user: self.user_of_request(),
            logged_in: self.logged_in,
            name: self.host.name(),
            address: None,
            port: Some(self.port),
            time: self.time.unwrap_or(now),
            nat64,
        };
        let addresses = match &self.host {
            Host::Address(address) => vec![SocketAddr::new(*address, self.port)],
            Host::Name(name) => {
                // If every address is denied, the server does not look the name up.
                let explanation = Explanation::by_rules(path, rules, &query);
                if !explanation.permitted {
                    let to = format!("{name}:{} (any address)", self.port);
                    return Ok(Explained {
                        report: self.format_report(&to, rules, &query, &explanation),
                        permitted: false,
                    });
                }
                resolve::lookup(name, self.port).map_err(|error| format!("{name}: {error}"))?
            }
            Host::Invalid(name) => return Err(name.to_string()),
        };
        let (mut report, mut permitted) = (String::new(), false);
        if query.name.is_some() && rules.evaluate(&query).ident {
            report.push_str("identd is queried before the name is looked up\n");
        }
        for address in addresses {
            let explanation = self.explain_address(path, rules, query, address.ip());
            let name = query.name;
            let name = name.map_or(String::new(), |name| format!("{name} at "));
            let judged = match judged_address(address.ip(), nat64) {
                judged if judged == address.ip() => String::new(),
                judged => format!(" (judged as {judged})"),
            };
            let to = format!("{name}{address}{judged}");
            permitted |= explanation.permitted;
            report.push_str(&self.format_report(&to, rules, &query, &explanation));
        }
        Ok(Explained { report, permitted })
    }

    /// The user that the request has. UDP exists only in SOCKS5, whose clients have one only by a
    /// login.
    fn user_of_request(&self) -> &[u8] {
        match self.command {
            Command::Associate if !self.logged_in => b"",
            _ => self.user.as_deref().unwrap_or_default(),
        }
    }

    /// Checks that the query contains all values that the rules depend on.
    fn check_complete(&self, path: &str, rules: &Rules) -> Result<(), String> {
        if self.source_port.is_none() && rules.depend_on_source_port() {
            return Err(format!(
                "rules in {path} depend on the client's port; write it after the client's address"
            ));
        }
        if self.user.is_none() && rules.depend_on_user() {
            return Err(format!(
                "rules in {path} depend on the user; add user=NAME, login=NAME if the user has \
                 logged in, or user= for none"
            ));
        }
        Ok(())
    }

    /// The verdict for one address, with the checks in the order of the server: first whether
    /// the address is usable, then the rules.
    fn explain_address(
        &self,
        path: &str,
        rules: &Rules,
        query: AccessQuery<'_>,
        address: IpAddr,
    ) -> Explanation {
        let unusable = match self.command {
            Command::Bind => rules::unusable_address(address, query.nat64),
            Command::Connect | Command::Associate => {
                rules::unusable_reason(address, self.port, query.nat64)
            }
        };
        match (self.command, unusable) {
            // BIND for any peer: the server checks the rules for each peer that connects.
            (Command::Bind, _) if address.is_unspecified() => {
                let any_peer = AccessQuery {
                    port: None,
                    ..query
                };
                let explanation = Explanation::by_rules(path, rules, &any_peer);
                let peers = match explanation.permitted {
                    true => "for at least one peer",
                    false => "for every peer",
                };
                let reason = format!("{peers}, {}", explanation.reason);
                Explanation {
                    reason,
                    ..explanation
                }
            }
            (_, Some(reason)) => Explanation::denied(format!("because {reason}")),
            (_, None) => {
                let address = Some(address);
                Explanation::by_rules(path, rules, &AccessQuery { address, ..query })
            }
        }
    }

    /// The report for one address: a line with the verdict, then the lines of the trace.
    fn format_report(
        &self,
        to: &str,
        rules: &Rules,
        query: &AccessQuery<'_>,
        explanation: &Explanation,
    ) -> String {
        let Explanation {
            permitted,
            reason,
            trace,
        } = explanation;
        let action = if *permitted { "permit" } else { "deny" };
        let ExplainQuery {
            command, source, ..
        } = self;
        let user = match self.user.as_deref() {
            None | Some(b"") => String::new(),
            Some(user) if self.logged_in => format!(" as {}, logged in,", QuotedName(user)),
            Some(user) => format!(" as {}", QuotedName(user)),
        };
        let time = match rules.depend_on_time() {
            true => format!(" at {}", query.time),
            false => String::new(),
        };
        format!("{action}: {command} from {source}{user} to {to}{time}, {reason}\n{trace}")
    }
}

/// A verdict with its reason.
struct Explanation {
    permitted: bool,
    /// A clause that follows the description of the connection.
    reason: String,
    /// A line for each rule before the one that decides.
    trace: String,
}

impl Explanation {
    fn denied(reason: String) -> Explanation {
        Explanation {
            permitted: false,
            reason,
            trace: String::new(),
        }
    }

    fn by_rules(path: &str, rules: &Rules, query: &AccessQuery<'_>) -> Explanation {
        let verdict = rules.evaluate(query);
        let is_before_decision = |rule: &&Rule| Some(rule.line()) != verdict.line;
        let mut trace = String::new();
        for rule in rules.iter().take_while(is_before_decision) {
            let mismatches = rule.mismatches(query);
            let columns: Vec<String> = mismatches.iter().map(Column::to_string).collect();
            let why = match mismatches.contains(&Column::Local) {
                true => " (a name permits a local address only with this option)",
                false => "",
            };
            let mismatch = match columns.as_slice() {
                [] if query.port.is_none() => "matches only some addresses and ports".to_owned(),
                [] => "matches only some addresses".to_owned(),
                columns => format!("does not match in {}{why}", columns.join(", ")),
            };
            let _ = writeln!(trace, "  {path}:{} {mismatch}: {rule}", rule.line());
        }
        let rule = rules.iter().find(|rule| Some(rule.line()) == verdict.line);
        let by = match rule {
            Some(rule) => format!("by {path}:{}: {rule}", rule.line()),
            None => format!("because no rule of {path} matches"),
        };
        let can_be_confirmed = !query.user.is_empty();
        let reason = match (verdict.ident, can_be_confirmed) {
            (false, _) => by,
            (true, false) if verdict.auth => format!("since the client has not logged in, {by}"),
            (true, true) => format!("if identd on the client's host confirms the user, {by}"),
            (true, false) => format!("since there is no user for identd to confirm, {by}"),
        };
        Explanation {
            permitted: verdict.permitted && (can_be_confirmed || !verdict.ident),
            reason,
            trace,
        }
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| {
        format!(
            "\"{}\" is not a port from 0 to 65535",
            text.escape_default()
        )
    })
}

/// Parses one name, with or without quotes.
fn parse_user(name: &str) -> Result<Vec<u8>, String> {
    match unquote(name.as_bytes()) {
        Ok(None) if name.contains('"') => Err("write quotes around the whole name".to_owned()),
        Ok(None) => Ok(name.as_bytes().to_vec()),
        Ok(Some(name)) if name.rest.is_empty() => Ok(name.bytes),
        Ok(Some(_)) => Err("write only one name, which ends with the second quote".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_login(name: &str) -> Result<Vec<u8>, String> {
    match parse_user(name)? {
        name if name.is_empty() => {
            Err("login= is empty; write login=NAME, or leave it out".to_owned())
        }
        name => Ok(name),
    }
}

fn parse_time(text: &str) -> Result<WeekTime, String> {
    WeekTime::parse(text).ok_or_else(|| {
        format!(
            "\"{}\" is not a time of the week; write it as fri/09:30",
            text.escape_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::rules::parse;

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("valid rules")
    }

    /// The report on this query by these rules. Its first word is the verdict.
    fn explain_by(text: &str, rules: &Rules) -> Result<String, String> {
        let query = ExplainQuery::parse(text)?;
        let explained = query.explain("f", rules, WeekTime::MONDAY, &[])?;
        assert_eq!(explained.permitted, explained.report.contains("permit: "));
        Ok(explained.report)
    }

    #[test]
    fn explain_names_the_line_that_decides() {
        let course_rules = rules("deny c 10. - 140.113.9. -\npermit c 10. - 140.113. 80\n");
        let explain = |text: &str| explain_by(text, &course_rules);
        for (query, expected) in [
            (
                "c 10.0.0.5 140.113.1.2 80",
                "permit: CONNECT from 10.0.0.5 to 140.113.1.2:80, \
                 by f:2: permit c 10.0.0.0/8 - 140.113.0.0/16 80\n  \
                 f:1 does not match in dst-ip: deny   c 10.0.0.0/8 - 140.113.9.0/24 -\n",
            ),
            (
                "c 10.0.0.5 4000 140.113.9.2 80",
                "deny: CONNECT from 10.0.0.5 to 140.113.9.2:80, \
                 by f:1: deny   c 10.0.0.0/8 - 140.113.9.0/24 -\n",
            ),
            (
                "b 10.0.0.5 140.113.1.2 80",
                "deny: BIND from 10.0.0.5 to 140.113.1.2:80, because no rule of f matches\n  \
                 f:1 does not match in mode, dst-ip: deny   c 10.0.0.0/8 - 140.113.9.0/24 -\n  \
                 f:2 does not match in mode: permit c 10.0.0.0/8 - 140.113.0.0/16 80\n",
            ),
        ] {
            assert_eq!(explain(query).as_deref(), Ok(expected));
        }
        let source_port_rules = rules("permit - 127. 1024-65535 - -\n");
        let explain_with_port = |text: &str| explain_by(text, &source_port_rules);
        for (query, expected) in [
            ("b 127.0.0.1 2000 0.0.0.0 0", Ok("permit: ")),
            ("b 127.0.0.1 80 0.0.0.0 0", Ok("deny: ")),
            ("c 127.0.0.1 2000 0.0.0.0 80", Ok("deny: ")),
            ("c 127.0.0.1 2000 1.1.1.1 0", Ok("deny: ")),
            ("c 127.0.0.1 2000 ::1 80", Ok("permit: ")),
            ("c 127.0.0.1 2000 ::7f00:1 80", Ok("deny: ")),
            ("c 127.0.0.1 2000 1.1.1.1 80", Ok("permit: ")),
            ("c 127.0.0.1 1.1.1.1 80", Err("the client's port")),
        ] {
            match (explain_with_port(query), expected) {
                (Ok(report), Ok(begin)) => assert!(report.starts_with(begin), "{report}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (result, _) => panic!("{query}: {result:?}"),
            }
        }
        for query in [
            "",
            "c 1.2.3.4",
            "x 1.1.1.1 2.2.2.2 80",
            "c a.org 2.2.2.2 80",
            "c 1.1.1.1 127.1 80",
            "c 1.1.1.1 2.2.2.2 http",
            "c 1.1.1.1 2.2.2.2 80 time=8:00",
            "c 1.1.1.1 2.2.2.2 80 group=wheel",
            "c 1.1.1.1 2.2.2.2 80 user=a USER=b",
            "c 1.1.1.1 2.2.2.2 80 user",
            "c 1.1.1.1 2.2.2.2 80 ident",
        ] {
            assert!(explain(query).is_err(), "{query}");
        }
    }

    #[test]
    fn explain_accepts_a_login() {
        let user_rules = rules("permit c - 80 user=alice time=mon-fri/08:00-18:00\n");
        let explain = |text: &str| explain_by(text, &user_rules);
        let logged_in = "c 10.0.0.5 1.2.3.4 80 login=alice time=fri/17:59";
        let report = explain(logged_in).expect("a complete query");
        assert!(
            report.starts_with("permit: CONNECT from 10.0.0.5 as \"alice\", logged in, to "),
            "{report}"
        );
        for (query, reason) in [
            ("c 10.0.0.5 1.2.3.4 80 login=", "login= is empty"),
            (
                "c 10.0.0.5 1.2.3.4 80 login=a user=a",
                "either user= or login=",
            ),
            ("c 10.0.0.5 1.2.3.4 80 login=a login=a", "given twice"),
        ] {
            assert!(explain(query).expect_err(query).contains(reason));
        }
        let auth_rules = rules("permit u - auth\n");
        let explain = |text: &str| explain_by(text, &auth_rules);
        for (user, verdict) in [
            (
                "login=a",
                "permit: UDP ASSOCIATE from 10.0.0.5 as \"a\", logged in, to 1.2.3.4:53, by f:1",
            ),
            // Identd can confirm only SOCKS4 clients, and SOCKS4 has no UDP ASSOCIATE.
            (
                "user=a",
                "deny: UDP ASSOCIATE from 10.0.0.5 as \"a\" to 1.2.3.4:53, since the client has not",
            ),
            (
                "user=",
                "deny: UDP ASSOCIATE from 10.0.0.5 to 1.2.3.4:53, since the client has not logged in",
            ),
        ] {
            let query = format!("u 10.0.0.5 1.2.3.4 53 {user}");
            let report = explain(&query).expect("a complete query");
            assert!(report.starts_with(verdict), "{report}");
        }
        // SOCKS4A has IPv6 addresses too, in the field for a name.
        let of_socks4a = explain_by(
            "c 10.0.0.5 2001:db8::1 80 user=a",
            &rules("permit c - auth\n"),
        );
        let report = of_socks4a.expect("a complete query");
        assert!(
            report.starts_with("permit: ") && report.contains("if identd"),
            "{report}"
        );
        let clients = |has_users| Settings::default().client_kinds(has_users);
        let warnings = |has_users| auth_rules.remarks(WeekTime::MONDAY, clients(has_users));
        assert!(warnings(true).is_empty());
        assert!(
            warnings(false)[0].contains(
                "line 1 requires a login, which SOCKS5 clients cannot do without --users"
            )
        );
        let mixed_rules = rules("permit c 1.\npermit c 2. ident\npermit c 3.\n");
        let warnings = |has_users| mixed_rules.remarks(WeekTime::MONDAY, clients(has_users));
        let of_socks4 = "line 1 (and 1 more) permits SOCKS4 clients";
        assert!(warnings(true).iter().any(|it| it.contains(of_socks4)));
        assert!(!warnings(false).iter().any(|it| it.contains(of_socks4)));
    }

    #[test]
    fn explain_accepts_users_and_times() {
        let user_rules = rules(
            "permit c - 80 user=alice time=mon-fri/08:00-18:00\n\
             permit c 10. - - - user=bob ident\n",
        );
        let explain = |text: &str| explain_by(text, &user_rules);
        for (query, expected) in [
            (
                "c 10.0.0.5 1.2.3.4 80 user=alice time=fri/17:59",
                "permit: CONNECT from 10.0.0.5 as \"alice\" to 1.2.3.4:80 at fri/17:59, \
                 by f:1: permit c - - - 80 user=alice time=mon-fri/08:00-18:00\n",
            ),
            (
                "c 10.0.0.5 1.2.3.4 443 user=alice",
                "deny: CONNECT from 10.0.0.5 as \"alice\" to 1.2.3.4:443 at mon/00:00, \
                 because no rule of f matches\n  \
                 f:1 does not match in dst-port, time: \
                 permit c - - - 80 user=alice time=mon-fri/08:00-18:00\n  \
                 f:2 does not match in user: permit c 10.0.0.0/8 - - - user=bob ident\n",
            ),
            (
                "c 10.0.0.5 1.2.3.4 80 user=bob",
                "permit: CONNECT from 10.0.0.5 as \"bob\" to 1.2.3.4:80 at mon/00:00, \
                 if identd on the client's host confirms the user, \
                 by f:2: permit c 10.0.0.0/8 - - - user=bob ident\n  \
                 f:1 does not match in user, time: \
                 permit c - - - 80 user=alice time=mon-fri/08:00-18:00\n",
            ),
        ] {
            assert_eq!(explain(query).as_deref(), Ok(expected));
        }
        let error = explain("c 10.0.0.5 1.2.3.4 80").expect_err("no user");
        assert!(error.contains("user= for none"), "{error}");
        let ident_rules = rules("permit c - ident\n");
        let explain = |text: &str| explain_by(text, &ident_rules);
        let report = explain("c 10.0.0.5 1.2.3.4 80 user=").expect("a complete query");
        assert!(report.starts_with("deny: "), "{report}");
        assert!(report.contains("no user for identd to confirm"), "{report}");
        let bind_rules = rules("permit b - - - 20 ident\npermit b 10. ident\n");
        let explain = |text: &str| explain_by(text, &bind_rules);
        assert_eq!(
            explain("b 10.0.0.5 0.0.0.0 20 User=alice").as_deref(),
            Ok(
                "permit: BIND from 10.0.0.5 as \"alice\" to 0.0.0.0:20, for at least one peer, \
                if identd on the client's host confirms the user, by f:1: permit b - - - 20 ident\n"
            )
        );
    }
}
