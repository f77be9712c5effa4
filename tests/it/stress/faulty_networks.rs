//! Both commands through networks that misbehave, on either side of the proxy.
//!
//! Every fault meets CONNECT and BIND, in both directions, between client and
//! proxy and between proxy and remote. Where a fault keeps what it is given,
//! everything must arrive, and both ends properly. Where it does not, what
//! arrives is right as far as it goes, and no reset looks like a proper end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use threadsocks::client;
use threadsocks::protocol::Command::{self, Associate, Bind, Connect};

use crate::support::endpoints::{
    Origin, accept, by_address, connect_through, dial, read_exactly, request, write,
};
use crate::support::faulty_link::{Fault, Toward, network};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::random::{self, Rng};
use crate::support::scripted_peer::{End, MEGABYTE, Outcome, Pacing, Peer, exchange};

/// The direction that has the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Where the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Between client and proxy.
    Client,
    /// Between proxy and remote.
    Remote,
}

/// A command, and where the fault is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) command: Command,
    pub(crate) way: Way,
    pub(crate) place: Place,
    pub(crate) seed: u64,
}

/// Whom a BIND expects; the port serves only the rules.
const EXPECTED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 21);

impl Case {
    /// Where the client connects. To its network the proxy is the target.
    fn door(self, proxy: SocketAddr, fault: Fault) -> SocketAddr {
        let directions = (Toward::Destination, Toward::Dialler);
        self.reach(Place::Client, proxy, directions, fault)
    }

    /// A session of this client with the fault in it: the client's end, the
    /// remote's.
    pub(crate) fn open(self, client: TcpStream, fault: Fault) -> (TcpStream, TcpStream) {
        match self.command {
            Connect => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let remote = listener.local_addr().unwrap();
                let directions = (Toward::Destination, Toward::Dialler);
                let remote = self.reach(Place::Remote, remote, directions, fault);
                let client =
                    client::socks4::connect(client, &by_address(remote), b"test").expect("granted");
                (client, accept(&listener))
            }
            Bind => {
                let binding = client::socks4::bind(client, &by_address(EXPECTED), b"test")
                    .expect("listening");
                let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, binding.address.port()));
                // It is the remote that dials.
                let directions = (Toward::Dialler, Toward::Destination);
                let remote = dial(self.reach(Place::Remote, listener, directions, fault));
                (binding.wait().expect("granted").0, remote)
            }
            Associate => unreachable!("no stream"),
        }
    }

    /// The address to dial for this one: its own, or a network's before it if
    /// that belongs here. The directions are those of up and down.
    fn reach(
        self,
        place: Place,
        target: SocketAddr,
        (up, down): (Toward, Toward),
        fault: Fault,
    ) -> SocketAddr {
        match self.way {
            _ if place != self.place => target,
            Way::Up => network(target, up, fault, self.seed),
            Way::Down => network(target, down, fault, self.seed),
        }
    }

    /// How many bytes the handshake takes of what a fault lets through.
    fn handshake(self) -> u64 {
        match (self.place, self.way, self.command) {
            (Place::Remote, ..) => 0,
            (_, Way::Up, command) => request(command, &by_address(EXPECTED), b"test").len() as u64,
            (_, Way::Down, Connect) => 8,
            (_, Way::Down, Bind) => 16,
            (_, Way::Down, Associate) => unreachable!("no stream"),
        }
    }

    /// Of what client and remote came to: the receiver behind the fault first.
    fn receiver_first(self, client: Outcome, remote: Outcome) -> (Outcome, Outcome) {
        match self.way {
            Way::Up => (remote, client),
            Way::Down => (client, remote),
        }
    }
}

/// Every case at once, so many bytes each way: what client and remote come to.
/// Afterwards the proxy holds nothing, and serves the next.
fn each(
    proxy: Proxy,
    count: u64,
    fault: impl Fn(u64) -> Fault + Sync,
    check: impl Fn(Case, Outcome, Outcome, Duration) + Sync,
) {
    let seed = random::seed();
    let run = &|case: Case| {
        let began = Instant::now();
        let fault = fault(case.seed);
        let client = dial(case.door(proxy.address(), fault));
        let (client, remote) = case.open(client, fault);
        let client = Peer::client(client, exchange(count, Pacing::Steady));
        let remote = Peer::remote(remote, exchange(count, Pacing::Steady));
        let (client, remote) = (client.outcome(), remote.outcome());
        check(case, client, remote, began.elapsed());
    };
    thread::scope(|scope| {
        for command in [Connect, Bind] {
            for way in [Way::Up, Way::Down] {
                for place in [Place::Client, Place::Remote] {
                    let case = Case {
                        command,
                        way,
                        place,
                        seed,
                    };
                    scope.spawn(move || run(case));
                }
            }
        }
    });
    proxy.assert_resources_released();
    let client = connect_through(proxy.address(), &Origin::echo().destination());
    write(&client, b"the next");
    assert_eq!(read_exactly(&client, 8), b"the next");
    drop(client);
    proxy.finish();
}

/// A fault that keeps everything, and takes at least so long.
fn keeps(count: u64, fault: Fault, least: Duration) {
    each(
        Proxy::open(),
        count,
        |_| fault,
        |case, client, remote, took| {
            assert_eq!(client, Outcome::whole(count), "{case:?}");
            assert_eq!(remote, Outcome::whole(count), "{case:?}");
            assert!(took >= least, "{case:?}: no fault in {took:?}");
        },
    );
}

/// Sent each way where not all of it arrives, and where in it a fault comes.
const SENT: u64 = 6 * MEGABYTE;

fn amid(seed: u64) -> u64 {
    MEGABYTE + Rng::new(seed).below(3 * MEGABYTE)
}

#[test]
fn r13_latency() {
    let late = Duration::from_millis(60);
    keeps(2 * MEGABYTE, Fault::Latency(late), late / 2);
}

#[test]
fn r12_r13_little_bandwidth() {
    let second = Duration::from_secs(1);
    keeps(MEGABYTE, Fault::Bandwidth(MEGABYTE), second);
}

#[test]
fn r13_an_end_that_comes_late() {
    let late = Duration::from_millis(400);
    keeps(4 * MEGABYTE, Fault::SlowClose(late), late);
}

#[test]
fn r13_a_stall_is_no_end() {
    let stall = Duration::from_millis(400);
    keeps(4 * MEGABYTE, Fault::Stall(3 * MEGABYTE / 2, stall), stall);
}

#[test]
fn r13_slices_of_one_to_seven_bytes() {
    keeps(20_000, Fault::Slicing, Duration::ZERO);
}

#[test]
fn r05_a_network_that_resets_is_never_taken_for_an_end() {
    let fault = |seed| Fault::Reset(amid(seed));
    each(Proxy::open(), SENT, fault, |case, client, remote, _| {
        let (behind, _) = case.receiver_first(client, remote);
        assert!(behind.received <= amid(case.seed), "{case:?}: {behind:?}");
        for outcome in [client, remote] {
            let whole = outcome.received == SENT;
            assert!(whole || outcome.end == End::Reset, "{case:?}: {outcome:?}");
        }
    });
}

/// No more arrives than the fault has let through, and no less if an end comes
/// behind it.
fn as_far_as_it_goes(case: Case, behind: Outcome) {
    let most = amid(case.seed) - case.handshake();
    assert!(behind.received <= most, "{case:?}: {behind:?}");
    let all = behind.received == most;
    assert!(all || behind.end == End::Reset, "{case:?}: {behind:?}");
}

#[test]
fn r05_a_network_that_closes_after_some_data() {
    let fault = |seed| Fault::LimitedData(amid(seed));
    each(Proxy::open(), SENT, fault, |case, client, remote, _| {
        let (behind, _) = case.receiver_first(client, remote);
        as_far_as_it_goes(case, behind);
    });
}

#[test]
fn r10_a_line_that_dies_is_left_at_the_limit() {
    let limit = ["--half-closed-timeout", "1s"];
    let fault = |seed| Fault::Down(amid(seed));
    let proxy = Proxy::start(PERMIT_ALL, &limit);
    each(proxy, SENT, fault, |case, client, remote, _| {
        let (behind, before) = case.receiver_first(client, remote);
        as_far_as_it_goes(case, behind);
        // The other direction knows nothing of it.
        assert_eq!(before, Outcome::whole(SENT), "{case:?}");
    });
}
