//! SOCKS5 packets, read and written.
//!
//! First both agree on how the client shows who it is (RFC 1928, section 3):
//!
//! ```text
//!      +-----+----------+-..------+          +-----+--------+
//!      | VER | NMETHODS | METHODS |   then   | VER | METHOD |     VER = 05
//!      +-----+----------+-..------+          +-----+--------+     ff: none of them
//! bytes   1       1      0 to 255               1      1
//! ```
//!
//! With method 02 it logs in (RFC 1929):
//!
//! ```text
//!      +-----+------+-..----+------+-..-----+          +-----+--------+
//!      | VER | ULEN | UNAME | PLEN | PASSWD |   then   | VER | STATUS |   VER = 01
//!      +-----+------+-..----+------+-..-----+          +-----+--------+   00: welcome
//! bytes   1     1   0 to 255   1    0 to 255              1      1
//! ```
//!
//! Then it asks, and replies have the same form (RFC 1928, sections 4 and 6):
//!
//! ```text
//!      +-----+-----+-----+------+-..---+------+    CMD = 01 CONNECT, 02 BIND, 03 UDP
//!      | VER | CMD | RSV | ATYP | ADDR | PORT |    ATYP = 01 IPv4: 4 bytes
//!      +-----+-----+-----+------+-..---+------+           03 name: its length, itself
//! bytes   1     1     1     1             2               04 IPv6: 16 bytes
//!
//!        05    01    00    03    05 612e6f7267 0050    CONNECT to a.org:80
//! ```
//!
//! In front of each datagram of a UDP association (section 7) there is the same
//! once more, with 00 00 for VER and CMD and the number of a fragment for RSV.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Command, Destination, Host, ProtocolError, ReadError, ReplyError, read_message};

/// The first byte of a greeting, a request and a reply.
pub const VERSION: u8 = 0x05;

/// The first byte of a login and of the answer to it.
const LOGIN_VERSION: u8 = 0x01;

/// Longest field that a length of one byte can announce.
pub const MAX_FIELD: usize = 255;

/// How long the header of a datagram is that names this address, in bytes.
pub fn udp_header_length(address: IpAddr) -> usize {
    let address = match address.to_canonical() {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    };
    3 + 1 + address + 2
}

const CONNECT: u8 = 0x01;
const BIND: u8 = 0x02;
const ASSOCIATE: u8 = 0x03;

const V4: u8 = 0x01;
const NAME: u8 = 0x03;
const V6: u8 = 0x04;

const GRANTED: u8 = 0x00;

/// A way for the client to show who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// It need not.
    Anonymous,
    /// User and password, in plain text.
    Password,
}

impl Method {
    /// Its number.
    pub fn code(self) -> u8 {
        match self {
            Method::Anonymous => 0x00,
            Method::Password => 0x02,
        }
    }
}

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The numbers of the methods it offers, in its order; perhaps none.
    pub methods: Vec<u8>,
}

impl Greeting {
    /// The greeting as bytes. Methods behind the first 255 cannot be said.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION], &field(&self.methods)[..]].concat()
    }

    /// Takes a greeting off the front of these bytes: the greeting and how many
    /// bytes it has, or `None` while more must come.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the version is another.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Greeting, usize)>, ProtocolError> {
        let Some(rest) = behind_version(bytes, VERSION)? else {
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
    /// [`ReadError`], which tells whether anything came at all.
    pub fn read(stream: &mut impl BufRead) -> Result<Greeting, ReadError> {
        read_message(stream, Greeting::decode)
    }
}

/// The server's answer to a greeting: the method to be used, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodSelection(pub Option<Method>);

impl MethodSelection {
    /// Stands for "no acceptable methods".
    const NONE: u8 = 0xFF;

    /// The choice as bytes.
    pub fn encode(self) -> [u8; 2] {
        [VERSION, self.0.map_or(MethodSelection::NONE, Method::code)]
    }

    /// Takes a choice off the front of these bytes, as [`Greeting::decode`].
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the version is another, or the method is none of ours.
    pub fn decode(bytes: &[u8]) -> Result<Option<(MethodSelection, usize)>, ProtocolError> {
        let Some(&[code, ..]) = behind_version(bytes, VERSION)? else {
            return Ok(None);
        };
        let ours = [Method::Anonymous, Method::Password];
        let method = ours.into_iter().find(|method| method.code() == code);
        match (method, code) {
            (None, MethodSelection::NONE) | (Some(_), _) => Ok(Some((MethodSelection(method), 2))),
            (None, code) => Err(ProtocolError::Method(code)),
        }
    }

    /// Reads one choice and not a byte more.
    ///
    /// # Errors
    ///
    /// [`ReadError`], which tells whether anything came at all.
    pub fn read(stream: &mut impl BufRead) -> Result<MethodSelection, ReadError> {
        read_message(stream, MethodSelection::decode)
    }
}

/// Who the client says it is, and its proof.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Opaque bytes; escape them before printing.
    pub user: Vec<u8>,
    /// Never printed.
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials(\"{}\")", self.user.escape_ascii())
    }
}

impl Credentials {
    /// The login as bytes. What is longer than [`MAX_FIELD`] cannot be said.
    pub fn encode(&self) -> Vec<u8> {
        [
            &[LOGIN_VERSION],
            &field(&self.user)[..],
            &field(&self.password),
        ]
        .concat()
    }

    /// Takes a login off the front of these bytes, as [`Greeting::decode`].
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the version is another.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Credentials, usize)>, ProtocolError> {
        let Some(rest) = behind_version(bytes, LOGIN_VERSION)? else {
            return Ok(None);
        };
        let Some((user, rest)) = split_field(rest) else {
            return Ok(None);
        };
        let Some((password, rest)) = split_field(rest) else {
            return Ok(None);
        };
        let login = Credentials {
            user: user.to_vec(),
            password: password.to_vec(),
        };
        Ok(Some((login, bytes.len() - rest.len())))
    }

    /// Reads one login and not a byte more.
    ///
    /// # Errors
    ///
    /// [`ReadError`], which tells whether anything came at all.
    pub fn read(stream: &mut impl BufRead) -> Result<Credentials, ReadError> {
        read_message(stream, Credentials::decode)
    }
}

/// The server's answer to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStatus {
    /// The user may go on.
    Accepted,
    /// User or password are wrong; the connection ends.
    Denied,
}

impl AuthStatus {
    /// The answer as bytes.
    pub fn encode(self) -> [u8; 2] {
        [LOGIN_VERSION, u8::from(self == AuthStatus::Denied)]
    }

    /// Takes an answer off the front of these bytes, as [`Greeting::decode`]. Any
    /// status but 0 is a no.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the version is another.
    pub fn decode(bytes: &[u8]) -> Result<Option<(AuthStatus, usize)>, ProtocolError> {
        let Some(&[status, ..]) = behind_version(bytes, LOGIN_VERSION)? else {
            return Ok(None);
        };
        let admission = match status {
            0 => AuthStatus::Accepted,
            _ => AuthStatus::Denied,
        };
        Ok(Some((admission, 2)))
    }

    /// Reads one answer and not a byte more.
    ///
    /// # Errors
    ///
    /// [`ReadError`], which tells whether anything came at all.
    pub fn read(stream: &mut impl BufRead) -> Result<AuthStatus, ReadError> {
        read_message(stream, AuthStatus::decode)
    }
}

/// A request, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// CMD: what to do.
    pub command: Command,
    /// DST.ADDR and DST.PORT.
    pub target: Destination,
}

impl Request {
    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let command = match self.command {
            Command::Connect => CONNECT,
            Command::Bind => BIND,
            Command::Associate => ASSOCIATE,
        };
        [&[VERSION, command, 0], &encode_target(&self.target)[..]].concat()
    }

    /// Takes a request off the front of these bytes, as [`Greeting::decode`].
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] as soon as no further byte could make a request of it. What
    /// does not hide the end of the request is told only there, so that the
    /// refusal does not cross with the rest of it.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Request, usize)>, ProtocolError> {
        let Some(&[command, reserved, ref rest @ ..]) = behind_version(bytes, VERSION)? else {
            return Ok(None);
        };
        let Some((target, rest)) = split_target(rest)? else {
            return Ok(None);
        };
        let command = match (command, reserved) {
            (CONNECT, 0) => Command::Connect,
            (BIND, 0) => Command::Bind,
            (ASSOCIATE, 0) => Command::Associate,
            (CONNECT | BIND | ASSOCIATE, other) => return Err(ProtocolError::Reserved(other)),
            (other, _) => return Err(ProtocolError::Command(other)),
        };
        Ok(Some((
            Request { command, target },
            bytes.len() - rest.len(),
        )))
    }

    /// Reads one request and not a byte more.
    ///
    /// # Errors
    ///
    /// [`ReadError`], which tells whether anything came at all.
    pub fn read(stream: &mut impl BufRead) -> Result<Request, ReadError> {
        read_message(stream, Request::decode)
    }
}

/// A reply: the outcome, and an address of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Granted, or why not.
    pub outcome: Result<(), ReplyError>,
    /// BND.ADDR and BND.PORT: where we connect from, where we listen, or who has
    /// come. (Servers that give a name do not follow RFC 1928, but there may be
    /// some.)
    pub bound: Destination,
}

impl Reply {
    /// A reply with a true address.
    pub fn new(outcome: Result<(), ReplyError>, bound: SocketAddr) -> Reply {
        let host = Host::Address(bound.ip().to_canonical());
        let port = bound.port();
        Reply {
            outcome,
            bound: Destination { host, port },
        }
    }

    /// A refusal, for which there is no address.
    pub fn refused(refusal: ReplyError) -> Reply {
        Reply::new(Err(refusal), (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// The reply as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let code = self.outcome.map_or_else(code, |()| GRANTED);
        [&[VERSION, code, 0], &encode_target(&self.bound)[..]].concat()
    }

    /// Takes a reply off the front of these bytes, as [`Greeting::decode`].
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if it is none, or the code is unknown.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
        let Some(&[code, reserved, ref rest @ ..]) = behind_version(bytes, VERSION)? else {
            return Ok(None);
        };
        let outcome = match code {
            GRANTED => Ok(()),
            code => Err(refusal(code).ok_or(ProtocolError::ReplyCode(code))?),
        };
        if reserved != 0 {
            return Err(ProtocolError::Reserved(reserved));
        }
        let Some((bound, rest)) = split_target(rest)? else {
            return Ok(None);
        };
        Ok(Some((Reply { outcome, bound }, bytes.len() - rest.len())))
    }

    /// How many bytes a reply has at least that begins with these: as many may be
    /// asked for by who cannot look ahead. Of a whole one, how many it has.
    pub fn least(bytes: &[u8]) -> usize {
        match *bytes {
            [_, _, _, V4, ..] => 10,
            [_, _, _, NAME, length, ..] => 7 + usize::from(length),
            [_, _, _, V6, ..] => 22,
            // With a name of no letter.
            _ => 7,
        }
    }

    /// Reads one reply and not a byte more.
    ///
    /// # Errors
    ///
    /// [`ReadError`], which tells whether anything came at all.
    pub fn read(stream: &mut impl BufRead) -> Result<Reply, ReadError> {
        read_message(stream, Reply::decode)
    }
}

/// What stands in front of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// FRAG: 0 for a datagram that is whole.
    pub fragment: u8,
    /// Where it is to go, or where it came from.
    pub target: Destination,
}

impl UdpHeader {
    /// The header as bytes, to be followed by the data.
    pub fn encode(&self) -> Vec<u8> {
        [&[0, 0, self.fragment], &encode_target(&self.target)[..]].concat()
    }

    /// Splits a datagram of a client into header and data.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if it has no whole header.
    pub fn split(datagram: &[u8]) -> Result<(UdpHeader, &[u8]), ProtocolError> {
        let (head, rest) = datagram
            .split_first_chunk()
            .ok_or(ProtocolError::Truncated)?;
        let &[reserved_1, reserved_2, fragment] = head;
        if let Some(other) = [reserved_1, reserved_2].into_iter().find(|&it| it != 0) {
            return Err(ProtocolError::Reserved(other));
        }
        let (target, data) = split_target(rest)?.ok_or(ProtocolError::Truncated)?;
        Ok((UdpHeader { fragment, target }, data))
    }
}

/// The code of a refusal, RFC 1928, section 6.
pub fn code(refusal: ReplyError) -> u8 {
    match refusal {
        ReplyError::Rejected => 0x01,
        // Both are decisions of ours, which is all that SOCKS5 can say of them.
        ReplyError::NotAllowed | ReplyError::IdentFailed | ReplyError::UserMismatch => 0x02,
        ReplyError::NetworkUnreachable => 0x03,
        ReplyError::HostUnreachable => 0x04,
        ReplyError::ConnectionRefused => 0x05,
        ReplyError::TimedOut => 0x06,
        ReplyError::CommandNotSupported => 0x07,
        ReplyError::AddressTypeNotSupported => 0x08,
    }
}

fn refusal(code: u8) -> Option<ReplyError> {
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

/// What is behind the version byte, which must be this one; `None` if nothing
/// has come.
fn behind_version(bytes: &[u8], version: u8) -> Result<Option<&[u8]>, ProtocolError> {
    match bytes.split_first() {
        None => Ok(None),
        Some((&first, rest)) if first == version => Ok(Some(rest)),
        Some((&other, _)) => Err(ProtocolError::Version(other)),
    }
}

/// A field behind its length; what is too long for that is left out.
fn field(bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.get(..MAX_FIELD).unwrap_or(bytes);
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [&[length], bytes].concat()
}

/// A field behind its length, and what follows; `None` while more must come.
fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// ATYP, address and port. A name is sent as it is, usable or not.
fn encode_target(target: &Destination) -> Vec<u8> {
    let (kind, address) = match &target.host {
        Host::Address(IpAddr::V4(ip)) => (V4, ip.octets().to_vec()),
        Host::Address(IpAddr::V6(ip)) => (V6, ip.octets().to_vec()),
        Host::Name(name) => (NAME, field(name.as_str().as_bytes())),
        Host::Invalid(bad) => (NAME, field(&bad.bytes)),
    };
    [&[kind], &address[..], &target.port.to_be_bytes()].concat()
}

/// ATYP, address and port, and what follows; `None` while more must come.
fn split_target(bytes: &[u8]) -> Result<Option<(Destination, &[u8])>, ProtocolError> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let split = match kind {
        V4 => rest
            .split_first_chunk()
            .map(|(&octets, rest): (&[u8; 4], _)| {
                (Host::Address(Ipv4Addr::from(octets).into()), rest)
            }),
        V6 => rest
            .split_first_chunk()
            .map(|(&octets, rest): (&[u8; 16], _)| {
                (Host::Address(Ipv6Addr::from(octets).into()), rest)
            }),
        NAME => split_field(rest).map(|(name, rest)| (host(name), rest)),
        other => return Err(ProtocolError::AddressType(other)),
    };
    let Some((host, rest)) = split else {
        return Ok(None);
    };
    let Some((&port, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let port = u16::from_be_bytes(port);
    Ok(Some((Destination { host, port }, rest)))
}

/// The host in a field for names. There are clients, Chromium among them, that put
/// addresses of IPv6 there too, as text.
fn host(name: &[u8]) -> Host {
    let text = std::str::from_utf8(name).unwrap_or_default();
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Host::Address(address.into()),
        Err(_) => Host::from_name(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;
    use std::io::{BufReader, Read};

    /// Read from pieces of every size, with something behind it that must stay.
    fn read_exactly<T: Debug + PartialEq>(
        bytes: &[u8],
        expected: &T,
        read: fn(&mut BufReader<&[u8]>) -> Result<T, ReadError>,
    ) {
        let with_more = [bytes, b"\x05early"].concat();
        for piece in 1..=with_more.len() {
            let mut stream = BufReader::with_capacity(piece, &with_more[..]);
            assert_eq!(
                &read(&mut stream).expect("a message"),
                expected,
                "{bytes:?}"
            );
            let mut left = Vec::new();
            stream.read_to_end(&mut left).expect("the rest");
            assert_eq!(left, b"\x05early");
        }
        for length in 0..bytes.len() {
            match read(&mut BufReader::new(&bytes[..length])) {
                Err(ReadError::Incomplete(received, _)) => assert_eq!(received, length),
                other => panic!("{other:?} from {length} bytes of {bytes:?}"),
            }
        }
    }

    fn to(host: Host, port: u16) -> Destination {
        Destination { host, port }
    }

    /// Bytes from ATYP on, and what they mean.
    fn targets() -> Vec<(Vec<u8>, Destination)> {
        let longest = [&[b'a'; 63][..], b"."].concat().repeat(4);
        let longest = &longest[..253];
        let name = |name: &[u8]| {
            let length = u8::try_from(name.len()).expect("a short name");
            [&[NAME, length], name, &[0, 80]].concat()
        };
        let mut v6 = vec![V6];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend([1, 187]);
        vec![
            (
                vec![V4, 140, 113, 1, 2, 0x12, 0x34],
                to(Host::Address([140, 113, 1, 2].into()), 0x1234),
            ),
            (v6, to(Host::Address(Ipv6Addr::LOCALHOST.into()), 443)),
            (name(b"a.org"), to(Host::from_name(b"a.org"), 80)),
            (name(longest), to(Host::from_name(longest), 80)),
        ]
    }

    #[test]
    fn messages_are_read_exactly_in_any_pieces() {
        for methods in [vec![], vec![0], vec![0, 2], vec![1; 255]] {
            let greeting = Greeting { methods };
            read_exactly(&greeting.encode(), &greeting, |it| Greeting::read(it));
        }
        for choice in [None, Some(Method::Anonymous), Some(Method::Password)].map(MethodSelection) {
            read_exactly(&choice.encode(), &choice, |it| MethodSelection::read(it));
        }
        for (user, password) in [(0, 0), (1, 1), (5, 255), (255, 255), (255, 0)] {
            let login = Credentials {
                user: vec![0xFF; user],
                password: vec![0; password],
            };
            read_exactly(&login.encode(), &login, |it| Credentials::read(it));
        }
        for admission in [AuthStatus::Accepted, AuthStatus::Denied] {
            read_exactly(&admission.encode(), &admission, |it| AuthStatus::read(it));
        }
        for (bytes, target) in targets() {
            for (code, command) in [
                (CONNECT, Command::Connect),
                (BIND, Command::Bind),
                (ASSOCIATE, Command::Associate),
            ] {
                let target = target.clone();
                let request = Request { command, target };
                let bytes = [&[5, code, 0], &bytes[..]].concat();
                assert_eq!(request.encode(), bytes);
                read_exactly(&bytes, &request, |it| Request::read(it));
            }
            let bound = target.clone();
            let reply = Reply {
                outcome: Ok(()),
                bound,
            };
            let bytes = [&[5, 0, 0], &bytes[..]].concat();
            assert_eq!(reply.encode(), bytes);
            read_exactly(&bytes, &reply, |it| Reply::read(it));
            let least = |length| Reply::least(&bytes[..length]);
            assert!((0..bytes.len()).all(|it| it < least(it) && least(it) <= bytes.len()));
            assert_eq!(least(bytes.len()), bytes.len());
        }
    }

    #[test]
    fn every_code_has_its_refusal() {
        for number in 1..=8 {
            let outcome = Err(refusal(number).expect("a code of RFC 1928"));
            let reply = Reply::new(outcome, ([10, 0, 0, 1], 7).into());
            let bytes = [5, number, 0, 1, 10, 0, 0, 1, 0, 7];
            assert_eq!(reply.encode(), bytes);
            assert_eq!(Reply::decode(&bytes), Ok(Some((reply, 10))));
        }
        for number in 9..=255 {
            let bytes = [5, number, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(Reply::decode(&bytes), Err(ProtocolError::ReplyCode(number)));
        }
        assert_eq!(
            code(ReplyError::IdentFailed),
            code(ReplyError::UserMismatch)
        );
        // IPv4 in IPv6's clothes is told as IPv4.
        let mapped = "[::ffff:10.0.0.1]:7".parse().expect("an address");
        let reply = Reply::new(Ok(()), mapped).encode();
        assert_eq!(reply, [5, 0, 0, 1, 10, 0, 0, 1, 0, 7]);
    }

    #[test]
    fn what_is_no_request_is_told_by_the_byte_that_is_wrong() {
        let with = |version, command, reserved, kind| {
            let bytes = [
                version, command, reserved, kind, 1, b'a', 0, 80, 0, 80, 0, 80,
            ];
            Request::decode(&bytes).map(|_| ())
        };
        for other in (0..=255).filter(|&it| it != 5) {
            assert_eq!(with(other, 1, 0, NAME), Err(ProtocolError::Version(other)));
        }
        for other in (0..=255).filter(|it| !(1..=3).contains(it)) {
            assert_eq!(with(5, other, 0, NAME), Err(ProtocolError::Command(other)));
            // Not before the request is whole.
            assert_eq!(Request::decode(&[5, other, 0, NAME, 1, b'a', 0]), Ok(None));
        }
        for other in 1..=255 {
            assert_eq!(with(5, 1, other, NAME), Err(ProtocolError::Reserved(other)));
        }
        for other in (0..=255).filter(|it| ![V4, NAME, V6].contains(it)) {
            assert_eq!(with(5, 1, 0, other), Err(ProtocolError::AddressType(other)));
        }
        for (bytes, why) in [
            (&[4, 1][..], ProtocolError::Version(4)),
            (&[5, 1], ProtocolError::Method(1)),
            (&[5, 3], ProtocolError::Method(3)),
        ] {
            assert_eq!(MethodSelection::decode(bytes), Err(why));
        }
        assert_eq!(Greeting::decode(&[4]), Err(ProtocolError::Version(4)));
        assert_eq!(Credentials::decode(&[5]), Err(ProtocolError::Version(5)));
        assert_eq!(AuthStatus::decode(&[5]), Err(ProtocolError::Version(5)));
        let other_no = AuthStatus::decode(&[1, 7]);
        assert_eq!(other_no, Ok(Some((AuthStatus::Denied, 2))));
    }

    #[test]
    fn a_name_of_any_bytes_is_a_field_and_perhaps_no_name() {
        for name in [&b""[..], b"a\0b", b"127.1", b"[::1]", &[0xFF; 255]] {
            let length = u8::try_from(name.len()).expect("short");
            let bytes = [&[5, 1, 0, NAME, length], name, &[0, 80]].concat();
            let (request, count) = Request::decode(&bytes)
                .expect("well formed")
                .expect("whole");
            assert_eq!(count, bytes.len());
            assert!(matches!(request.target.host, Host::Invalid(_)), "{name:?}");
            assert_eq!(request.encode(), bytes);
        }
        for (text, address) in [
            ("127.0.0.1", IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ("::1", Ipv6Addr::LOCALHOST.into()),
        ] {
            let length = u8::try_from(text.len()).expect("short");
            let bytes = [&[5, 1, 0, NAME, length], text.as_bytes(), &[0, 80]].concat();
            let (request, _) = Request::decode(&bytes)
                .expect("well formed")
                .expect("whole");
            assert_eq!(request.target.host, Host::Address(address));
        }
    }

    #[test]
    fn a_datagram_is_split_behind_its_header() {
        for (bytes, target) in targets() {
            let header = UdpHeader {
                fragment: 0,
                target,
            };
            let head = [&[0, 0, 0], &bytes[..]].concat();
            assert_eq!(header.encode(), head);
            for data in [&b""[..], b"data"] {
                let datagram = [&head[..], data].concat();
                assert_eq!(UdpHeader::split(&datagram), Ok((header.clone(), data)));
            }
            for length in 0..head.len() {
                assert_eq!(
                    UdpHeader::split(&head[..length]),
                    Err(ProtocolError::Truncated)
                );
            }
        }
        let split = |bytes: &[u8]| UdpHeader::split(bytes).map(|(header, _)| header.fragment);
        assert_eq!(split(&[0, 0, 9, V4, 1, 1, 1, 1, 0, 0]), Ok(9));
        assert_eq!(
            split(&[1, 0, 0, V4, 1, 1, 1, 1, 0, 0]),
            Err(ProtocolError::Reserved(1))
        );
        assert_eq!(
            split(&[0, 2, 0, V4, 1, 1, 1, 1, 0, 0]),
            Err(ProtocolError::Reserved(2))
        );
        assert_eq!(
            split(&[0, 0, 0, 2, 1, 1, 1, 1, 0, 0]),
            Err(ProtocolError::AddressType(2))
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let login = Credentials {
            user: b"al\x1b".to_vec(),
            password: b"secret".to_vec(),
        };
        assert_eq!(format!("{login:?}"), "Credentials(\"al\\x1b\")");
    }
}
