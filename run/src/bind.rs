//! BIND: bind(2), listen(2) and accept(2) of a program to which a peer connects through the server.
//!
//! The program's socket listens as it would without the server. When a peer has connected to
//! the server, the supervisor connects to the program's socket and copies: so select(2), poll(2)
//! and epoll(7) need no help, and accept(2) only has to tell the peer's address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage};

use crate::address::{Family, ProgramAddress, is_loopback};
use crate::call::{Call, Kind, Result, Socket};
use crate::context::Context;
use crate::kernel::{self, Answer};
use crate::relayed;
use crate::request::failure;
use crate::server::{self, PendingBind, REPLY_TIMEOUT, SharedStream};
use crate::sockets::{Listening, SocketId, State};
use crate::waiting::{LOOK_INTERVAL, Stop, look, wait_for};

/// How long the program may take from the peer's connection to its own listen(2).
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Handles bind(2). A free port of any address may be meant for a peer that comes through the
/// server; a certain port is a service of this machine.
pub(crate) fn bind(call: &Call<'_>) -> Result<Answer> {
    let Ok(ProgramAddress::Internet(address)) = call.passed_address(1, 2) else {
        return Ok(Answer::Continue);
    };
    let Some(socket) = call.socket()? else {
        return Ok(Answer::Continue);
    };
    match socket.kind() {
        Kind::Tcp => {}
        Kind::Udp => return crate::datagrams::bind(call, address),
        Kind::Other => return Ok(Answer::Continue),
    }
    let is_reported = call.context.is_reported(address.ip());
    let process = call.process();
    let is_any_port = address.port() == 0;
    let is_local = is_loopback_only(address.ip()) && !call.context.loopback;
    let is_candidate = (is_any_port || is_reported) && !is_local;
    if !is_candidate || call.context.last_destination(process).is_none() {
        return Ok(Answer::Continue);
    }
    let result = socket::bind(
        socket.descriptor.as_raw_fd(),
        &SockaddrStorage::from(address),
    );
    match result {
        // The program has been told that this address of the server is its own.
        Err(Errno::EADDRNOTAVAIL) if is_reported => {
            let any: IpAddr = match socket.family() {
                Some(Family::V6) => Ipv6Addr::UNSPECIFIED.into(),
                _ => Ipv4Addr::UNSPECIFIED.into(),
            };
            let any = SocketAddr::new(any, address.port());
            socket::bind(socket.descriptor.as_raw_fd(), &SockaddrStorage::from(any))?;
        }
        Ok(()) if !is_any_port => return Ok(Answer::Value(0)),
        result => result?,
    }
    let state = State::Bound { process };
    call.context.sockets.set(socket.id, state);
    Ok(Answer::Value(0))
}

/// A service for this machine only.
fn is_loopback_only(address: IpAddr) -> bool {
    is_loopback(address) && !address.to_canonical().is_unspecified()
}

/// Asks the server to listen for this socket. Returns where it listens; `None`: the process has
/// no connection through the server, so no peer can come.
pub(crate) fn request(
    call: &Call<'_>,
    socket: &Socket,
    process: i32,
) -> Result<Option<SocketAddr>> {
    let Some(destination) = call.context.last_destination(process) else {
        return Ok(None);
    };
    let own = kernel::local_address(&socket.descriptor).map_err(|_| Errno::EINVAL)?;
    let stream = call.context.server.dial().map_err(|error| {
        let line = format!("the SOCKS server cannot be reached: {error}");
        call.context.messages.say(&line);
        Errno::ENETUNREACH
    })?;
    let _ = stream.set_read_timeout(Some(REPLY_TIMEOUT));
    let stream = SharedStream(Arc::new(stream));
    let waits_at = Arc::clone(&stream.0);
    let result = call.context.server.bind(stream, &destination);
    let (binding, local) = result.map_err(|error| failure(call, &error))?;
    let listening = Listening {
        local,
        is_listening: false,
        process,
        arrivals: HashMap::new(),
        waits_at: Some(waits_at),
        failed: None,
    };
    let id = socket.id;
    call.context.sockets.set(id, State::Listening(listening));
    let context = Arc::clone(call.context);
    let started = call.context.threads.start("bind".to_owned(), move || {
        if let Err(error) = await_peer(&context, id, binding, own) {
            let fail = |state: &mut State| {
                if let State::Listening(listening) = state {
                    listening.failed = Some(error);
                }
            };
            context.sockets.update(id.cookie, fail);
        }
    });
    started.map_err(|_| Errno::ENOBUFS)?;
    Ok(Some(local))
}

/// Waits for the peer at the server, connects it with the program's socket, and copies.
fn await_peer(
    context: &Arc<Context>,
    socket: SocketId,
    binding: PendingBind,
    own: SocketAddr,
) -> Result<()> {
    let (server, peer) = binding.wait().map_err(|error| server::errno_of(&error))?;
    let _ = server.set_read_timeout(None);
    let is_ready = |state: Option<&State>| match state {
        Some(State::Listening(listening)) => listening.is_listening,
        _ => true,
    };
    let state = context
        .sockets
        .wait(socket.cookie, LISTEN_TIMEOUT, is_ready);
    let Some(State::Listening(_)) = state else {
        return Err(Errno::ECONNABORTED);
    };
    let (connection, from, to) = local_connection(own)?;
    let arrive = |state: &mut State| {
        if let State::Listening(listening) = state {
            listening.arrivals.insert(from, peer);
            listening.waits_at = None;
        }
    };
    context.sockets.update(socket.cookie, arrive);
    socket::connect(connection.as_raw_fd(), &SockaddrStorage::from(to))?;
    relayed::relay(context, TcpStream::from(connection), server);
    Ok(())
}

/// A socket for a connection to the program's: its own address, and that of the program's.
fn local_connection(own: SocketAddr) -> Result<(OwnedFd, SocketAddr, SocketAddr)> {
    let ip = match own.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // An IPv6 socket that accepts IPv4 may be on a machine without IPv6, but not this way.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let connection = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let from = SockaddrStorage::from(SocketAddr::new(ip, 0));
    socket::bind(connection.as_raw_fd(), &from)?;
    let from = kernel::local_address(&connection).map_err(|_| Errno::EIO)?;
    Ok((connection, from, SocketAddr::new(ip, own.port())))
}

/// Handles listen(2).
pub(crate) fn listen(call: &Call<'_>) -> Result<Answer> {
    if call.context.sockets.is_empty() && call.context.kept.is_none() {
        return Ok(Answer::Continue);
    }
    let Some(socket) = call.socket()? else {
        return Ok(Answer::Continue);
    };
    let state = call.context.sockets.state(socket.id.cookie);
    match state {
        Some(State::Bound { process }) => {
            if request(call, &socket, process)?.is_none() {
                return Ok(Answer::Continue);
            }
        }
        Some(State::Listening(_)) => {}
        _ => {
            // A copy would keep the port open when the program has closed it.
            call.context.release(socket.id.inode);
            return Ok(Answer::Continue);
        }
    }
    let backlog = Backlog::new(call.number(1).clamp(1, 128))?;
    socket::listen(&socket.descriptor, backlog)?;
    call.context.sockets.update(socket.id.cookie, |state| {
        if let State::Listening(listening) = state {
            listening.is_listening = true;
        }
    });
    Ok(Answer::Value(0))
}

/// Handles accept(2), and accept4(2) with its flags.
pub(crate) fn accept(call: &Call<'_>, flags: i32) -> Result<Answer> {
    if call.context.sockets.is_empty() {
        return Ok(Answer::Continue);
    }
    let Some(socket) = call.socket()? else {
        return Ok(Answer::Continue);
    };
    let cookie = socket.id.cookie;
    let Some(State::Listening(_)) = call.context.sockets.state(cookie) else {
        return Ok(Answer::Continue);
    };
    let is_nonblocking = socket.is_nonblocking();
    loop {
        let now = Some(Instant::now() + LOOK_INTERVAL);
        match wait_for(call, socket.descriptor.as_fd(), PollFlags::POLLIN, now) {
            Ok(()) => {}
            Err(Stop::Signal) => return Ok(Answer::Restart),
            Err(Stop::Gone) => return Err(Errno::EINTR),
            Err(Stop::TimedOut) => {}
        }
        match accept_arrival(call, &socket, flags) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) | Err(Errno::EAGAIN) if is_nonblocking => return Err(Errno::EAGAIN),
            Ok(None) | Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error),
        }
        if let Some(State::Listening(Listening {
            failed: Some(error),
            ..
        })) = call.context.sockets.state(cookie)
        {
            return Err(error);
        }
        if look(call) == Err(Stop::Signal) {
            return Ok(Answer::Restart);
        }
    }
}

/// Accepts one connection. `None`: it was not the supervisor's, so it has come around the
/// server, and is closed.
fn accept_arrival(call: &Call<'_>, socket: &Socket, flags: i32) -> Result<Option<Answer>> {
    let family = socket.family().ok_or(Errno::EINVAL)?;
    // The program's listener may block, and another thread may have taken the connection.
    let accepted = accept_now(socket, flags & libc::SOCK_NONBLOCK)?;
    let from = peer_of(&accepted)?;
    let arrival = call
        .context
        .sockets
        .update(socket.id.cookie, |state| match state {
            State::Listening(listening) => {
                let peer = listening.arrivals.remove(&from)?;
                Some((peer, listening.local))
            }
            _ => None,
        });
    let Some((peer, local)) = arrival.flatten() else {
        return Ok(None);
    };
    let id = SocketId {
        cookie: kernel::cookie(&accepted).map_err(|_| Errno::EIO)?,
        inode: nix::sys::stat::fstat(&accepted)?.st_ino,
    };
    let state = State::Connected {
        peer,
        local: Some(local),
        announced: true,
    };
    call.context.sockets.set(id, state);
    if call.argument(1) != 0 {
        call.return_address(peer, family, 1, 2)?;
    }
    let close_on_exec = flags & libc::SOCK_CLOEXEC != 0;
    call.give(&accepted, close_on_exec).map(Some)
}

/// Accepts a connection, without waiting for one.
fn accept_now(socket: &Socket, flags: i32) -> Result<OwnedFd> {
    let mut descriptors = [nix::poll::PollFd::new(
        socket.descriptor.as_fd(),
        PollFlags::POLLIN,
    )];
    if nix::poll::poll(&mut descriptors, nix::poll::PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    let accepted = kernel::accept(socket.descriptor.as_fd(), flags);
    accepted.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn peer_of(connection: &OwnedFd) -> Result<SocketAddr> {
    let peer = kernel::peer_address(connection);
    let peer = peer.map_err(|_| Errno::ECONNABORTED)?;
    Ok(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}
