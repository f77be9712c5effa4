//! UDP ASSOCIATE: the server relays the client's datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use super::granted::{Granted, RelayKind};
use crate::events::RequestError;
use crate::net::{self, Deadline};
use crate::server::access::enforce::publish_and_recheck;
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;
use crate::server::udp::{Association, queue_icmp_errors};

/// Opens what a UDP association needs. It is granted if the rules permit at least one
/// destination; each datagram is judged when it arrives.
///
/// The address of the request is the one from which the client thinks that it will send. It
/// is a hint: a datagram must come from the address of the client's connection, and its first
/// datagram shows the port.
pub(crate) fn udp_associate(
    pending: PendingRequest<'_>,
    request_log: &mut RequestLog,
) -> Result<Granted, RequestError> {
    let PendingRequest {
        context,
        session,
        request,
    } = pending;
    let deadline = Deadline::after(context.settings.connect_timeout);
    let verdict = context.rules().evaluate(&pending.access_query());
    pending.require_permit(verdict, deadline, request_log)?;
    publish_and_recheck(pending, vec![None], request_log)?;

    let bindings = &context.udp_bindings;
    let slot = bindings.try_acquire();
    let slot = slot.map_err(|_| RequestError::TooManyAssociations(bindings.max()))?;
    let reached = session.client.local_addr();
    let reached = reached.map_err(|_| RequestError::ClientLeft)?;
    let no_socket = |error| RequestError::ResourceExhausted("socket for datagrams", error);
    let opened = context.ports.open(|port| client_socket(reached, port));
    let (client_socket, local) = opened.map_err(no_socket)?;
    let binding = bindings.register(slot, local);
    let remote_socket = remote_socket().map_err(no_socket)?;
    let reserved = context.threads.reserve();
    let reverse = reserved.map_err(|error| RequestError::ResourceExhausted("thread", error))?;
    session.mark_udp_association();
    let association = Association::new(
        pending,
        request_log.confirmed,
        binding,
        client_socket,
        remote_socket,
    );
    let advertise = context.settings.advertise;
    Ok(Granted {
        reply: request
            .encoder
            .listening(local.port(), local.ip(), advertise),
        relay: RelayKind::Datagrams(Arc::new(association), reverse),
    })
}

/// The socket towards the client, at the address at which the client has reached the
/// server: hosts that cannot reach this address cannot send to the socket.
fn client_socket(reached: SocketAddr, port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let mut local = match reached.ip().to_canonical() {
        // An IPv4-mapped IPv6 address means IPv4, and an IPv6 socket could not send there.
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, port),
        // With the scope of a link-local address.
        IpAddr::V6(_) => reached,
    };
    local.set_port(port);
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// The socket towards all other hosts, for both address families if the system has both.
fn remote_socket() -> io::Result<UdpSocket> {
    let socket = net::dual_stack_udp().or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    socket.set_nonblocking(true)?;
    queue_icmp_errors(&socket);
    Ok(socket)
}
