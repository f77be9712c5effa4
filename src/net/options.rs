//! Socket options of relayed connections.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::trace::{self, Mark};

/// Send timeout (SO_SNDTIMEO) in milliseconds: how long a write waits for its peer before
/// it returns "would block". It is the only way to wake a thread that is blocked in a
/// write without sending FIN to the peer.
const SEND_TIMEOUT_MS: i64 = 500;

/// Seconds without a byte before the first keepalive probe (TCP_KEEPIDLE). The default of
/// Linux is two hours. With two minutes the probes cost nothing, and come before a NAT drops
/// its entry for a silent connection (RFC 5382, requirement 5: not before two hours and four
/// minutes, but many drop it after some minutes).
const KEEPALIVE_IDLE_SECONDS: u32 = 120;

/// Seconds between two probes that are not answered (TCP_KEEPINTVL).
const KEEPALIVE_INTERVAL_SECONDS: u32 = 30;

/// Probes that are not answered before the connection counts as gone (TCP_KEEPCNT): a peer
/// that has vanished is noticed after five minutes, and one that is out of reach for less
/// than three is not given up.
const KEEPALIVE_PROBES: u32 = 6;

/// Sets the options of a relayed connection: small writes are sent at once
/// (TCP_NODELAY), a peer that has vanished is noticed, a write wakes up now and then
/// (SO_SNDTIMEO), and an urgent byte stays in its place in the stream (SO_OOBINLINE).
///
/// Set before connect(2), or on a listener, from which every connection that it accepts
/// inherits all of them: an urgent byte can come with the first segment.
///
/// TCP_USER_TIMEOUT is not set. It would also end the connection of a peer that answers
/// and only reads nothing for a while, which RFC 1122, section 4.2.2.17, keeps open. Data
/// that a vanished peer does not acknowledge are given up by the system (tcp_retries2,
/// some 15 minutes), or by the idle timeout.
pub fn set_options<S: AsFd>(socket: &S) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    set_keepalive(socket)?;
    let timeout = TimeVal::milliseconds(SEND_TIMEOUT_MS);
    setsockopt(socket, sockopt::SendTimeout, &timeout)?;
    setsockopt(socket, sockopt::OobInline, &true)?;
    Ok(())
}

/// Makes the system probe a silent peer, and give it up if it does not answer.
fn set_keepalive<S: AsFd>(socket: &S) -> io::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    #[cfg(not(target_vendor = "apple"))]
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECONDS)?;
    // The same option by another name.
    #[cfg(target_vendor = "apple")]
    setsockopt(socket, sockopt::TcpKeepAlive, &KEEPALIVE_IDLE_SECONDS)?;
    setsockopt(
        socket,
        sockopt::TcpKeepInterval,
        &KEEPALIVE_INTERVAL_SECONDS,
    )?;
    setsockopt(socket, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    Ok(())
}

/// Makes each later write return at once. A write that is blocked already still waits
/// to the end of its timeout.
pub(crate) fn shorten_send_timeout(stream: &TcpStream) {
    // Zero would mean no timeout. The call fails only for what is not a socket.
    let _ = setsockopt(stream, sockopt::SendTimeout, &TimeVal::microseconds(1));
}

/// Makes the close of this connection send RST instead of FIN (SO_LINGER with zero): the
/// peer learns that it did not receive everything. The system closes the connections of a
/// process that is killed in the same way.
pub fn reset_on_close(stream: &TcpStream) {
    set_linger(stream, 1);
}

/// Sends FIN after all bytes, and takes [`reset_on_close`] back: otherwise the close would
/// destroy the bytes that are still in the send buffer.
///
/// # Errors
///
/// As shutdown(2): the connection is gone.
pub(crate) fn send_fin(stream: &TcpStream) -> io::Result<()> {
    trace::mark(|| Mark::HalfClose(trace::peer(stream)));
    // Before the FIN: if the process is killed between the two calls, the system sends the FIN.
    set_linger(stream, 0);
    stream.shutdown(Shutdown::Write)
}

fn set_linger(stream: &TcpStream, is_on: libc::c_int) {
    let linger = libc::linger {
        l_onoff: is_on,
        l_linger: 0,
    };
    // Fails only for a socket whose connection is gone.
    let _ = setsockopt(stream, sockopt::Linger, &linger);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    use nix::sys::socket::getsockopt;

    #[test]
    fn r31_r32_accepted_connections_inherit_the_options_of_their_listener() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        set_options(&listener).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(getsockopt(&accepted, sockopt::TcpNoDelay).unwrap());
        assert!(getsockopt(&accepted, sockopt::OobInline).unwrap());
        assert!(getsockopt(&accepted, sockopt::KeepAlive).unwrap());
        let probes = [
            getsockopt(&accepted, sockopt::TcpKeepInterval).unwrap(),
            getsockopt(&accepted, sockopt::TcpKeepCount).unwrap(),
        ];
        assert_eq!(probes, [KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES]);
        let timeout = getsockopt(&accepted, sockopt::SendTimeout).unwrap();
        assert_eq!(timeout.num_milliseconds(), SEND_TIMEOUT_MS);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn r31_a_peer_that_reads_nothing_for_a_while_is_not_given_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        set_options(&listener).unwrap();
        let none = getsockopt(&listener, sockopt::TcpUserTimeout).unwrap();
        assert_eq!(none, 0);
    }
}
