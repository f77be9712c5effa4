//! The client side of the protocol: requests to a SOCKS server.
//!
//! [`socks4`] and [`socks5`] implement one version each. Both have CONNECT and BIND;
//! SOCKS5 also has UDP ASSOCIATE. The caller provides a stream that is connected to the
//! server, and sets its timeouts; any type that implements `Read` and `Write` will do. No
//! byte after the last reply is read from it.

pub mod socks4;
pub mod socks5;

use std::fmt;
use std::io;

use crate::protocol::{ReadError, ReplyError};

/// A BIND request whose first reply has come: the server listens for one connection. `A`
/// is the address type of the version.
#[derive(Debug)]
pub struct Binding<S, A> {
    stream: S,
    /// The address at which the server listens.
    pub address: A,
    /// Reads the second reply, which has the address of the peer.
    read_second_reply: fn(&mut S) -> Result<A, ClientError>,
}

impl<S, A> Binding<S, A> {
    /// Waits until a peer has connected to the server. Returns the stream, which is then
    /// relayed to that peer, and the peer's address.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the server refuses the peer, or if no peer connects within the
    /// server's timeout.
    pub fn wait(mut self) -> Result<(S, A), ClientError> {
        let peer = (self.read_second_reply)(&mut self.stream)?;
        Ok((self.stream, peer))
    }
}

/// Why a request has failed.
#[derive(Debug)]
pub enum ClientError {
    /// The version cannot encode the request, or sending it failed.
    NotSent(io::Error),
    /// The server sent no reply, or no valid one.
    NoReply(ReadError),
    /// The server accepts none of the methods that were offered; most likely it requires
    /// a login (SOCKS5).
    NoMethod,
    /// The server denied the user and password (SOCKS5).
    LoginDenied,
    /// The server refused the request.
    Refused(ReplyError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NotSent(error) => write!(out, "the request was not sent: {error}"),
            ClientError::NoReply(error) => write!(out, "the server gave no reply: {error}"),
            ClientError::NoMethod => {
                out.write_str("the server accepts none of the methods offered")
            }
            ClientError::LoginDenied => out.write_str("the server denied the login"),
            ClientError::Refused(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod scripted_server {
    use std::io::{self, Read, Write};

    /// A server that sends fixed replies and records the bytes that it receives.
    pub(super) struct ScriptedServer {
        /// The bytes that are not read yet.
        pub(super) replies: &'static [u8],
        pub(super) received: Vec<u8>,
    }

    impl Read for ScriptedServer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.replies.read(buffer)
        }
    }

    impl Write for ScriptedServer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.received.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(super) fn server(replies: &'static [u8]) -> ScriptedServer {
        let received = Vec::new();
        ScriptedServer { replies, received }
    }
}
