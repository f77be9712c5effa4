//! Errors of the protocol: invalid messages, and requests that are refused.

use std::fmt;
use std::io;

/// Longest user id of SOCKS4 in bytes: RFC 1413 allows no longer one in an IDENT reply.
pub(super) const MAX_USER: usize = 512;

/// Longest name field of SOCKS4A in bytes: a domain name has at most 255 (RFC 1035).
pub(super) const MAX_NAME: usize = 255;

/// Longest header of the PROXY protocol's version 1 in bytes, with its CRLF: the specification
/// states this number.
pub(super) const MAX_PROXY_LINE: usize = 107;

/// Why a request is not granted, as far as a reply can express it. The log has more, from
/// [`RequestError`](crate::events::RequestError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The request is rejected or has failed. SOCKS4 has no other code (91) for the
    /// errors that follow, up to the last two.
    Rejected,
    /// The rules do not permit it.
    NotAllowed,
    /// There is no route to the network.
    NetworkUnreachable,
    /// There is no route to the host, or the host is unknown.
    HostUnreachable,
    /// No server listens at the destination.
    ConnectionRefused,
    /// No answer came within the timeout.
    TimedOut,
    /// The server does not support this command.
    CommandNotSupported,
    /// The server does not support this type of address.
    AddressTypeNotSupported,
    /// The server got no usable reply from the client's identd (92).
    IdentFailed,
    /// The client's identd reports another user than the request (93).
    UserMismatch,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ReplyError::Rejected => "request rejected or failed",
            ReplyError::NotAllowed => "not permitted by the server's rules",
            ReplyError::NetworkUnreachable => "the network cannot be reached",
            ReplyError::HostUnreachable => "the host cannot be reached, or is unknown",
            ReplyError::ConnectionRefused => "the connection was refused",
            ReplyError::CommandNotSupported => "the server does not support this command",
            ReplyError::AddressTypeNotSupported => {
                "the server does not support this type of address"
            }
            ReplyError::TimedOut => "nothing answered in time",
            ReplyError::IdentFailed => "request rejected: no identd answered on the client's host",
            ReplyError::UserMismatch => "request rejected: identd reports another user",
        })
    }
}

impl std::error::Error for ReplyError {}

/// Why bytes are not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The version byte has another value.
    Version(u8),
    /// The command byte has an unknown value.
    Command(u8),
    /// The user id is longer than [`socks4::MAX_USER`](super::socks4::MAX_USER).
    UserTooLong,
    /// The host name is longer than [`socks4::MAX_NAME`](super::socks4::MAX_NAME).
    NameTooLong,
    /// The code of a reply has an unknown value.
    ReplyCode(u8),
    /// The server has selected a method that this library does not support (SOCKS5).
    Method(u8),
    /// The address type has an unknown value (SOCKS5).
    AddressType(u8),
    /// A reserved byte, which must be zero, is not (SOCKS5).
    Reserved(u8),
    /// A datagram ends within its header (SOCKS5).
    Truncated,
    /// There is no valid header of the PROXY protocol.
    ProxyHeader(ProxyHeaderError),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Version(byte) => write!(out, "invalid version 0x{byte:02x}"),
            ProtocolError::Command(byte) => write!(out, "invalid command {byte}"),
            ProtocolError::UserTooLong => write!(out, "user id over {MAX_USER} bytes"),
            ProtocolError::NameTooLong => write!(out, "host name over {MAX_NAME} bytes"),
            ProtocolError::ReplyCode(byte) => write!(out, "invalid reply code {byte}"),
            ProtocolError::Method(byte) => write!(out, "unknown method 0x{byte:02x}"),
            ProtocolError::AddressType(byte) => write!(out, "invalid address type 0x{byte:02x}"),
            ProtocolError::Reserved(byte) => {
                write!(out, "0x{byte:02x} in a reserved byte, which must be zero")
            }
            ProtocolError::Truncated => out.write_str("it ends within its header"),
            ProtocolError::ProxyHeader(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Why bytes are no header with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// The bytes begin like no header.
    Missing,
    /// The header is valid, and names no TCP client: `UNKNOWN` in version 1, another family
    /// than IPv4 and IPv6 or another protocol than TCP in version 2.
    NoClient,
    /// Version 1: there is no line end within 107 bytes.
    LineTooLong,
    /// Version 1: the line has another form.
    Line,
    /// Version 2: the version has another value.
    Version(u8),
    /// Version 2: the command has an unknown value.
    Command(u8),
    /// Version 2: the address family or the transport protocol has an unknown value.
    Family(u8),
    /// Version 2: the length is too small for the addresses, or larger than addresses
    /// and 4,096 bytes of extensions.
    Length(u16),
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyHeaderError::Missing => out.write_str(
                "its address is in --proxy-from, but it sends no PROXY header; turn the PROXY \
                 protocol on in the proxy, or take the address out of --proxy-from",
            ),
            ProxyHeaderError::NoClient => out.write_str("the proxy does not say who its client is"),
            ProxyHeaderError::LineTooLong => {
                write!(out, "no line end within {MAX_PROXY_LINE} bytes")
            }
            ProxyHeaderError::Line => out.write_str("the line has another form"),
            ProxyHeaderError::Version(version) => write!(out, "invalid version {version}"),
            ProxyHeaderError::Command(command) => write!(out, "invalid command {command}"),
            ProxyHeaderError::Family(family) => {
                write!(out, "invalid family and protocol 0x{family:02x}")
            }
            ProxyHeaderError::Length(length) => write!(out, "invalid length {length}"),
        }
    }
}

impl std::error::Error for ProxyHeaderError {}

/// Why no message could be read.
#[derive(Debug)]
pub enum ReadError {
    /// The stream ended or failed after this many bytes of the message.
    Incomplete(usize, io::Error),
    /// The bytes are not a valid message.
    Protocol(ProtocolError),
}

impl ReadError {
    /// The stream ended after this many bytes of the message.
    pub(crate) fn eof(received: usize) -> ReadError {
        ReadError::Incomplete(received, io::ErrorKind::UnexpectedEof.into())
    }
}

impl From<ProtocolError> for ReadError {
    fn from(error: ProtocolError) -> ReadError {
        ReadError::Protocol(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Incomplete(0, error) => write!(out, "nothing was received: {error}"),
            ReadError::Incomplete(received, error) => {
                write!(out, "it ends after {received} bytes: {error}")
            }
            ReadError::Protocol(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for ReadError {}
