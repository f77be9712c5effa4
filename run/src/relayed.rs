//! A connection whose bytes are copied: for sockets that do not block.
//!
//! The program's socket must stay the same, since it may be in an epoll set already, and it must
//! not become writable before the server has answered. So it is connected to a port of the
//! supervisor whose backlog is full: the kernel drops the SYN, and TCP waits (`SYN-SENT`). When the
//! server has granted the request, the supervisor connects from this port to the program's socket.
//! Both then have sent a SYN, which TCP takes for one connection (simultaneous open, RFC 9293,
//! section 3.5):
//!
//! ```text
//! program's socket                  supervisor                     server
//!   connect: SYN ───────────────────> dropped
//!   SYN-SENT, not writable            CONNECT ────────────────────────>
//!                                     <──────────────────────── granted
//!   <─────────────────────────── SYN  connect
//!   ESTABLISHED, writable             two threads copy <══════════════>
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use threadsocks::net::{reset_on_close, set_options};
use threadsocks::relay::{Direction, RelayState};

use crate::address;
use crate::call::{Call, Result, Socket};
use crate::context::Context;
use crate::kernel::{self, Answer};
use crate::request::{Wanted, begin_connect, failure, local_address};
use crate::server::REPLY_TIMEOUT;
use crate::sockets::State;

/// A port that does not answer, since its backlog is full.
struct SilentPort {
    /// Without it, the kernel would refuse connections to the port.
    _listener: OwnedFd,
    /// The connection that fills the backlog; it is never accepted.
    _filler: TcpStream,
    address: SocketAddr,
}

impl SilentPort {
    fn open(is_v6: bool) -> nix::Result<SilentPort> {
        let ip = match is_v6 {
            true => Ipv6Addr::LOCALHOST.into(),
            false => Ipv4Addr::LOCALHOST.into(),
        };
        let listener = shared_socket(SocketAddr::new(ip, 0))?;
        // Of a backlog of 0, one connection is in the queue, and the next one is dropped.
        socket::listen(&listener, Backlog::new(0)?)?;
        let address = kernel::local_address(&listener).map_err(errno)?;
        let filler = TcpStream::connect(address).map_err(errno)?;
        Ok(SilentPort {
            _listener: listener,
            _filler: filler,
            address,
        })
    }

    /// Establishes the connection of the program's socket, which waits at this address.
    fn establish(self, program: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = shared_socket(self.address)?;
        set_options(&socket)?;
        socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(program))?;
        Ok(TcpStream::from(socket))
    }
}

/// A socket bound to this address, which another socket of this process may have as well.
fn shared_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Connects a socket of the program. With an early answer the program goes on at once, and this
/// thread with the request; otherwise the call is answered when the server has.
pub(crate) fn connect(
    call: &Call<'_>,
    socket: Socket,
    wanted: &Wanted,
    early: Option<Answer>,
) -> Result<Answer> {
    let sockets = &call.context.sockets;
    let family = socket.family().ok_or(Errno::EAFNOSUPPORT)?;
    let port = SilentPort::open(socket.is_v6_only())?;
    let address = address::for_family(port.address, family).ok_or(Errno::EAFNOSUPPORT)?;
    // Before the program can see an event.
    sockets.set(socket.id, State::Connecting);
    match begin_connect(&socket, address) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => {
            sockets.remove(socket.id.cookie);
            return Err(error);
        }
    }
    let is_early = early.is_some();
    if let Some(answer) = early {
        call.answer(answer);
    }
    match request(call, wanted) {
        Ok((server, local)) => {
            let state = State::Connected {
                peer: wanted.peer,
                local,
                announced: !is_early,
            };
            let ours = establish(call.context, socket, port, state)?;
            call.answer(Answer::Value(0));
            relay(call.context, ours, Arc::new(server));
            Ok(Answer::Value(0))
        }
        Err(error) => {
            fail(call.context, &socket, error, is_early);
            Err(error)
        }
    }
}

/// Sends the request on a connection of the supervisor's own. Returns it, and the address that
/// getsockname(2) returns.
fn request(call: &Call<'_>, wanted: &Wanted) -> Result<(TcpStream, Option<SocketAddr>)> {
    let server = &call.context.server;
    let stream = server.dial().map_err(|error| {
        let line = format!("the SOCKS server cannot be reached: {error}");
        call.context.messages.say(&line);
        errno(error)
    })?;
    let _ = stream.set_read_timeout(Some(REPLY_TIMEOUT));
    let bound = server.connect(&stream, &wanted.destination);
    let bound = bound.map_err(|error| failure(call, &error))?;
    let _ = stream.set_read_timeout(None);
    let reached = stream.peer_addr().map_err(errno)?;
    let own = stream.local_addr().ok();
    let local = local_address(call, wanted, bound, reached, own);
    Ok((stream, local))
}

/// Makes the program's socket connected. Returns the supervisor's end.
fn establish(
    context: &Context,
    socket: Socket,
    port: SilentPort,
    state: State,
) -> Result<TcpStream> {
    let program = kernel::local_address(&socket.descriptor).map_err(errno)?;
    let program = SocketAddr::new(program.ip().to_canonical(), program.port());
    context.sockets.set(socket.id, state);
    // If the program has closed its socket, this closes it, and the connection is refused.
    drop(socket.descriptor);
    context.release(socket.id.inode);
    port.establish(program).map_err(errno)
}

/// Reports the error of a request to the program's socket.
fn fail(context: &Context, socket: &Socket, error: Errno, is_early: bool) {
    match is_early {
        true => context.sockets.set(socket.id, State::Failed(error)),
        false => context.sockets.remove(socket.id.cookie),
    }
    // An error of the socket itself, which can be connected again.
    let _ = socket::shutdown(socket.descriptor.as_raw_fd(), socket::Shutdown::Both);
    if !is_early {
        let _ = kernel::socket_option(&socket.descriptor, libc::SO_ERROR);
    }
}

/// Copies bytes between the program and the server until both directions have ended: on this
/// thread those of the program, on another one those of the server.
pub(crate) fn relay(context: &Context, program: TcpStream, server: Arc<TcpStream>) {
    // The supervisor ends when no program is left and no relay reads from one.
    let reads = Arc::clone(&context.relays);
    for stream in [&program, &*server] {
        // Without the options a write to a peer that does not read is not interrupted.
        let _ = set_options(stream);
        reset_on_close(stream);
    }
    let relay = Arc::new((RelayState::default(), program, server));
    let down = Arc::clone(&relay);
    let started = context.threads.start("relay down".to_owned(), move || {
        let (state, program, server) = &*down;
        let _ = state.direction(Direction::Down).run(&**server, program);
    });
    if let Err(error) = started {
        let line = format!("no thread for a relay: {error}");
        context.messages.say(&line);
        return;
    }
    let (state, program, server) = &*relay;
    let _ = state.direction(Direction::Up).run(program, &**server);
    drop(reads);
}
