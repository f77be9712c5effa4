//! What a client is told, in the language it speaks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::error::ReplyError;
use super::{socks4, socks5};

/// The language of a request, in which it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyEncoder {
    /// SOCKS4 or SOCKS4A, with DSTPORT and DSTIP of the request: most replies
    /// repeat them.
    Socks4(SocketAddrV4),
    /// SOCKS5, whose replies have addresses of ours.
    Socks5,
}

impl ReplyEncoder {
    /// Can it speak of addresses of IPv6?
    pub fn supports_ipv6(self) -> bool {
        match self {
            ReplyEncoder::Socks4(_) => false,
            ReplyEncoder::Socks5 => true,
        }
    }

    /// The target is connected to, from this address.
    pub fn connected(self, from: SocketAddr) -> Vec<u8> {
        match self {
            ReplyEncoder::Socks4(requested) => socks4_reply(Ok(()), requested),
            ReplyEncoder::Socks5 => socks5::Reply::new(Ok(()), from).encode(),
        }
    }

    /// The target is awaited at this port. `here` is our address as far as we know,
    /// and `advertised` the one to connect to by IPv4, if that is another.
    pub fn listening(self, port: u16, local: IpAddr, advertised: Option<Ipv4Addr>) -> Vec<u8> {
        match self {
            // Which the client replaces by the one that it knows.
            ReplyEncoder::Socks4(_) => {
                let ip = advertised.unwrap_or(Ipv4Addr::UNSPECIFIED);
                socks4_reply(Ok(()), SocketAddrV4::new(ip, port))
            }
            ReplyEncoder::Socks5 => {
                // Who is to come by IPv6 must be told where that leads.
                let ip = match advertised {
                    Some(advertised) if local.to_canonical().is_ipv4() => advertised.into(),
                    _ => local,
                };
                socks5::Reply::new(Ok(()), SocketAddr::new(ip, port)).encode()
            }
        }
    }

    /// The target has come, from this address.
    pub fn accepted(self, peer: SocketAddr) -> Vec<u8> {
        match self {
            ReplyEncoder::Socks4(_) => {
                let ip = match peer.ip().to_canonical() {
                    IpAddr::V4(ip) => ip,
                    IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
                };
                socks4_reply(Ok(()), SocketAddrV4::new(ip, peer.port()))
            }
            ReplyEncoder::Socks5 => socks5::Reply::new(Ok(()), peer).encode(),
        }
    }

    /// The request is not granted.
    pub fn refused(self, error: ReplyError) -> Vec<u8> {
        match self {
            ReplyEncoder::Socks4(requested) => socks4_reply(Err(error), requested),
            ReplyEncoder::Socks5 => socks5::Reply::refused(error).encode(),
        }
    }
}

impl fmt::Display for ReplyEncoder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ReplyEncoder::Socks4(_) => "SOCKS4",
            ReplyEncoder::Socks5 => "SOCKS5",
        })
    }
}

fn socks4_reply(outcome: Result<(), ReplyError>, address: SocketAddrV4) -> Vec<u8> {
    socks4::Reply { outcome, address }.encode().to_vec()
}
