//! The rules, told to a person: `--check` and `--explain`.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::firewall::{self, Question, Rules};
use crate::resolve;
use crate::wire::{Command, Host, HostName};

/// The rules as understood, a line each, with warnings about what they do not
/// keep out. `path` is what to call the file.
pub fn check(path: &str, rules: &Rules) -> String {
    let mut told = String::new();
    for rule in rules.iter() {
        let _ = writeln!(told, "{path}:{}: {rule}", rule.line());
    }
    let _ = writeln!(
        told,
        "{path}: {rules}; the first that matches decides, all else is denied"
    );
    for warning in warnings(rules) {
        let _ = writeln!(told, "{path}: warning: {warning}");
    }
    told
}

/// What the operator may not have meant, a sentence each.
pub fn warnings(rules: &Rules) -> Vec<String> {
    let mut told = Vec::new();
    if rules.is_empty() {
        told.push("there is no rule, so every request is denied".to_owned());
    }
    if let Some(line) = rules.open_relay() {
        told.push(format!(
            "line {line} lets anybody connect to anywhere: an open relay, if strangers can reach it"
        ));
    }
    for line in rules.denials_by_name() {
        told.push(format!(
            "line {line} denies a name; who asks for its address instead is not denied by it"
        ));
    }
    told
}

/// A connection to be explained, as the operator writes it:
/// `MODE SRC-IP [SRC-PORT] DST PORT`, where DST is an address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    command: Command,
    source: IpAddr,
    /// If the operator gave one.
    source_port: Option<u16>,
    host: Host,
    port: u16,
}

impl Inquiry {
    /// Understands the operator's words.
    ///
    /// # Errors
    ///
    /// A sentence that says how to write it.
    pub fn parse(text: &str) -> Result<Inquiry, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (mode, source, source_port, host, port) = match *words.as_slice() {
            [mode, source, host, port] => (mode, source, None, host, port),
            [mode, source, source_port, host, port] => {
                (mode, source, Some(source_port), host, port)
            }
            _ => {
                return Err(
                    "write it as \"MODE SRC-IP [SRC-PORT] DST PORT\", for example \
                     \"c 10.0.0.5 140.113.1.2 80\""
                        .to_owned(),
                );
            }
        };
        let number = |text: &str| {
            text.parse::<u16>().map_err(|_| {
                format!(
                    "\"{}\" is not a port from 0 to 65535",
                    text.escape_default()
                )
            })
        };
        let command = match mode {
            "c" => Command::Connect,
            "b" => Command::Bind,
            _ => return Err("the mode is c (CONNECT) or b (BIND)".to_owned()),
        };
        let source: IpAddr = source
            .parse()
            .map_err(|_| format!("\"{}\" is not a client's address", source.escape_default()))?;
        let host = match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::from_name(host.as_bytes()),
        };
        if let Host::Unusable(bad) = host {
            return Err(bad.to_string());
        }
        Ok(Inquiry {
            command,
            source,
            source_port: source_port.map(number).transpose()?,
            host,
            port: number(port)?,
        })
    }

    /// Which line decides, for each address the destination has. A name is
    /// looked up, as a request's would be.
    ///
    /// # Errors
    ///
    /// A sentence: the name has no address, or the question is not complete.
    pub fn explain(&self, path: &str, rules: &Rules) -> Result<String, String> {
        if self.source_port.is_none() && rules.ask_for_source_port() {
            return Err(format!(
                "{path} has rules about the client's port; write it behind the client's address"
            ));
        }
        let (name, addresses) = match &self.host {
            Host::Address(address) => (None, vec![*address]),
            Host::Name(name) => {
                if let Some(denial) = self.denial_unseen(path, rules, name) {
                    return Ok(denial);
                }
                let found = resolve::lookup(name).map_err(|error| format!("{name}: {error}"))?;
                (Some(name), found)
            }
            Host::Unusable(bad) => return Err(bad.to_string()),
        };
        let mut told = String::new();
        for address in addresses {
            let (permitted, why) = self.verdict(path, rules, name, address);
            let action = if permitted { "permit" } else { "deny" };
            let name = name.map_or(String::new(), |name| format!("{name} at "));
            let Inquiry {
                command,
                source,
                port,
                ..
            } = self;
            let destination = SocketAddr::new(address, *port);
            let _ = writeln!(
                told,
                "{action}: {command} from {source} to {name}{destination}, {why}"
            );
        }
        Ok(told)
    }

    /// The client in question; its port matters only where it was given.
    fn client(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.source_port.unwrap_or(0))
    }

    /// If no address could be permitted, the server does not look the name up.
    fn denial_unseen(&self, path: &str, rules: &Rules, name: &HostName) -> Option<String> {
        let best = rules.at_best(self.command, self.client(), Some(name), Some(self.port));
        if best.permitted {
            return None;
        }
        let Inquiry {
            command,
            source,
            port,
            ..
        } = self;
        let why = decided(path, rules, best.line);
        Some(format!(
            "deny: {command} from {source} to {name}:{port}, whatever it stands for, {why}\n"
        ))
    }

    /// Would the server do it, and why? In the server's own order.
    fn verdict(
        &self,
        path: &str,
        rules: &Rules,
        name: Option<&HostName>,
        address: IpAddr,
    ) -> (bool, String) {
        let source = self.client();
        if address.is_ipv6() {
            return (false, "because SOCKS4 has no IPv6 addresses".to_owned());
        }
        let nobodys = firewall::nobodys(address, self.port);
        match (self.command, nobodys) {
            (Command::Connect, Some(why)) => return (false, format!("because {why}")),
            // To any peer: each is judged when it comes.
            (Command::Bind, _) if address.is_unspecified() => {
                let best = rules.at_best(Command::Bind, source, None, None);
                let some = if best.permitted { "some" } else { "no" };
                return (
                    best.permitted,
                    format!("as {some} peer is permitted by {path}"),
                );
            }
            _ => {}
        }
        let verdict = rules.judge(&Question {
            command: self.command,
            source,
            name,
            address,
            port: self.port,
        });
        let why = decided(path, rules, verdict.line);
        (verdict.permitted, why)
    }
}

/// Which rule decided.
fn decided(path: &str, rules: &Rules, line: Option<usize>) -> String {
    match rules.iter().find(|rule| Some(rule.line()) == line) {
        Some(rule) => format!("by {path}:{}: {rule}", rule.line()),
        None => format!("because no rule of {path} matches"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::parse;

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("good rules")
    }

    #[test]
    fn check_shows_the_rules_as_understood() {
        let told = check(
            "f",
            &rules("# hm\npermit c 140.113. # NCTU\ndeny b a.org 1-9,20\n"),
        );
        assert_eq!(
            told,
            "f:2: permit c - - 140.113.0.0/16 -\n\
             f:3: deny   b - - a.org 1-9,20\n\
             f: 2 rules; the first that matches decides, all else is denied\n\
             f: warning: line 3 denies a name; who asks for its address instead is not denied by it\n"
        );
        assert!(check("f", &rules("")).contains("every request is denied"));
        assert!(check("f", &rules("permit - -")).contains("line 1 lets anybody"));
    }

    #[test]
    fn explain_names_the_line_that_decides() {
        let course = rules("deny c 10. - 140.113.9. -\npermit c 10. - 140.113. 80\n");
        let explain = |text: &str| Inquiry::parse(text)?.explain("f", &course);
        for (inquiry, told) in [
            (
                "c 10.0.0.5 140.113.1.2 80",
                "permit: CONNECT from 10.0.0.5 to 140.113.1.2:80, \
                 by f:2: permit c 10.0.0.0/8 - 140.113.0.0/16 80\n",
            ),
            (
                "c 10.0.0.5 4000 140.113.9.2 80",
                "deny: CONNECT from 10.0.0.5 to 140.113.9.2:80, \
                 by f:1: deny   c 10.0.0.0/8 - 140.113.9.0/24 -\n",
            ),
            (
                "b 10.0.0.5 140.113.1.2 80",
                "deny: BIND from 10.0.0.5 to 140.113.1.2:80, because no rule of f matches\n",
            ),
        ] {
            assert_eq!(explain(inquiry).as_deref(), Ok(told));
        }
        let odd = rules("permit - 127. 1024-65535 - -\n");
        let explain_odd = |text: &str| Inquiry::parse(text)?.explain("f", &odd);
        for (inquiry, told) in [
            ("b 127.0.0.1 2000 0.0.0.0 0", Ok("permit: ")),
            ("b 127.0.0.1 80 0.0.0.0 0", Ok("deny: ")),
            ("c 127.0.0.1 2000 0.0.0.0 80", Ok("deny: ")),
            ("c 127.0.0.1 2000 1.1.1.1 0", Ok("deny: ")),
            ("c 127.0.0.1 2000 ::1 80", Ok("deny: ")),
            ("c 127.0.0.1 2000 1.1.1.1 80", Ok("permit: ")),
            ("c 127.0.0.1 1.1.1.1 80", Err("the client's port")),
        ] {
            match (explain_odd(inquiry), told) {
                (Ok(answer), Ok(told)) => assert!(answer.starts_with(told), "{answer}"),
                (Err(why), Err(told)) => assert!(why.contains(told), "{why}"),
                (answer, _) => panic!("{inquiry}: {answer:?}"),
            }
        }
        for inquiry in [
            "",
            "c 1.2.3.4",
            "x 1.1.1.1 2.2.2.2 80",
            "c a.org 2.2.2.2 80",
            "c 1.1.1.1 127.1 80",
            "c 1.1.1.1 2.2.2.2 http",
        ] {
            assert!(explain(inquiry).is_err(), "{inquiry}");
        }
    }
}
