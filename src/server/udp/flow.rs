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

/// The same if no address of the name has ever answered: the first one that has not refused
/// datagrams is used this long, and then all are tried again. Some hosts never answer, such
/// as those that receive logs, and lose the datagrams that go to the other addresses.
const REPEAT_WAIT: Duration = Duration::from_secs(60);

/// [`REPEAT_WAIT`] doubles each time, at most this often: to 64 minutes. So a host that never
/// answers loses fewer and fewer datagrams, and after an interruption all addresses are tried
/// again within about the length of the interruption.
const MAX_DOUBLINGS: u8 = 6;

/// The same for an address that has answered. WireGuard drops a tunnel without an answer
/// after this time; before that, a client may send unanswered keepalives for two minutes.
const ESTABLISHED_WAIT: Duration = Duration::from_secs(180);

/// A flow leaves an address that has answered, or at which it has settled, after ICMP errors
/// have come for this long without an answer. A program that restarts, or a route that
/// changes, takes less.
const REFUSED_WAIT: Duration = Duration::from_secs(10);

/// Two ICMP errors count together only if less than this time is between them: errors that
/// are further apart are about different restarts.
const REFUSAL_WINDOW: Duration = Duration::from_secs(60);

/// The flow to one port of a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    port: u16,
    /// Where the next datagram goes, unless the rules or the system refuse it.
    address: IpAddr,
    /// Has this address answered?
    is_answered: bool,
    /// Has any address answered? Then the flow is not one-way.
    is_two_way: bool,
    /// When the first datagram was sent that has no answer yet.
    unanswered_since: Option<Instant>,
    /// When the first ICMP error came of those that count together now.
    refused_since: Option<Instant>,
    /// Are these errors a reason to leave the address?
    is_refused: bool,
    /// Changes of the address since the last answer, or since all were tried.
    changes: u8,
    /// The first address that was tried and has not refused datagrams, if it may be that of
    /// a host that never answers. The flow returns to it when all were tried.
    silent: Option<IpAddr>,
    /// How often [`REPEAT_WAIT`] has doubled.
    doublings: u8,
    last_used: Instant,
}

impl Flow {
    pub(super) fn new(port: u16, address: IpAddr, now: Instant) -> Flow {
        Flow {
            port,
            address,
            is_answered: false,
            is_two_way: false,
            unanswered_since: None,
            refused_since: None,
            is_refused: false,
            changes: 0,
            silent: None,
            doublings: 0,
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
        self.is_answered && !self.is_unresponsive(&[], now)
    }

    /// Does it stay at this address although no answer comes?
    fn is_settled(&self) -> bool {
        self.silent == Some(self.address)
    }

    /// Is it time to leave the address? `addresses` are those of the name.
    fn is_unresponsive(&self, addresses: &[IpAddr], now: Instant) -> bool {
        let wait = match self.is_answered {
            true => ESTABLISHED_WAIT,
            false if self.is_settled() && addresses.contains(&self.address) => {
                REPEAT_WAIT * (1 << self.doublings)
            }
            false => FIRST_ANSWER_WAIT,
        };
        self.is_refused || self.is_unanswered_for(wait, now)
    }

    fn is_unanswered_for(&self, wait: Duration, now: Instant) -> bool {
        let since = self.unanswered_since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= wait)
    }

    /// The addresses for the next datagram, the best first. `addresses` are those of the
    /// name now.
    pub(super) fn next_addresses(&mut self, addresses: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let next = self.others(addresses).next();
        if let Some(next) = next
            && self.is_unresponsive(addresses, now)
        {
            self.leave(next, addresses);
        }
        self.unanswered_since.get_or_insert(now);
        self.last_used = now;
        let current = std::iter::once(self.address);
        current.chain(self.others(addresses)).collect()
    }

    /// The other addresses of the name, first those after the flow's own.
    fn others<'a>(&self, addresses: &'a [IpAddr]) -> impl Iterator<Item = IpAddr> + use<'a> {
        let current = self.address;
        let position = addresses.iter().position(|&other| other == current);
        let after = position.map_or(0, |position| position + 1);
        let (before, after) = addresses.split_at(after);
        let others = after.iter().chain(before).copied();
        others.filter(move |&other| other != current)
    }

    /// Changes to the next address, or back to the silent one if all were tried.
    fn leave(&mut self, next: IpAddr, addresses: &[IpAddr]) {
        if self.is_settled() && !self.is_refused {
            self.doublings = MAX_DOUBLINGS.min(self.doublings + 1);
        }
        // A flow that was answered does not settle at an address that has never answered.
        if !self.is_refused && (self.is_answered || !self.is_two_way) {
            self.silent.get_or_insert(self.address);
        } else {
            self.silent = self.silent.filter(|&silent| silent != self.address);
        }
        self.silent = self.silent.filter(|silent| addresses.contains(silent));
        let changes = self.changes.saturating_add(1);
        match self.silent {
            _ if usize::from(changes) < addresses.len() => self.change_address(next, changes),
            Some(silent) => self.change_address(silent, 0),
            None => self.change_address(next, 1),
        }
    }

    /// The datagram was sent to another address of the name: the first one is denied, or
    /// cannot be reached.
    pub(super) fn set_address(&mut self, address: IpAddr, now: Instant) {
        if self.address != address {
            self.silent = self.silent.filter(|&silent| silent != self.address);
            self.change_address(address, self.changes.saturating_add(1));
            self.unanswered_since = Some(now);
        }
    }

    fn change_address(&mut self, address: IpAddr, changes: u8) {
        *self = Flow {
            is_two_way: self.is_two_way,
            changes,
            silent: self.silent,
            doublings: self.doublings,
            ..Flow::new(self.port, address, self.last_used)
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
        let has_changed = self.changes > 0 || self.silent.is_some();
        let was_tried = || has_changed && addresses.contains(&from.ip());
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
            is_two_way: true,
            ..Flow::new(self.port, from, now)
        };
    }

    /// An ICMP error says that a datagram to this address has not arrived. A single one is no
    /// reason to leave an address that answers: it may be about one datagram, or forged.
    pub(super) fn unreachable(&mut self, to: SocketAddr, now: Instant) {
        if to != SocketAddr::new(self.address, self.port) {
            return;
        }
        let age = |since| now.saturating_duration_since(since);
        let since = self
            .refused_since
            .filter(|&since| age(since) < REFUSAL_WINDOW);
        let since = since.unwrap_or(now);
        self.refused_since = Some(since);
        let is_kept = self.is_answered || self.is_settled();
        self.is_refused |= !is_kept || age(since) >= REFUSED_WAIT;
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

        fn refuse(&mut self, to: SocketAddr) {
            self.flow.unreachable(to, self.now);
        }

        /// Sends a datagram per second. Returns how many have gone to each of three
        /// addresses, of which some refuse each datagram.
        fn send_for(&mut self, seconds: u32, refusing: &[u8]) -> [u32; 3] {
            let mut counts = [0; 3];
            for _ in 0..seconds {
                let last = self.send_after(SECOND);
                counts[usize::from(last) - 1] += 1;
                if refusing.contains(&last) {
                    self.refuse(from(last, PORT));
                }
            }
            counts
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
            // A pause in which neither side sends is no reason to leave the address.
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
        exchange.refuse(from(2, PORT));
        exchange.refuse(from(1, PORT + 1));
        assert_eq!(exchange.send_after(Duration::ZERO), 1);
        exchange.refuse(from(1, PORT));
        assert_eq!(exchange.send_after(Duration::ZERO), 2);
        // The only address stays until DNS knows another.
        let mut exchange = Exchange::new(&[1]);
        exchange.send_after(SECOND);
        exchange.refuse(from(1, PORT));
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

    #[test]
    fn u26_an_established_address_is_left_after_ten_seconds_of_icmp_errors() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_after(SECOND);
        exchange.answer(from(1, PORT));
        assert_eq!(exchange.send_for(10, &[1]), [10, 0, 0]);
        assert!(exchange.flow.is_established(exchange.now));
        assert_eq!(exchange.send_for(1, &[1]), [1, 0, 0]);
        assert!(!exchange.flow.is_established(exchange.now));
        assert_eq!(exchange.send_after(Duration::ZERO), 2);
        // An answer begins the time anew, and so does the end of the errors.
        exchange.answer(from(1, PORT));
        for _ in 0..10 {
            assert_eq!(exchange.send_for(9, &[1]), [9, 0, 0]);
            exchange.answer(from(1, PORT));
        }
    }

    #[test]
    fn u26_single_icmp_errors_do_not_move_an_established_flow() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_after(SECOND);
        exchange.answer(from(1, PORT));
        // A single error, however long the client is silent or unanswered then.
        for pause in [SECOND, REFUSED_WAIT, 2 * REFUSED_WAIT] {
            exchange.send_for(11, &[]);
            exchange.refuse(from(1, PORT));
            assert_eq!(exchange.send_after(pause), 1);
            exchange.answer(from(1, PORT));
        }
        for _ in 0..2 {
            assert_eq!(exchange.send_after(REFUSAL_WINDOW), 1);
            exchange.refuse(from(1, PORT));
        }
        assert_eq!(exchange.send_after(Duration::ZERO), 1);
        // Errors for another port, or another address.
        for _ in 0..30 {
            exchange.refuse(from(1, PORT + 1));
            exchange.refuse(from(2, PORT));
            assert_eq!(exchange.send_after(SECOND), 1);
        }
    }

    #[test]
    fn u26_a_flow_without_answers_settles_at_an_address_that_does_not_refuse() {
        for (refusing, settled) in [(&[1][..], 2), (&[1, 3], 2), (&[2], 1), (&[1, 2], 3)] {
            let mut exchange = Exchange::new(&[1, 2, 3]);
            exchange.send_for(6, refusing);
            let mut counts = [0; 3];
            counts[settled - 1] = 50;
            assert_eq!(exchange.send_for(50, refusing), counts, "{refusing:?}");
            // In a day the other addresses get some datagrams, in few rounds.
            let counts = exchange.send_for(24 * 3600, refusing);
            let elsewhere = counts.iter().sum::<u32>() - counts[settled - 1];
            assert!((10..=110).contains(&elsewhere), "{refusing:?}: {counts:?}");
        }
    }

    #[test]
    fn u26_without_a_silent_address_all_are_tried_in_turn() {
        let mut exchange = Exchange::new(&[1, 2, 3]);
        assert_eq!(exchange.send_for(99, &[1, 2, 3]), [33; 3]);
        // The program at one of them starts, and never answers.
        exchange.send_for(10, &[1, 2]);
        assert_eq!(exchange.send_for(40, &[1, 2]), [0, 0, 40]);
        // A restart is no reason to leave the address, but the end of the program is.
        assert_eq!(exchange.send_for(9, &[1, 2, 3]), [0, 0, 9]);
        assert_eq!(exchange.send_for(2, &[1, 2, 3])[2], 2);
        exchange.send_for(10, &[2, 3]);
        assert_eq!(exchange.send_for(50, &[2, 3]), [50, 0, 0]);
    }

    #[test]
    fn u26_a_flow_that_was_answered_does_not_settle_elsewhere() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_after(SECOND);
        exchange.answer(from(1, PORT));
        exchange.send_for(60, &[1]);
        // The program at the address is running again, and the flow soon returns.
        let counts = exchange.send_for(5, &[]);
        assert!(counts[0] >= 1, "{counts:?}");
        // The address that has answered does not answer any more: the flow settles there.
        exchange.answer(from(1, PORT));
        exchange.send_for(190, &[]);
        assert_eq!(exchange.send_for(50, &[]), [50, 0, 0]);
    }

    #[test]
    fn u26_a_flow_leaves_a_silent_address_that_dns_does_not_return() {
        let mut exchange = Exchange::new(&[1, 2]);
        exchange.send_for(10, &[]);
        assert_eq!(exchange.send_after(SECOND), 1);
        exchange.addresses = vec![ip(3), ip(2)];
        assert_eq!(exchange.send_after(FIRST_ANSWER_WAIT), 3);
    }
}
