//! The terms that all versions of the protocol share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::host::Host;

/// The version of a client, which the first byte determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `04`: SOCKS4 or SOCKS4A.
    Socks4,
    /// `05`: SOCKS5.
    Socks5,
    /// Any other byte is not SOCKS; it is kept for the log.
    Unknown(u8),
}

impl Version {
    /// The first byte of a SOCKS4 request.
    pub(super) const SOCKS4: u8 = 0x04;

    /// The first byte of each SOCKS5 message except the login.
    pub(super) const SOCKS5: u8 = 0x05;

    /// The version with this first byte.
    pub fn of(first: u8) -> Version {
        match first {
            Version::SOCKS4 => Version::Socks4,
            Version::SOCKS5 => Version::Socks5,
            other => Version::Unknown(other),
        }
    }
}

/// The command of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Connect to the destination and relay.
    Connect,
    /// Wait for the destination to connect to the server, and relay.
    Bind,
    /// Relay datagrams; SOCKS5 only.
    Associate,
}

impl Command {
    /// The command in one word, for programs that read the log or the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Command::Connect => "connect",
            Command::Bind => "bind",
            Command::Associate => "associate",
        }
    }
}

impl fmt::Display for Command {
    /// Writes the term of the screen message: `CONNECT`, `BIND` or `UDP ASSOCIATE`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Command::Connect => "CONNECT",
            Command::Bind => "BIND",
            Command::Associate => "UDP ASSOCIATE",
        })
    }
}

/// The destination of a request or a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// By address or by name.
    pub host: Host,
    /// TCP or UDP port, 0 to 65535.
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

/// The same socket address, with an IPv4-mapped IPv6 address (`::ffff:1.2.3.4`) as IPv4 and
/// without a zone: the form in which addresses are compared and judged.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The same socket address, with an IPv4-mapped IPv6 address as IPv4. A link-local IPv6
/// address keeps its zone (the scope id), without which it cannot be reached.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_written_with_its_port() {
        for (host, written) in [
            (&b"10.0.0.1"[..], "10.0.0.1:80"),
            (b"Example.org", "example.org:80"),
            (b"Example.org.", "example.org.:80"),
            (b"[::1]", "[::1]:80"),
        ] {
            let host = Host::from_name_field(host);
            assert_eq!(Destination { host, port: 80 }.to_string(), written);
        }
    }
}
