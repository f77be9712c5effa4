//! SOCKS4 and SOCKS4A: their messages as bytes and as values.
//!
//! A request (SOCKS4.protocol by Ying-Da Lee; the name is SOCKS4A's addition,
//! present when the address is 0.0.0.x with x not 0):
//!
//! ```text
//!      +----+----+----+----+----+----+----+----+----+-..-+----+----+-..-+----+
//!      | VN | CD | DSTPORT |      DSTIP        | USERID  | 00 | [NAME   | 00] |
//!      +----+----+----+----+----+----+----+----+----+-..-+----+----+-..-+----+
//! bytes   1    1      2              4          variable   1   variable    1
//!
//!        04 01=CONNECT  big-endian                    for example
//!           02=BIND                04 01 0050 00000001 616c6963 00 612e6f7267 00
//! ```
//!
//! A reply:
//!
//! ```text
//!      +----+----+----+----+----+----+----+----+
//!      | VN | CD | DSTPORT |      DSTIP        |    VN = 00
//!      +----+----+----+----+----+----+----+----+    CD = 5a granted, 5b rejected,
//! bytes   1    1      2              4                   5c no identd, 5d other user
//! ```

use std::io::{self, BufRead, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::error::{ProtocolError, ReadError, ReplyError};
use super::host::Host;
use super::read::read_message;
use super::types::{Command, Destination, Version};

/// Longest user id in bytes. RFC 1413 allows no longer one in an IDENT reply.
pub const MAX_USER: usize = super::error::MAX_USER;

/// Longest name field in bytes: a domain name has at most 255 (RFC 1035).
pub const MAX_NAME: usize = super::error::MAX_NAME;

/// Bytes of a request before the user id.
const FIXED_LENGTH: usize = 8;

/// Length of a reply in bytes.
pub const REPLY_LENGTH: usize = 8;

/// The version byte of a reply is 0, not 4.
const REPLY_VERSION: u8 = 0x00;

// CD of a request.
const CONNECT: u8 = 0x01;
const BIND: u8 = 0x02;

// CD of a reply.
const GRANTED: u8 = 0x5A;
const REJECTED: u8 = 0x5B;
const NO_IDENT: u8 = 0x5C;
const OTHER_USER: u8 = 0x5D;

/// A request, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// CD.
    pub command: Command,
    /// DSTIP and DSTPORT.
    pub address: SocketAddrV4,
    /// USERID: any bytes except zero; escape them before printing.
    pub user: Vec<u8>,
    /// NAME, which SOCKS4A adds: any bytes except zero. Present exactly when the address is
    /// 0.0.0.x with x not 0.
    pub name: Option<Vec<u8>>,
}

impl Request {
    /// A request for this destination. An address is sent as SOCKS4, because some servers
    /// do not implement SOCKS4A. A name is sent as SOCKS4A, and the server looks it up.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if SOCKS4 cannot encode the request: UDP ASSOCIATE, an IPv6 address,
    /// an address that announces a name, an invalid name, or a user id with a zero byte or
    /// more than [`MAX_USER`] bytes.
    pub fn new(command: Command, destination: &Destination, user: &[u8]) -> io::Result<Request> {
        let invalid = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        if command == Command::Associate {
            return invalid("SOCKS4 has no UDP");
        }
        if user.len() > MAX_USER || user.contains(&0) {
            return invalid("a SOCKS4 user id has at most 512 bytes and no zero");
        }
        let (ip, name) = match &destination.host {
            Host::Address(IpAddr::V4(ip)) if announces_name(*ip) => {
                return invalid("SOCKS4 cannot carry the addresses 0.0.0.1 to 0.0.0.255");
            }
            Host::Address(IpAddr::V4(ip)) => (*ip, None),
            Host::Address(IpAddr::V6(_)) => return invalid("SOCKS4 has no IPv6 addresses"),
            Host::Name(name) => {
                let name = name.as_requested().as_bytes().to_vec();
                (Ipv4Addr::new(0, 0, 0, 1), Some(name))
            }
            Host::Invalid(name) => return invalid(name.reason),
        };
        Ok(Request {
            command,
            address: SocketAddrV4::new(ip, destination.port),
            user: user.to_vec(),
            name,
        })
    }

    /// The destination: the name, or else the address, with the port.
    pub fn destination(&self) -> Destination {
        let host = match &self.name {
            Some(name) => Host::from_name_field(name),
            None => Host::Address(IpAddr::V4(*self.address.ip())),
        };
        Destination {
            host,
            port: self.address.port(),
        }
    }

    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let command = match self.command {
            Command::Connect => CONNECT,
            Command::Bind => BIND,
            // Unknown in SOCKS4, so that a server refuses it. `new` makes no such request.
            Command::Associate => 0x03,
        };
        let mut bytes = vec![Version::SOCKS4, command];
        bytes.extend(self.address.port().to_be_bytes());
        bytes.extend(self.address.ip().octets());
        bytes.extend(&self.user);
        bytes.push(0);
        if let Some(name) = &self.name {
            bytes.extend(name);
            bytes.push(0);
        }
        bytes
    }

    /// Decodes a request at the beginning of these bytes: the request and its length in
    /// bytes, or `None` while more must come.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] as soon as no further byte can make a valid request of these. An
    /// unknown command is reported only at the end of the request, so that the reply does
    /// not cross the rest of the request.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Request, usize)>, ProtocolError> {
        match bytes.first() {
            None => return Ok(None),
            Some(&Version::SOCKS4) => {}
            Some(&other) => return Err(ProtocolError::Version(other)),
        }
        let Some((&[_, command, p1, p0, a, b, c, d], rest)) =
            bytes.split_first_chunk::<FIXED_LENGTH>()
        else {
            return Ok(None);
        };
        let ip = Ipv4Addr::new(a, b, c, d);
        let Some((user, rest)) = split_at_zero(rest, MAX_USER, ProtocolError::UserTooLong)? else {
            return Ok(None);
        };
        let (name, rest) = if announces_name(ip) {
            match split_at_zero(rest, MAX_NAME, ProtocolError::NameTooLong)? {
                Some((name, rest)) => (Some(name.to_vec()), rest),
                None => return Ok(None),
            }
        } else {
            (None, rest)
        };
        let command = match command {
            CONNECT => Command::Connect,
            BIND => Command::Bind,
            other => return Err(ProtocolError::Command(other)),
        };
        let request = Request {
            command,
            address: SocketAddrV4::new(ip, u16::from_be_bytes([p1, p0])),
            user: user.to_vec(),
            name,
        };
        Ok(Some((request, bytes.len() - rest.len())))
    }

    /// Reads one request and not a byte more: data that the client sends before the reply
    /// stay in the stream for the relay.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a request.
    pub fn read(stream: &mut impl BufRead) -> Result<Request, ReadError> {
        read_message(stream, Request::decode)
    }
}

/// Does this DSTIP announce a name (SOCKS4A)? The value of the last byte has no meaning.
fn announces_name(ip: Ipv4Addr) -> bool {
    matches!(ip.octets(), [0, 0, 0, 1..=255])
}

/// A field, and the bytes after its zero.
type FieldAndRest<'a> = (&'a [u8], &'a [u8]);

/// Splits off a field that ends with a zero byte; `None` while the zero has not come.
///
/// A field that is too long is an error before its zero: the bytes to keep stay bounded.
fn split_at_zero(
    bytes: &[u8],
    max_length: usize,
    too_long: ProtocolError,
) -> Result<Option<FieldAndRest<'_>>, ProtocolError> {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    match (parts.next(), parts.next()) {
        (Some(field), _) if field.len() > max_length => Err(too_long),
        (Some(field), Some(rest)) => Ok(Some((field, rest))),
        _ => Ok(None),
    }
}

/// CD of a reply with this error: 91, 92 or 93.
pub fn code(error: ReplyError) -> u8 {
    match error {
        ReplyError::IdentFailed => NO_IDENT,
        ReplyError::UserMismatch => OTHER_USER,
        ReplyError::Rejected
        | ReplyError::NotAllowed
        | ReplyError::NetworkUnreachable
        | ReplyError::HostUnreachable
        | ReplyError::ConnectionRefused
        | ReplyError::TimedOut
        | ReplyError::CommandNotSupported
        | ReplyError::AddressTypeNotSupported => REJECTED,
    }
}

/// A reply: the outcome with the port and address fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Granted, or why not.
    pub outcome: Result<(), ReplyError>,
    /// DSTPORT and DSTIP. A reply to CONNECT repeats those of the request. The first reply
    /// to BIND has the address at which the server listens; 0.0.0.0 means the address at
    /// which the client has reached the server. The second has the address of the peer.
    pub address: SocketAddrV4,
}

impl Reply {
    /// The reply to bytes that are not a valid request: no port or address is known.
    pub const REJECTED: Reply = Reply {
        outcome: Err(ReplyError::Rejected),
        address: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
    };

    /// The reply as bytes.
    pub fn encode(&self) -> [u8; REPLY_LENGTH] {
        let code = match self.outcome {
            Ok(()) => GRANTED,
            Err(error) => code(error),
        };
        let [p1, p0] = self.address.port().to_be_bytes();
        let [a, b, c, d] = self.address.ip().octets();
        [REPLY_VERSION, code, p1, p0, a, b, c, d]
    }

    /// Decodes the eight bytes of a reply.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the version is not 0 or the code is unknown.
    pub fn decode(bytes: [u8; REPLY_LENGTH]) -> Result<Reply, ProtocolError> {
        let [version, code, p1, p0, a, b, c, d] = bytes;
        if version != REPLY_VERSION {
            return Err(ProtocolError::Version(version));
        }
        let outcome = match code {
            GRANTED => Ok(()),
            REJECTED => Err(ReplyError::Rejected),
            NO_IDENT => Err(ReplyError::IdentFailed),
            OTHER_USER => Err(ReplyError::UserMismatch),
            other => return Err(ProtocolError::ReplyCode(other)),
        };
        let address = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p1, p0]));
        Ok(Reply { outcome, address })
    }

    /// Reads one reply and not a byte more.
    ///
    /// # Errors
    ///
    /// The stream ends too early, or the bytes are not a reply.
    pub fn read(stream: &mut impl Read) -> Result<Reply, ReadError> {
        let mut bytes = [0; REPLY_LENGTH];
        let mut received = 0;
        while let Some(rest) = bytes.get_mut(received..).filter(|rest| !rest.is_empty()) {
            received += match stream.read(rest) {
                Ok(0) => return Err(ReadError::eof(received)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(ReadError::Incomplete(received, error)),
            };
        }
        Ok(Reply::decode(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;
    use std::net::Ipv6Addr;

    /// Bytes, the request at their beginning, and the bytes that must stay unread.
    fn requests() -> Vec<(&'static [u8], Request, &'static [u8])> {
        let request = |command, ip: [u8; 4], port, user: &[u8], name: Option<&[u8]>| Request {
            command,
            address: SocketAddrV4::new(ip.into(), port),
            user: user.to_vec(),
            name: name.map(<[u8]>::to_vec),
        };
        vec![
            (
                b"\x04\x01\x00\x50\x8c\x71\x01\x02\x00",
                request(Command::Connect, [140, 113, 1, 2], 80, b"", None),
                b"",
            ),
            (
                b"\x04\x02\x12\x34\x7f\x00\x00\x01alice\x00early",
                request(Command::Bind, [127, 0, 0, 1], 0x1234, b"alice", None),
                b"early",
            ),
            (
                b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00a.org\x00\x16\x03",
                request(Command::Connect, [0, 0, 0, 1], 443, b"", Some(b"a.org")),
                b"\x16\x03",
            ),
            (
                b"\x04\x02\x00\x15\x00\x00\x00\xffbob\x00\x00\x00",
                request(Command::Bind, [0, 0, 0, 255], 21, b"bob", Some(b"")),
                b"\x00",
            ),
            // 0.0.0.0 announces no name: the bytes after the user id are data.
            (
                b"\x04\x02\x00\x00\x00\x00\x00\x00\x00name\x00",
                request(Command::Bind, [0, 0, 0, 0], 0, b"", None),
                b"name\x00",
            ),
            (
                b"\x04\x01\x00\x01\x00\x00\x01\x01\xff\x1b\r\n\x00x",
                request(Command::Connect, [0, 0, 1, 1], 1, b"\xff\x1b\r\n", None),
                b"x",
            ),
        ]
    }

    #[test]
    fn h01_h02_a_request_is_read_exactly_in_chunks_of_any_size() {
        for (bytes, request, rest) in requests() {
            for chunk in 1..=bytes.len() {
                let mut stream = BufReader::with_capacity(chunk, bytes);
                let read = Request::read(&mut stream).expect("a request");
                assert_eq!(read, request);
                let mut left = Vec::new();
                stream.read_to_end(&mut left).unwrap();
                assert_eq!(left, rest, "{bytes:?} in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn h01_every_split_into_two_and_three_pieces_gives_the_same_request() {
        for (bytes, request, rest) in requests() {
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = bytes[..first].chain(&bytes[first..second]);
                    let mut stream = pieces.chain(&bytes[second..]);
                    assert_eq!(Request::read(&mut stream).expect("a request"), request);
                    let mut left = Vec::new();
                    stream.read_to_end(&mut left).unwrap();
                    assert_eq!(left, rest);
                }
            }
        }
    }

    #[test]
    fn h04_every_proper_prefix_is_incomplete() {
        for (bytes, _, rest) in requests() {
            for length in 0..bytes.len() - rest.len() {
                assert_eq!(Request::decode(&bytes[..length]), Ok(None));
                match Request::read(&mut &bytes[..length]) {
                    Err(ReadError::Incomplete(received, _)) => assert_eq!(received, length),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn encode_then_decode_is_identity() {
        for (bytes, request, rest) in requests() {
            let encoded = request.encode();
            assert_eq!(encoded, bytes[..bytes.len() - rest.len()]);
            assert_eq!(
                Request::decode(&encoded),
                Ok(Some((request, encoded.len())))
            );
        }
    }

    #[test]
    fn d01_the_last_byte_of_an_address_that_announces_a_name_is_ignored() {
        for x in 1..=255 {
            let bytes = [4, 1, 0, 80, 0, 0, 0, x, 0, b'h', 0];
            let (request, length) = Request::decode(&bytes).unwrap().expect("complete");
            assert_eq!(length, bytes.len());
            assert_eq!(request.destination().host, Host::from_name(b"h"));
        }
    }

    #[test]
    fn d02_d03_an_address_that_does_not_announce_a_name_is_an_address() {
        for address in [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]] {
            let head = [&[4, 1, 0, 80], &address[..], &[0]].concat();
            let bytes = [&head[..], b"early\x00"].concat();
            let (request, length) = Request::decode(&bytes).unwrap().expect("complete");
            assert_eq!(length, head.len(), "no name is read");
            let expected = Host::Address(Ipv4Addr::from(address).into());
            assert_eq!(request.destination().host, expected);
        }
    }

    #[test]
    fn c14_port_and_address_are_in_network_byte_order() {
        for x in 0..=255 {
            let bytes = [4, 1, x, 7, 9, x, 2, 3, 0];
            let (request, _) = Request::decode(&bytes).unwrap().expect("complete");
            let destination = request.destination();
            assert_eq!(destination.port, u16::from(x) * 256 + 7);
            assert_eq!(destination.host.to_string(), format!("9.{x}.2.3"));
        }
    }

    #[test]
    fn h07_h08_fields_at_their_limit_pass_and_one_byte_more_is_refused_at_once() {
        let head = [4, 1, 0, 80, 0, 0, 0, 1];
        let with = |user: usize, name: usize| {
            [&head[..], &vec![b'u'; user], &[0], &vec![b'n'; name], &[0]].concat()
        };
        let longest = with(MAX_USER, MAX_NAME);
        let (request, length) = Request::decode(&longest).unwrap().expect("complete");
        assert_eq!((request.user.len(), length), (MAX_USER, longest.len()));

        let user = [&head[..], &[b'u'; MAX_USER + 1]].concat();
        assert_eq!(Request::decode(&user), Err(ProtocolError::UserTooLong));
        assert_eq!(Request::decode(&user[..user.len() - 1]), Ok(None));

        let name = with(3, MAX_NAME + 1);
        let unfinished = &name[..name.len() - 1];
        assert_eq!(Request::decode(unfinished), Err(ProtocolError::NameTooLong));
        assert_eq!(Request::decode(&name), Err(ProtocolError::NameTooLong));
        assert_eq!(
            Request::decode(&unfinished[..unfinished.len() - 1]),
            Ok(None)
        );
    }

    #[test]
    fn h10_h13_another_version_is_refused_at_the_first_byte_and_an_unknown_command_at_the_last() {
        for byte in (0..=255).filter(|&byte| byte != Version::SOCKS4) {
            assert_eq!(Request::decode(&[byte]), Err(ProtocolError::Version(byte)));
        }
        for byte in (0..=255).filter(|&byte| byte != CONNECT && byte != BIND) {
            let bytes = [4, byte, 0, 80, 1, 2, 3, 4, b'u', 0];
            assert_eq!(Request::decode(&bytes[..9]), Ok(None));
            assert_eq!(Request::decode(&bytes), Err(ProtocolError::Command(byte)));
        }
    }

    #[test]
    fn a_request_is_made_only_for_a_destination_that_socks4_can_encode() {
        let make = |host: Host, user: &[u8]| {
            let destination = Destination { host, port: 80 };
            Request::new(Command::Connect, &destination, user).map(|request| request.encode())
        };
        let address = Host::Address(Ipv4Addr::new(1, 2, 3, 4).into());
        let bytes = make(address.clone(), b"me").unwrap();
        assert_eq!(bytes, b"\x04\x01\x00\x50\x01\x02\x03\x04me\x00");
        let bytes = make(Host::from_name(b"A.org."), b"").unwrap();
        assert_eq!(bytes, b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a.org.\x00");

        let v6 = Host::Address(Ipv6Addr::LOCALHOST.into());
        let announces_name = Host::Address(Ipv4Addr::new(0, 0, 0, 7).into());
        for host in [v6, announces_name, Host::from_name(b"127.1")] {
            assert!(make(host.clone(), b"").is_err(), "{host}");
        }
        assert!(make(address.clone(), b"a\x00b").is_err());
        assert!(make(address, &[b'u'; MAX_USER + 1]).is_err());
    }

    #[test]
    fn replies_are_read_exactly_and_survive_the_round_trip() {
        for (outcome, code) in [
            (Ok(()), 90),
            (Err(ReplyError::Rejected), 91),
            (Err(ReplyError::IdentFailed), 92),
            (Err(ReplyError::UserMismatch), 93),
        ] {
            let reply = Reply {
                outcome,
                address: SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, 4), 0x0506),
            };
            let bytes = [0, code, 5, 6, 1, 2, 3, 4];
            assert_eq!(reply.encode(), bytes);
            let with_data = [&bytes[..], b"data"].concat();
            for chunk in 1..=with_data.len() {
                let mut stream = BufReader::with_capacity(chunk, &with_data[..]);
                assert_eq!(Reply::read(&mut stream).expect("a reply"), reply);
                let mut left = Vec::new();
                stream.read_to_end(&mut left).unwrap();
                assert_eq!(left, b"data");
            }
        }
    }

    #[test]
    fn an_invalid_reply_is_reported() {
        let error_of = |bytes: [u8; 8]| Reply::decode(bytes).unwrap_err();
        assert_eq!(
            error_of([4, 90, 0, 0, 0, 0, 0, 0]),
            ProtocolError::Version(4)
        );
        assert_eq!(
            error_of([0, 89, 0, 0, 0, 0, 0, 0]),
            ProtocolError::ReplyCode(89)
        );
        match Reply::read(&mut &[0, 90, 1][..]) {
            Err(ReadError::Incomplete(3, error)) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
            other => panic!("{other:?}"),
        }
    }
}
