//! From the requested host to the addresses that the rules permit.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_channel::{bounded, select};

use crate::events::{ClientRequest, RequestError};
use crate::net::Deadline;
use crate::net::resolve;
use crate::protocol::{Host, HostName, ReplyEncoder};
use crate::rules::{AccessQuery, Verdict};
use crate::server::access::permission::{query, require_ident, require_permit};
use crate::server::request_log::RequestLog;
use crate::server::session::registry::Session;

/// An address that may be dialled or awaited, and the rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PermittedAddress {
    pub(crate) address: IpAddr,
    pub(crate) rule: Option<usize>,
}

/// The addresses of the requested host that the rules permit, in the resolver's
/// order: at least one. A name is looked up once, and only for a client to whom
/// any address could be permitted at all.
///
/// For the screen, the first of them counts, or if there is none, the first that
/// is not permitted.
pub(crate) fn permitted_addresses(
    session: &Arc<Session>,
    request: &ClientRequest,
    deadline: Deadline,
    log_entry: &mut RequestLog,
) -> Result<Vec<PermittedAddress>, RequestError> {
    let rules = session.context.rules();
    let unseen = query(session, request);
    let addresses = match &request.target.host {
        // IPv4 in IPv6's clothes is dialled as what it is.
        Host::Address(address) => vec![address.to_canonical()],
        Host::Name(name) => {
            require_permit(
                rules.evaluate(&unseen),
                session,
                request,
                deadline,
                log_entry,
            )?;
            look_up(session, name, request.language, deadline)?
        }
        Host::Invalid(bad) => return Err(RequestError::InvalidHostName(bad.clone())),
    };
    let evaluate = |address| {
        let address = Some(address);
        rules.evaluate(&AccessQuery { address, ..unseen })
    };
    let verdicts = addresses.into_iter().map(|it| (it, evaluate(it))).collect();
    permitted(verdicts, session, request, deadline, log_entry)
}

/// Those of the addresses that may be used, some of them perhaps because identd
/// confirms the user.
fn permitted(
    verdicts: Vec<(IpAddr, Verdict)>,
    session: &Session,
    request: &ClientRequest,
    deadline: Deadline,
    log_entry: &mut RequestLog,
) -> Result<Vec<PermittedAddress>, RequestError> {
    let with_ident = verdicts.iter().find(|(_, verdict)| verdict.ident).copied();
    let confirmed = match with_ident {
        Some(_) => require_ident(session, request, deadline, log_entry),
        None => Ok(()),
    };
    let (granted, denied): (Vec<_>, Vec<_>) = verdicts
        .into_iter()
        .partition(|(_, verdict)| verdict.grants(log_entry.confirmed));
    // What is shown fits the reason.
    let decisive = with_ident.filter(|_| confirmed.is_err());
    let shown = granted
        .first()
        .copied()
        .or(decisive)
        .or(denied.first().copied());
    if let Some((address, verdict)) = shown {
        log_entry.destination(address, verdict.line);
        if granted.is_empty() {
            confirmed?;
            return Err(RequestError::Denied(verdict));
        }
    }
    let candidate = |(address, verdict): (IpAddr, Verdict)| PermittedAddress {
        address,
        rule: verdict.line,
    };
    Ok(granted.into_iter().map(candidate).collect())
}

/// Looks a name up on a thread of its own, since nothing can interrupt the
/// resolver and the client must have its answer within the limit.
fn look_up(
    session: &Arc<Session>,
    name: &HostName,
    language: ReplyEncoder,
    deadline: Deadline,
) -> Result<Vec<IpAddr>, RequestError> {
    let (answer, found) = bounded(1);
    let threads = &session.context.threads;
    let started = threads.start(format!("s{}-name", session.number()), {
        // The thread takes up room, even when nobody waits for it any more.
        let (slot, name) = (session.slot(), name.clone());
        move || {
            // Fails when the client has been told that it took too long.
            let _ = answer.send(resolve::lookup(&name));
            drop(slot);
        }
    });
    started.map_err(|error| RequestError::ResourceExhausted("thread", error))?;
    let not_found = |why: String| RequestError::NotFound(name.clone(), why);
    let answer = select! {
        recv(found) -> answer => answer,
        recv(session.terminated()) -> _ => return Err(RequestError::ClientLeft),
        default(deadline.remaining()) => return Err(RequestError::TimedOut),
    };
    let addresses = match answer {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(not_found(error.to_string())),
        // The thread panicked.
        Err(_) => return Err(not_found("the lookup broke off".to_owned())),
    };
    let is_known = |address: &IpAddr| address.is_ipv4() || language.supports_ipv6();
    let known: Vec<IpAddr> = addresses.into_iter().filter(is_known).collect();
    if known.is_empty() {
        return Err(not_found("it has no IPv4 address".to_owned()));
    }
    Ok(known)
}
