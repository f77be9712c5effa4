//! Calls that ask for an address or an error: getsockname(2), getpeername(2), `SO_ERROR`.

use std::net::SocketAddr;

use nix::errno::Errno;

use crate::address::Family;
use crate::bind;
use crate::call::{Call, Result, Socket};
use crate::kernel::{self, Answer};
use crate::sockets::{SocketId, State};

/// A socket with a state.
pub(crate) struct Known {
    pub(crate) id: SocketId,
    state: State,
    /// `None`: the supervisor has given up its copy, since the socket is connected.
    socket: Option<Socket>,
}

/// Handles getsockname(2): the server's address, not the local one. FTP clients send it to their
/// server.
pub(crate) fn local_address(call: &Call<'_>) -> Result<Answer> {
    let Some(known) = known(call)? else {
        return Ok(Answer::Continue);
    };
    let local = match (&known.state, &known.socket) {
        (State::Connected { local, .. }, _) => *local,
        (State::Listening(listening), _) => Some(listening.local),
        (State::Bound { process }, Some(socket)) => bind::request(call, socket, *process)?,
        _ => None,
    };
    match local {
        Some(local) => return_address(call, &known, local),
        None => Ok(Answer::Continue),
    }
}

/// Handles getpeername(2): the address for which the program has asked.
pub(crate) fn peer_address(call: &Call<'_>) -> Result<Answer> {
    let Some(known) = known(call)? else {
        return Ok(Answer::Continue);
    };
    match known.state {
        State::Connected { peer, .. } => return_address(call, &known, peer),
        State::Connecting => Err(Errno::ENOTCONN),
        State::Bound { .. } | State::Failed(_) | State::Listening(_) => Ok(Answer::Continue),
    }
}

/// Handles getsockopt(2) for `SO_ERROR`: the error of a connect(2) that did not wait. It is
/// reported once.
pub(crate) fn pending_error(call: &Call<'_>) -> Result<Answer> {
    let Some(known) = known(call)? else {
        return Ok(Answer::Continue);
    };
    let State::Failed(error) = known.state else {
        return Ok(Answer::Continue);
    };
    call.write(call.argument(3), &(error as i32).to_ne_bytes())?;
    call.write(call.argument(4), &4_u32.to_ne_bytes())?;
    call.context.sockets.remove(known.id.cookie);
    if let Some(socket) = known.socket {
        let _ = kernel::socket_option(&socket.descriptor, libc::SO_ERROR);
    }
    Ok(Answer::Value(0))
}

/// The socket of a call, if it has a state.
pub(crate) fn known(call: &Call<'_>) -> Result<Option<Known>> {
    let sockets = &call.context.sockets;
    // Most programs ask before they connect, too.
    if sockets.is_empty() {
        return Ok(None);
    }
    let socket = call.socket()?;
    let id = match &socket {
        Some(socket) => Some(socket.id),
        None if call.context.kept.is_some() => {
            call.inode()?.and_then(|inode| sockets.with_inode(inode))
        }
        None => None,
    };
    let Some(id) = id else {
        return Ok(None);
    };
    let state = sockets.state(id.cookie);
    Ok(state.map(|state| Known { id, state, socket }))
}

fn return_address(call: &Call<'_>, known: &Known, address: SocketAddr) -> Result<Answer> {
    let family = known.socket.as_ref().and_then(Socket::family);
    let family = family.unwrap_or(match &known.state {
        State::Connected { peer, .. } if peer.is_ipv6() => Family::V6,
        _ => Family::V4,
    });
    call.return_address(address, family, 1, 2)?;
    Ok(Answer::Value(0))
}
