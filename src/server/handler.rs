//! One session from its request to its end.
//!
//! The state of a session is the stack of its thread. The thread reads the request, lets
//! [`commands`](super::commands) handle it, sends the reply, and then relays from client
//! to remote.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commands::{self, RelayKind};
use super::context::ServerContext;
use super::handshake::read_request;
use super::pending_request::PendingRequest;
use super::request_log::RequestLog;
use super::session::{Session, TerminateOnPanic};
use super::unheard::UnheardPlace;
use crate::events::{
    ClientRequest, CloseReason, Event, RequestAnswered, RequestDetails, RequestError,
};
use crate::net::{self, Deadline};
use crate::protocol::{Command, ReplyEncoder};

/// The whole session: the body of the thread `s7`, for session 7.
pub(super) fn run_session(
    context: &Arc<ServerContext>,
    session: &Arc<Session>,
    place: Option<UnheardPlace>,
) {
    let _guard = TerminateOnPanic(session);
    let reason = match read_request(context, session, place) {
        Ok(request) => match handle_request(context, session, session.set_request(request)) {
            Ok(relay) => return relay.run(session),
            Err(error) => CloseReason::Refused(error),
        },
        Err(reason) => reason,
    };
    let has_no_reply = matches!(
        reason,
        CloseReason::Silent | CloseReason::Unheard | CloseReason::PerClientLimit
    );
    // Before the lingering close: a termination during it must not set another reason.
    session.set_close_reason(reason);
    if !has_no_reply {
        close_after_reply(context, session);
    }
}

/// Closes the connection so that the reply arrives, and waits for the client to close as well.
/// If too many sessions wait for that already, it does not wait: otherwise refused clients
/// that stay could take all sessions.
fn close_after_reply(context: &ServerContext, session: &Session) {
    let prefixes = context.source_prefixes(session).with_factors();
    let slot = context.lingering_closes.try_acquire(prefixes);
    let time = match slot.is_ok() {
        true => net::LINGER_TIME,
        false => Duration::ZERO,
    };
    net::lingering_close(&session.client, Deadline::after(time));
}

/// Does what the client requests, and replies. Every request gets its screen message here,
/// exactly once, and its last reply, unless the session was terminated before.
fn handle_request(
    context: &Arc<ServerContext>,
    session: &Arc<Session>,
    request: &ClientRequest,
) -> Result<RelayKind, RequestError> {
    let began = Instant::now();
    let mut request_log = RequestLog::new(&request.destination);
    let pending = PendingRequest {
        context,
        session,
        request,
    };
    let granted = match request.command {
        // Before identd, the rules and the resolver are asked.
        _ if is_socks4(request) && !context.settings.socks4 => Err(RequestError::Socks4Off),
        _ if session.is_loop(&context.registry) => Err(RequestError::Loop),
        Command::Connect => commands::connect(pending, &mut request_log),
        Command::Bind => commands::bind(pending, &mut request_log),
        Command::Associate => commands::udp_associate(pending, &mut request_log),
    };
    let refusal;
    let reply = match &granted {
        Ok(granted) => {
            session.reset_on_close();
            &granted.reply
        }
        Err(error) => {
            refusal = request.encoder.refused(error.reply());
            &refusal
        }
    };
    let was_sent = session.send_last_reply(reply);
    // The second byte of each reply, in both versions.
    let code = reply.get(1).copied().filter(|_| was_sent);
    // A request whose reply could not be sent was not granted.
    let result = match (granted, was_sent) {
        (Ok(granted), true) => Ok(granted.relay),
        (Ok(_), false) => Err(RequestError::ClientLeft),
        (Err(error), _) => Err(error),
    };
    // A terminated session looks like a client that has left: its socket is shut down.
    let result = match result {
        Err(RequestError::ClientLeft) if session.is_closing() => Err(RequestError::Terminated),
        result => result,
    };
    let details = context.log.is_json().then(|| {
        Box::new(RequestDetails {
            session: session.number(),
            request: request.clone(),
            rule: request_log.rule,
            confirmed: request_log.confirmed,
            reply: code,
            why: result.as_ref().err().map(RequestError::to_string),
        })
    });
    context.log.send(Event::RequestAnswered(RequestAnswered {
        client: session.client_address(),
        via: session.via(),
        destination: request_log.address,
        port: request_log.port.unwrap_or(request.destination.port),
        encoder: request.encoder,
        command: request.command,
        cause: result.as_ref().err().map(RequestError::word),
        waited: began.elapsed(),
        details,
    }));
    session.set_request_log(request_log);
    result
}

fn is_socks4(request: &ClientRequest) -> bool {
    matches!(request.encoder, ReplyEncoder::Socks4(_))
}
