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
    let mut fields = call.split(' ');
    let number: c_long = fields.next()?.parse().ok()?;
    if number < 0 {
        return Some("for memory or a processor".to_owned());
    }
    let arguments: Vec<&str> = fields.collect();
    let peer_in = |place: usize| {
        let argument = arguments.get(place)?.strip_prefix("0x")?;
        let descriptor = i32::from_str_radix(argument, 16).ok()?;
        peer(descriptor)
    };
    let known = words(number, peer_in);
    Some(known.unwrap_or_else(|| format!("in system call {number}")))
}

/// The words for a system call; the constants are those of this processor. `peer_in` names
/// the peer of the socket in an argument.
fn words(number: c_long, peer_in: impl Fn(usize) -> Option<SocketAddr>) -> Option<String> {
    let named = |verb: &str, otherwise: &str| match peer_in(0) {
        Some(peer) => format!("{verb} {peer}"),
        None => format!("{verb} {otherwise}"),
    };
    Some(match number {
        libc::SYS_recvfrom | libc::SYS_recvmsg => named("to read", "from a socket"),
        libc::SYS_sendto | libc::SYS_sendmsg => named("to write to", "a socket"),
        libc::SYS_read => named("to read", "from a file or pipe"),
        libc::SYS_write => named("to write to", "a file or pipe"),
        // From a socket into a pipe, or from a pipe into a socket.
        libc::SYS_splice => match (peer_in(0), peer_in(2)) {
            (Some(from), _) => format!("to read {from} (splice)"),
            (None, Some(to)) => format!("to write to {to} (splice)"),
            (None, None) => "to move data (splice)".to_owned(),
        },
        number => words_without_peer(number)?.to_owned(),
    })
}

/// The words for a system call whose arguments do not matter.
fn words_without_peer(number: c_long) -> Option<&'static str> {
    // aarch64 has no poll(2), only ppoll(2).
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_poll {
        return Some("for an event on sockets (poll)");
    }
    Some(match number {
        libc::SYS_ppoll => "for an event on sockets (poll)",
        libc::SYS_futex => "for a lock or a notification (futex)",
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => "sleeps",
        libc::SYS_rt_sigtimedwait => "for a signal",
        // After a stop, or when a tracer has attached.
        libc::SYS_restart_syscall => "to continue a wait after a signal",
        libc::SYS_openat => "to open a file",
        libc::SYS_statx => "for the state of a file (stat)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words for a call with these first three arguments, in a session with two sockets.
    fn words_of(number: c_long, arguments: [&str; 3]) -> Option<String> {
        let peer = |descriptor| match descriptor {
            10 => Some(([10, 0, 0, 5], 7301).into()),
            11 => Some(([10, 0, 0, 9], 80).into()),
            _ => None,
        };
        let [first, second, third] = arguments;
        let rest = "0x0 0x0 0x0 0x7ffc0000 0x7f00";
        describe(&format!("{number} {first} {second} {third} {rest}\n"), peer)
    }

    #[test]
    fn o18_a_system_call_is_shown_in_words() {
        let none = ["0xffffffff", "0x0", "0x0"];
        for (number, arguments, expected) in [
            (
                libc::SYS_recvfrom,
                ["0xa", "0x7f", "0x0"],
                "to read 10.0.0.5:7301",
            ),
            (
                libc::SYS_recvfrom,
                ["0xc", "0xa", "0xa"],
                "to read from a socket",
            ),
            (
                libc::SYS_sendto,
                ["0xb", "0x7f", "0x0"],
                "to write to 10.0.0.9:80",
            ),
            (
                libc::SYS_splice,
                ["0xa", "0x0", "0xc"],
                "to read 10.0.0.5:7301 (splice)",
            ),
            (
                libc::SYS_splice,
                ["0xc", "0x0", "0xb"],
                "to write to 10.0.0.9:80 (splice)",
            ),
            (libc::SYS_splice, none, "to move data (splice)"),
            (
                libc::SYS_write,
                ["0x2", "0x7f", "0x9"],
                "to write to a file or pipe",
            ),
            (libc::SYS_ppoll, none, "for an event on sockets (poll)"),
            (libc::SYS_clock_nanosleep, none, "sleeps"),
            (9999, none, "in system call 9999"),
        ] {
            assert_eq!(words_of(number, arguments).as_deref(), Some(expected));
        }
        let no_peer = |_| None;
        assert_eq!(describe("running\n", no_peer).as_deref(), Some("runs"));
        let fault = describe("-1 0x7ffc0000 0x7f00\n", no_peer);
        assert_eq!(fault.as_deref(), Some("for memory or a processor"));
        for unreadable in ["", "\n", "x 0x1"] {
            assert_eq!(describe(unreadable, no_peer), None);
        }
    }
}
