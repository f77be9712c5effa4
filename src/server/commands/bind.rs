//! BIND: the target connects to the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use crate::events::{ClientRequest, RequestError};
use crate::net::{self, BindWait, Deadline};
use crate::rules::AccessQuery;
use crate::server::ServerContext;
use crate::server::access::destination::{PermittedAddress, permitted_addresses};
use crate::server::access::enforce;
use crate::server::access::permission::{query, require_permit};
use crate::server::commands::tcp_relay::{Granted, RelayKind, ReverseDirection};
use crate::server::request_log::RequestLog;
use crate::server::session::registry::Session;

/// Who may come.
enum ExpectedPeer {
    /// The request said 0.0.0.0 or ::, which is kept here: whoever the rules
    /// permit when it comes.
    Anyone(IpAddr),
    /// The requested host, by any of its addresses.
    These(Vec<PermittedAddress>),
}

impl ExpectedPeer {
    /// `None` set_grant for any.
    fn addresses(&self) -> Vec<Option<IpAddr>> {
        match self {
            ExpectedPeer::Anyone(_) => vec![None],
            ExpectedPeer::These(permitted_addresses) => permitted_addresses
                .iter()
                .map(|it| Some(it.address))
                .collect(),
        }
    }

    /// Our address as the expected one sees it, if one is expected: that from which
    /// the system would send to him. (The client may have reached us from another
    /// side.)
    fn sees_us_at(&self) -> Option<IpAddr> {
        let ExpectedPeer::These(permitted_addresses) = self else {
            return None;
        };
        let peer = permitted_addresses.first()?.address;
        let any = match peer {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // No datagram is sent; any port but 0 will do.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((peer, 9)).ok()?;
        socket.local_addr().ok().map(|here| here.ip())
    }

    /// The unspecified address on which all of these can reach us.
    fn any_address(&self) -> IpAddr {
        let is_v6 = match self {
            ExpectedPeer::Anyone(address) => address.is_ipv6(),
            ExpectedPeer::These(permitted_addresses) => {
                permitted_addresses.iter().any(|it| it.address.is_ipv6())
            }
        };
        match is_v6 {
            // Also for IPv4, unless the system says otherwise.
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// Listens for the target under one total limit. The first of the two replies
/// goes out here, with the port that the target must connect to.
pub(crate) fn bind(
    session: &Arc<Session>,
    request: &ClientRequest,
    log_entry: &mut RequestLog,
) -> Result<Granted, RequestError> {
    let context = &session.context;
    let expected = expected(session, request, log_entry)?;
    enforce::publish_and_recheck(session, request, expected.addresses(), log_entry)?;
    let (listener, port) = listen(context, expected.any_address())
        .map_err(|error| RequestError::ResourceExhausted("port to listen on", error))?;
    let down = ReverseDirection::reserve(session)?;

    let reached = session.client.local_addr();
    let reached = reached.map_err(|_| RequestError::ClientLeft)?.ip();
    let here = expected.sees_us_at().unwrap_or(reached);
    let advertised = context.settings.advertise;
    let first = request.language.listening(port, here, advertised);
    if !session.send_reply(&first) {
        return Err(RequestError::ClientLeft);
    }

    let deadline = Deadline::after(context.settings.bind_timeout);
    let (remote, peer) = match net::wait_for_peer(&listener, &session.client, deadline) {
        Ok(BindWait::Peer(remote, peer)) => (remote, peer),
        Ok(BindWait::ClientLeft) => return Err(RequestError::ClientLeft),
        Ok(BindWait::TimedOut) => return Err(RequestError::TimedOut),
        Err(error) => {
            return Err(RequestError::ResourceExhausted(
                "room for a connection",
                error,
            ));
        }
    };
    // The first that comes decides; nobody else is let in.
    drop(listener);
    check(session, &expected, peer, request, deadline, log_entry)?;
    if !session.attach(remote) {
        return Err(RequestError::ClientLeft);
    }
    enforce::publish_and_recheck(session, request, vec![log_entry.address], log_entry)?;
    Ok(Granted {
        reply: request.language.accepted(peer),
        relay: RelayKind::Streams(down),
    })
}

/// Whom the client expects, as far as the rules permit it. Only the rules use
/// the request's port, which may be 0.
fn expected(
    session: &Arc<Session>,
    request: &ClientRequest,
    log_entry: &mut RequestLog,
) -> Result<ExpectedPeer, RequestError> {
    let deadline = Deadline::after(session.context.settings.connect_timeout);
    let anyone = request.target.host.address();
    let Some(anyone) = anyone.filter(IpAddr::is_unspecified) else {
        let permitted_addresses = permitted_addresses(session, request, deadline, log_entry)?;
        return Ok(ExpectedPeer::These(permitted_addresses));
    };
    let anybody = AccessQuery {
        port: None,
        ..query(session, request)
    };
    let verdict = session.context.rules().evaluate(&anybody);
    require_permit(verdict, session, request, deadline, log_entry)?;
    Ok(ExpectedPeer::Anyone(anyone))
}

/// Opens the listener on every address, whatever address clients reach us at:
/// the peer comes from the other side.
fn listen(context: &ServerContext, address: IpAddr) -> io::Result<(TcpListener, u16)> {
    context.ports.open(|port| {
        let listener = TcpListener::bind((address, port))?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    })
}

/// Is this the peer that was expected?
fn check(
    session: &Session,
    expected: &ExpectedPeer,
    peer: SocketAddr,
    request: &ClientRequest,
    deadline: Deadline,
    log_entry: &mut RequestLog,
) -> Result<(), RequestError> {
    match expected {
        ExpectedPeer::These(permitted_addresses) => {
            let ip = peer.ip().to_canonical();
            let known = permitted_addresses.iter().find(|known| known.address == ip);
            let known = known.ok_or(RequestError::UnexpectedPeer(peer))?;
            log_entry.destination(known.address, known.rule);
            Ok(())
        }
        ExpectedPeer::Anyone(_) => {
            let verdict = session.context.rules().evaluate(&AccessQuery {
                address: Some(peer.ip()),
                ..query(session, request)
            });
            log_entry.peer(peer, verdict.line);
            require_permit(verdict, session, request, deadline, log_entry)
        }
    }
}
