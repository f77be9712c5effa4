//! connect(2): a blocking socket speaks with the server itself, another one gets a relay.
//!
//! A blocking socket is connected to the server and used for the request; when the call returns,
//! the program has a connection to its destination, and no byte is copied afterwards. A program
//! whose socket does not block wants to go on at once, and waits with poll(2) or epoll(7): see
//! `relayed.rs`.

use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::time::TimeValLike;

use crate::address::{self, ProgramAddress};
use crate::call::{Call, Kind, Result, Socket};
use crate::context::Route;
use crate::kernel::{self, Answer};
use crate::relayed;
use crate::request::{Wanted, begin_connect, failure, local_address, socket_error};
use crate::server::REPLY_TIMEOUT;
use crate::sockets::State;
use crate::waiting::{LOOK_INTERVAL, Negotiation, Stop, look, wait_for};
use crate::{datagrams, name_service, queries};

/// Handles connect(2).
pub(crate) fn connect(call: &Call<'_>) -> Result<Answer> {
    let address = match call.passed_address(1, 2) {
        Ok(address) => address,
        // The kernel finds it too.
        Err(Errno::EFAULT) => return Ok(Answer::Continue),
        Err(error) => return Err(error),
    };
    let peer = match address {
        ProgramAddress::Internet(peer) => peer,
        ProgramAddress::Unix(path) if name_service::is_cache(&path) => {
            return name_service::connect_cache(call);
        }
        ProgramAddress::Unspecified => {
            if let Some(known) = queries::known(call)? {
                call.context.sockets.remove(known.id.cookie);
            }
            return Ok(Answer::Continue);
        }
        ProgramAddress::Other => return Ok(Answer::Continue),
        ProgramAddress::Unix(_) => {
            if call.context.kept.is_some()
                && let Some(inode) = call.inode()?
            {
                call.context.release(inode);
            }
            return Ok(Answer::Continue);
        }
    };
    let Some(socket) = call.socket()? else {
        return without_socket(call);
    };
    match socket.kind() {
        Kind::Tcp => connect_tcp(call, socket, peer),
        Kind::Udp => datagrams::connect(call, &socket, peer),
        Kind::Other => Ok(Answer::Continue),
    }
}

/// The answer for a socket of which the supervisor has no copy: the kernel knows the error, unless
/// the copy was given up or has never been.
fn without_socket(call: &Call<'_>) -> Result<Answer> {
    if call.context.kept.is_none() {
        return Ok(Answer::Continue);
    }
    if let Some(known) = queries::known(call)? {
        return report(call, known.id.cookie).unwrap_or(Err(Errno::EACCES));
    }
    if call.inode()?.is_none() {
        return Ok(Answer::Continue);
    }
    let line = format!("{} uses a socket of unknown origin", call.program());
    call.context.messages.say(&line);
    Err(Errno::EACCES)
}

fn connect_tcp(call: &Call<'_>, socket: Socket, peer: SocketAddr) -> Result<Answer> {
    let cookie = socket.id.cookie;
    match call.context.sockets.state(cookie) {
        Some(State::Connecting) => return await_other(call, &socket),
        Some(State::Connected { .. } | State::Failed(_)) => {
            if let Some(result) = report(call, cookie) {
                return result;
            }
        }
        Some(State::Listening(listening)) if listening.is_listening => {
            return Ok(Answer::Continue);
        }
        // Its address was asked for, so the server listens for it; now it needs no peer.
        Some(State::Listening(listening)) => {
            call.context.sockets.remove(cookie);
            if let Some(stream) = listening.waits_at {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        Some(State::Bound { .. }) | None => {}
    }
    let destination = match call.context.route(peer)? {
        Route::Direct => {
            call.context.release(socket.id.inode);
            return Ok(Answer::Continue);
        }
        Route::Server(destination) => destination,
    };
    let wanted = Wanted {
        peer,
        destination,
        process: call.process(),
    };
    call.context
        .note_connected(wanted.process, wanted.destination.clone(), None);
    if socket.is_nonblocking() {
        return relayed::connect(
            call,
            socket,
            &wanted,
            Some(Answer::Error(Errno::EINPROGRESS)),
        );
    }
    match by_own_socket(call, &socket, &wanted) {
        Outcome::Connected(local) => {
            call.context.sockets.set(
                socket.id,
                State::Connected {
                    peer,
                    local,
                    announced: true,
                },
            );
            call.context.release(socket.id.inode);
            Ok(Answer::Value(0))
        }
        Outcome::Failed(error) => {
            let _ = kernel::disconnect(&socket.descriptor);
            Err(error)
        }
        Outcome::Unsuitable => {
            let _ = kernel::disconnect(&socket.descriptor);
            relayed::connect(call, socket, &wanted, None)
        }
        // The handler must run now. The connection is made meanwhile, as the kernel does it; and
        // the program, if its call is started again, waits for it.
        Outcome::Interrupted => {
            let _ = kernel::disconnect(&socket.descriptor);
            relayed::connect(call, socket, &wanted, Some(Answer::Restart))
        }
        // So it is with SO_SNDTIMEO.
        Outcome::Late => {
            let _ = kernel::disconnect(&socket.descriptor);
            let early = Answer::Error(Errno::EINPROGRESS);
            relayed::connect(call, socket, &wanted, Some(early))
        }
    }
}

/// Says once how an earlier attempt has ended, as the kernel does. `None`: that was said, and a
/// new attempt may begin.
fn report(call: &Call<'_>, cookie: u64) -> Option<Result<Answer>> {
    let sockets = &call.context.sockets;
    let result = sockets.update(cookie, |state| match state {
        State::Connected { announced, .. } => match std::mem::replace(announced, true) {
            true => Some(Err(Errno::EISCONN)),
            false => Some(Ok(Answer::Value(0))),
        },
        State::Failed(error) => Some(Err(*error)),
        _ => None,
    });
    let result = result.flatten();
    if let Some(Err(error)) = result
        && error != Errno::EISCONN
    {
        sockets.remove(cookie);
    }
    result
}

/// Another call connects this socket: waits for it, if the socket blocks.
fn await_other(call: &Call<'_>, socket: &Socket) -> Result<Answer> {
    if socket.is_nonblocking() {
        return Err(Errno::EALREADY);
    }
    let is_over = |state: Option<&State>| !matches!(state, Some(State::Connecting));
    loop {
        let sockets = &call.context.sockets;
        let state = sockets.wait(socket.id.cookie, LOOK_INTERVAL, is_over);
        if is_over(state.as_ref()) {
            let _ = socket_error(socket);
            return report(call, socket.id.cookie).unwrap_or(Err(Errno::ECONNABORTED));
        }
        match look(call) {
            Ok(()) => {}
            Err(Stop::Signal) => return Ok(Answer::Restart),
            Err(_) => return Err(Errno::EINTR),
        }
    }
}

enum Outcome {
    /// With the server's own address.
    Connected(Option<SocketAddr>),
    Failed(Errno),
    /// The socket cannot reach the server: it has another family, or is bound to an address.
    Unsuitable,
    Interrupted,
    /// The program's own time limit is over.
    Late,
}

/// Connects the program's own socket to the server, and sends the request on it.
fn by_own_socket(call: &Call<'_>, socket: &Socket, wanted: &Wanted) -> Outcome {
    let own_limit = own_limit(socket);
    let limit = own_limit.unwrap_or(REPLY_TIMEOUT).min(REPLY_TIMEOUT);
    let deadline = Instant::now() + limit;
    let server = match dial(call, socket, deadline) {
        Err(Outcome::Failed(Errno::ETIMEDOUT)) if own_limit.is_some() => return Outcome::Late,
        Ok(server) => server,
        Err(outcome) => return outcome,
    };
    let mut stream = Negotiation::new(call, &socket.descriptor, deadline);
    let result = call
        .context
        .server
        .connect(&mut stream, &wanted.destination);
    match (stream.stop.get(), result) {
        (_, Ok(bound)) => {
            let own = kernel::local_address(&socket.descriptor).ok();
            Outcome::Connected(local_address(call, wanted, bound, server, own))
        }
        (Some(Stop::Signal), _) => Outcome::Interrupted,
        (Some(Stop::Gone), _) => Outcome::Failed(Errno::EINTR),
        (Some(Stop::TimedOut), _) if own_limit.is_some() => Outcome::Late,
        (Some(Stop::TimedOut), _) => Outcome::Failed(Errno::ETIMEDOUT),
        (None, Err(error)) => Outcome::Failed(failure(call, &error)),
    }
}

/// The time limit that the program has set for connect(2) and write(2).
fn own_limit(socket: &Socket) -> Option<Duration> {
    let limit = getsockopt(&socket.descriptor, sockopt::SendTimeout).ok()?;
    let limit = Duration::from_micros(u64::try_from(limit.num_microseconds()).ok()?);
    (!limit.is_zero()).then_some(limit)
}

/// Connects the socket to the first address of the server that answers.
fn dial(
    call: &Call<'_>,
    socket: &Socket,
    deadline: Instant,
) -> std::result::Result<SocketAddr, Outcome> {
    let Some(family) = socket.family() else {
        return Err(Outcome::Unsuitable);
    };
    let mut last = Outcome::Unsuitable;
    for &server in call.context.server.addresses() {
        let Some(address) = address::for_family(server, family) else {
            continue;
        };
        if server.is_ipv4() && socket.is_v6_only() {
            continue;
        }
        match dial_address(call, socket, address, deadline) {
            Ok(()) => return Ok(server),
            Err(outcome @ Outcome::Interrupted) => return Err(outcome),
            Err(outcome) => last = outcome,
        }
        let _ = kernel::disconnect(&socket.descriptor);
    }
    if let Outcome::Failed(error) = last {
        let line = format!("the SOCKS server cannot be reached: {error}");
        call.context.messages.say(&line);
    }
    Err(last)
}

fn dial_address(
    call: &Call<'_>,
    socket: &Socket,
    address: SocketAddr,
    deadline: Instant,
) -> std::result::Result<(), Outcome> {
    match begin_connect(socket, address) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(Errno::EADDRNOTAVAIL | Errno::EINVAL | Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
            return Err(Outcome::Unsuitable);
        }
        Err(error) => return Err(Outcome::Failed(error)),
    }
    let descriptor = socket.descriptor.as_fd();
    match wait_for(call, descriptor, PollFlags::POLLOUT, Some(deadline)) {
        Ok(()) => {}
        Err(Stop::Signal) => return Err(Outcome::Interrupted),
        Err(Stop::Gone) => return Err(Outcome::Failed(Errno::EINTR)),
        Err(Stop::TimedOut) => return Err(Outcome::Failed(Errno::ETIMEDOUT)),
    }
    match socket_error(socket) {
        Errno::UnknownErrno => Ok(()),
        error => Err(Outcome::Failed(error)),
    }
}
