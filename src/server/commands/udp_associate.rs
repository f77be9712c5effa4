//! UDP ASSOCIATE: the client's datagrams go through the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};

use crate::events::{ClientRequest, RequestError};
use crate::net::Deadline;
use crate::server::access::enforce;
use crate::server::access::permission::{query, require_permit};
use crate::server::commands::tcp_relay::{Granted, RelayKind};
use crate::server::limits::max_associations;
use crate::server::request_log::RequestLog;
use crate::server::session::registry::Session;
use crate::server::udp::association::Association;
use crate::server::udp::name_cache::NameCache;
use crate::sync::{Mutex, OnceLock};

/// Gets everything that an association needs. It is granted to whom the rules
/// could permit any datagram at all; each one is judged when it comes.
///
/// The request's address is where the client thinks that it will send from. Only
/// the port of it counts, if it is not 0: the address must be that of its
/// connection.
pub(crate) fn associate(
    session: &Arc<Session>,
    request: &ClientRequest,
    log_entry: &mut RequestLog,
) -> Result<Granted, RequestError> {
    let context = &session.context;
    let deadline = Deadline::after(context.settings.connect_timeout);
    let verdict = context.rules().evaluate(&query(session, request));
    require_permit(verdict, session, request, deadline, log_entry)?;
    enforce::publish_and_recheck(session, request, vec![None], log_entry)?;

    let most = max_associations(context.settings.max_sessions);
    let reserved = context
        .udp_bindings
        .reserve(most)
        .ok_or(RequestError::TooManyAssociations(most))?;
    let reached = session.client.local_addr();
    let reached = reached.map_err(|_| RequestError::ClientLeft)?;
    let no_socket = |error| RequestError::ResourceExhausted("socket for datagrams", error);
    let opened = context.ports.open(|port| inner(reached, port));
    let (inner, here) = opened.map_err(no_socket)?;
    // Behind the socket, to be dropped in front of it.
    let mut binding = reserved;
    binding.set_address(here);
    let outer = outer().map_err(no_socket)?;
    let thread = context.threads.reserve();
    let down = thread.map_err(|error| RequestError::ResourceExhausted("thread", error))?;
    session.mark_udp_association();
    let association = Association {
        _mailbox: binding,
        is_dual: outer.local_addr().is_ok_and(|here| here.is_ipv6()),
        inner,
        outer,
        session: Arc::clone(session),
        request: request.clone(),
        confirmed: log_entry.confirmed,
        client: OnceLock::new(),
        sent_to: Mutex::default(),
        rules: Mutex::default(),
        names: NameCache::default(),
    };
    let advertised = context.settings.advertise;
    Ok(Granted {
        reply: request
            .language
            .listening(here.port(), here.ip(), advertised),
        relay: RelayKind::Datagrams(Arc::new(association), down),
    })
}

/// The socket towards the client, on the address at which the client has reached us:
/// nobody else can send to it whom that address is not for.
fn inner(reached: SocketAddr, port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let mut here = match reached.ip().to_canonical() {
        // The other family, in whose clothes it came, could not be sent to.
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, port),
        // With the network that an address of one link belongs to.
        IpAddr::V6(_) => reached,
    };
    here.set_port(port);
    let inner = UdpSocket::bind(here)?;
    inner.set_nonblocking(true)?;
    let here = inner.local_addr()?;
    Ok((inner, here))
}

/// The socket towards everybody else, of both families where there are both.
fn outer() -> io::Result<UdpSocket> {
    let outer = both_families().or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    outer.set_nonblocking(true)?;
    Ok(outer)
}

fn both_families() -> io::Result<UdpSocket> {
    let (inet, datagram) = (AddressFamily::Inet6, SockType::Datagram);
    let socket = UdpSocket::from(socket::socket(inet, datagram, close_on_exec(), None)?);
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(any))?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn close_on_exec() -> SockFlag {
    SockFlag::SOCK_CLOEXEC
}

/// Not every other system has the flag. (We start no programs that could inherit
/// the socket.)
#[cfg(not(target_os = "linux"))]
fn close_on_exec() -> SockFlag {
    SockFlag::empty()
}
