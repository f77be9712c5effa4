//! CONNECT: the server connects to the target.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::events::{ClientRequest, RequestError};
use crate::net::{self, ConnectError, Deadline};
use crate::rules;
use crate::server::access::destination::{PermittedAddress, permitted_addresses};
use crate::server::access::enforce;
use crate::server::commands::tcp_relay::{Granted, RelayKind, ReverseDirection};
use crate::server::request_log::RequestLog;
use crate::server::session::registry::Session;

/// Addresses of one name that are tried, at most: with the total limit of two
/// minutes, more of them would get no fair share.
const MAX_ADDRESSES: usize = 8;

/// Least time an address gets to answer before the next is tried.
const MIN_ATTEMPT_TIME: Duration = Duration::from_secs(5);

/// Connects to the target under one total limit: name lookup, all its
/// addresses in turn.
pub(crate) fn connect(
    session: &Arc<Session>,
    request: &ClientRequest,
    log_entry: &mut RequestLog,
) -> Result<Granted, RequestError> {
    let deadline = Deadline::after(session.context.settings.connect_timeout);
    let port = request.target.port;
    let mut permitted_addresses = permitted_addresses(session, request, deadline, log_entry)?;
    let impossible = permitted_addresses
        .first()
        .and_then(|first| rules::unusable_reason(first.address, port));
    permitted_addresses
        .retain(|candidate| rules::unusable_reason(candidate.address, port).is_none());
    permitted_addresses.truncate(MAX_ADDRESSES);
    if let (true, Some(why)) = (permitted_addresses.is_empty(), impossible) {
        return Err(RequestError::UnusableDestination(why));
    }
    let (remote, local) = dial_each(session, &permitted_addresses, port, deadline, log_entry)?;
    if !session.attach(remote) {
        return Err(RequestError::ClientLeft);
    }
    enforce::publish_and_recheck(session, request, vec![log_entry.address], log_entry)?;
    let down = ReverseDirection::reserve(session)?;
    Ok(Granted {
        reply: request.language.connected(local),
        relay: RelayKind::Streams(down),
    })
}

/// Tries each address with its share of the time, until one answers; the
/// connection, and our address in it.
fn dial_each(
    session: &Session,
    permitted_addresses: &[PermittedAddress],
    port: u16,
    deadline: Deadline,
    log_entry: &mut RequestLog,
) -> Result<(TcpStream, SocketAddr), RequestError> {
    let mut failure = RequestError::TimedOut;
    for (tried, &PermittedAddress { address, rule }) in permitted_addresses.iter().enumerate() {
        if deadline.is_over() {
            break;
        }
        log_entry.destination(address, rule);
        let address = SocketAddr::new(address, port);
        let left = u32::try_from(permitted_addresses.len() - tried).unwrap_or(u32::MAX);
        let share = (deadline.remaining() / left).max(MIN_ATTEMPT_TIME);
        match dial(session, address, deadline.min_after(share)) {
            Ok(connected) => return Ok(connected),
            Err(ConnectError::ClientLeft) => return Err(RequestError::ClientLeft),
            Err(ConnectError::Failed(error)) if net::is_shortage(&error) => {
                return Err(RequestError::ResourceExhausted(
                    "room for a connection",
                    error,
                ));
            }
            Err(ConnectError::Failed(error)) => failure = RequestError::Unreachable(address, error),
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
    // Dialling a free local port can pick that very port to dial from, and the
    // socket connects to itself. Nobody is listening there.
    if local == address {
        return Err(Errno::ECONNREFUSED.into());
    }
    session.register_outgoing(local, address);
    Ok((remote, local))
}
