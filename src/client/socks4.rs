//! Requests to a SOCKS4 server.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use threadsocks::client::socks4;
//! use threadsocks::protocol::{Host, Destination};
//!
//! let destination = Destination { host: Host::from_name(b"example.org"), port: 80 };
//! let proxy = TcpStream::connect("127.0.0.1:1080")?;
//! let mut remote = socks4::connect(proxy, &destination, b"")?;
//! remote.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//! let mut page = String::new();
//! remote.read_to_string(&mut page)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{Read, Write};
use std::net::SocketAddrV4;

use super::ClientError;
use crate::protocol::socks4::{Reply, Request};
use crate::protocol::{Command, Destination};

/// Requests a connection to this destination. The stream that is returned is relayed to
/// it.
///
/// # Errors
///
/// [`ClientError`]; the stream is dropped, since the server closes its end too.
pub fn connect<S: Read + Write>(
    mut stream: S,
    destination: &Destination,
    user: &[u8],
) -> Result<S, ClientError> {
    send_request(&mut stream, Command::Connect, destination, user)?;
    Ok(stream)
}

/// Requests that the server accept one connection from this destination; 0.0.0.0 means
/// from any host. Send the address of the [`Binding`] to the peer, then call
/// [`wait`](Binding::wait).
///
/// # Errors
///
/// [`ClientError`] if the server does not listen.
pub fn bind<S: Read + Write>(
    mut stream: S,
    destination: &Destination,
    user: &[u8],
) -> Result<Binding<S>, ClientError> {
    let address = send_request(&mut stream, Command::Bind, destination, user)?;
    Ok(Binding {
        stream,
        address,
        read_second_reply: read_granted_reply,
    })
}

/// The result of [`bind`]. The address 0.0.0.0 means the address at which the client has
/// reached the server.
pub type Binding<S> = super::Binding<S, SocketAddrV4>;

/// Sends a request and returns the address of its first reply.
fn send_request<S: Read + Write>(
    stream: &mut S,
    command: Command,
    destination: &Destination,
    user: &[u8],
) -> Result<SocketAddrV4, ClientError> {
    let request = Request::new(command, destination, user).map_err(ClientError::NotSent)?;
    let sent = stream.write_all(&request.encode());
    sent.and_then(|()| stream.flush())
        .map_err(ClientError::NotSent)?;
    read_granted_reply(stream)
}

/// Reads one reply; its address if it is granted.
fn read_granted_reply(stream: &mut impl Read) -> Result<SocketAddrV4, ClientError> {
    let reply = Reply::read(stream).map_err(ClientError::NoReply)?;
    match reply.outcome {
        Ok(()) => Ok(reply.address),
        Err(error) => Err(ClientError::Refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::scripted_server::server;
    use crate::protocol::Host;
    use std::net::Ipv4Addr;

    fn destination(name: &str) -> Destination {
        let host = Host::from_name(name.as_bytes());
        Destination { host, port: 80 }
    }

    #[test]
    fn connect_leaves_data_after_the_reply_in_the_stream() {
        let replies = b"\x00\x5a\x00\x50\x00\x00\x00\x01hello";
        let stream = connect(server(replies), &destination("a.org"), b"me").expect("granted");
        assert_eq!(stream.replies, b"hello");
        assert_eq!(
            stream.received,
            b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00a.org\x00"
        );
    }

    #[test]
    fn bind_reads_two_replies() {
        let replies = b"\x00\x5a\x10\x01\x00\x00\x00\x00\x00\x5a\x00\x14\x01\x02\x03\x04data";
        let binding = bind(server(replies), &destination("1.2.3.4"), b"").expect("listening");
        let listening = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0x1001);
        assert_eq!(binding.address, listening);
        let (stream, peer) = binding.wait().expect("granted");
        assert_eq!(peer, SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, 4), 20));
        assert_eq!(stream.replies, b"data");
    }

    #[test]
    fn each_refusal_has_its_own_error() {
        let error_of = |replies| match connect(server(replies), &destination("a.org"), b"") {
            Ok(_) => panic!("granted"),
            Err(error) => error.to_string(),
        };
        for (replies, expected) in [
            (
                &b"\x00\x5b\x00\x00\x00\x00\x00\x00"[..],
                "rejected or failed",
            ),
            (b"\x00\x5c\x00\x00\x00\x00\x00\x00", "no identd"),
            (b"\x00\x5d\x00\x00\x00\x00\x00\x00", "another user"),
            (b"\x00\x5e\x00\x00\x00\x00\x00\x00", "invalid reply code 94"),
            (b"HTTP/1.1 400", "invalid version 0x48"),
            (b"\x00\x5a\x00", "after 3 bytes"),
            (b"", "nothing was received"),
        ] {
            let error = error_of(replies);
            assert!(error.contains(expected), "{error}");
        }
        let outcome = connect(server(b""), &destination("::1"), b"");
        assert!(matches!(outcome, Err(ClientError::NotSent(_))));
    }
}
