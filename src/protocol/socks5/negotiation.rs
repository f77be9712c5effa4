//! Messages before the request: method negotiation (RFC 1928, section 3) and login (RFC 1929).

use std::fmt;
use std::io::BufRead;

use super::fields::{after_version, encode_field, split_field};
use crate::protocol::error::{ProtocolError, ReadError};
use crate::protocol::read::read_message;
use crate::protocol::types::Version;

/// The first byte of a login and of its reply.
const LOGIN_VERSION: u8 = 0x01;

/// A method by which a client authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The client does not authenticate.
    Anonymous,
    /// User and password, in plain text.
    Password,
}

impl Method {
    /// The number of the method.
    pub fn code(self) -> u8 {
        match self {
            Method::Anonymous => 0x00,
            Method::Password => 0x02,
        }
    }
}

/// The first message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The numbers of the methods that the client offers, in its order; perhaps none.
    pub methods: Vec<u8>,
}

impl Greeting {
    /// The greeting as bytes. Methods after the first 255 are left out.
    pub fn encode(&self) -> Vec<u8> {
        [&[Version::SOCKS5], &encode_field(&self.methods)[..]].concat()
    }

    /// Decodes a greeting at the beginning of these bytes: the greeting and its length, or
    /// `None` while more must come.
    ///
    /// # Errors
    ///
    /// The version has another value.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Greeting, usize)>, ProtocolError> {
        let Some(rest) = after_version(bytes, Version::SOCKS5)? else {
            return Ok(None);
        };
        let Some((methods, rest)) = split_field(rest) else {
            return Ok(None);
        };
        let methods = methods.to_vec();
        Ok(Some((Greeting { methods }, bytes.len() - rest.len())))
    }

    /// Reads one greeting and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a greeting.
    pub fn read(stream: &mut impl BufRead) -> Result<Greeting, ReadError> {
        read_message(stream, Greeting::decode)
    }
}

/// The server's reply to a greeting: the method that it selects, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodSelection(pub Option<Method>);

impl MethodSelection {
    /// "No acceptable methods".
    const NONE: u8 = 0xFF;

    /// The selection as bytes.
    pub fn encode(self) -> [u8; 2] {
        [
            Version::SOCKS5,
            self.0.map_or(MethodSelection::NONE, Method::code),
        ]
    }

    /// Decodes a selection at the beginning of these bytes, as [`Greeting::decode`].
    ///
    /// # Errors
    ///
    /// The version has another value, or the method is not supported here.
    pub fn decode(bytes: &[u8]) -> Result<Option<(MethodSelection, usize)>, ProtocolError> {
        let Some(&[code, ..]) = after_version(bytes, Version::SOCKS5)? else {
            return Ok(None);
        };
        let supported = [Method::Anonymous, Method::Password];
        let method = supported.into_iter().find(|method| method.code() == code);
        match (method, code) {
            (None, MethodSelection::NONE) | (Some(_), _) => Ok(Some((MethodSelection(method), 2))),
            (None, code) => Err(ProtocolError::Method(code)),
        }
    }

    /// Reads one selection and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a selection.
    pub fn read(stream: &mut impl BufRead) -> Result<MethodSelection, ReadError> {
        read_message(stream, MethodSelection::decode)
    }
}

/// The user and password of a login.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Any bytes; escape them before printing.
    pub user: Vec<u8>,
    /// Never printed.
    pub password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Credentials(\"{}\")", self.user.escape_ascii())
    }
}

impl Credentials {
    /// The login as bytes. What is longer than [`MAX_FIELD`](super::MAX_FIELD) is left
    /// out.
    pub fn encode(&self) -> Vec<u8> {
        [
            &[LOGIN_VERSION],
            &encode_field(&self.user)[..],
            &encode_field(&self.password),
        ]
        .concat()
    }

    /// Decodes a login at the beginning of these bytes, as [`Greeting::decode`].
    ///
    /// # Errors
    ///
    /// The version has another value.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Credentials, usize)>, ProtocolError> {
        let Some(rest) = after_version(bytes, LOGIN_VERSION)? else {
            return Ok(None);
        };
        let Some((user, rest)) = split_field(rest) else {
            return Ok(None);
        };
        let Some((password, rest)) = split_field(rest) else {
            return Ok(None);
        };
        let credentials = Credentials {
            user: user.to_vec(),
            password: password.to_vec(),
        };
        Ok(Some((credentials, bytes.len() - rest.len())))
    }

    /// Reads one login and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a login.
    pub fn read(stream: &mut impl BufRead) -> Result<Credentials, ReadError> {
        read_message(stream, Credentials::decode)
    }
}

/// The server's reply to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStatus {
    /// The client may send its request.
    Accepted,
    /// The login is refused, and the connection ends.
    Denied,
}

impl AuthStatus {
    /// The reply as bytes.
    pub fn encode(self) -> [u8; 2] {
        [LOGIN_VERSION, u8::from(self == AuthStatus::Denied)]
    }

    /// Decodes a reply at the beginning of these bytes, as [`Greeting::decode`]. Any status
    /// except 0 means that the login is refused.
    ///
    /// # Errors
    ///
    /// The version has another value.
    pub fn decode(bytes: &[u8]) -> Result<Option<(AuthStatus, usize)>, ProtocolError> {
        let Some(&[status, ..]) = after_version(bytes, LOGIN_VERSION)? else {
            return Ok(None);
        };
        let status = match status {
            0 => AuthStatus::Accepted,
            _ => AuthStatus::Denied,
        };
        Ok(Some((status, 2)))
    }

    /// Reads one reply and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a reply.
    pub fn read(stream: &mut impl BufRead) -> Result<AuthStatus, ReadError> {
        read_message(stream, AuthStatus::decode)
    }
}
