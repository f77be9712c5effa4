//! What the rules say about a session, with the word of its client's identd.

use std::io;

use crate::events::{ClientRequest, RequestError};
use crate::net::{self, ConnectError, Deadline};
use crate::protocol::ident::IdentReply;
use crate::protocol::{Command, ReplyEncoder};
use crate::rules::{AccessQuery, Verdict};
use crate::server::access::identd;
use crate::server::request_log::RequestLog;
use crate::server::session::registry::Session;

/// Everything the rules may want to know about this session, but the address,
/// which is not known yet. (What a client says that asks for an association is
/// where itself will send from; where its datagrams go, nobody knows yet.)
pub(crate) fn query<'a>(session: &Session, request: &'a ClientRequest) -> AccessQuery<'a> {
    let (name, port) = match request.command {
        Command::Associate => (None, None),
        Command::Connect | Command::Bind => (request.target.host.name(), Some(request.target.port)),
    };
    AccessQuery {
        command: request.command,
        source: session.client_address,
        user: &request.user,
        logged_in: request.logged_in,
        name,
        address: None,
        port,
        moment: session.context.clock.now(),
    }
}

/// Goes on if this verdict permits it, and identd confirms the user where that
/// is wanted.
pub(crate) fn require_permit(
    verdict: Verdict,
    session: &Session,
    request: &ClientRequest,
    deadline: Deadline,
    log_entry: &mut RequestLog,
) -> Result<(), RequestError> {
    log_entry.rule = verdict.line;
    if verdict.ident {
        require_ident(session, request, deadline, log_entry)?;
    }
    match verdict.grants(log_entry.confirmed) {
        true => Ok(()),
        false => Err(RequestError::Denied(verdict)),
    }
}

/// Has the client's identd require_ident that the connection is this user's, within its
/// own limit and that of the request. Once it has, it is not request again.
pub(crate) fn require_ident(
    session: &Session,
    request: &ClientRequest,
    deadline: Deadline,
    log_entry: &mut RequestLog,
) -> Result<(), RequestError> {
    if log_entry.confirmed {
        return Ok(());
    }
    if request.language == ReplyEncoder::Socks5 && !request.logged_in {
        return Err(RequestError::NotLoggedIn);
    }
    if request.user.is_empty() {
        let instead = "the request names none".to_owned();
        return Err(RequestError::UserMismatch(instead));
    }
    let deadline = deadline.min_after(session.context.settings.ident_timeout);
    let instead = match identd::ask(&session.client, deadline) {
        Ok(IdentReply::User(user)) if user == request.user => {
            log_entry.confirmed = true;
            return Ok(());
        }
        Ok(IdentReply::User(user)) => format!("identd says \"{}\"", user.escape_ascii()),
        Ok(IdentReply::Error(reason)) => format!("identd says {}", reason.escape_ascii()),
        Err(ConnectError::ClientLeft) => return Err(RequestError::ClientLeft),
        Err(ConnectError::Failed(error))
            if net::is_shortage(&error) || error.kind() == io::ErrorKind::AddrNotAvailable =>
        {
            return Err(RequestError::ResourceExhausted("room to ask identd", error));
        }
        Err(ConnectError::Failed(error)) => return Err(RequestError::IdentFailed(error)),
    };
    Err(RequestError::UserMismatch(instead))
}
