//! BIND: the server waits until the destination connects to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nix::errno::Errno;

use super::granted::{Granted, RelayKind};
use super::tcp_relay::ReverseDirection;
use crate::events::RequestError;
use crate::net::{self, BindWait, Deadline, PortRange};
use crate::rules::{AccessQuery, unusable_address};
use crate::server::access::destination::{PermittedAddress, retain_usable};
use crate::server::access::enforce::publish_and_recheck;
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;

/// Which peer may connect.
enum ExpectedPeer {
    /// The request has the unspecified address 0.0.0.0 or ::, which is kept here: any peer
    /// that the rules permit when it connects.
    Any(IpAddr),
    /// The requested host, from any of its addresses.
    Addresses(Vec<PermittedAddress>),
}

impl ExpectedPeer {
    /// The addresses to judge; `None` stands for any.
    fn addresses(&self) -> Vec<Option<IpAddr>> {
        match self {
            ExpectedPeer::Any(_) => vec![None],
            ExpectedPeer::Addresses(permitted) => permitted
                .iter()
                .map(|permitted| Some(permitted.address.ip()))
                .collect(),
        }
    }

    /// The server's address towards the expected peer, if there is one: the address from which the
    /// system would send to it. The client may have reached the server at another one.
    fn local_address(&self) -> Option<IpAddr> {
        let ExpectedPeer::Addresses(permitted) = self else {
            return None;
        };
        let mut peer = permitted.first()?.address;
        // Connecting a UDP socket sends no datagram; any port except 0 will do.
        peer.set_port(9);
        let socket = UdpSocket::bind((unspecified(peer.is_ipv6()), 0)).ok()?;
        socket.connect(peer).ok()?;
        socket.local_addr().ok().map(|local| local.ip())
    }

    /// The unspecified address at which all these peers can reach the server.
    fn listen_address(&self) -> IpAddr {
        let is_v6 = match self {
            ExpectedPeer::Any(address) => address.is_ipv6(),
            ExpectedPeer::Addresses(permitted) => permitted
                .iter()
                .any(|permitted| permitted.address.is_ipv6()),
        };
        // The IPv6 address accepts IPv4 as well.
        unspecified(is_v6)
    }

    /// Could a peer connect to a listener that accepts IPv4 only?
    fn may_have_ipv4(&self) -> bool {
        match self {
            ExpectedPeer::Any(_) => true,
            ExpectedPeer::Addresses(permitted) => permitted
                .iter()
                .any(|permitted| permitted.address.is_ipv4()),
        }
    }
}

/// The unspecified address of a family: `::` or 0.0.0.0.
fn unspecified(is_ipv6: bool) -> IpAddr {
    match is_ipv6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Listens for the peer, sends the first of the two replies, and waits. That reply has the
/// port to which the peer must connect.
pub(crate) fn bind(
    pending: PendingRequest<'_>,
    request_log: &mut RequestLog,
) -> Result<Granted, RequestError> {
    let PendingRequest {
        context,
        session,
        request,
    } = pending;
    let expected = expected_peer(pending, request_log)?;
    publish_and_recheck(pending, expected.addresses(), request_log)?;
    let (listener, port) = listen(&context.ports, &expected)
        .map_err(|error| RequestError::ResourceExhausted("port to listen on", error))?;
    let reverse = ReverseDirection::reserve(context)?;

    let reached = session.client.local_addr();
    let reached = reached.map_err(|_| RequestError::ClientLeft)?.ip();
    let local = expected.local_address().unwrap_or(reached);
    let advertise = context.settings.advertise;
    let first_reply = request.encoder.listening(port, local, advertise);
    session.begin_bind(request.encoder);
    if !session.send_reply(&first_reply) {
        return Err(RequestError::ClientLeft);
    }

    let deadline = Deadline::after(context.settings.bind_timeout);
    let (remote, peer) = match net::wait_for_peer(&listener, &session.client, deadline) {
        Ok(BindWait::Peer(remote, peer)) => (remote, peer),
        Ok(BindWait::ClientLeft) => return Err(RequestError::ClientLeft),
        Ok(BindWait::TimedOut) => return Err(RequestError::TimedOut),
        Err(error) => {
            return Err(RequestError::ResourceExhausted(
                "resources for a connection",
                error,
            ));
        }
    };
    // The first peer decides the outcome; no other is accepted.
    drop(listener);
    check_peer(pending, &expected, peer, deadline, request_log)?;
    if !session.attach(remote) {
        return Err(RequestError::ClientLeft);
    }
    publish_and_recheck(pending, vec![request_log.address], request_log)?;
    Ok(Granted {
        reply: request.encoder.accepted(peer),
        relay: RelayKind::Streams(reverse),
    })
}

/// The peers that the client expects and the rules permit. The port of the request, which
/// may be 0, counts only for the rules.
fn expected_peer(
    pending: PendingRequest<'_>,
    request_log: &mut RequestLog,
) -> Result<ExpectedPeer, RequestError> {
    let deadline = Deadline::after(pending.context.settings.connect_timeout);
    let address = pending.request.destination.host.address();
    let Some(unspecified) = address.filter(IpAddr::is_unspecified) else {
        let mut permitted = pending.permitted_addresses(deadline, request_log)?;
        let nat64 = &pending.context.settings.nat64;
        retain_usable(&mut permitted, |it| {
            unusable_address(it.address.ip(), nat64)
        })?;
        return Ok(ExpectedPeer::Addresses(permitted));
    };
    let any_port = AccessQuery {
        port: None,
        ..pending.access_query()
    };
    let verdict = pending.context.rules().evaluate(&any_port);
    pending.require_permit(verdict, deadline, request_log)?;
    Ok(ExpectedPeer::Any(unspecified))
}

/// Opens the listener on all addresses: the peer may reach the server at another address
/// than the client.
fn listen(ports: &PortRange, expected: &ExpectedPeer) -> io::Result<(TcpListener, u16)> {
    let on = |address: IpAddr| {
        ports.open(|port| {
            let listener = net::listen(SocketAddr::new(address, port))?;
            // The peer's connection inherits them.
            net::set_options(&listener)?;
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        })
    };
    match on(expected.listen_address()) {
        // A system without IPv6 finds IPv6 addresses of a name all the same.
        Err(error) if is_without_ipv6(&error) && expected.may_have_ipv4() => on(unspecified(false)),
        result => result,
    }
}

/// Does this error of socket(2) say that the system has no IPv6?
fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::EAFNOSUPPORT)
}

/// Is this an expected peer, and do the rules permit it?
fn check_peer(
    pending: PendingRequest<'_>,
    expected: &ExpectedPeer,
    peer: SocketAddr,
    deadline: Deadline,
    request_log: &mut RequestLog,
) -> Result<(), RequestError> {
    match expected {
        ExpectedPeer::Addresses(permitted) => {
            let ip = peer.ip().to_canonical();
            let found = permitted
                .iter()
                .find(|permitted| permitted.address.ip() == ip);
            let found = found.ok_or(RequestError::UnexpectedPeer(peer))?;
            request_log.set_address(ip, found.rule);
            Ok(())
        }
        ExpectedPeer::Any(_) => {
            let nat64 = &pending.context.settings.nat64;
            if let Some(reason) = unusable_address(peer.ip(), nat64) {
                return Err(RequestError::UnusableDestination(reason));
            }
            let verdict = pending.context.rules().evaluate(&AccessQuery {
                address: Some(peer.ip()),
                ..pending.access_query()
            });
            request_log.set_peer(peer, verdict.line);
            pending.require_permit(verdict, deadline, request_log)
        }
    }
}
