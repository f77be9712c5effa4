//! CONNECT: the server connects to the destination.

use std::net::SocketAddr;

use super::granted::{Granted, RelayKind};
use super::tcp_relay::ReverseDirection;
use crate::events::RequestError;
use crate::net::{self, Connection, Deadline, DialError};
use crate::rules::unusable_reason;
use crate::server::access::destination::{PermittedAddress, retain_usable};
use crate::server::access::enforce::publish_and_recheck;
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;

/// Addresses of one name that are tried at most. If none fails, the last attempt begins
/// 1.75 seconds after the first, and a name whose owner lists a hundred hosts does not make
/// the server dial them all.
const MAX_TRIED_ADDRESSES: usize = 8;

/// Connects to the destination: name lookup and all attempts under one deadline.
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
    let mut permitted = pending.permitted_addresses(deadline, request_log)?;
    let nat64 = &context.settings.nat64;
    retain_usable(&mut permitted, |it| {
        unusable_reason(it.address.ip(), it.address.port(), nat64)
    })?;
    // If the rules have denied some addresses, the families do not alternate any more. They
    // have to before the list is cut off, so that both are tried.
    let mut addresses = net::interleave(permitted, |it| it.address.is_ipv6());
    addresses.truncate(MAX_TRIED_ADDRESSES);
    let Connection {
        stream,
        local,
        remote,
    } = dial(pending, &addresses, deadline, request_log)?;
    if context.leads_to_own_listener(local, remote) {
        return Err(RequestError::Loop);
    }
    session.set_outgoing(local, remote);
    if !session.attach(stream) {
        return Err(RequestError::ClientLeft);
    }
    publish_and_recheck(pending, vec![request_log.address], request_log)?;
    let reverse = ReverseDirection::reserve(context)?;
    Ok(Granted {
        reply: request.encoder.connected(local),
        relay: RelayKind::Streams(reverse),
    })
}

/// Connects to one of the addresses. The log has the address that was reached, or the one
/// whose failure is reported.
fn dial(
    pending: PendingRequest<'_>,
    permitted: &[PermittedAddress],
    deadline: Deadline,
    request_log: &mut RequestLog,
) -> Result<Connection, RequestError> {
    let mut show = |address| {
        let found = permitted.iter().find(|it| it.address == address);
        let rule = found.and_then(|it| it.rule);
        request_log.set_address(address.ip(), rule);
    };
    let addresses: Vec<SocketAddr> = permitted.iter().map(|it| it.address).collect();
    if let Some(&first) = addresses.first() {
        show(first);
    }
    let session = pending.session;
    let extra_attempts = &pending.context.extra_attempts;
    let extra_slot = || {
        let prefixes = pending.context.source_prefixes(session).with_factors();
        extra_attempts.try_acquire(prefixes).ok()
    };
    match net::dial(&addresses, deadline, &session.client, extra_slot) {
        Ok(connection) => {
            show(connection.remote);
            Ok(connection)
        }
        Err(DialError::ClientLeft) => Err(RequestError::ClientLeft),
        Err(DialError::TimedOut) => Err(RequestError::TimedOut),
        Err(DialError::Failed(address, error)) => {
            show(address);
            Err(match net::is_shortage(&error) {
                true => RequestError::ResourceExhausted("resources for a connection", error),
                false => RequestError::Unreachable(address, error),
            })
        }
    }
}
