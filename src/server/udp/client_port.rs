//! From which port of its address the client sends its datagrams.
//!
//! RFC 1928, section 7, lets the server use the announced address to limit access to the
//! association. But address translators change the port, and some clients announce their
//! destination. So the announced port is a hint; only the address of the client's
//! connection is binding.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::protocol::canonical;

/// Another port takes over after no datagram has come from the current one for this long:
/// an address translator has given the client a new port, or its program a new socket.
/// Until then another program or user with the same address cannot take the association.
const TAKEOVER_SILENCE: Duration = Duration::from_secs(15);

/// The client's address, and the port from which its datagrams come.
#[derive(Debug)]
pub(super) struct ClientPort {
    ip: IpAddr,
    /// The port that the client has announced for this address.
    announced: Option<u16>,
    /// Where the client's datagrams come from, and when the last one has come.
    current: Option<(SocketAddr, Instant)>,
    /// Has a datagram come from another address?
    has_foreign: bool,
}

/// What a datagram says about the client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It comes from another address than the client's; is it the first one that does?
    Foreign { is_first: bool },
    /// It comes from a port of the client's address that does not count now.
    Other,
    /// It comes from the current port.
    Known,
    /// The client may send from this port from now on, and no longer from `previous`, if
    /// the datagram is permitted.
    New { previous: Option<u16> },
}

impl ClientPort {
    /// `announced` is the address in the request. Its port counts if its address is the
    /// client's, or unspecified: otherwise it is the port of another host, or one that an
    /// address translator replaces.
    pub(super) fn new(client: IpAddr, announced: Option<SocketAddr>) -> ClientPort {
        let ip = client.to_canonical();
        let is_own = |announced: &SocketAddr| {
            let announced = announced.ip().to_canonical();
            announced.is_unspecified() || announced == ip
        };
        let announced = announced.filter(is_own).map(|announced| announced.port());
        ClientPort {
            ip,
            announced: announced.filter(|&port| port != 0),
            current: None,
            has_foreign: false,
        }
    }

    /// Where datagrams for the client go; `None` before its first datagram.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.current.map(|(address, _)| address)
    }

    /// Judges the source of a datagram.
    ///
    /// Until [`set`](Self::set) is called, every port is new. Then another port may take over
    /// after [`TAKEOVER_SILENCE`]. The announced port may do so at once: otherwise another user
    /// of the address could keep the client out by sending first.
    pub(super) fn judge(&mut self, from: SocketAddr, now: Instant) -> Origin {
        if canonical(from).ip() != self.ip {
            let is_first = !std::mem::replace(&mut self.has_foreign, true);
            return Origin::Foreign { is_first };
        }
        let Some((current, last)) = &mut self.current else {
            return Origin::New { previous: None };
        };
        if current.port() == from.port() {
            *last = now;
            return Origin::Known;
        }
        let is_silent = now.saturating_duration_since(*last) >= TAKEOVER_SILENCE;
        if is_silent || self.announced == Some(from.port()) {
            let previous = Some(current.port());
            return Origin::New { previous };
        }
        Origin::Other
    }

    /// Fixes the client's port, after a datagram from this port was permitted. A datagram that
    /// is refused may come from any program at the client's address.
    pub(super) fn set(&mut self, from: SocketAddr, now: Instant) {
        self.current = Some((from, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn from(port: u16) -> SocketAddr {
        (CLIENT, port).into()
    }

    /// What the datagrams from these ports say, each this many seconds after the last one.
    fn judge_all(announced: Option<SocketAddr>, sent: &[(u64, u16)]) -> Vec<Origin> {
        let mut port = ClientPort::new(CLIENT, announced);
        let mut now = Instant::now();
        let judge = |&(seconds, source): &(u64, u16)| {
            now += Duration::from_secs(seconds);
            let origin = port.judge(from(source), now);
            if let Origin::New { .. } = origin {
                port.set(from(source), now);
            }
            origin
        };
        sent.iter().map(judge).collect()
    }

    const FIRST: Origin = Origin::New { previous: None };

    fn new(previous: u16) -> Origin {
        let previous = Some(previous);
        Origin::New { previous }
    }

    #[test]
    fn u14_another_port_takes_over_after_the_silence_of_the_first() {
        let sent = [(0, 1000), (14, 1001), (0, 1000), (14, 1001), (1, 1001)];
        let expected = [
            FIRST,
            Origin::Other,
            Origin::Known,
            Origin::Other,
            new(1000),
        ];
        assert_eq!(judge_all(None, &sent), expected);
        // Datagrams of other ports do not prolong the silence, and the old port has to wait
        // as well.
        let sent = [(0, 1), (10, 2), (5, 2), (1, 1), (15, 1)];
        let expected = [FIRST, Origin::Other, new(1), Origin::Other, new(2)];
        assert_eq!(judge_all(None, &sent), expected);
    }

    #[test]
    fn u15_the_announced_port_takes_over_at_once() {
        let sent = [(0, 2000), (1, 1000), (1, 2000), (15, 2000), (0, 1000)];
        let expected = [FIRST, new(2000), Origin::Other, new(1000), new(2000)];
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 1000));
        let mapped = SocketAddr::new("::ffff:192.0.2.1".parse().expect("an address"), 1000);
        for announced in [from(1000), unspecified, mapped] {
            assert_eq!(judge_all(Some(announced), &sent), expected, "{announced}");
        }
    }

    #[test]
    fn u15_the_port_of_another_address_is_no_hint() {
        let sent = [(0, 2000), (1, 1000)];
        let expected = [FIRST, Origin::Other];
        for announced in [Some(([10, 0, 0, 1], 1000).into()), Some(from(0)), None] {
            assert_eq!(judge_all(announced, &sent), expected, "{announced:?}");
        }
    }

    #[test]
    fn u01_only_the_address_of_the_client_may_send() {
        let mut port = ClientPort::new(CLIENT, None);
        let other = SocketAddr::from(([192, 0, 2, 2], 1000));
        let (now, later) = (Instant::now(), Instant::now() + TAKEOVER_SILENCE);
        assert_eq!(port.judge(other, now), Origin::Foreign { is_first: true });
        assert_eq!(port.address(), None);
        assert_eq!(port.judge(from(1000), now), FIRST);
        port.set(from(1000), now);
        for _ in 0..2 {
            let origin = port.judge(other, later);
            assert_eq!(origin, Origin::Foreign { is_first: false });
        }
        assert_eq!(port.address(), Some(from(1000)));
    }

    #[test]
    fn u03_the_datagrams_of_a_port_count_once_one_is_permitted() {
        let mut port = ClientPort::new(CLIENT, Some(from(3000)));
        let now = Instant::now();
        for source in [1000, 2000, 1000] {
            assert_eq!(port.judge(from(source), now), FIRST);
            assert_eq!(port.address(), None);
        }
        port.set(from(1000), now);
        let later = now + TAKEOVER_SILENCE;
        for source in [2000, 3000, 2000] {
            assert_eq!(port.judge(from(source), later), new(1000));
            assert_eq!(port.address(), Some(from(1000)));
        }
        // A datagram from the current port ends the silence, permitted or not.
        assert_eq!(port.judge(from(1000), later), Origin::Known);
        assert_eq!(port.judge(from(2000), later), Origin::Other);
    }
}
