//! Bulk data both ways at once, between slow, stalling and resetting peers.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::endpoints::{Origin, connect_through, read_exactly, relayed_pair, write};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::scripted_peer::Pacing::{Choppy, Slow, Stalling, Steady};
use crate::support::scripted_peer::Step::{
    HalfClose, Meanwhile, Receive, ReceiveAll, Reset, Send, Stall,
};
use crate::support::scripted_peer::{End, MEGABYTE, Outcome, Peer, exchange};
use crate::support::wait::until;

/// Sends this many bytes each way at once, with every combination of pacings of client
/// and remote.
fn assert_every_byte_arrives(count: u64) {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let pacings = [Steady, Choppy, Slow, Stalling(count / 5 + 1)];
    for client_pacing in pacings {
        for remote_pacing in pacings {
            let (client, remote) = relayed_pair(proxy.address());
            let client = Peer::client(client, exchange(count, client_pacing));
            let remote = Peer::remote(remote, exchange(count, remote_pacing));
            assert_eq!(client.outcome(), Outcome::whole(count), "client");
            assert_eq!(remote.outcome(), Outcome::whole(count), "remote");
            proxy.stderr_line(&format!("up={count} down={count} "));
        }
    }
    proxy.finish();
}

/// Sends bulk data both ways until one side resets. The other side receives correct
/// bytes and then a reset, not EOF.
fn assert_resets_are_relayed(rounds: u64, min_position: u64) {
    let proxy = Proxy::open();
    for round in 0..rounds {
        let pacing = [Steady, Choppy][round as usize / 2 % 2];
        // In each round another position, within one megabyte.
        let position = min_position + round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % MEGABYTE;
        let resets = vec![
            Meanwhile(vec![Send(min_position, pacing)]),
            Receive(position, pacing),
            Reset,
        ];
        let continues = vec![Meanwhile(vec![Send(u64::MAX, Steady)]), ReceiveAll(Steady)];
        let (client, remote) = relayed_pair(proxy.address());
        let (resetting, other) = match round % 2 {
            0 => (
                Peer::client(client, resets),
                Peer::remote(remote, continues),
            ),
            _ => (
                Peer::remote(remote, resets),
                Peer::client(client, continues),
            ),
        };
        let outcome = resetting.outcome();
        assert!(outcome.received >= position, "round {round}: {outcome:?}");
        let outcome = other.outcome();
        assert_eq!(outcome.end, End::Reset, "round {round}: {outcome:?}");
    }
    proxy.finish();
}

#[test]
fn r23_every_byte_arrives_between_choppy_slow_and_stalling_peers() {
    assert_every_byte_arrives(8 * MEGABYTE);
}

#[test]
fn r24_a_reset_amid_bulk_data_is_never_taken_for_eof() {
    assert_resets_are_relayed(40, 4 * MEGABYTE);
}

/// Opens this many sessions whose clients read nothing for a while. Each costs the server
/// a buffer, however much its remote sends, and delays no other client.
fn assert_stalled_readers_are_cheap(count: usize) {
    /// Bytes that each remote sends: more than all socket buffers hold.
    const SENT: u64 = 12 * MEGABYTE;
    /// Size of the test's own socket buffers in bytes. By default they would hold
    /// megabytes for each session.
    const SOCKET_BUFFER: usize = 128 << 10;
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let at_rest = proxy.status("VmRSS");
    let (release, stall) = bounded(0);
    let (mut readers, mut senders) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (client, remote) = relayed_pair(proxy.address());
        setsockopt(&client, sockopt::RcvBuf, &SOCKET_BUFFER).unwrap();
        setsockopt(&remote, sockopt::SndBuf, &SOCKET_BUFFER).unwrap();
        let stalls = vec![Stall(stall.clone()), ReceiveAll(Steady)];
        readers.push(Peer::client(client, stalls));
        senders.push(Peer::remote(remote, vec![Send(SENT, Steady), HalfClose]));
    }
    let (mut sent, mut since) = (0, Instant::now());
    until("all senders to block", || {
        let now = senders.iter().map(Peer::sent).sum();
        if now != sent {
            (sent, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(300)).then_some(())
    });
    let each = (proxy.status("VmRSS") - at_rest) / count as u64;
    // In kB: two stacks of a few pages, and a buffer of 64 KiB if there is no pipe.
    assert!(each < 128, "{each} kB for each");
    // The fastest quarter: other processes may slow most of the rounds.
    let mut times = [(); 21].map(|()| {
        let began = Instant::now();
        let client = connect_through(proxy.address(), &origin.destination());
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        began.elapsed()
    });
    times.sort();
    // A client that had to wait for a blocked write would wait for half a second, the send timeout.
    assert!(times[5] < Duration::from_millis(200), "{times:?}");
    // The clients read on, and no byte is missing.
    drop(release);
    for (reader, sender) in readers.into_iter().zip(senders) {
        assert_eq!(sender.outcome().sent, SENT);
        let Outcome { received, end, .. } = reader.outcome();
        assert_eq!((received, end), (SENT, End::Proper));
    }
    proxy.assert_resources_released();
    until("idle threads to exit", || {
        let names = proxy.threads();
        names.iter().all(|name| name != "idle").then_some(())
    });
    let kept = proxy.status("VmRSS").saturating_sub(at_rest);
    println!("{each} kB each, {kept} kB kept");
    // The allocator may keep a part for later.
    assert!(kept < each * count as u64, "{kept} kB kept");
    proxy.finish();
}

#[test]
fn r09_sixty_stalled_readers_need_little_memory_and_delay_no_other_client() {
    assert_stalled_readers_are_cheap(60);
}

#[test]
#[ignore = "takes 1.5 GB of kernel memory for socket buffers"]
fn r09_three_hundred_stalled_readers_need_little_memory_and_delay_no_other_client() {
    assert_stalled_readers_are_cheap(300);
}

#[test]
#[ignore = "takes a minute in a release build"]
fn gigabytes_arrive_between_choppy_slow_and_stalling_peers() {
    assert_every_byte_arrives(1 << 30);
}

#[test]
#[ignore = "takes 15 seconds in a release build"]
fn gigabytes_cut_off_by_a_reset_are_never_taken_for_complete() {
    assert_resets_are_relayed(400, 16 * MEGABYTE);
}
