//! What both ways of connect(2) and BIND have in common: requests, their errors, local addresses.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{self, SockaddrStorage};
use threadsocks::client::ClientError;
use threadsocks::protocol::Destination;

use crate::call::{Call, Socket};
use crate::{kernel, server};

/// A connection that the program wants.
pub(crate) struct Wanted {
    /// The address for which the program asks.
    pub(crate) peer: SocketAddr,
    /// What the server is asked for.
    pub(crate) destination: Destination,
    /// The process that asks.
    pub(crate) process: i32,
}

/// The error of a request. Says it, if the destination is not its cause.
pub(crate) fn failure(call: &Call<'_>, error: &ClientError) -> Errno {
    if server::concerns_server(error) {
        let line = format!("request for {}: {error}", call.program());
        call.context.messages.say(&line);
    }
    server::errno_of(error)
}

/// The address that getsockname(2) returns: the server's own, or else the one at which the
/// server is reached. Notes it, since programs bind to it.
pub(crate) fn local_address(
    call: &Call<'_>,
    wanted: &Wanted,
    bound: Option<SocketAddr>,
    server: SocketAddr,
    own: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let port = own.map_or(0, |it| it.port());
    let local = bound.unwrap_or(SocketAddr::new(server.ip().to_canonical(), port));
    let local = server::specified(local, server.ip().to_canonical());
    let destination = wanted.destination.clone();
    call.context
        .note_connected(wanted.process, destination, Some(local));
    Some(local)
}

/// Takes the pending error of a socket; `UnknownErrno` (0) if there is none.
pub(crate) fn socket_error(socket: &Socket) -> Errno {
    let error = kernel::socket_option(&socket.descriptor, libc::SO_ERROR);
    Errno::from_raw(error.unwrap_or(libc::EIO))
}

/// Begins to connect a socket, without waiting for the end. A socket that blocks does so again
/// afterwards; meanwhile it is not connected, so no other call can wait for it.
pub(crate) fn begin_connect(socket: &Socket, address: SocketAddr) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&socket.descriptor, FcntlArg::F_GETFL)?);
    let blocks = !flags.contains(OFlag::O_NONBLOCK);
    if blocks {
        fcntl(
            &socket.descriptor,
            FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK),
        )?;
    }
    let address = SockaddrStorage::from(address);
    let result = socket::connect(socket.descriptor.as_raw_fd(), &address);
    if blocks {
        fcntl(&socket.descriptor, FcntlArg::F_SETFL(flags))?;
    }
    result
}
