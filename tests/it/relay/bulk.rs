//! Many bytes both ways at once, between ends that behave badly.

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

/// This many bytes each way, with each pacing of sending against each of
/// receiving.
fn both_ways(count: u64) {
    let proxy = Proxy::start(PERMIT_ALL, &["-v"]);
    let manners = [Steady, Choppy, Slow, Stalling(count / 5 + 1)];
    for client_manner in manners {
        for remote_manner in manners {
            let (client, remote) = relayed_pair(proxy.address());
            let client = Peer::client(client, exchange(count, client_manner));
            let remote = Peer::remote(remote, exchange(count, remote_manner));
            assert_eq!(client.outcome(), Outcome::whole(count), "down");
            assert_eq!(remote.outcome(), Outcome::whole(count), "up");
            proxy.stderr_line(&format!("up={count} down={count} "));
        }
    }
    proxy.finish();
}

/// Bulk both ways, until one end breaks the connection: the other end gets what
/// is right as far as it goes, and no proper end.
fn resets(rounds: u64, least: u64) {
    let proxy = Proxy::open();
    for round in 0..rounds {
        let pacing = [Steady, Choppy][round as usize / 2 % 2];
        // Somewhere in the middle, each time somewhere else.
        let place = least + round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % MEGABYTE;
        let breaks = vec![
            Meanwhile(vec![Send(least, pacing)]),
            Receive(place, pacing),
            Reset,
        ];
        let goes_on = vec![Meanwhile(vec![Send(u64::MAX, Steady)]), ReceiveAll(Steady)];
        let (client, remote) = relayed_pair(proxy.address());
        let (breaker, other) = match round % 2 {
            0 => (Peer::client(client, breaks), Peer::remote(remote, goes_on)),
            _ => (Peer::remote(remote, breaks), Peer::client(client, goes_on)),
        };
        let broke = breaker.outcome();
        assert!(broke.received >= place, "round {round}: {broke:?}");
        let told = other.outcome();
        assert_eq!(told.end, End::Reset, "round {round}: {told:?}");
    }
    proxy.finish();
}

#[test]
fn r23_every_byte_between_choppy_slow_and_stalling_ends() {
    both_ways(8 * MEGABYTE);
}

#[test]
fn r24_a_reset_amid_bulk_is_never_taken_for_an_end() {
    resets(40, 4 * MEGABYTE);
}

/// Whoever reads nothing costs the server a buffer, however much is sent, and
/// nobody else any time.
fn stalled_readers(count: usize) {
    const SENT: u64 = 12 * MEGABYTE;
    const ROOM: usize = 128 << 10;
    let proxy = Proxy::open();
    let origin = Origin::echo();
    let at_rest = proxy.status("VmRSS");
    let (told, stall) = bounded(0);
    let (mut readers, mut senders) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (client, remote) = relayed_pair(proxy.address());
        // The buffers on the way hold megabytes for each as it is.
        setsockopt(&client, sockopt::RcvBuf, &ROOM).unwrap();
        setsockopt(&remote, sockopt::SndBuf, &ROOM).unwrap();
        let stalls = vec![Stall(stall.clone()), ReceiveAll(Steady)];
        readers.push(Peer::client(client, stalls));
        senders.push(Peer::remote(remote, vec![Send(SENT, Steady), HalfClose]));
    }
    let (mut sent, mut since) = (0, Instant::now());
    until("all senders to be stuck", || {
        let now = senders.iter().map(Peer::sent).sum();
        if now != sent {
            (sent, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(300)).then_some(())
    });
    let each = (proxy.status("VmRSS") - at_rest) / count as u64;
    // Two stacks of a few pages, and 64 KiB if it is not a pipe.
    assert!(each < 128, "{each} kB for each");
    // Others use this machine as well, but not half of the time.
    let mut times = [(); 21].map(|()| {
        let began = Instant::now();
        let client = connect_through(proxy.address(), &origin.destination());
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        began.elapsed()
    });
    times.sort();
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
    // Nothing was lost meanwhile.
    drop(told);
    for (reader, sender) in readers.into_iter().zip(senders) {
        assert_eq!(sender.outcome().sent, SENT);
        let Outcome { received, end, .. } = reader.outcome();
        assert_eq!((received, end), (SENT, End::Proper));
    }
    proxy.assert_resources_released();
    until("warm threads to leave", || {
        let names = proxy.threads();
        names.iter().all(|name| name != "idle").then_some(())
    });
    let kept = proxy.status("VmRSS").saturating_sub(at_rest);
    println!("{each} kB each, {kept} kB kept");
    // The allocator keeps a part of it for the next.
    assert!(kept < each * count as u64, "{kept} kB kept");
    proxy.finish();
}

#[test]
fn r09_sixty_stalled_readers() {
    stalled_readers(60);
}

#[test]
#[ignore = "1.5 GB of the system's memory for sockets, which others may need"]
fn r09_three_hundred_stalled_readers() {
    stalled_readers(300);
}

#[test]
#[ignore = "a minute with all optimizations"]
fn gigabytes_between_choppy_slow_and_stalling_ends() {
    both_ways(1 << 30);
}

#[test]
#[ignore = "a quarter of a minute with all optimizations"]
fn gigabytes_broken_off_by_resets() {
    resets(400, 16 * MEGABYTE);
}
