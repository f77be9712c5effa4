//! CONNECT and BIND through faulty networks, between client and proxy and between proxy and remote.
//!
//! Every fault meets both commands, in both directions, on both sides of the proxy.
//! Through a fault that loses nothing, all bytes must arrive, and then EOF on both
//! sides. Through a fault that loses bytes, the bytes that arrive must be correct, and
//! no reset may look like EOF.

use std::thread;
use std::time::{Duration, Instant};

use threadsocks::protocol::Command::{Bind, Connect};

use crate::support::endpoints::{Origin, connect_through, dial, read_exactly, write};
use crate::support::faulty_link::Fault;
use crate::support::faulty_session::{Direction, FaultySession, Side};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::random::{self, Rng};
use crate::support::scripted_peer::{End, MEGABYTE, Outcome, Pacing, Peer, exchange};

/// Runs all eight combinations at once, sends `count` bytes each way in each, and gives
/// `check` the outcomes of client and remote and the time taken. Afterwards the proxy
/// must hold no resources and serve another client.
fn run_all_combinations(
    proxy: Proxy,
    count: u64,
    fault: impl Fn(u64) -> Fault + Sync,
    check: impl Fn(FaultySession, Outcome, Outcome, Duration) + Sync,
) {
    let seed = random::seed();
    let run = &|session: FaultySession| {
        let began = Instant::now();
        let fault = fault(session.seed);
        let client = dial(session.client_address(proxy.address(), fault));
        let (client, remote) = session.open(client, fault);
        let client = Peer::client(client, exchange(count, Pacing::Steady));
        let remote = Peer::remote(remote, exchange(count, Pacing::Steady));
        let (client, remote) = (client.outcome(), remote.outcome());
        check(session, client, remote, began.elapsed());
    };
    thread::scope(|scope| {
        for command in [Connect, Bind] {
            for direction in [Direction::Up, Direction::Down] {
                for side in [Side::Client, Side::Remote] {
                    let session = FaultySession {
                        command,
                        direction,
                        side,
                        seed,
                    };
                    scope.spawn(move || run(session));
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

/// Checks that no byte is lost through this fault, and that the fault took effect:
/// each session takes at least `min_time`.
fn assert_lossless(count: u64, fault: Fault, min_time: Duration) {
    run_all_combinations(
        Proxy::open(),
        count,
        |_| fault,
        |session, client, remote, took| {
            assert_eq!(client, Outcome::whole(count), "{session:?}");
            assert_eq!(remote, Outcome::whole(count), "{session:?}");
            assert!(took >= min_time, "{session:?}: no fault in {took:?}");
        },
    );
}

/// Bytes sent each way through a fault that loses some of them.
const SENT: u64 = 6 * MEGABYTE;

/// The position of such a fault: after one to four of the six megabytes.
fn fault_position(seed: u64) -> u64 {
    MEGABYTE + Rng::new(seed).below(3 * MEGABYTE)
}

#[test]
fn r13_latency_loses_no_byte() {
    let delay = Duration::from_millis(60);
    assert_lossless(2 * MEGABYTE, Fault::Latency(delay), delay / 2);
}

#[test]
fn r12_r13_little_bandwidth_loses_no_byte() {
    let second = Duration::from_secs(1);
    assert_lossless(MEGABYTE, Fault::Bandwidth(MEGABYTE), second);
}

#[test]
fn r13_a_delayed_fin_loses_no_byte() {
    let delay = Duration::from_millis(400);
    assert_lossless(4 * MEGABYTE, Fault::SlowClose(delay), delay);
}

#[test]
fn r13_a_stall_is_not_taken_for_eof() {
    let stall = Duration::from_millis(400);
    assert_lossless(4 * MEGABYTE, Fault::Stall(3 * MEGABYTE / 2, stall), stall);
}

#[test]
fn r13_segments_of_one_to_seven_bytes_lose_no_byte() {
    assert_lossless(20_000, Fault::Slicing, Duration::ZERO);
}

#[test]
fn r05_a_reset_in_the_network_is_never_taken_for_eof() {
    let fault = |seed| Fault::Reset(fault_position(seed));
    run_all_combinations(Proxy::open(), SENT, fault, |session, client, remote, _| {
        let (receiver, _) = session.receiver_first(client, remote);
        let max = fault_position(session.seed);
        assert!(receiver.received <= max, "{session:?}: {receiver:?}");
        for outcome in [client, remote] {
            let is_complete = outcome.received == SENT;
            let is_valid = is_complete || outcome.end == End::Reset;
            assert!(is_valid, "{session:?}: {outcome:?}");
        }
    });
}

/// Checks that no more bytes arrive than the fault has let through, and that EOF comes
/// only after all of them.
fn assert_received_up_to_fault(session: FaultySession, receiver: Outcome) {
    let max = fault_position(session.seed) - session.handshake_bytes();
    assert!(receiver.received <= max, "{session:?}: {receiver:?}");
    let is_complete = receiver.received == max;
    let is_valid = is_complete || receiver.end == End::Reset;
    assert!(is_valid, "{session:?}: {receiver:?}");
}

#[test]
fn r05_eof_from_a_network_that_closes_early_follows_all_bytes() {
    let fault = |seed| Fault::LimitedData(fault_position(seed));
    run_all_combinations(Proxy::open(), SENT, fault, |session, client, remote, _| {
        let (receiver, _) = session.receiver_first(client, remote);
        assert_received_up_to_fault(session, receiver);
    });
}

#[test]
fn r10_a_dead_link_ends_the_session_at_its_limit() {
    let limit = ["--half-closed-timeout", "1s"];
    let fault = |seed| Fault::Down(fault_position(seed));
    let proxy = Proxy::start(PERMIT_ALL, &limit);
    run_all_combinations(proxy, SENT, fault, |session, client, remote, _| {
        let (receiver, sender) = session.receiver_first(client, remote);
        assert_received_up_to_fault(session, receiver);
        // The other direction has no fault.
        assert_eq!(sender, Outcome::whole(SENT), "{session:?}");
    });
}
