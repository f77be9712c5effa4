//! Requests to a SOCKS5 server.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use threadsocks::client::socks5;
//! use threadsocks::protocol::socks5::Credentials;
//! use threadsocks::protocol::{Host, Destination};
//!
//! let destination = Destination { host: Host::from_name(b"example.org"), port: 80 };
//! let credentials = Credentials { user: b"me".to_vec(), password: b"secret".to_vec() };
//! let proxy = TcpStream::connect("127.0.0.1:1080")?;
//! let (mut remote, _) = socks5::connect(proxy, Some(&credentials), &destination)?;
//! remote.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//! let mut page = String::new();
//! remote.read_to_string(&mut page)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The caller provides the UDP socket for datagrams:
//!
//! ```no_run
//! use std::net::{TcpStream, UdpSocket};
//! use threadsocks::client::socks5;
//! use threadsocks::protocol::{Host, Destination};
//!
//! let control = TcpStream::connect("127.0.0.1:1080")?;
//! let reached = control.peer_addr()?.ip();
//! let socket = UdpSocket::bind("127.0.0.1:0")?;
//! let association = socks5::associate(control, None, reached, socket.local_addr()?)?;
//! let destination = Destination { host: Host::from_name(b"ntp.example.org"), port: 123 };
//! association.send(&socket, &[0x23; 48], &destination)?;
//! let mut buffer = vec![0; 65_536];
//! let (from, time) = association.receive(&socket, &mut buffer)?;
//! println!("{} bytes from {from}", time.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::ClientError;
use crate::protocol::socks5::{
    AuthStatus, Credentials, Greeting, MAX_FIELD, Method, MethodSelection, Reply, Request,
    UdpHeader,
};
use crate::protocol::{Command, Destination, Host, ProtocolError, ReadError};

/// Requests a connection to this destination. The stream that is returned is relayed to
/// it. The address beside it is the server's own on that connection (BND.ADDR and
/// BND.PORT); some servers send 0.0.0.0 instead.
///
/// # Errors
///
/// [`ClientError`]; the stream is dropped, since the server closes its end too.
pub fn connect<S: Read + Write>(
    mut stream: S,
    credentials: Option<&Credentials>,
    destination: &Destination,
) -> Result<(S, Destination), ClientError> {
    let bound = send_request(&mut stream, credentials, Command::Connect, destination)?;
    Ok((stream, bound))
}

/// Requests that the server accept one connection from this destination. RFC 1928 gives
/// no meaning to 0.0.0.0; most servers then accept any host. Send the address of the
/// [`Binding`] to the peer, then call [`wait`](super::Binding::wait).
///
/// # Errors
///
/// [`ClientError`] if the server does not listen.
pub fn bind<S: Read + Write>(
    mut stream: S,
    credentials: Option<&Credentials>,
    destination: &Destination,
) -> Result<Binding<S>, ClientError> {
    let address = send_request(&mut stream, credentials, Command::Bind, destination)?;
    Ok(Binding {
        stream,
        address,
        read_second_reply: read_granted_reply,
    })
}

/// The result of [`bind`]. The addresses 0.0.0.0 and :: mean the address at which the
/// client has reached the server. A name does not follow RFC 1928, but is accepted.
pub type Binding<S> = super::Binding<S, Destination>;

/// Requests a UDP association (RFC 1928, section 7).
///
/// `reached` is the address at which the client has reached the server: the `peer_addr` of
/// the control stream. It replaces an unspecified address in the reply. `from` is the
/// address from which the datagrams will come, as the server sees it; an unspecified
/// address or port 0 means that it is not known yet.
///
/// # Errors
///
/// [`ClientError`]; also if the reply has a name instead of an address.
pub fn associate<S: Read + Write>(
    mut control: S,
    credentials: Option<&Credentials>,
    reached: IpAddr,
    from: SocketAddr,
) -> Result<Association<S>, ClientError> {
    let from = Destination {
        host: Host::Address(from.ip().to_canonical()),
        port: from.port(),
    };
    let bound = send_request(&mut control, credentials, Command::Associate, &from)?;
    let Some(bound_ip) = bound.host.address().map(|ip| ip.to_canonical()) else {
        let error = ProtocolError::AddressType(0x03);
        return Err(ClientError::NoReply(error.into()));
    };
    let ip = if bound_ip.is_unspecified() {
        reached.to_canonical()
    } else {
        bound_ip
    };
    let relay = SocketAddr::new(ip, bound.port);
    Ok(Association { control, relay })
}

/// A UDP association. The server ends it when the control stream is closed, and thus when
/// this value is dropped.
#[derive(Debug)]
pub struct Association<S> {
    control: S,
    /// In canonical form: an IPv4-mapped IPv6 address is stored as IPv4.
    relay: SocketAddr,
}

impl<S> Association<S> {
    /// The stream of the request. The server sends nothing more on it; EOF means that the
    /// association has ended.
    pub fn control(&self) -> &S {
        &self.control
    }

    /// The server's address for datagrams: it receives the client's datagrams there, and
    /// sends the remotes' datagrams from there.
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// Sends these bytes to this destination through the server, which drops a datagram
    /// that it does not permit, without a reply.
    ///
    /// # Errors
    ///
    /// Those of the socket, and [`ErrorKind::InvalidInput`] for an invalid host name.
    pub fn send(
        &self,
        socket: &UdpSocket,
        data: &[u8],
        destination: &Destination,
    ) -> io::Result<()> {
        check_destination(destination)?;
        let header = UdpHeader {
            fragment: 0,
            destination: destination.clone(),
        };
        let datagram = [&header.encode(), data].concat();
        // The count needs no check: a datagram is sent whole or not at all.
        socket.send_to(&datagram, self.relay).map(|_| ())
    }

    /// Waits for a datagram, at most for the read timeout of the socket. Returns the
    /// remote that has sent it to the server, and its data.
    ///
    /// The buffer must be one byte longer than the longest datagram with its header (10
    /// bytes with IPv4, 22 with IPv6); 65,536 bytes are always enough.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; the association remains usable.
    pub fn receive<'a>(
        &self,
        socket: &UdpSocket,
        buffer: &'a mut [u8],
    ) -> Result<(Destination, &'a [u8]), ReceiveError> {
        let (count, from) = socket.recv_from(buffer).map_err(ReceiveError::Failed)?;
        if (from.ip().to_canonical(), from.port()) != (self.relay.ip(), self.relay.port()) {
            return Err(ReceiveError::UnknownSender(from));
        }
        // recv(2) cuts a datagram that is longer than the buffer, without an error.
        let Some(datagram) = buffer
            .get(..count)
            .filter(|datagram| datagram.len() < buffer.len())
        else {
            return Err(ReceiveError::Truncated);
        };
        match UdpHeader::split(datagram) {
            Ok((header, data)) if header.fragment == 0 => Ok((header.destination, data)),
            Ok((header, _)) => Err(ReceiveError::Fragment(header.fragment)),
            Err(error) => Err(ReceiveError::InvalidHeader(error)),
        }
    }
}

/// Why no usable datagram was received.
#[derive(Debug)]
pub enum ReceiveError {
    /// The socket failed, or its read timeout is over.
    Failed(io::Error),
    /// The datagram does not come from the server.
    UnknownSender(SocketAddr),
    /// The datagram fills the whole buffer; its end may be lost.
    Truncated,
    /// A fragment with this FRAG. Reassembly is optional in RFC 1928; no server is known
    /// to send fragments.
    Fragment(u8),
    /// The header is incomplete or invalid.
    InvalidHeader(ProtocolError),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Failed(error) => write!(out, "no datagram was received: {error}"),
            ReceiveError::UnknownSender(from) => {
                write!(out, "a datagram from another sender, {from}")
            }
            ReceiveError::Truncated => out.write_str("a datagram that fills the whole buffer"),
            ReceiveError::Fragment(number) => write!(out, "a fragment, number {number}"),
            ReceiveError::InvalidHeader(error) => write!(out, "an invalid datagram: {error}"),
        }
    }
}

impl std::error::Error for ReceiveError {}

/// Negotiates, logs in and sends a request. Returns the address of the first reply.
fn send_request<S: Read + Write>(
    stream: &mut S,
    credentials: Option<&Credentials>,
    command: Command,
    destination: &Destination,
) -> Result<Destination, ClientError> {
    // Before the first byte is sent: the server must not wait for half a handshake.
    check_destination(destination).map_err(ClientError::NotSent)?;
    authenticate(stream, credentials)?;
    let request = Request {
        command,
        destination: destination.clone(),
    };
    send(stream, &request.encode())?;
    read_granted_reply(stream)
}

/// Negotiates the method (RFC 1928, section 3), and logs in if the server selects
/// user and password (RFC 1929).
fn authenticate<S: Read + Write>(
    stream: &mut S,
    credentials: Option<&Credentials>,
) -> Result<(), ClientError> {
    let mut methods = vec![Method::Anonymous.code()];
    if let Some(credentials) = credentials {
        check_credentials(credentials).map_err(ClientError::NotSent)?;
        methods.push(Method::Password.code());
    }
    send(stream, &Greeting { methods }.encode())?;
    let MethodSelection(method) = read_message(stream, |_| 2, MethodSelection::decode)?;
    match (method, credentials) {
        (Some(Method::Anonymous), _) => Ok(()),
        (Some(Method::Password), Some(credentials)) => {
            send(stream, &credentials.encode())?;
            match read_message(stream, |_| 2, AuthStatus::decode)? {
                AuthStatus::Accepted => Ok(()),
                AuthStatus::Denied => Err(ClientError::LoginDenied),
            }
        }
        (None, _) | (Some(Method::Password), None) => Err(ClientError::NoMethod),
    }
}

/// Reads one reply; its address if it is granted.
fn read_granted_reply(stream: &mut impl Read) -> Result<Destination, ClientError> {
    let reply = read_message(stream, Reply::min_length, Reply::decode)?;
    match reply.outcome {
        Ok(()) => Ok(reply.bound),
        Err(error) => Err(ClientError::Refused(error)),
    }
}

/// Refuses an invalid host name. It could be encoded, but no server should resolve it.
fn check_destination(destination: &Destination) -> io::Result<()> {
    match &destination.host {
        Host::Invalid(name) => Err(io::Error::new(ErrorKind::InvalidInput, name.to_string())),
        Host::Address(_) | Host::Name(_) => Ok(()),
    }
}

/// Refuses longer fields: encoding would cut them, and the result could be valid
/// credentials of another user.
fn check_credentials(credentials: &Credentials) -> io::Result<()> {
    if credentials.user.len().max(credentials.password.len()) <= MAX_FIELD {
        return Ok(());
    }
    let reason = "user and password have at most 255 bytes in SOCKS5";
    Err(io::Error::new(ErrorKind::InvalidInput, reason))
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<(), ClientError> {
    let sent = stream.write_all(bytes).and_then(|()| stream.flush());
    sent.map_err(ClientError::NotSent)
}

/// Decodes a message at the beginning of the bytes received, as [`Reply::decode`].
type Decode<T> = fn(&[u8]) -> Result<Option<(T, usize)>, ProtocolError>;

/// Reads one message and not a byte more. The stream cannot be peeked, so each read takes
/// at most the bytes that the message needs at least.
fn read_message<T>(
    stream: &mut impl Read,
    min_length: fn(&[u8]) -> usize,
    decode: Decode<T>,
) -> Result<T, ClientError> {
    let mut received = Vec::new();
    loop {
        let message = decode(&received).map_err(|error| ClientError::NoReply(error.into()))?;
        if let Some((message, _)) = message {
            return Ok(message);
        }
        let missing = min_length(&received).saturating_sub(received.len());
        let mut part = [0; 64];
        match stream.by_ref().take(missing as u64).read(&mut part) {
            Ok(0) => return Err(ClientError::NoReply(ReadError::eof(received.len()))),
            Ok(count) => received.extend(part.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let error = ReadError::Incomplete(received.len(), error);
                return Err(ClientError::NoReply(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::scripted_server::server;
    use crate::protocol::ReplyError;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn destination(name: &str) -> Destination {
        let host = Host::from_name(name.as_bytes());
        Destination { host, port: 80 }
    }

    fn credentials(user: &str, password: &str) -> Credentials {
        let [user, password] = [user, password].map(|text| text.as_bytes().to_vec());
        Credentials { user, password }
    }

    #[test]
    fn connect_offers_the_supported_methods_and_returns_the_bound_address() {
        let request = b"\x05\x01\x00\x03\x05a.org\x00\x50";
        let me = credentials("me", "pass");
        for (credentials, replies, negotiation, address) in [
            (
                None,
                &b"\x05\x00\x05\x00\x00\x01\x0a\x00\x00\x01\x10\x01hello"[..],
                &b"\x05\x01\x00"[..],
                "10.0.0.1:4097",
            ),
            // The server may select no authentication although a login was offered.
            (
                Some(&me),
                b"\x05\x00\x05\x00\x00\x03\x01a\x10\x01hello",
                b"\x05\x02\x00\x02",
                "a:4097",
            ),
            (
                Some(&me),
                b"\x05\x02\x01\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0hello",
                b"\x05\x02\x00\x02\x01\x02me\x04pass",
                "[::1]:0",
            ),
        ] {
            let (stream, bound) =
                connect(server(replies), credentials, &destination("a.org")).expect("granted");
            assert_eq!(stream.replies, b"hello");
            assert_eq!(stream.received, [negotiation, request].concat());
            assert_eq!(bound.to_string(), address);
        }
    }

    #[test]
    fn bind_returns_both_addresses_of_any_type() {
        let replies = b"\x05\x00\
            \x05\x00\x00\x04\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\x10\x01\
            \x05\x00\x00\x03\x05b.org\x00\x14data";
        let binding = bind(server(replies), None, &destination("1.2.3.4")).expect("listening");
        let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
        let listening = Destination {
            host: Host::Address(ip.into()),
            port: 0x1001,
        };
        assert_eq!(binding.address, listening);
        let (stream, peer) = binding.wait().expect("granted");
        assert_eq!(peer.to_string(), "b.org:20");
        assert_eq!(stream.replies, b"data");
        let request = b"\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50";
        assert_eq!(stream.received, [b"\x05\x01\x00", &request[..]].concat());
    }

    #[test]
    fn each_refusal_has_its_own_error() {
        let me = credentials("me", "");
        for (credentials, replies, expected) in [
            (None, &b"\x05\xff"[..], "none of the methods offered"),
            // The server selects a method that was not offered.
            (None, b"\x05\x02", "none of the methods offered"),
            (Some(&me), b"\x05\x02\x01\x01", "denied the login"),
            (Some(&me), b"\x05\x02\x05\x00", "invalid version 0x05"),
            (Some(&me), b"\x05\x01", "unknown method 0x01"),
            (
                None,
                b"\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0",
                "server's rules",
            ),
            (None, b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", "was refused"),
            (
                None,
                b"\x05\x00\x05\x09\x00\x01\0\0",
                "invalid reply code 9",
            ),
            (None, b"\x05\x00\x05\x00\x00\x02\0\0", "address type 0x02"),
            (None, b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0", "after 9 bytes"),
            (None, b"\x05\x00\x05\x00\x00\x03", "after 4 bytes"),
            (None, b"\x05\x00", "nothing was received"),
            (None, b"\x05", "after 1 bytes"),
            (None, b"HTTP/1.1 400", "invalid version 0x48"),
        ] {
            let Err(error) = connect(server(replies), credentials, &destination("a.org")) else {
                panic!("granted by {replies:?}");
            };
            let error = error.to_string();
            assert!(error.contains(expected), "{error} for {replies:?}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_encoded_is_not_sent() {
        let long = "x".repeat(256);
        for (credentials, host) in [
            (None, "a b"),
            (Some(credentials(&long, "")), "a.org"),
            (Some(credentials("me", &long)), "a.org"),
        ] {
            let mut stream = server(b"\x05\x00");
            let outcome = send_request(
                &mut stream,
                credentials.as_ref(),
                Command::Connect,
                &destination(host),
            );
            let Err(ClientError::NotSent(error)) = outcome else {
                panic!("{outcome:?} with {host}");
            };
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(stream.received, b"");
        }
    }

    #[test]
    fn an_unspecified_relay_address_means_the_address_of_the_server() {
        let reached = IpAddr::from([10, 0, 0, 9]);
        let from = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let relay_address = |replies| {
            let association = associate(server(replies), None, reached, from)?;
            let request = b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0";
            assert_eq!(association.control().received, request);
            Ok(association.relay().to_string())
        };
        for (replies, expected) in [
            (
                &b"\x05\x00\x05\x00\x00\x01\x0a\x00\x00\x01\x10\x01"[..],
                "10.0.0.1:4097",
            ),
            (b"\x05\x00\x05\x00\x00\x01\0\0\0\0\x10\x01", "10.0.0.9:4097"),
            (
                b"\x05\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\x01",
                "10.0.0.9:4097",
            ),
            // An IPv4-mapped IPv6 address.
            (
                b"\x05\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0\x10\x01",
                "10.0.0.9:4097",
            ),
        ] {
            let address: Result<String, ClientError> = relay_address(replies);
            assert_eq!(address.expect("granted"), expected);
        }
        let named = relay_address(b"\x05\x00\x05\x00\x00\x03\x05a.org\x10\x01");
        let name_type = ProtocolError::AddressType(3);
        assert!(
            matches!(named, Err(ClientError::NoReply(ReadError::Protocol(error))) if error == name_type)
        );
        let refused = relay_address(b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0");
        let not_supported = ReplyError::CommandNotSupported;
        assert!(matches!(refused, Err(ClientError::Refused(error)) if error == not_supported));
    }

    /// Two sockets: the client's, and one that stands for the server's.
    fn sockets() -> [UdpSocket; 2] {
        [(); 2].map(|()| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            let timeout = std::time::Duration::from_secs(20);
            socket.set_read_timeout(Some(timeout)).expect("set");
            socket
        })
    }

    fn association_with(relay: &UdpSocket) -> Association<()> {
        let relay = relay.local_addr().expect("its address");
        let control = ();
        Association { control, relay }
    }

    #[test]
    fn datagrams_are_wrapped_and_unwrapped() {
        let [socket, relay] = sockets();
        let association = association_with(&relay);
        for (host, data) in [("a.org", &b"data"[..]), ("1.2.3.4", b"")] {
            let destination = destination(host);
            association.send(&socket, data, &destination).expect("sent");
            let mut datagram = [0; 64];
            let (count, from) = relay.recv_from(&mut datagram).expect("a datagram");
            let header = UdpHeader {
                fragment: 0,
                destination: destination.clone(),
            };
            let whole = [&header.encode(), data].concat();
            assert_eq!(datagram[..count], whole);
            relay.send_to(&whole, from).expect("sent back");
            // The shortest buffer that shows that the datagram was not cut.
            let mut buffer = vec![0; whole.len() + 1];
            let received = association.receive(&socket, &mut buffer).expect("received");
            assert_eq!(received, (destination, data));
        }
        let unsent = association.send(&socket, b"data", &destination("a b"));
        assert_eq!(
            unsent.expect_err("an invalid name").kind(),
            ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_datagram_from_another_sender_or_without_a_valid_header_is_an_error() {
        let [socket, relay] = sockets();
        let [other, _] = sockets();
        let association = association_with(&relay);
        let whole = b"\0\0\0\x01\x01\x02\x03\x04\x00\x50";
        let fragment = b"\0\0\x07\x01\x01\x02\x03\x04\x00\x50";
        for (from, datagram, expected) in [
            (&other, &whole[..], "from another sender, 127.0.0.1:"),
            (&relay, fragment, "number 7"),
            (&relay, b"", "ends within its header"),
            (&relay, b"\0\0\0\x01\x01\x02\x03\x04\x00", "ends within its"),
            (
                &relay,
                b"\0\x09\0\x01\x01\x02\x03\x04\0\0",
                "0x09 in a reserved byte",
            ),
            (&relay, &[0; 32], "invalid address type 0x00"),
            (&relay, &[0; 64], "fills the whole buffer"),
            (&relay, &[0; 65], "fills the whole buffer"),
        ] {
            let to = socket.local_addr().expect("its address");
            from.send_to(datagram, to).expect("sent");
            let mut buffer = [0; 64];
            let error = association.receive(&socket, &mut buffer);
            let error = error.expect_err("not a valid datagram").to_string();
            assert!(error.contains(expected), "{error} for {datagram:?}");
        }
        socket.set_nonblocking(true).expect("set");
        let mut buffer = [0; 64];
        let received = association.receive(&socket, &mut buffer);
        assert!(
            matches!(received, Err(ReceiveError::Failed(_))),
            "{received:?}"
        );
    }
}
