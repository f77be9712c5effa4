//! Socket options of relayed connections.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// Send timeout (SO_SNDTIMEO) in milliseconds: how long a write waits for its peer before
/// it returns "would block". It is the only way to wake a thread that is blocked in a
/// write without sending FIN to the peer.
const SEND_TIMEOUT_MS: i64 = 500;

/// Sets the options of a relayed connection: small writes are sent at once
/// (TCP_NODELAY), a peer that has vanished is noticed (SO_KEEPALIVE, at the system's
/// intervals), and a write wakes up now and then (SO_SNDTIMEO).
///
/// Set on a listener, all of them hold for every connection that it accepts.
pub(crate) fn set_options<S: AsFd>(socket: &S) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    let timeout = TimeVal::milliseconds(SEND_TIMEOUT_MS);
    setsockopt(socket, sockopt::SendTimeout, &timeout)?;
    Ok(())
}

/// Makes each later write return at once. A write that is blocked already still waits
/// to the end of its timeout.
pub(crate) fn shorten_send_timeout(stream: &TcpStream) {
    // Zero would mean no timeout. The call fails only for what is not a socket.
    let _ = setsockopt(stream, sockopt::SendTimeout, &TimeVal::microseconds(1));
}

/// Makes the close of this connection send RST instead of FIN (SO_LINGER with zero): the
/// peer learns that it did not receive everything.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Fails only for a socket whose connection is gone.
    let _ = setsockopt(stream, sockopt::Linger, &linger);
}
