//! The request and its reply (RFC 1928, sections 4 and 6).

use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};

use super::fields::{IPV4, IPV6, NAME, after_version, encode_destination, split_destination};
use crate::protocol::error::{ProtocolError, ReadError, ReplyError};
use crate::protocol::host::Host;
use crate::protocol::read::read_message;
use crate::protocol::types::{Command, Destination, Version};

// CMD.
pub(super) const CONNECT: u8 = 0x01;
pub(super) const BIND: u8 = 0x02;
pub(super) const ASSOCIATE: u8 = 0x03;

/// REP: succeeded.
const GRANTED: u8 = 0x00;

/// A request, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// CMD.
    pub command: Command,
    /// DST.ADDR and DST.PORT.
    pub destination: Destination,
}

impl Request {
    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let command = match self.command {
            Command::Connect => CONNECT,
            Command::Bind => BIND,
            Command::Associate => ASSOCIATE,
        };
        let destination = encode_destination(&self.destination);
        [&[Version::SOCKS5, command, 0], &destination[..]].concat()
    }

    /// Decodes a request at the beginning of these bytes: the request and its length, or
    /// `None` while more must come.
    ///
    /// # Errors
    ///
    /// As soon as no further byte can make a valid request of these. An error that leaves
    /// the end of the request visible is reported only there, so that the reply does not
    /// cross the rest of the request.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Request, usize)>, ProtocolError> {
        let Some(&[command, reserved, ref rest @ ..]) = after_version(bytes, Version::SOCKS5)?
        else {
            return Ok(None);
        };
        let Some((destination, rest)) = split_destination(rest)? else {
            return Ok(None);
        };
        let command = match (command, reserved) {
            (CONNECT, 0) => Command::Connect,
            (BIND, 0) => Command::Bind,
            (ASSOCIATE, 0) => Command::Associate,
            (CONNECT | BIND | ASSOCIATE, other) => return Err(ProtocolError::Reserved(other)),
            (other, _) => return Err(ProtocolError::Command(other)),
        };
        let request = Request {
            command,
            destination,
        };
        Ok(Some((request, bytes.len() - rest.len())))
    }

    /// Reads one request and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a request.
    pub fn read(stream: &mut impl BufRead) -> Result<Request, ReadError> {
        read_message(stream, Request::decode)
    }
}

/// A reply: the outcome, and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Granted, or why not.
    pub outcome: Result<(), ReplyError>,
    /// BND.ADDR and BND.PORT: the address from which the server connects, at which it
    /// listens, or of the peer that has connected. (A server that sends a name does not
    /// follow RFC 1928, but the client accepts it.)
    pub bound: Destination,
}

impl Reply {
    /// A reply with an address.
    pub fn new(outcome: Result<(), ReplyError>, bound: SocketAddr) -> Reply {
        let host = Host::Address(bound.ip().to_canonical());
        let port = bound.port();
        Reply {
            outcome,
            bound: Destination { host, port },
        }
    }

    /// A refusal, which has no address.
    pub fn refused(error: ReplyError) -> Reply {
        Reply::new(Err(error), (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// The reply as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let code = self.outcome.map_or_else(code, |()| GRANTED);
        let bound = encode_destination(&self.bound);
        [&[Version::SOCKS5, code, 0], &bound[..]].concat()
    }

    /// Decodes a reply at the beginning of these bytes, as [`Request::decode`].
    ///
    /// # Errors
    ///
    /// The bytes are not a reply, or its code is unknown.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
        let Some(&[code, reserved, ref rest @ ..]) = after_version(bytes, Version::SOCKS5)? else {
            return Ok(None);
        };
        let outcome = match code {
            GRANTED => Ok(()),
            code => Err(error_of(code).ok_or(ProtocolError::ReplyCode(code))?),
        };
        if reserved != 0 {
            return Err(ProtocolError::Reserved(reserved));
        }
        let Some((bound, rest)) = split_destination(rest)? else {
            return Ok(None);
        };
        Ok(Some((Reply { outcome, bound }, bytes.len() - rest.len())))
    }

    /// The least length of a reply that begins with these bytes; of a whole reply, its
    /// length. A client that cannot peek may read this many bytes.
    pub fn min_length(bytes: &[u8]) -> usize {
        match *bytes {
            [_, _, _, IPV4, ..] => 10,
            [_, _, _, NAME, length, ..] => 7 + usize::from(length),
            [_, _, _, IPV6, ..] => 22,
            // With an empty name.
            _ => 7,
        }
    }

    /// Reads one reply and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a reply.
    pub fn read(stream: &mut impl BufRead) -> Result<Reply, ReadError> {
        read_message(stream, Reply::decode)
    }
}

/// REP, the code of an error (RFC 1928, section 6).
pub fn code(error: ReplyError) -> u8 {
    match error {
        ReplyError::Rejected => 0x01,
        // SOCKS5 has one code for all decisions of the server.
        ReplyError::NotAllowed | ReplyError::IdentFailed | ReplyError::UserMismatch => 0x02,
        ReplyError::NetworkUnreachable => 0x03,
        ReplyError::HostUnreachable => 0x04,
        ReplyError::ConnectionRefused => 0x05,
        ReplyError::TimedOut => 0x06,
        ReplyError::CommandNotSupported => 0x07,
        ReplyError::AddressTypeNotSupported => 0x08,
    }
}

/// The error of a code, if it is one of RFC 1928.
pub(super) fn error_of(code: u8) -> Option<ReplyError> {
    Some(match code {
        0x01 => ReplyError::Rejected,
        0x02 => ReplyError::NotAllowed,
        0x03 => ReplyError::NetworkUnreachable,
        0x04 => ReplyError::HostUnreachable,
        0x05 => ReplyError::ConnectionRefused,
        0x06 => ReplyError::TimedOut,
        0x07 => ReplyError::CommandNotSupported,
        0x08 => ReplyError::AddressTypeNotSupported,
        _ => return None,
    })
}
