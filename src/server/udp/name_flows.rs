//! The flows of one name: one for each port to which the client sends.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::flow::{FLOW_LIFETIME, Flow};

/// Where a datagram to a name goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// To the first of these addresses that is permitted and can be reached. There may be
    /// none.
    pub(super) addresses: Vec<IpAddr>,
    /// Does the first one answer? Then only the rules are a reason to use another.
    pub(super) is_established: bool,
}

#[derive(Debug, Default)]
pub(super) struct NameFlows {
    /// In the order of their ports: one name may have all flows of an association.
    flows: Vec<Flow>,
    start: Option<StartAddress>,
}

/// Where the flow to a further port begins: at the address that has answered last, or if
/// none has, at that of the flow that was used last. Protocols with two ports need the same
/// host for both, and DNS may return another one first by now.
#[derive(Clone, Copy, Debug)]
struct StartAddress {
    address: IpAddr,
    is_answered: bool,
    /// When it answered, or was used.
    since: Instant,
}

impl NameFlows {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Where the next datagram to this port goes; `None` if it has no flow. `addresses` are
    /// those of the name now.
    pub(super) fn next_route(
        &mut self,
        port: u16,
        addresses: &[IpAddr],
        now: Instant,
    ) -> Option<Route> {
        let flow = self.find(port).filter(|flow| !flow.is_over(now))?;
        let (before, was_answered) = (flow.address(), flow.is_answered());
        let route = Route {
            is_established: flow.is_established(now),
            addresses: flow.next_addresses(addresses, now),
        };
        let address = flow.address();
        if was_answered && address != before {
            // The flow has left `before`, which does not answer any more.
            self.start = self.start.filter(|start| start.address != before);
        }
        self.note_use(address, now);
        Some(route)
    }

    /// Begins the flow to a port that has none. Returns where its first datagram goes.
    pub(super) fn begin(&mut self, port: u16, addresses: &[IpAddr], now: Instant) -> Route {
        let Some(&first) = addresses.first() else {
            return Route::default();
        };
        let start = self.start.filter(|start| !start.is_over(now));
        let address = start.map_or(first, |start| start.address);
        let flow = Flow::new(port, address, now);
        // A flow to this port that is over is replaced.
        match self.find(port) {
            Some(over) => *over = flow,
            None => {
                let position = self.flows.partition_point(|flow| flow.port() < port);
                self.flows.insert(position, flow);
            }
        }
        self.next_route(port, addresses, now).unwrap_or_default()
    }

    /// The datagram has gone to another address than the first one of its route.
    pub(super) fn set_address(&mut self, port: u16, address: IpAddr, now: Instant) {
        if let Some(flow) = self.find(port) {
            flow.set_address(address, now);
            self.note_use(address, now);
        }
    }

    /// A datagram has come from this host and port. False if it is no answer to a flow.
    pub(super) fn answered(
        &mut self,
        from: SocketAddr,
        addresses: &[IpAddr],
        now: Instant,
    ) -> bool {
        let flow = self.find(from.port());
        let is_answer = flow.is_some_and(|flow| flow.answered(from, addresses, now));
        if is_answer {
            self.note_answer(from.ip(), now);
        }
        is_answer
    }

    /// A datagram has come from another port of this host, as TFTP servers send it: all flows
    /// to the host count as answered.
    pub(super) fn answered_from_other_port(&mut self, from: IpAddr, now: Instant) {
        let mut is_answer = false;
        for flow in self.flows.iter_mut().filter(|flow| flow.address() == from) {
            flow.answered_from_other_port(now);
            is_answer = true;
        }
        if is_answer {
            self.note_answer(from, now);
        }
    }

    /// An ICMP error says that a datagram to this address has not arrived.
    pub(super) fn unreachable(&mut self, to: SocketAddr, now: Instant) {
        if let Some(flow) = self.find(to.port()) {
            flow.unreachable(to, now);
        }
    }

    /// Has the name an established flow?
    pub(super) fn is_established(&self, now: Instant) -> bool {
        self.flows.iter().any(|flow| flow.age(now).0)
    }

    /// The age of each flow ([`Flow::age`]): the flow with the smallest one is removed first.
    pub(super) fn ages(&self, now: Instant) -> impl Iterator<Item = (bool, Instant)> {
        self.flows.iter().map(move |flow| flow.age(now))
    }

    /// Removes flows up to this age.
    pub(super) fn remove_up_to(&mut self, age: (bool, Instant), now: Instant) {
        self.flows.retain(|flow| flow.age(now) > age);
        // Otherwise each name could keep the memory for all flows of the association.
        self.flows.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn has(&self, port: u16) -> bool {
        self.flows.iter().any(|flow| flow.port() == port)
    }

    fn find(&mut self, port: u16) -> Option<&mut Flow> {
        let position = self.flows.binary_search_by_key(&port, Flow::port).ok()?;
        self.flows.get_mut(position)
    }

    fn note_use(&mut self, address: IpAddr, now: Instant) {
        let answered = self.start.filter(|start| start.is_answered);
        if answered.is_none_or(|start| start.is_over(now)) {
            self.start = Some(StartAddress {
                address,
                is_answered: false,
                since: now,
            });
        }
    }

    fn note_answer(&mut self, address: IpAddr, now: Instant) {
        self.start = Some(StartAddress {
            address,
            is_answered: true,
            since: now,
        });
    }
}

impl StartAddress {
    /// Is the answer, or the use, so long ago that its flow has ended?
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= FLOW_LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// The address that the next datagram to this port goes to.
    fn send(flows: &mut NameFlows, port: u16, addresses: &[IpAddr], now: Instant) -> IpAddr {
        let route = flows.next_route(port, addresses, now);
        route
            .unwrap_or_else(|| flows.begin(port, addresses, now))
            .addresses[0]
    }

    #[test]
    fn u24_a_new_port_begins_at_the_address_that_has_answered() {
        let (mut flows, now) = (NameFlows::default(), Instant::now());
        let (one, two) = (ip(1), ip(2));
        let both = [one, two];
        assert_eq!(send(&mut flows, 1, &both, now), one);
        assert_eq!(send(&mut flows, 2, &both, now), one);
        flows.unreachable((one, 2).into(), now);
        assert_eq!(send(&mut flows, 2, &both, now), two);
        assert!(flows.answered((two, 2).into(), &both, now));
        assert_eq!(send(&mut flows, 1, &both, now), one);
        // Also if DNS does not return it any more.
        for (port, addresses) in (3..).zip([&both[..], &[two, one], &[ip(3), ip(4)]]) {
            assert_eq!(send(&mut flows, port, addresses, now), two);
        }
        // The flow may leave the address: the port may be closed there.
        flows.unreachable((two, 3).into(), now);
        assert_eq!(send(&mut flows, 3, &both, now), one);
        assert_eq!(send(&mut flows, 9, &both, now), two);
        // An answer from another port counts as well (TFTP).
        flows.answered_from_other_port(ip(9), now);
        assert_eq!(send(&mut flows, 10, &both, now), two);
        flows.answered_from_other_port(one, now);
        assert_eq!(send(&mut flows, 11, &both, now), one);
        let later = now + FLOW_LIFETIME;
        assert_eq!(send(&mut flows, 12, &[two, one], later), two);
    }

    #[test]
    fn u24_without_an_answer_a_new_port_begins_at_the_address_of_the_last_flow() {
        let (mut flows, now) = (NameFlows::default(), Instant::now());
        let (one, two) = (ip(1), ip(2));
        let both = [one, two];
        assert_eq!(send(&mut flows, 1, &both, now), one);
        assert_eq!(send(&mut flows, 2, &[two, one], now), one);
        flows.unreachable((one, 1).into(), now);
        assert_eq!(send(&mut flows, 1, &both, now), two);
        assert_eq!(send(&mut flows, 3, &both, now), two);
        assert_eq!(send(&mut flows, 2, &both, now), one);
        assert_eq!(send(&mut flows, 4, &both, now), one);
        // The rules deny the first address.
        flows.set_address(4, two, now);
        assert_eq!(send(&mut flows, 5, &both, now), two);
    }

    #[test]
    fn u24_no_flow_begins_at_an_address_that_does_not_answer_any_more() {
        let (mut flows, mut now) = (NameFlows::default(), Instant::now());
        let (one, two) = (ip(1), ip(2));
        let both = [one, two];
        send(&mut flows, 1, &both, now);
        flows.answered((one, 1).into(), &both, now);
        while send(&mut flows, 1, &both, now) == one {
            now += SECOND;
        }
        assert_eq!(send(&mut flows, 2, &both, now), two);
    }

    #[test]
    fn u25_removed_flows_take_no_memory() {
        let (mut flows, now, one) = (NameFlows::default(), Instant::now(), ip(1));
        for port in 1..=1000 {
            send(
                &mut flows,
                port,
                &[one],
                now + Duration::from_millis(port.into()),
            );
        }
        let last = flows.ages(now).nth(989).expect("a flow");
        flows.remove_up_to(last, now);
        assert_eq!((flows.len(), flows.flows.capacity()), (10, 10));
    }
}
