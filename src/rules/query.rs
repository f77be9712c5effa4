//! A query to the rules, and their verdict.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::networks::is_local;
use super::schedule::WeekTime;
use crate::protocol::{Command, HostName, Nat64Prefix, judged_address};

/// May this connection be made? Exactly the address that would be dialled or awaited.
#[derive(Clone, Copy, Debug)]
pub struct AccessQuery<'a> {
    /// The command of the request.
    pub command: Command,
    /// The client.
    pub source: SocketAddr,
    /// The user id of the request, or the user who has logged in; any bytes.
    pub user: &'a [u8],
    /// Has the user logged in?
    pub logged_in: bool,
    /// The name that the client requested, if it is one.
    pub name: Option<&'a HostName>,
    /// The address that would be dialled or awaited. `None`: not known yet, because the name
    /// is not resolved, any peer may connect, or datagrams may go to any host.
    pub address: Option<IpAddr>,
    /// The port of the request. `None`: any.
    pub port: Option<u16>,
    /// The local time.
    pub time: WeekTime,
    /// The network's own NAT64 prefixes. An address with one of them, or with the well-known
    /// one, is judged as the IPv4 address in it.
    pub nat64: &'a [Nat64Prefix],
}

impl AccessQuery<'_> {
    /// Is the query about any datagram of an association, to any address or name?
    pub(super) fn is_any_datagram(&self) -> bool {
        self.command == Command::Associate && self.address.is_none() && self.name.is_none()
    }

    /// The same query, with IPv4-mapped and NAT64 addresses as IPv4: so that a client cannot
    /// avoid a rule by another form of the same address.
    pub(super) fn canonical(&self) -> Self {
        AccessQuery {
            source: SocketAddr::new(
                judged_source(self.source.ip(), self.nat64),
                self.source.port(),
            ),
            address: self
                .address
                .map(|address| judged_address(address, self.nat64)),
            ..*self
        }
    }
}

/// The client's address as IPv4, if a gateway has translated it (RFC 7755). A NAT64
/// address with a local address in it stays as it is: no gateway translates that address,
/// and the sender is not this machine.
pub(crate) fn judged_source(source: IpAddr, nat64: &[Nat64Prefix]) -> IpAddr {
    let source = source.to_canonical();
    match judged_address(source, nat64) {
        judged if source.is_ipv6() && is_local(judged) => source,
        judged => judged,
    }
}

/// The answer to an [`AccessQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// May the connection be made?
    pub permitted: bool,
    /// Must identd confirm the user first? Only if `permitted`.
    pub ident: bool,
    /// Would a login do instead of identd? Only if `ident`.
    pub auth: bool,
    /// The line of the rule that decided; none if no rule matched.
    pub line: Option<usize>,
    /// The line of a rule that permits the name, but not this address, since it has no option
    /// `local`. It matters only if no rule matches.
    pub lacks_local: Option<usize>,
}

impl Verdict {
    /// Does the verdict grant the request? `confirmed`: has identd confirmed the user?
    pub fn grants(self, confirmed: bool) -> bool {
        self.permitted && (confirmed || !self.ident)
    }
}

impl fmt::Display for Verdict {
    /// Writes the reason, a clause.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.permitted, self.ident) {
            (None, _, _) => match self.lacks_local {
                None => out.write_str("no rule permits it"),
                Some(line) => write!(
                    out,
                    "rule on line {line} permits the name, but an address of this machine, its link \
                     or a metadata service only with the option local"
                ),
            },
            (Some(line), false, _) => write!(out, "rule on line {line} denies it"),
            (Some(line), true, false) => write!(out, "rule on line {line} permits it"),
            (Some(line), true, true) => {
                let condition = match self.auth {
                    true => "if the user logs in, or with SOCKS4 if identd confirms the user",
                    false => "if identd confirms the user",
                };
                write!(out, "rule on line {line} permits it {condition}")
            }
        }
    }
}
