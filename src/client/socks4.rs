//! How to ask a SOCKS4 server.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use threadsocks::client::socks4;
//! use threadsocks::protocol::{Host, Destination};
//!
//! let target = Destination { host: Host::from_name(b"example.org"), port: 80 };
//! let proxy = TcpStream::connect("127.0.0.1:1080")?;
//! let mut remote = socks4::connect(proxy, &target, b"")?;
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

/// Asks the server to connect to this target. Afterwards the stream is the
/// connection to it.
///
/// # Errors
///
/// [`ClientError`]; the stream is closed then, as the server closes its end too.
pub fn connect<S: Read + Write>(
    mut stream: S,
    target: &Destination,
    user: &[u8],
) -> Result<S, ClientError> {
    ask(&mut stream, Command::Connect, target, user)?;
    Ok(stream)
}

/// Asks the server to wait for this target to connect to it; 0.0.0.0 stands
/// for any. Tell the target the address of the [`Binding`], then
/// [`wait`](Binding::wait).
///
/// # Errors
///
/// [`ClientError`], if the server does not even listen.
pub fn bind<S: Read + Write>(
    mut stream: S,
    target: &Destination,
    user: &[u8],
) -> Result<Binding<S>, ClientError> {
    let address = ask(&mut stream, Command::Bind, target, user)?;
    Ok(Binding {
        stream,
        address,
        second: granted,
    })
}

/// What [`bind`] gives. The address 0.0.0.0 means the one at which you reached
/// the server.
pub type Binding<S> = super::Binding<S, SocketAddrV4>;

fn ask<S: Read + Write>(
    stream: &mut S,
    command: Command,
    target: &Destination,
    user: &[u8],
) -> Result<SocketAddrV4, ClientError> {
    let request = Request::new(command, target, user).map_err(ClientError::NotSent)?;
    let sent = stream.write_all(&request.encode());
    sent.and_then(|()| stream.flush())
        .map_err(ClientError::NotSent)?;
    granted(stream)
}

fn granted(stream: &mut impl Read) -> Result<SocketAddrV4, ClientError> {
    let reply = Reply::read(stream).map_err(ClientError::NoReply)?;
    match reply.outcome {
        Ok(()) => Ok(reply.address),
        Err(refusal) => Err(ClientError::Refused(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::scripted::server;
    use crate::protocol::Host;
    use std::net::Ipv4Addr;

    fn destination(name: &str) -> Destination {
        let host = Host::from_name(name.as_bytes());
        Destination { host, port: 80 }
    }

    #[test]
    fn connect_leaves_what_follows_the_reply() {
        let says = b"\x00\x5a\x00\x50\x00\x00\x00\x01hello";
        let stream = connect(server(says), &destination("a.org"), b"me").expect("granted");
        assert_eq!(stream.says, b"hello");
        assert_eq!(
            stream.heard,
            b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00a.org\x00"
        );
    }

    #[test]
    fn bind_reads_two_replies() {
        let says = b"\x00\x5a\x10\x01\x00\x00\x00\x00\x00\x5a\x00\x14\x01\x02\x03\x04data";
        let binding = bind(server(says), &destination("1.2.3.4"), b"").expect("listening");
        let listening = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0x1001);
        assert_eq!(binding.address, listening);
        let (stream, peer) = binding.wait().expect("granted");
        assert_eq!(peer, SocketAddrV4::new(Ipv4Addr::new(1, 2, 3, 4), 20));
        assert_eq!(stream.says, b"data");
    }

    #[test]
    fn every_refusal_is_told_apart() {
        let ask = |says| match connect(server(says), &destination("a.org"), b"") {
            Ok(_) => panic!("granted"),
            Err(error) => error.to_string(),
        };
        for (says, told) in [
            (
                &b"\x00\x5b\x00\x00\x00\x00\x00\x00"[..],
                "rejected or failed",
            ),
            (b"\x00\x5c\x00\x00\x00\x00\x00\x00", "no identd"),
            (b"\x00\x5d\x00\x00\x00\x00\x00\x00", "another user"),
            (b"\x00\x5e\x00\x00\x00\x00\x00\x00", "bad reply code 94"),
            (b"HTTP/1.1 400", "bad version 0x48"),
            (b"\x00\x5a\x00", "after 3 bytes"),
            (b"", "nothing came"),
        ] {
            let error = ask(says);
            assert!(error.contains(told), "{error}");
        }
        let impossible = connect(server(b""), &destination("::1"), b"");
        assert!(matches!(impossible, Err(ClientError::NotSent(_))));
    }
}
