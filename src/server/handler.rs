//! One client's session, top to bottom.
//!
//! A thread's stack is the state of its session: the thread hears the request,
//! has it answered by [`connect`](crate::server::commands::connect), [`bind`](crate::server::commands::bind) or
//! [`associate`](crate::server::commands::udp_associate), and then relays from client to remote.

use std::io::BufRead;
use std::sync::Arc;

use crate::events::{
    ClientRequest, CloseReason, Event, HandshakeError, RequestAnswered, RequestError,
};
use crate::net::{self, Deadline, PeekReader};
use crate::protocol::{
    Command, ProtocolError, ReadError, ReplyEncoder, ReplyError, Version, socks4, socks5,
};
use crate::server::commands::tcp_relay::{RelayKind, TerminateOnPanic};
use crate::server::commands::{bind, connect, udp_associate as associate};
use crate::server::handshake::negotiate as greeting;
use crate::server::handshake::negotiate::Authenticated;
use crate::server::request_log::RequestLog;
use crate::server::session::registry::Session;

/// Everything from accept to end; the body of the thread `s7`.
pub(crate) fn run_session(session: &Arc<Session>) {
    let _guard = TerminateOnPanic(session);
    let ending = match read_request(session) {
        Ok(request) => match handle_request(session, request) {
            Ok(relay) => return relay.run(session),
            Err(cause) => CloseReason::Refused(cause),
        },
        Err(ending) => ending,
    };
    let has_spoken = !matches!(ending, CloseReason::Silent);
    // Before the client takes its leave, which may take as long as a stop.
    session.set_close_reason(ending);
    if has_spoken {
        net::lingering_close(&session.client);
    }
}

/// Waits for the request, under one deadline for all of it. What is no request
/// is refused here.
fn read_request(session: &Session) -> Result<ClientRequest, CloseReason> {
    let deadline = Deadline::after(session.context.settings.handshake_timeout);
    let mut stream = PeekReader::new(&session.client, deadline);
    let first = match stream.fill_buf() {
        Ok(&[first, ..]) => first,
        // A health check: not a word about it to the client.
        Ok([]) | Err(_) => return Err(CloseReason::Silent),
    };
    let request = match Version::of(first) {
        Version::Socks4 => read_socks4_request(session, &mut stream),
        Version::Socks5 => read_socks5_request(session, stream, deadline),
        // It does not speak SOCKS: nothing we could say would be understood.
        Version::Unknown(byte) => Err(ReadError::Protocol(ProtocolError::Version(byte)).into()),
    };
    request.map_err(CloseReason::HandshakeFailed)
}

fn read_socks4_request(
    session: &Session,
    stream: &mut impl BufRead,
) -> Result<ClientRequest, HandshakeError> {
    let request = socks4::Request::read(stream).inspect_err(|_| {
        session.send_reply(&socks4::Reply::REJECTED.encode());
    })?;
    Ok(ClientRequest {
        language: ReplyEncoder::Socks4(request.address),
        command: request.command,
        target: request.target(),
        user: request.user,
        logged_in: false,
    })
}

fn read_socks5_request(
    session: &Session,
    stream: PeekReader<'_>,
    deadline: Deadline,
) -> Result<ClientRequest, HandshakeError> {
    let Authenticated { user, mut stream } = greeting::negotiate(session, stream, deadline)?;
    let language = ReplyEncoder::Socks5;
    let request = match socks5::Request::read(&mut stream) {
        Ok(request) => request,
        Err(unread) => {
            let refusal = match unread {
                ReadError::Protocol(ProtocolError::Command(_)) => ReplyError::CommandNotSupported,
                ReadError::Protocol(ProtocolError::AddressType(_)) => {
                    ReplyError::AddressTypeNotSupported
                }
                ReadError::Protocol(_) | ReadError::Incomplete(..) => ReplyError::Rejected,
            };
            stream.send_reply(&language.refused(refusal));
            return Err(match user {
                Some(user) => HandshakeError::AfterLogin { user, unread },
                None => unread.into(),
            });
        }
    };
    Ok(ClientRequest {
        language,
        command: request.command,
        target: request.target,
        logged_in: user.is_some(),
        user: user.unwrap_or_default(),
    })
}

/// Gets the client what it request for and replies. Either way the last reply
/// goes out here, and with it the screen message: once for every request.
fn handle_request(
    session: &Arc<Session>,
    request: ClientRequest,
) -> Result<RelayKind, RequestError> {
    let mut log_entry = RequestLog::new(&request.target);
    let ready = match request.command {
        _ if is_ourselves(session) => Err(RequestError::Loop),
        Command::Connect => connect::connect(session, &request, &mut log_entry),
        Command::Bind => bind::bind(session, &request, &mut log_entry),
        Command::Associate => associate::associate(session, &request, &mut log_entry),
    };
    let told = match &ready {
        Ok(ready) => session.send_reply(&ready.reply),
        Err(cause) => session.send_reply(&request.language.refused(cause.refusal())),
    };
    // Only a reply that went out has been given.
    let result = match (ready, told) {
        (Ok(ready), true) => Ok(ready.relay),
        (Ok(_), false) => Err(RequestError::ClientLeft),
        (Err(cause), _) => Err(cause),
    };
    session
        .context
        .log
        .send(Event::RequestAnswered(RequestAnswered {
            client: session.client_address,
            destination: log_entry.address,
            port: log_entry.port.unwrap_or(request.target.port),
            command: request.command,
            accepted: result.is_ok(),
        }));
    session.keep(request, log_entry);
    result
}

/// Did this client come over a connection that this server has made?
fn is_ourselves(session: &Session) -> bool {
    let accepted_on = session.client.local_addr();
    accepted_on.is_ok_and(|here| session.context.registry.made(session.client_address, here))
}
