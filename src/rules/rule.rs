//! One line of `socks.conf`, and how it matches a query.

use std::fmt;
use std::net::IpAddr;

use super::matchers::{AddressSet, CommandSet, DestinationSet, Match, PortSet, UserSet};
use super::networks::is_local;
use super::query::AccessQuery;
use super::schedule::Schedule;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) line: usize,
    pub(super) permits: bool,
    pub(super) commands: CommandSet,
    pub(super) source: AddressSet,
    pub(super) source_ports: PortSet,
    pub(super) destination: DestinationSet,
    pub(super) destination_ports: PortSet,
    pub(super) users: UserSet,
    pub(super) schedule: Schedule,
    pub(super) ident: bool,
    pub(super) auth: bool,
    /// The option `local`.
    pub(super) local: bool,
}

/// A column of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The command.
    Mode,
    /// The client's address.
    Source,
    /// The client's port.
    SourcePort,
    /// The address or name of the destination.
    Destination,
    /// The port of the destination.
    DestinationPort,
    /// The user.
    User,
    /// The time.
    Time,
    /// Whether a rule with a name may match this address.
    Local,
}

impl Column {
    /// All columns, in the order of `socks.conf`. It is also a good order for matching: most
    /// rules differ in one of the first columns, so a match mostly ends there.
    const ALL: [Column; 8] = [
        Column::Mode,
        Column::Source,
        Column::SourcePort,
        Column::Destination,
        Column::DestinationPort,
        Column::User,
        Column::Time,
        Column::Local,
    ];
}

impl fmt::Display for Column {
    /// Writes the name that the column has in `socks.conf`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Column::Mode => "mode",
            Column::Source => "src-ip",
            Column::SourcePort => "src-port",
            Column::Destination => "dst-ip",
            Column::DestinationPort => "dst-port",
            Column::User => "user",
            Column::Time => "time",
            Column::Local => "local",
        })
    }
}

impl Rule {
    /// The number of its line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Does one column match the query? The one place where a rule is compared. The query
    /// is [canonical](AccessQuery::canonical).
    // Always: it has two callers, and out of line it doubles the time of a verdict.
    #[inline(always)]
    fn match_column(&self, column: Column, query: &AccessQuery<'_>) -> Match {
        match column {
            Column::Mode => self.commands.contains(query.command).into(),
            Column::Source => self.source.contains(query.source.ip()).into(),
            Column::SourcePort => self.source_ports.matches(Some(query.source.port())),
            Column::Destination => match self.destination.matches(query.name, query.address) {
                // Some datagram of the association may go to the name of this rule.
                Match::No if query.is_any_datagram() => Match::Unknown,
                matched => matched,
            },
            Column::DestinationPort => self.destination_ports.matches(query.port),
            Column::User => self.users.contains(query.user).into(),
            Column::Time => self.schedule.contains(query.time).into(),
            Column::Local => self.match_local(query),
        }
    }

    /// Does the query's address match the option `local`? A rule that permits by a name, and
    /// does not have it, matches no local address: the owner of the name's zone would choose
    /// what the rule permits.
    fn match_local(&self, query: &AccessQuery<'_>) -> Match {
        if !self.permits || self.local || !self.destination.is_of_a_zone() {
            return Match::Yes;
        }
        match query.address {
            Some(address) => Match::from(!is_local(address)),
            None => Match::Unknown,
        }
    }

    /// Does the rule trust the owner of a name's zone with local addresses?
    pub(super) fn trusts_a_zone(&self) -> bool {
        self.local && self.destination.is_of_a_zone()
    }

    /// Does the rule match the query? `Unknown` if that depends on the address or port,
    /// which is not known yet. The query is [canonical](AccessQuery::canonical).
    // No loop over `Column::ALL`, and inlined: see `matchers.rs`.
    #[inline]
    pub(super) fn matches(&self, query: &AccessQuery<'_>) -> Match {
        let column = |column| self.match_column(column, query);
        column(Column::Mode)
            .and(|| column(Column::Source))
            .and(|| column(Column::SourcePort))
            .and(|| column(Column::Destination))
            .and(|| column(Column::DestinationPort))
            .and(|| column(Column::User))
            .and(|| column(Column::Time))
            .and(|| column(Column::Local))
    }

    /// The columns that do not match the query; none if the rule matches, or may match when
    /// the address is known.
    pub fn mismatches(&self, query: &AccessQuery<'_>) -> Vec<Column> {
        let query = query.canonical();
        let differs = |column: &Column| self.match_column(*column, &query) == Match::No;
        Column::ALL.into_iter().filter(differs).collect()
    }

    /// The first address of the rule that may be meant as a network, and that network.
    pub(super) fn likely_network(&self) -> Option<(IpAddr, String)> {
        let in_source = self.source.likely_network();
        in_source.or_else(|| self.destination.addresses()?.likely_network())
    }

    /// Does the rule match every request with its commands and from its addresses?
    pub(super) fn tests_only_the_source(&self) -> bool {
        let any_destination = DestinationSet::Addresses(AddressSet::Any);
        self.source_ports == PortSet::Any
            && self.destination == any_destination
            && self.destination_ports == PortSet::Any
            && self.users == UserSet::Any
            && self.schedule == Schedule::Always
    }

    /// Does the rule require a confirmation of the user, by identd or by a login?
    pub(super) fn requires_confirmation(&self) -> bool {
        self.ident || self.auth
    }

    /// Does the rule require a confirmation that the query does not contain yet? A login
    /// satisfies `auth`, but not `ident`.
    pub(super) fn lacks_confirmation(&self, query: &AccessQuery<'_>) -> bool {
        self.ident || self.auth && !query.logged_in
    }
}

impl fmt::Display for Rule {
    /// Writes the rule in the long form of `socks.conf`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = if self.permits { "permit" } else { "deny" };
        write!(
            out,
            "{action:6} {} {} {} {} {}",
            self.commands, self.source, self.source_ports, self.destination, self.destination_ports
        )?;
        write!(out, "{}{}", self.users, self.schedule)?;
        out.write_str(if self.ident { " ident" } else { "" })?;
        out.write_str(if self.auth { " auth" } else { "" })?;
        out.write_str(if self.local { " local" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::protocol::Command;
    use crate::rules::{WeekTime, parse};

    #[test]
    fn a_rule_reports_the_columns_that_do_not_match() {
        let text = "permit b 11. 1-2 a.org 443 user=bob time=tue/08:00-09:00\n\
                    permit c 10. 5000 127. 80\n\
                    permit c - 443 user=alice\n";
        let query = AccessQuery {
            command: Command::Connect,
            source: "10.0.0.5:5000".parse().unwrap(),
            user: b"alice",
            logged_in: false,
            name: None,
            address: Some(Ipv4Addr::LOCALHOST.into()),
            port: Some(80),
            time: WeekTime::parse("mon/09:00").expect("a time"),
            nat64: &[],
        };
        let rules = parse(text.as_bytes()).expect("valid rules");
        let reported: Vec<_> = rules.iter().map(|rule| rule.mismatches(&query)).collect();
        let all = Column::ALL.to_vec();
        assert_eq!(reported, [all, vec![], vec![Column::DestinationPort]]);
    }
}
