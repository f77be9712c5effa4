//! The handshake: everything from the first byte of a client to its request.

mod client;
mod negotiate;
mod password;
mod proxy_header;

use std::io::BufRead;

use super::context::ServerContext;
use super::session::Session;
use super::unheard::UnheardPlace;
use crate::events::{ClientRequest, CloseReason, HandshakeError};
use crate::net::{Deadline, PeekReader};
use crate::protocol::{
    OtherProtocol, ProtocolError, ReadError, ReplyEncoder, ReplyError, Version, http_reply, socks4,
    socks5,
};
use client::HandshakeClient;
use negotiate::negotiate;
use proxy_header::read_proxy_header;

/// Waits for the request, under one deadline for all of the handshake. A client that does
/// not complete it gets its reply here. After this the client has left its place among the
/// clients without a request. The client of a listed proxy has no place before its header.
///
/// # Errors
///
/// Why the session ends without a request.
pub(super) fn read_request(
    context: &ServerContext,
    session: &Session,
    place: Option<UnheardPlace>,
) -> Result<ClientRequest, CloseReason> {
    let timeout = context.settings.handshake_timeout;
    let deadline = Deadline::after(timeout);
    let place = match place {
        Some(place) => place,
        None => read_proxy_header(context, session, deadline)?,
    };
    let client = HandshakeClient {
        context,
        session,
        place: &place,
        deadline: deadline.min_after(place.timeout(timeout)),
    };
    let result = read_any_version(client);
    match place.leave() {
        true => result,
        // Also if the request is complete: the client is told already that it is rejected.
        false => Err(CloseReason::Unheard),
    }
}

/// Reads the request of a client that speaks SOCKS4 or SOCKS5.
fn read_any_version(client: HandshakeClient<'_>) -> Result<ClientRequest, CloseReason> {
    let session = client.session;
    let stream = PeekReader::new(&session.client, client.deadline);
    let mut stream = stream.with_flag(&session.is_reading);
    let first = match stream.fill_buf() {
        Ok(&[first, ..]) => first,
        // A health check; the client gets no reply.
        Ok([]) | Err(_) => return Err(CloseReason::Silent),
    };
    let request = match Version::of(first) {
        Version::Socks4 => read_socks4_request(client, &mut stream),
        Version::Socks5 => read_socks5_request(client, &mut stream),
        Version::Unknown(first) => Err(read_other_protocol(client, &mut stream, first)),
    };
    request.map_err(CloseReason::HandshakeFailed)
}

fn read_socks4_request(
    client: HandshakeClient<'_>,
    stream: &mut impl BufRead,
) -> Result<ClientRequest, HandshakeError> {
    let request = socks4::Request::read(stream).inspect_err(|_| {
        client.refuse(&socks4::Reply::REJECTED.encode());
    })?;
    Ok(ClientRequest {
        encoder: ReplyEncoder::Socks4(request.address),
        command: request.command,
        destination: request.destination(),
        user: request.user,
        logged_in: false,
    })
}

fn read_socks5_request(
    client: HandshakeClient<'_>,
    stream: &mut impl BufRead,
) -> Result<ClientRequest, HandshakeError> {
    let user = negotiate(client, stream)?;
    let request = match socks5::Request::read(stream) {
        Ok(request) => request,
        Err(error) => {
            let reply = reply_to_invalid(&error);
            client.refuse(&ReplyEncoder::Socks5.refused(reply));
            return Err(match user {
                Some(user) => HandshakeError::AfterLogin { user, error },
                None => HandshakeError::after_greeting(error),
            });
        }
    };
    Ok(ClientRequest {
        encoder: ReplyEncoder::Socks5,
        command: request.command,
        destination: request.destination,
        logged_in: user.is_some(),
        user: user.unwrap_or_default(),
    })
}

/// Recognizes the protocol of a client that does not speak SOCKS, for the log. Only HTTP has
/// a reply: the client of another protocol would not understand any.
fn read_other_protocol(
    client: HandshakeClient<'_>,
    stream: &mut impl BufRead,
    first: u8,
) -> HandshakeError {
    let Ok(protocol) = OtherProtocol::read(stream) else {
        return ReadError::Protocol(ProtocolError::Version(first)).into();
    };
    if protocol == OtherProtocol::Http {
        let (scheme, version) = match client.context.settings.socks5 {
            true => ("socks5h", 5),
            false => ("socks4a", 4),
        };
        client.refuse(&http_reply(scheme, version));
    }
    HandshakeError::OtherProtocol(protocol)
}

/// The reply to a SOCKS5 request that is not valid (RFC 1928, section 6).
fn reply_to_invalid(error: &ReadError) -> ReplyError {
    match error {
        ReadError::Protocol(ProtocolError::Command(_)) => ReplyError::CommandNotSupported,
        ReadError::Protocol(ProtocolError::AddressType(_)) => ReplyError::AddressTypeNotSupported,
        ReadError::Protocol(_) | ReadError::Incomplete(..) => ReplyError::Rejected,
    }
}
