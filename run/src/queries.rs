//! Calls that ask for an address or an error: getsockname(2), getpeername(2), `SO_ERROR`.

use std::net::SocketAddr;

use nix::errno::Errno;

use crate::bind;
use crate::call::{Call, Result, Socket};
use crate::kernel::Answer;
use crate::sockets::State;

/// Handles getsockname(2): the server's address, not the local one. FTP clients send it to their
/// server.
pub(crate) fn local_address(call: &Call<'_>) -> Result<Answer> {
    let Some((socket, state)) = known(call)? else {
        return Ok(Answer::Continue);
    };
    match state {
        State::Connected {
            local: Some(local), ..
        } => return_address(call, &socket, local),
        State::Bound { process } => match bind::request(call, &socket, process)? {
            Some(local) => return_address(call, &socket, local),
            None => Ok(Answer::Continue),
        },
        State::Listening(listening) => return_address(call, &socket, listening.local),
        State::Connected { local: None, .. } | State::Connecting | State::Failed(_) => {
            Ok(Answer::Continue)
        }
    }
}

/// Handles getpeername(2): the address for which the program has asked.
pub(crate) fn peer_address(call: &Call<'_>) -> Result<Answer> {
    match known(call)? {
        Some((socket, State::Connected { peer, .. })) => return_address(call, &socket, peer),
        Some((_, State::Connecting)) => Err(Errno::ENOTCONN),
        _ => Ok(Answer::Continue),
    }
}

/// Handles getsockopt(2) for `SO_ERROR`: the error of a connect(2) that did not wait. It is
/// reported once.
pub(crate) fn pending_error(call: &Call<'_>) -> Result<Answer> {
    match known(call)? {
        Some((socket, State::Failed(error))) => {
            call.write(call.argument(3), &(error as i32).to_ne_bytes())?;
            call.write(call.argument(4), &4_u32.to_ne_bytes())?;
            call.context.sockets.remove(socket.id.cookie);
            let _ = crate::kernel::socket_option(&socket.descriptor, libc::SO_ERROR);
            Ok(Answer::Value(0))
        }
        _ => Ok(Answer::Continue),
    }
}

/// The socket of a call, and its state, if it has one.
fn known(call: &Call<'_>) -> Result<Option<(Socket, State)>> {
    // Most sockets have none, and most programs none of those.
    if call.context.sockets.is_empty() {
        return Ok(None);
    }
    let Some(socket) = call.socket()? else {
        return Ok(None);
    };
    let state = call.context.sockets.state(socket.id.cookie);
    Ok(state.map(|state| (socket, state)))
}

fn return_address(call: &Call<'_>, socket: &Socket, address: SocketAddr) -> Result<Answer> {
    let Some(family) = socket.family() else {
        return Ok(Answer::Continue);
    };
    call.return_address(address, family, 1, 2)?;
    Ok(Answer::Value(0))
}
