//! Sockets that `std::net` cannot make: non-blocking from the start, or for both address families.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};

/// Listens at this address, as `TcpListener::bind` does. At `::` it accepts IPv4 as well,
/// whatever the system's default is (`net.ipv6.bindv6only`).
///
/// # Errors
///
/// As socket(2), setsockopt(2), bind(2) and listen(2).
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.is_ipv4() {
        return TcpListener::bind(address);
    }
    let socket = dual_stack(SockType::Stream)?;
    // A server that restarts can listen on its port while old connections of that port are
    // in TIME_WAIT. The standard library sets it as well.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(TcpListener::from(socket))
}

/// A UDP socket on a port that the system chooses. It exchanges datagrams with hosts of
/// both address families; those of IPv4 have IPv4-mapped addresses.
pub(crate) fn dual_stack_udp() -> io::Result<UdpSocket> {
    let socket = dual_stack(SockType::Datagram)?;
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
    Ok(UdpSocket::from(socket))
}

/// A blocking IPv6 socket that also serves IPv4.
fn dual_stack(kind: SockType) -> io::Result<OwnedFd> {
    let socket = socket::socket(AddressFamily::Inet6, kind, close_on_exec(), None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    Ok(socket)
}

/// A non-blocking TCP socket for a connection to this address.
#[cfg(target_os = "linux")]
pub(super) fn nonblocking_tcp(destination: SocketAddr) -> io::Result<TcpStream> {
    let flags = close_on_exec() | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family(destination), SockType::Stream, flags, None)?;
    Ok(TcpStream::from(socket))
}

/// Not every other system can do it in one call.
#[cfg(not(target_os = "linux"))]
pub(super) fn nonblocking_tcp(destination: SocketAddr) -> io::Result<TcpStream> {
    let flags = close_on_exec();
    let socket = socket::socket(family(destination), SockType::Stream, flags, None)?;
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(target_os = "linux")]
fn close_on_exec() -> SockFlag {
    SockFlag::SOCK_CLOEXEC
}

/// Not every other system has the flag. (The server starts no programs, which could
/// inherit the socket.)
#[cfg(not(target_os = "linux"))]
fn close_on_exec() -> SockFlag {
    SockFlag::empty()
}
