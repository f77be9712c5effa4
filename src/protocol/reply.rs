//! Replies in the version of the client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::error::ReplyError;
use super::{socks4, socks5};

/// Encodes replies in the version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyEncoder {
    /// SOCKS4 or SOCKS4A, with DSTIP and DSTPORT of the request: most replies repeat them.
    Socks4(SocketAddrV4),
    /// SOCKS5. Its replies have addresses of the server instead.
    Socks5,
}

impl ReplyEncoder {
    /// The version in one word, for programs that read the log or the metrics.
    pub fn word(self) -> &'static str {
        match self {
            ReplyEncoder::Socks4(_) => "socks4",
            ReplyEncoder::Socks5 => "socks5",
        }
    }

    /// The reply to CONNECT: the server has connected from this address.
    pub fn connected(self, from: SocketAddr) -> Vec<u8> {
        match self {
            ReplyEncoder::Socks4(requested) => socks4_reply(Ok(()), requested),
            ReplyEncoder::Socks5 => socks5::Reply::new(Ok(()), from).encode(),
        }
    }

    /// The first reply to BIND, or the reply to UDP ASSOCIATE: the server listens at this
    /// port. `local` is the server's own address, as far as it is known. `advertised` takes
    /// its place for IPv4, if the operator has set it.
    pub fn listening(self, port: u16, local: IpAddr, advertised: Option<Ipv4Addr>) -> Vec<u8> {
        match self {
            ReplyEncoder::Socks4(_) => {
                // The client takes 0.0.0.0 for the address at which it has reached the
                // server (SOCKS4.protocol).
                let ip = advertised.unwrap_or(Ipv4Addr::UNSPECIFIED);
                socks4_reply(Ok(()), SocketAddrV4::new(ip, port))
            }
            ReplyEncoder::Socks5 => {
                // An advertised IPv4 address is of no use to a peer that connects by IPv6.
                let ip = match advertised {
                    Some(advertised) if local.to_canonical().is_ipv4() => advertised.into(),
                    _ => local,
                };
                socks5::Reply::new(Ok(()), SocketAddr::new(ip, port)).encode()
            }
        }
    }

    /// The second reply to BIND: a peer has connected from this address.
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

    /// The request is refused.
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
