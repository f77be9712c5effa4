//! The other side of the same language: how to ask a SOCKS server.
//!
//! [`socks4`] and [`socks5`] speak one version each; both can connect and bind,
//! and SOCKS5 can send datagrams too. You bring the stream, already connected
//! to the server, with whatever timeouts you want; anything that reads and
//! writes will do. Not a byte is taken from it behind the last reply.

pub mod socks4;
pub mod socks5;

use std::fmt;
use std::io;

use crate::protocol::{ReadError, ReplyError};

/// A server that listens on our behalf. `A` is what its version calls an
/// address.
#[derive(Debug)]
pub struct Binding<S, A> {
    stream: S,
    /// Where it listens.
    pub address: A,
    /// Reads the second reply.
    read_second_reply: fn(&mut S) -> Result<A, ClientError>,
}

impl<S, A> Binding<S, A> {
    /// Waits for the target; the stream then is the connection from it. Also
    /// tells the address it came from.
    ///
    /// # Errors
    ///
    /// [`ClientError`], if another came, or nobody within the server's limit.
    pub fn wait(mut self) -> Result<(S, A), ClientError> {
        let peer = (self.read_second_reply)(&mut self.stream)?;
        Ok((self.stream, peer))
    }
}

/// Why the server does not do what it was asked for.
#[derive(Debug)]
pub enum ClientError {
    /// The request cannot be expressed in the server's language, or could not
    /// be sent.
    NotSent(io::Error),
    /// No reply came, or something else than a reply.
    NoReply(ReadError),
    /// The server accepts none of the methods that were offered, so most likely
    /// wants a login (SOCKS5).
    NoMethod,
    /// User and password are not those of anybody (SOCKS5).
    LoginDenied,
    /// The server refused.
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

    /// A server that says this, and remembers what it was told.
    pub(super) struct ScriptedServer {
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
