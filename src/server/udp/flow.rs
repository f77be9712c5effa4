//! A flow: what the client sends to one port of a name, and the address that it goes to.
//!
//! DNS returns the addresses of a name in another order each time. A flow that followed it
//! would reach another host in the midst of an exchange, which QUIC, DTLS and VPNs do not
//! survive. So the address that answers is kept. An address that does not answer is left
//! for the next one: a client that sends by name has no other way to reach it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A flow ends when no datagram has been sent or answered for this long. Address
/// translators should keep their mappings as long (RFC 4787, section 4.3).
pub(super) const FLOW_LIFETIME: Duration = Duration::from_secs(300);

/// How long an address may leave datagrams unanswered before the next one is tried. Few
/// round trips take longer, and clients repeat a first datagram several times.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The same if no address of the name has answered: the first one is used this long, and
/// then all are tried again. Some hosts never answer, such as those that receive logs.
const REPEAT_WAIT: Duration = Duration::from_secs(60);

/// The same for an address that has answered. WireGuard drops a tunnel without an answer
/// after this time; before that, a client may send unanswered keepalives for two minutes.
const ESTABLISHED_WAIT: Duration = Duration::from_secs(180);

/// The same for an address that has answered, and refuses datagrams now (ICMP). A program
/// that starts again, or a route that changes, takes less.
const REFUSED_WAIT: Duration = Duration::from_secs(10);

/// One port of a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    port: u16,
    /// Where the next datagram goes, unless the rules or the system refuse it.
    address: IpAddr,
    /// Has this address answered?
    is_answered: bool,
    /// When the first datagram was sent that has no answer yet.
    unanswered_since: Option<Instant>,
    /// An ICMP error says that a datagram has not arrived, and no answer has come since.
    is_unreachable: bool,
    /// Changes of the address since the last answer or the last [`REPEAT_WAIT`].
    changes: usize,
    last_used: Instant,
}

impl Flow {
    pub(super) fn new(port: u16, address: IpAddr, now: Instant) -> Flow {
        Flow {
            port,
            address,
            is_answered: false,
            unanswered_since: None,
            is_unreachable: false,
            changes: 0,
            last_used: now,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) >= FLOW_LIFETIME
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// The order in which flows are removed: those that are not established first, and of
    /// these the one that was used longest ago.
    pub(super) fn age(&self, now: Instant) -> (bool, Instant) {
        let is_established = self.is_established(now) && !self.is_over(now);
        (is_established, self.last_used)
    }

    /// Does its address answer? Then no other address is needed.
    pub(super) fn is_established(&self, now: Instant) -> bool {
        self.is_answered && !self.is_unresponsive(0, now)
    }

    /// Is it time to leave the address? `count` is how many addresses the name has.
    fn is_unresponsive(&self, count: usize, now: Instant) -> bool {
        let wait = match (self.is_answered, self.is_unreachable) {
            (true, false) => ESTABLISHED_WAIT,
            (true, true) => REFUSED_WAIT,
            (false, true) => Duration::ZERO,
            (false, false) if self.changes >= count => REPEAT_WAIT,
            (false, false) => FIRST_ANSWER_WAIT,
        };
        self.is_unanswered_for(wait, now)
    }

    fn is_unanswered_for(&self, wait: Duration, now: Instant) -> bool {
        let since = self.unanswered_since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= wait)
    }

    /// The addresses for the next datagram, the best first. `addresses` are those of the
    /// name now.
    pub(super) fn next_addresses(&mut self, addresses: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let position = addresses.iter().position(|&other| other == self.address);
        let after = position.map_or(0, |position| position + 1);
        let (before, after) = addresses.split_at(after.min(addresses.len()));
        let others = after.iter().chain(before).copied();
        if self.is_unresponsive(addresses.len(), now)
            && let Some(next) = others.clone().find(|&other| other != self.address)
        {
            let all_tried = self.changes >= addresses.len();
            let changes = if all_tried { 1 } else { self.changes + 1 };
            self.change_address(next, changes);
            return self.next_addresses(addresses, now);
        }
        self.unanswered_since.get_or_insert(now);
        self.last_used = now;
        let current = self.address;
        let others = others.filter(|&other| other != current);
        std::iter::once(current).chain(others).collect()
    }

    /// The datagram was sent to another address of the name: the first one is denied, or
    /// cannot be reached.
    pub(super) fn set_address(&mut self, address: IpAddr, now: Instant) {
        if self.address != address {
            self.change_address(address, self.changes + 1);
            self.unanswered_since = Some(now);
        }
    }

    fn change_address(&mut self, address: IpAddr, changes: usize) {
        let Flow {
            port, last_used, ..
        } = *self;
        *self = Flow {
            changes,
            ..Flow::new(port, address, last_used)
        };
    }

    /// A datagram has come from this host and port. False if it is no answer to this flow.
    ///
    /// An address that was tried before also counts, if no later one has answered yet.
    pub(super) fn answered(
        &mut self,
        from: SocketAddr,
        addresses: &[IpAddr],
        now: Instant,
    ) -> bool {
        let was_tried = || self.changes > 0 && addresses.contains(&from.ip());
        let is_answer = self.port == from.port()
            && (self.address == from.ip() || !self.is_answered && was_tried());
        if is_answer {
            self.note_answer(from.ip(), now);
        }
        is_answer
    }

    /// A datagram has come from another port of this host, as TFTP servers send it.
    pub(super) fn answered_from_other_port(&mut self, now: Instant) {
        self.note_answer(self.address, now);
    }

    fn note_answer(&mut self, from: IpAddr, now: Instant) {
        *self = Flow {
            is_answered: true,
            ..Flow::new(self.port, from, now)
        };
    }

    /// A datagram to this address has not arrived.
    pub(super) fn unreachable(&mut self, to: SocketAddr) {
        if to == SocketAddr::new(self.address, self.port) {
            self.is_unreachable = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PORT: u16 = 443;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn from(last: u8, port: u16) -> SocketAddr {
        (ip(last), port).into()
    }

    /// A flow, the addresses of its name, and the time.
    struct Exchange {
        flow: Flow,
        addresses: Vec<IpAddr>,
        now: Instant,
    }

    impl Exchange {
        fn new(lasts: &[u8]) -> Exchange {
            let addresses: Vec<IpAddr> = lasts.iter().copied().map(ip).collect();
            let now = Instant::now();
            let flow = Flow::new(PORT, addresses[0], now);
            Exchange {
                flow,
                addresses,
                now,
            }
        }

        /// The last number of the address that a datagram goes to this much later.
        fn send_after(&mut self, pause: Duration) -> u8 {
            self.now += pause;
            let order = self.flow.next_addresses(&self.addresses, self.now);
            let mut sorted = order.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), order.len(), "each address once: {order:?}");
            match order[0] {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => panic!("{order:?}"),
            }
        }

        fn answer(&mut self, from: SocketAddr) -> bool {
            self.flow.answered(from, &self.addresses, self.now)
        }
    }

    #[test]
    fn u16_the_address_that_answered_is_kept_whatever_dns_returns() {
        let mut exchange = Exchange::new(&[1, 2]);
        assert_eq!(exchange.send_after(SECOND), 1);
        assert!(exchange.answer(from(1, PORT)));
        for other in [&[2, 1][..], &[3, 4], &[1]] {
            exchange.addresses = other.iter().copied().map(ip).collect();
            for _ in 0..100 {
                assert_eq!(exchange.send_after(SECOND), 1);
                assert!(exchange.answer(from(1, PORT)));
            }
            // A pause in which neither side sends is no reason either.
            assert_eq!(exchange.send_after(FLOW_LIFETIME - SECOND), 1);
            assert!(exchange.flow.is_established(exchange.now));
            assert!(exchange.answer(from(1, PORT)));
        }
        assert!(!exchange.flow.is_over(exchange.now));
        assert!(exchange.flow.is_over(exchange.now + FLOW_LIFETIME));
    }

    #[test]
    fn u16_an_address_that_has_answered_may_be_silent_for_three_minutes() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_after(SECOND);
        exchange.answer(from(1, PORT));
        for _ in 0..180 {
            assert_eq!(exchange.send_after(SECOND), 1);
        }
        assert_eq!(exchange.send_after(SECOND), 2);
        // The other address does not answer either: back to the first one, soon.
        assert_eq!(exchange.send_after(SECOND), 2);
        assert_eq!(exchange.send_after(SECOND), 1);
        assert!(exchange.answer(from(1, PORT)));
    }

    #[test]
    fn u20_a_silent_address_is_left_for_the_next_one() {
        let mut exchange = Exchange::new(&[1, 2, 3]);
        let half = SECOND / 2;
        let sent: Vec<u8> = (0..16).map(|_| exchange.send_after(half)).collect();
        assert_eq!(sent, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 1, 1, 1, 1]);
        // All were tried: a host that never answers gets the datagrams of a minute.
        for _ in 0..116 {
            assert_eq!(exchange.send_after(half), 1);
        }
        assert_eq!(exchange.send_after(half), 2);
        assert!(exchange.answer(from(2, PORT)));
        assert_eq!(exchange.send_after(FIRST_ANSWER_WAIT), 2);
        assert_eq!(exchange.send_after(FIRST_ANSWER_WAIT), 2);
    }

    #[test]
    fn u20_a_late_answer_counts_until_another_address_has_answered() {
        let mut exchange = Exchange::new(&[1, 2]);
        assert!(!exchange.answer(from(2, PORT)), "nothing was sent to it");
        exchange.send_after(SECOND);
        assert_eq!(exchange.send_after(FIRST_ANSWER_WAIT), 2);
        assert!(!exchange.answer(from(1, PORT + 1)));
        assert!(exchange.answer(from(1, PORT)));
        assert_eq!(exchange.send_after(SECOND), 1);
        assert!(!exchange.answer(from(2, PORT)));
        assert_eq!(exchange.send_after(SECOND), 1);
    }

    #[test]
    fn u19_an_icmp_error_leads_to_the_next_address_at_once() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_after(SECOND);
        exchange.flow.unreachable(from(2, PORT));
        exchange.flow.unreachable(from(1, PORT + 1));
        assert_eq!(exchange.send_after(Duration::ZERO), 1);
        exchange.flow.unreachable(from(1, PORT));
        assert_eq!(exchange.send_after(Duration::ZERO), 2);
        // An address that has answered is kept for a while: its program may be starting again.
        exchange.answer(from(2, PORT));
        for _ in 0..10 {
            assert_eq!(exchange.send_after(SECOND), 2);
            exchange.flow.unreachable(from(2, PORT));
        }
        assert!(exchange.flow.is_established(exchange.now));
        assert_eq!(exchange.send_after(SECOND), 1);
        assert!(!exchange.flow.is_established(exchange.now));
        exchange.answer(from(2, PORT));
        assert_eq!(exchange.send_after(REFUSED_WAIT), 2);
        assert_eq!(exchange.send_after(REFUSED_WAIT), 2);
        // The only address stays until DNS knows another.
        let mut exchange = Exchange::new(&[1]);
        exchange.send_after(SECOND);
        exchange.flow.unreachable(from(1, PORT));
        assert_eq!(exchange.send_after(SECOND), 1);
        exchange.addresses = vec![ip(2)];
        assert_eq!(exchange.send_after(Duration::ZERO), 2);
    }

    #[test]
    fn an_address_that_took_the_datagram_instead_is_used_first() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_after(SECOND);
        exchange.flow.set_address(ip(2), exchange.now);
        assert_eq!(exchange.send_after(SECOND), 2);
        exchange.flow.answered_from_other_port(exchange.now);
        assert!(exchange.flow.is_established(exchange.now));
        assert!(!exchange.answer(from(1, PORT)));
    }
}
