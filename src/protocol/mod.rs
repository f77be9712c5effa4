//! Bytes on the wire become values here, with nothing opened, started or timed.
//!
//! Both directions of every message live side by side, so that the server, the
//! client, the console and the tests share one codec. This file has the words
//! all protocol versions share; [`socks4`] and [`socks5`] have the packets.

mod host;
pub mod ident;
mod reply;
pub mod socks4;
pub mod socks5;

pub use host::{Host, HostName, InvalidHostName};
pub use reply::ReplyEncoder;

use std::fmt;
use std::io::{self, BufRead};
use std::net::SocketAddr;

/// Which language a client speaks, told by the first byte it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `04`: SOCKS4 or SOCKS4A.
    Socks4,
    /// `05`: SOCKS5.
    Socks5,
    /// Anything else is not SOCKS; the byte is kept for the operator.
    Unknown(u8),
}

impl Version {
    /// Tells the language from the first byte.
    pub fn of(first: u8) -> Version {
        match first {
            socks4::VERSION => Version::Socks4,
            socks5::VERSION => Version::Socks5,
            other => Version::Unknown(other),
        }
    }
}

/// What a client asks the server to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Connect to the target and relay.
    Connect,
    /// Wait for the target to connect to us and relay.
    Bind,
    /// Relay datagrams; SOCKS5 only.
    Associate,
}

impl fmt::Display for Command {
    /// Writes the words of the screen message: `CONNECT`, `BIND` or `UDP ASSOCIATE`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Command::Connect => "CONNECT",
            Command::Bind => "BIND",
            Command::Associate => "UDP ASSOCIATE",
        })
    }
}

/// The far end a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// By address or by name.
    pub host: Host,
    /// TCP port, 0 to 65535.
    pub port: u16,
}

impl fmt::Display for Destination {
    /// Writes `example.org:80`, `10.0.0.1:80` or `[2001:db8::1]:80`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, port).fmt(out),
            host => write!(out, "{host}:{port}"),
        }
    }
}

/// Why the client does not get what it asked for: all it will ever be told.
///
/// The operator learns more, from the session's
/// [`RequestError`](crate::events::RequestError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Request rejected or failed. SOCKS4 has no other word for those that
    /// follow (91).
    Rejected,
    /// The rules do not permit it.
    NotAllowed,
    /// There is no way to the network.
    NetworkUnreachable,
    /// There is no way to the host, or it has no address.
    HostUnreachable,
    /// Nobody listens there.
    ConnectionRefused,
    /// Nothing answered within the limit.
    TimedOut,
    /// The server does not know this command.
    CommandNotSupported,
    /// The server does not know this kind of address.
    AddressTypeNotSupported,
    /// The server got no usable answer from the client's identd (92).
    IdentFailed,
    /// The identd reports another user than the request (93).
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
            ReplyError::CommandNotSupported => "the server does not know the command",
            ReplyError::AddressTypeNotSupported => "the server does not know this kind of address",
            ReplyError::TimedOut => "nothing answered in time",
            ReplyError::IdentFailed => "request rejected: no identd answered on the client's host",
            ReplyError::UserMismatch => "request rejected: identd reports another user",
        })
    }
}

/// Bytes that are no message of the protocol, and what was wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The version byte has another value.
    Version(u8),
    /// The command byte has an unknown value.
    Command(u8),
    /// The user id is longer than [`socks4::MAX_USER`].
    UserTooLong,
    /// The host name is longer than [`socks4::MAX_NAME`].
    NameTooLong,
    /// The result code of a reply has an unknown value.
    ReplyCode(u8),
    /// The method that was chosen is none of ours (SOCKS5).
    Method(u8),
    /// The byte for the kind of an address has an unknown value (SOCKS5).
    AddressType(u8),
    /// A byte that must be zero is not (SOCKS5).
    Reserved(u8),
    /// A datagram ends within its header (SOCKS5).
    Truncated,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Version(byte) => write!(out, "bad version 0x{byte:02x}"),
            ProtocolError::Command(byte) => write!(out, "bad command {byte}"),
            ProtocolError::UserTooLong => write!(out, "user id over {} bytes", socks4::MAX_USER),
            ProtocolError::NameTooLong => write!(out, "host name over {} bytes", socks4::MAX_NAME),
            ProtocolError::ReplyCode(byte) => write!(out, "bad reply code {byte}"),
            ProtocolError::Method(byte) => write!(out, "unknown method 0x{byte:02x}"),
            ProtocolError::AddressType(byte) => write!(out, "bad kind of address 0x{byte:02x}"),
            ProtocolError::Reserved(byte) => write!(out, "0x{byte:02x} where zero belongs"),
            ProtocolError::Truncated => out.write_str("it ends within its header"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Why no message could be read.
#[derive(Debug)]
pub enum ReadError {
    /// The stream ended or failed after this many bytes of the message.
    Incomplete(usize, io::Error),
    /// The bytes are no message.
    Protocol(ProtocolError),
}

impl ReadError {
    /// The stream ended after this many bytes of the message.
    pub(crate) fn ended(received: usize) -> ReadError {
        ReadError::Incomplete(received, io::ErrorKind::UnexpectedEof.into())
    }
}

impl From<ProtocolError> for ReadError {
    fn from(malformed: ProtocolError) -> ReadError {
        ReadError::Protocol(malformed)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Incomplete(0, error) => write!(out, "nothing came: {error}"),
            ReadError::Incomplete(received, error) => {
                write!(out, "it broke off after {received} bytes: {error}")
            }
            ReadError::Protocol(malformed) => malformed.fmt(out),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads one message and not a byte more: what the client sent early stays in the
/// stream for the relay. `decode` takes a message off the front of the bytes that
/// have come, and tells its length, or `None` while more must come.
fn read_message<T>(
    stream: &mut impl BufRead,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, ProtocolError>,
) -> Result<T, ReadError> {
    let mut seen = Vec::new();
    loop {
        let chunk = match stream.fill_buf() {
            Ok([]) => return Err(ReadError::ended(seen.len())),
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReadError::Incomplete(seen.len(), error)),
        };
        let before = seen.len();
        seen.extend_from_slice(chunk);
        if let Some((message, length)) = decode(&seen)? {
            stream.consume(length - before);
            return Ok(message);
        }
        // No byte of an incomplete message belongs to anyone else.
        stream.consume(seen.len() - before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_as_an_address_with_its_port() {
        for (host, written) in [
            (&b"10.0.0.1"[..], "10.0.0.1:80"),
            (b"Example.org.", "example.org:80"),
        ] {
            let host = Host::from_name(host);
            assert_eq!(Destination { host, port: 80 }.to_string(), written);
        }
        let host = Host::Address(std::net::Ipv6Addr::LOCALHOST.into());
        assert_eq!(Destination { host, port: 80 }.to_string(), "[::1]:80");
    }
}
