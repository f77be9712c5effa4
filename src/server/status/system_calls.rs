//! The system call in which a thread is, in words.

use std::net::SocketAddr;

use nix::libc::{self, c_long};

/// What a thread waits for, from its `/proc/self/task/*/syscall`: the number of the system call
/// and its arguments. `peer` names the peer of a session's socket by its descriptor.
pub(super) fn describe(call: &str, peer: impl Fn(i32) -> Option<SocketAddr>) -> Option<String> {
    let call = call.trim();
    if call == "running" {
        return Some("runs".to_owned());
    }
    let mut words = call.split(' ');
    let number: c_long = words.next()?.parse().ok()?;
    if number < 0 {
        return Some("for memory or a processor".to_owned());
    }
    let arguments: Vec<&str> = words.collect();
    let peer_in = |place: usize| {
        let argument = arguments.get(place)?.strip_prefix("0x")?;
        let descriptor = i32::from_str_radix(argument, 16).ok()?;
        peer(descriptor)
    };
    let named = |verb: &str, peer: Option<SocketAddr>, otherwise: &str| match peer {
        Some(peer) => format!("{verb} {peer}"),
        None => format!("{verb} {otherwise}"),
    };
    Some(match number {
        libc::SYS_recvfrom | libc::SYS_recvmsg => named("to read", peer_in(0), "from a socket"),
        libc::SYS_sendto | libc::SYS_sendmsg => named("to write to", peer_in(0), "a socket"),
        libc::SYS_read => named("to read", peer_in(0), "from a file or pipe"),
        libc::SYS_write => named("to write to", peer_in(0), "a file or pipe"),
        libc::SYS_splice => match (peer_in(0), peer_in(2)) {
            (Some(peer), _) => format!("to read {peer} (splice)"),
            (None, peer) => named("to write to", peer, "a pipe (splice)"),
        },
        number => match plain(number) {
            Some(words) => words.to_owned(),
            None => format!("in system call {number}"),
        },
    })
}

/// The words for a system call without a peer.
fn plain(number: c_long) -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_poll {
        return Some("for an event on sockets (poll)");
    }
    Some(match number {
        libc::SYS_ppoll => "for an event on sockets (poll)",
        libc::SYS_accept | libc::SYS_accept4 => "for a client (accept)",
        libc::SYS_futex => "for a lock or a notification (futex)",
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => "sleeps",
        libc::SYS_rt_sigtimedwait => "for a signal",
        libc::SYS_openat => "to open a file",
        libc::SYS_statx | libc::SYS_newfstatat => "for the state of a file (stat)",
        _ => return None,
    })
}
