//! The settings of a server: every limit and timeout that an operator can choose.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::protocol::{Nat64Prefix, Network};

/// The settings of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time from accept until the request must be complete.
    pub handshake_timeout: Duration,
    /// Time for a CONNECT, with identd, name lookup and all addresses; for a BIND or UDP
    /// ASSOCIATE, time for identd and the name lookup.
    pub connect_timeout: Duration,
    /// Time for the peer of a BIND to connect.
    pub bind_timeout: Duration,
    /// Time for the reply of the client's identd, if a rule requires it.
    pub ident_timeout: Duration,
    /// Idle timeout of a relay: time without a byte in either direction; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Idle timeout of a relay of which one direction has ended; `None`: never.
    pub half_closed_timeout: Option<Duration>,
    /// Idle timeout of a UDP association: time without a datagram in either direction;
    /// `None`: never.
    pub udp_timeout: Option<Duration>,
    /// Grace period: time that live sessions have to end when the server stops.
    pub grace: Duration,
    /// Sessions at a time; see [`Limits`](crate::server::Limits).
    pub max_sessions: usize,
    /// UDP associations at a time; see [`Limits`](crate::server::Limits).
    pub max_associations: usize,
    /// Name lookups at a time; see [`Limits`](crate::server::Limits).
    pub max_name_lookups: usize,
    /// Sessions at a time of one client; `None`: no limit of its own. An IPv4 address
    /// counts as one client, and so do the first 64 bits of an IPv6 address. All clients of
    /// an IPv6 /56 have 4 times as many together, those of a /48 16 times; but no more than
    /// half of `max_sessions`, if that is more than the limit of one client.
    pub max_per_client: Option<usize>,
    /// Clients at a time that have not sent their request; `None`: half of
    /// `max_sessions`.
    pub max_unheard: Option<usize>,
    /// `--socks`: may SOCKS4 and SOCKS4A clients use the server?
    pub socks4: bool,
    /// `--socks`: may SOCKS5 clients use the server?
    pub socks5: bool,
    /// With users: may SOCKS5 clients that offer no login use the server as well?
    pub allow_anonymous: bool,
    /// Are live sessions ended when the rules no longer permit them?
    pub enforce: bool,
    /// The address in replies to BIND and UDP ASSOCIATE; `None`: the server's own
    /// address, as far as it is known.
    pub advertise: Option<Ipv4Addr>,
    /// `--nat64`: the prefixes of NAT64 gateways, beside the well-known one.
    pub nat64: Vec<Nat64Prefix>,
    /// `--proxy-from`: the proxies whose connections begin with a header of the PROXY protocol,
    /// which says who the client is.
    pub proxy_from: Vec<Network>,
    /// Ports for BIND and for datagrams of clients; `None`: any port that the system
    /// chooses.
    pub bind_ports: Option<RangeInclusive<u16>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            handshake_timeout: Duration::from_secs(30),
            // SOCKS4.protocol names two minutes for both.
            connect_timeout: Duration::from_secs(120),
            bind_timeout: Duration::from_secs(120),
            // RFC 1413 suggests at least 30 seconds, for the networks of 1993.
            ident_timeout: Duration::from_secs(10),
            idle_timeout: None,
            half_closed_timeout: Some(Duration::from_secs(300)),
            // RFC 4787, requirement 5, recommends this to address translators: they
            // remove a mapping after the same time without a datagram.
            udp_timeout: Some(Duration::from_secs(300)),
            grace: Duration::from_secs(8),
            max_sessions: 1000,
            max_associations: 250,
            max_name_lookups: 64,
            max_per_client: None,
            max_unheard: None,
            socks4: true,
            socks5: true,
            allow_anonymous: false,
            enforce: false,
            advertise: None,
            nat64: Vec::new(),
            proxy_from: Vec::new(),
            bind_ports: None,
        }
    }
}

/// Which kinds of clients the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKinds {
    /// SOCKS4 and SOCKS4A: the client chooses its user id.
    pub socks4: bool,
    /// SOCKS5 with a login.
    pub logged_in: bool,
    /// SOCKS5 without a login.
    pub anonymous: bool,
    /// Clients of proxies (`--proxy-from`).
    pub proxied: bool,
}

/// The sweep looks at every session, so its rounds must not follow each other at once.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_millis(10);
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// One session in this many may be that of a client that has not sent its request. Such a
/// client needs its session for some round trips only, so half of the sessions are enough for
/// a burst of new clients.
const SESSIONS_PER_UNHEARD: usize = 2;

impl Settings {
    /// Which kinds of clients the server serves, with users or without.
    pub fn client_kinds(&self, has_users: bool) -> ClientKinds {
        ClientKinds {
            socks4: self.socks4,
            logged_in: self.socks5 && has_users,
            anonymous: self.socks5 && (!has_users || self.allow_anonymous),
            proxied: !self.proxy_from.is_empty(),
        }
    }

    /// Is this canonical address that of a listed proxy?
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxy_from.iter().any(|network| network.contains(peer))
    }

    /// Clients at a time that have not sent their request: as set, but at most
    /// `max_sessions`; or else half of `max_sessions`, and at least 1.
    pub(crate) fn max_unheard(&self) -> usize {
        let default = self.max_sessions.div_ceil(SESSIONS_PER_UNHEARD);
        self.max_unheard.unwrap_or(default).min(self.max_sessions)
    }

    /// Time between two rounds of the sweep that ends idle sessions: a tenth of the
    /// shortest idle timeout, so that no session exceeds its timeout by more than that.
    pub(crate) fn sweep_interval(&self) -> Duration {
        let timeouts = [
            self.idle_timeout,
            self.half_closed_timeout,
            self.udp_timeout,
        ];
        let shortest = timeouts.into_iter().flatten().min();
        let tenth = shortest.map(|timeout| timeout / 10);
        tenth
            .unwrap_or(MAX_SWEEP_INTERVAL)
            .clamp(MIN_SWEEP_INTERVAL, MAX_SWEEP_INTERVAL)
    }
}
