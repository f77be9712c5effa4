//! CONNECT: the server connects to the destination.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::errno::Errno;

use super::granted::{Granted, RelayKind};
use super::tcp_relay::ReverseDirection;
use crate::events::RequestError;
use crate::net::{self, ConnectError, Deadline};
use crate::rules::unusable_reason;
use crate::server::access::destination::{PermittedAddress, retain_usable};
use crate::server::access::enforce::publish_and_recheck;
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;
use crate::server::session::Session;

/// Addresses of one name that are tried at most. The connect timeout of two minutes is
/// shared among them, and more of them would get too little.
const MAX_ADDRESSES: usize = 8;

/// An address gets at least this much time before the next one is tried.
const MIN_ATTEMPT_TIME: Duration = Duration::from_secs(5);

/// Connects to the destination: name lookup and all addresses in turn, under one deadline.
pub(crate) fn connect(
    pending: PendingRequest<'_>,
    request_log: &mut RequestLog,
) -> Result<Granted, RequestError> {
    let PendingRequest {
        context,
        session,
        request,
    } = pending;
    let deadline = Deadline::after(context.settings.connect_timeout);
    let port = request.destination.port;
    let mut addresses = pending.permitted_addresses(deadline, request_log)?;
    let nat64 = &context.settings.nat64;
    retain_usable(&mut addresses, |it| {
        unusable_reason(it.address.ip(), port, nat64)
    })?;
    addresses.truncate(MAX_ADDRESSES);
    let (remote, local) = dial_each(session, &addresses, deadline, request_log)?;
    if !session.attach(remote) {
        return Err(RequestError::ClientLeft);
    }
    publish_and_recheck(pending, vec![request_log.address], request_log)?;
    let reverse = ReverseDirection::reserve(context)?;
    Ok(Granted {
        reply: request.encoder.connected(local),
        relay: RelayKind::Streams(reverse),
    })
}

/// Tries the addresses in turn, each with its share of the remaining time. Returns the
/// first connection, and the server's address in it.
fn dial_each(
    session: &Session,
    addresses: &[PermittedAddress],
    deadline: Deadline,
    request_log: &mut RequestLog,
) -> Result<(TcpStream, SocketAddr), RequestError> {
    let mut failure = RequestError::TimedOut;
    for (tried, &PermittedAddress { address, rule }) in addresses.iter().enumerate() {
        if deadline.is_over() {
            break;
        }
        request_log.set_address(address.ip(), rule);
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = (deadline.remaining() / left).max(MIN_ATTEMPT_TIME);
        match dial(session, address, deadline.min_after(share)) {
            Ok(connected) => return Ok(connected),
            Err(ConnectError::ClientLeft) => return Err(RequestError::ClientLeft),
            Err(ConnectError::Failed(error)) if net::is_shortage(&error) => {
                return Err(RequestError::ResourceExhausted(
                    "resources for a connection",
                    error,
                ));
            }
            Err(ConnectError::Failed(error)) => {
                failure = RequestError::Unreachable(address, error);
            }
        }
    }
    Err(failure)
}

fn dial(
    session: &Session,
    address: SocketAddr,
    deadline: Deadline,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let remote = net::dial(address, deadline, &session.client)?;
    let local = remote.local_addr()?;
    // The system can choose the destination's port as the local port if it is free. Then
    // the socket connects to itself (TCP simultaneous open): no server listens there.
    if local == address {
        return Err(Errno::ECONNREFUSED.into());
    }
    session.set_outgoing(local, address);
    Ok((remote, local))
}
