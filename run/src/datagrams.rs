//! UDP and raw sockets: what goes around the server is said, and refused with `--strict`.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::PoisonError;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, SockaddrStorage};

use crate::address::{self, ProgramAddress, is_loopback};
use crate::call::{Call, Kind, Result, Socket};
use crate::context::{Context, Route};
use crate::kept::has_socket;
use crate::kernel::{self, Answer};
use crate::names;
use crate::sockets::State;

/// The port of DNS.
const NAME_SERVER_PORT: u16 = 53;
/// How long a connected socket stays unsaid: glibc connects UDP sockets only to sort addresses,
/// and closes them at once.
const SORTING_TIME: Duration = Duration::from_secs(1);
/// The protocols of ping(8).
const ICMP: [i32; 2] = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
/// How many senders of refused datagrams are remembered.
const MAX_SENDERS: usize = 1_000;

/// Handles connect(2) of a UDP socket.
pub(crate) fn connect(call: &Call<'_>, socket: &Socket, peer: SocketAddr) -> Result<Answer> {
    if let Some(server) = call.context.name_server
        && peer.port() == NAME_SERVER_PORT
        && connect_to(socket, server).is_ok()
    {
        let state = State::Connected {
            peer,
            local: None,
            announced: true,
        };
        call.context.sockets.set(socket.id, state);
        return Ok(Answer::Value(0));
    }
    if is_direct(call.context, peer) {
        return Ok(Answer::Continue);
    }
    if names::is_stand_in(peer.ip()) {
        let line = format!(
            "{} needs UDP to a host by name: not supported",
            call.program()
        );
        call.context.messages.say(&line);
        return Err(Errno::ENETUNREACH);
    }
    if call.context.strict {
        return refuse(call, socket, peer);
    }
    // The program goes on; this thread looks again later.
    let (program, process) = (call.program(), call.process());
    call.answer(Answer::Continue);
    std::thread::sleep(SORTING_TIME);
    if has_socket(process, socket.id.inode) {
        let line = format!("{program} sends UDP to {peer} around the server");
        call.context.messages.say(&line);
    }
    Ok(Answer::Continue)
}

/// Connects the socket to a port of the supervisor, which drops what comes: programs that only
/// sort addresses notice nothing.
fn refuse(call: &Call<'_>, socket: &Socket, peer: SocketAddr) -> Result<Answer> {
    let sink = call.context.refused_datagrams.ok_or(Errno::ENETUNREACH)?;
    connect_to(socket, sink)?;
    let own = kernel::local_address(&socket.descriptor);
    if let Ok(own) = own {
        let own = SocketAddr::new(own.ip().to_canonical(), own.port());
        let senders = call.context.refused_senders.lock();
        let mut senders = senders.unwrap_or_else(PoisonError::into_inner);
        if senders.len() >= MAX_SENDERS {
            senders.clear();
        }
        senders.insert(
            own,
            format!("{} may not send UDP to {peer}", call.program()),
        );
    }
    Ok(Answer::Value(0))
}

/// Reads the datagrams that are refused, and says whose they are.
pub(crate) fn read_refused(context: &Context, sink: &UdpSocket) {
    let mut buffer = [0; 1];
    while let Ok((_, from)) = sink.recv_from(&mut buffer) {
        let senders = context.refused_senders.lock();
        let senders = senders.unwrap_or_else(PoisonError::into_inner);
        let line = senders.get(&from).cloned();
        drop(senders);
        if let Some(line) = line {
            context.messages.say(&line);
        }
    }
}

fn connect_to(socket: &Socket, address: SocketAddr) -> Result<()> {
    let family = socket.family().ok_or(Errno::EAFNOSUPPORT)?;
    let address = address::for_family(address, family).ok_or(Errno::EAFNOSUPPORT)?;
    let address = SockaddrStorage::from(address);
    socket::connect(socket.descriptor.as_raw_fd(), &address)
}

fn is_direct(context: &Context, address: SocketAddr) -> bool {
    let ip = address.ip();
    is_loopback(ip) || matches!(context.route(address), Ok(Route::Direct))
}

/// Handles bind(2) of a UDP socket: such a program sends to several hosts.
pub(crate) fn bind(call: &Call<'_>, address: SocketAddr) -> Result<Answer> {
    let ip = address.ip();
    if !is_loopback(ip) && !call.context.strict {
        let line = format!("{} uses UDP around the server", call.program());
        call.context.messages.say(&line);
    }
    Ok(Answer::Continue)
}

/// Handles sendto(2) with an address.
pub(crate) fn send_to(call: &Call<'_>) -> Result<Answer> {
    send(call, || call.passed_address(4, 5))
}

/// Handles sendmsg(2) and sendmmsg(2), of which the first message counts.
pub(crate) fn send_message(call: &Call<'_>) -> Result<Answer> {
    // struct msghdr begins with the address and its length.
    let address = || {
        let head = call.read(call.argument(1), 12)?;
        let (pointer, rest) = head.split_first_chunk().ok_or(Errno::EFAULT)?;
        let length = rest.first_chunk().ok_or(Errno::EFAULT)?;
        let pointer = u64::from_ne_bytes(*pointer);
        let length = u32::from_ne_bytes(*length) as usize;
        if pointer == 0 || length > address::MAX_LENGTH {
            return Ok(ProgramAddress::Other);
        }
        Ok(address::decode(&call.read(pointer, length)?))
    };
    send(call, address)
}

fn send(call: &Call<'_>, address: impl FnOnce() -> Result<ProgramAddress>) -> Result<Answer> {
    let peer = match address() {
        Ok(ProgramAddress::Internet(peer)) => peer,
        Err(error) if error != Errno::EFAULT && call.context.strict => return Err(error),
        _ => return Ok(Answer::Continue),
    };
    if is_direct(call.context, peer) {
        return Ok(Answer::Continue);
    }
    let Some(socket) = call.socket()? else {
        return Ok(Answer::Continue);
    };
    if socket.kind() != Kind::Udp {
        return Ok(Answer::Continue);
    }
    let is_question = peer.port() == NAME_SERVER_PORT;
    let subject = if is_question { "a DNS question" } else { "UDP" };
    if call.context.strict || names::is_stand_in(peer.ip()) {
        let line = format!("{} may not send {subject} to {peer}", call.program());
        call.context.messages.say(&line);
        return Err(Errno::ENETUNREACH);
    }
    let line = format!(
        "{} sends {subject} to {peer} around the server",
        call.program()
    );
    call.context.messages.say(&line);
    Ok(Answer::Continue)
}

/// Handles socket(2): a raw socket, one for packets or ICMP, or one of which a copy is kept.
pub(crate) fn socket(call: &Call<'_>) -> Result<Answer> {
    let (domain, kind, protocol) = (call.number(0), call.number(1), call.number(2));
    let is_raw = domain == libc::AF_PACKET
        || kind & 0xf == libc::SOCK_RAW
        || domain != libc::AF_UNIX && ICMP.contains(&protocol);
    match &call.context.kept {
        _ if is_raw => raw_socket(call),
        // Names are asked by a stream.
        Some(_) if domain == libc::AF_UNIX && kind & 0xf != libc::SOCK_STREAM => {
            Ok(Answer::Continue)
        }
        Some(kept) => {
            let descriptor = kernel::socket(domain, kind, protocol).map_err(errno)?;
            let socket = Socket::new(descriptor)?;
            let close_on_exec = kind & libc::SOCK_CLOEXEC != 0;
            let copy = socket.descriptor.try_clone().map_err(errno)?;
            kept.keep(socket.id.inode, copy, call.process());
            call.give(&socket.descriptor, close_on_exec)
        }
        None => Ok(Answer::Continue),
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn raw_socket(call: &Call<'_>) -> Result<Answer> {
    if call.context.strict {
        let line = format!("{} may not open a raw socket", call.program());
        call.context.messages.say(&line);
        return Err(Errno::EPERM);
    }
    let line = format!(
        "{} opens a raw socket, which goes around the server",
        call.program()
    );
    call.context.messages.say(&line);
    Ok(Answer::Continue)
}
