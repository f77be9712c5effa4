//! A request needs a permit: the verdict of the rules, and identd's confirmation of the user where a rule wants it.

use std::io;
use std::net::SocketAddr;

use super::identd;
use crate::config::QuotedName;
use crate::events::{ClientRequest, RequestError};
use crate::net::{self, ConnectError, Deadline};
use crate::protocol::ident::IdentReply;
use crate::protocol::socks5::MAX_FIELD;
use crate::protocol::{Command, Nat64Prefix, ReplyEncoder};
use crate::rules::{AccessQuery, Verdict, WeekTime};
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;

/// What the rules may test of this request, except the address, which is not known yet.
///
/// The destination of a UDP ASSOCIATE is the address from which the client will send. The
/// destinations of its datagrams are not known yet.
pub(crate) fn access_query<'a>(
    request: &'a ClientRequest,
    client: SocketAddr,
    now: WeekTime,
    nat64: &'a [Nat64Prefix],
) -> AccessQuery<'a> {
    let (name, port) = match request.command {
        Command::Associate => (None, None),
        Command::Connect | Command::Bind => {
            let destination = &request.destination;
            (destination.host.name(), Some(destination.port))
        }
    };
    AccessQuery {
        command: request.command,
        source: client,
        user: &request.user,
        logged_in: request.logged_in,
        name,
        address: None,
        port,
        time: now,
        nat64,
    }
}

impl<'a> PendingRequest<'a> {
    /// What the rules may test of this request now, except the address.
    pub(crate) fn access_query(&self) -> AccessQuery<'a> {
        let (client, context) = (self.session.client_address(), self.context);
        let nat64 = &context.settings.nat64;
        access_query(self.request, client, context.clock.now(), nat64)
    }

    /// Continues if this verdict permits the request, and identd confirms the user where
    /// the verdict wants that.
    ///
    /// # Errors
    ///
    /// The rules deny it, or identd does not confirm the user.
    pub(crate) fn require_permit(
        &self,
        verdict: Verdict,
        deadline: Deadline,
        request_log: &mut RequestLog,
    ) -> Result<(), RequestError> {
        request_log.rule = verdict.line;
        if verdict.ident {
            self.require_ident(deadline, request_log)?;
        }
        match verdict.grants(request_log.confirmed) {
            true => Ok(()),
            false => Err(RequestError::Denied(verdict)),
        }
    }

    /// Lets the client's identd confirm that the connection belongs to the user, within
    /// the ident timeout and the deadline of the request. It is asked once per request.
    ///
    /// # Errors
    ///
    /// identd does not confirm the user, or does not reply, or too many queries are going on.
    pub(crate) fn require_ident(
        &self,
        deadline: Deadline,
        request_log: &mut RequestLog,
    ) -> Result<(), RequestError> {
        if request_log.confirmed {
            return Ok(());
        }
        if self.session.via().is_some() {
            let reason = "a client of a proxy cannot be asked";
            return Err(RequestError::IdentFailed(io::Error::other(reason)));
        }
        let request = self.request;
        if request.encoder == ReplyEncoder::Socks5 && !request.logged_in {
            return Err(RequestError::NotLoggedIn);
        }
        if request.user.is_empty() {
            let instead = "the request has no user".to_owned();
            return Err(RequestError::UserMismatch(instead));
        }
        // An identd that does not answer must not hold many sessions: its owner needs no permit.
        let prefixes = self.context.source_prefixes(self.session).with_factors();
        let Ok(_slot) = self.context.ident_queries.try_acquire(prefixes) else {
            let reason = "too many queries of identd are going on";
            return Err(RequestError::IdentFailed(io::Error::other(reason)));
        };
        let deadline = deadline.min_after(self.context.settings.ident_timeout);
        let instead = match identd::query(&self.session.client, deadline) {
            Ok(IdentReply::User(user)) if user == request.user => {
                request_log.confirmed = true;
                return Ok(());
            }
            Ok(IdentReply::User(user)) => format!("identd reports {}", QuotedName(shown(&user))),
            Ok(IdentReply::Error(reason)) => {
                format!("identd reports {}", shown(&reason).escape_ascii())
            }
            Err(ConnectError::ClientLeft) => return Err(RequestError::ClientLeft),
            Err(ConnectError::Failed(error))
                if net::is_shortage(&error) || error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                return Err(RequestError::ResourceExhausted(
                    "resources to query identd",
                    error,
                ));
            }
            Err(ConnectError::Failed(error)) => return Err(RequestError::IdentFailed(error)),
        };
        Err(RequestError::UserMismatch(instead))
    }
}

/// The first bytes of an identd's reply, as many as a user of SOCKS5 can have. The log queue may
/// keep thousands of them.
fn shown(reply: &[u8]) -> &[u8] {
    reply.get(..MAX_FIELD).unwrap_or(reply)
}
