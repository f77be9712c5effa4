//! Why a client does not get what it asks for: the handshake fails, or the request is refused.

use std::fmt;
use std::io;
use std::net::SocketAddr;

pub use crate::auth::AuthError;
use crate::config::QuotedName;
use crate::protocol::{
    HostName, InvalidHostName, OtherProtocol, ProtocolError, ProxyHeaderError, ReadError,
    ReplyError,
};
use crate::rules::Verdict;
use crate::words::words;

/// Why the handshake led to no request.
#[derive(Debug)]
pub enum HandshakeError {
    /// A message ended too early, or is not valid.
    Read(ReadError),
    /// A listed proxy has sent no valid header of the PROXY protocol, or one without a client.
    ProxyHeader(ReadError),
    /// The client speaks another protocol.
    OtherProtocol(OtherProtocol),
    /// SOCKS5 is turned off (`--socks 4`).
    Socks5Off,
    /// SOCKS5: the client offers only methods that are not enabled; their numbers.
    NoMethod(Vec<u8>),
    /// SOCKS5: the client has left after the reply to its greeting, before another byte: a
    /// health check of a load balancer.
    LeftAfterGreeting,
    /// SOCKS5: the client has logged in, and then sent no valid request.
    AfterLogin {
        /// The user who has logged in; any bytes.
        user: Vec<u8>,
        /// What is wrong with the request.
        error: ReadError,
    },
    /// SOCKS5: the login was refused.
    LoginFailed {
        /// The user of the login; any bytes.
        user: Vec<u8>,
        /// Why.
        error: AuthError,
    },
}

/// Why a request was refused, for the operator. The client learns only
/// [`RequestError::reply`].
#[derive(Debug)]
pub enum RequestError {
    /// SOCKS4 is turned off (`--socks 5`).
    Socks4Off,
    /// The name of the destination is not a valid host name.
    InvalidHostName(InvalidHostName),
    /// A rule denies it, or no rule permits it.
    Denied(Verdict),
    /// The client's identd gave no usable reply.
    IdentFailed(io::Error),
    /// The client's identd did not confirm the user; what it said instead.
    UserMismatch(String),
    /// A rule wants a login, and this SOCKS5 client has not logged in.
    NotLoggedIn,
    /// No server can have this address or port.
    UnusableDestination(&'static str),
    /// The server itself has sent the request.
    Loop,
    /// The name was not resolved, or has no usable address; the reason.
    NotFound(HostName, String),
    /// The address was not reached.
    Unreachable(SocketAddr, io::Error),
    /// The timeout of the command is over.
    TimedOut,
    /// The client left before the reply.
    ClientLeft,
    /// The session was terminated before the reply: the server stops, or the rules have changed.
    Terminated,
    /// A peer has connected that was not expected.
    UnexpectedPeer(SocketAddr),
    /// There are as many UDP associations as there may be.
    TooManyAssociations(usize),
    /// The machine lacks something that the session needs, such as a thread or a port.
    ResourceExhausted(&'static str, io::Error),
}

words! {
    /// The cause in one word, for programs that read the log or the metrics. These words do not
    /// change.
    RequestError {
        RequestError::Socks4Off => "socks4_off",
        RequestError::InvalidHostName(_) => "invalid_name",
        RequestError::Denied(_) => "denied",
        RequestError::IdentFailed(_) => "ident_failed",
        RequestError::UserMismatch(_) => "user_mismatch",
        RequestError::NotLoggedIn => "not_logged_in",
        RequestError::UnusableDestination(_) => "unusable_destination",
        RequestError::Loop => "loop",
        RequestError::NotFound(..) => "not_found",
        RequestError::Unreachable(_, error)
            if reply_to_connect_error(error) == ReplyError::ConnectionRefused
            => "connection_refused",
        RequestError::Unreachable(_, error)
            if reply_to_connect_error(error) == ReplyError::NetworkUnreachable
            => "network_unreachable",
        RequestError::Unreachable(_, error)
            if reply_to_connect_error(error) == ReplyError::HostUnreachable
            => "host_unreachable",
        RequestError::Unreachable(_, error)
            if reply_to_connect_error(error) == ReplyError::TimedOut
            => "timed_out",
        RequestError::Unreachable(..) => "unreachable",
        RequestError::TimedOut => "timed_out",
        RequestError::ClientLeft => "client_left",
        RequestError::Terminated => "terminated",
        RequestError::UnexpectedPeer(_) => "unexpected_peer",
        RequestError::TooManyAssociations(_) => "too_many_associations",
        RequestError::ResourceExhausted(..) => "resource_exhausted",
    }
}

impl RequestError {
    /// What the reply says.
    pub fn reply(&self) -> ReplyError {
        match self {
            RequestError::Denied(_)
            | RequestError::NotLoggedIn
            | RequestError::UnexpectedPeer(_) => ReplyError::NotAllowed,
            RequestError::IdentFailed(_) => ReplyError::IdentFailed,
            RequestError::UserMismatch(_) => ReplyError::UserMismatch,
            RequestError::InvalidHostName(_) | RequestError::NotFound(..) => {
                ReplyError::HostUnreachable
            }
            RequestError::Unreachable(_, error) => reply_to_connect_error(error),
            RequestError::TimedOut => ReplyError::TimedOut,
            RequestError::Socks4Off
            | RequestError::UnusableDestination(_)
            | RequestError::Loop
            | RequestError::ClientLeft
            | RequestError::Terminated
            | RequestError::TooManyAssociations(_)
            | RequestError::ResourceExhausted(..) => ReplyError::Rejected,
        }
    }
}

/// The reply to this error of connect(2).
fn reply_to_connect_error(error: &io::Error) -> ReplyError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ReplyError::ConnectionRefused,
        // InvalidInput comes from routes that drop everything, and from link-local
        // addresses without a scope.
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::InvalidInput => ReplyError::NetworkUnreachable,
        io::ErrorKind::HostUnreachable => ReplyError::HostUnreachable,
        io::ErrorKind::TimedOut => ReplyError::TimedOut,
        io::ErrorKind::PermissionDenied => ReplyError::NotAllowed,
        _ => ReplyError::Rejected,
    }
}

impl HandshakeError {
    /// The cause in one word, for programs that read the log. These words do not change.
    pub fn word(&self) -> &'static str {
        match self {
            HandshakeError::Read(error) | HandshakeError::AfterLogin { error, .. } => match error {
                ReadError::Incomplete(..) => "incomplete",
                ReadError::Protocol(_) => "invalid",
            },
            HandshakeError::ProxyHeader(_) => "proxy_header",
            HandshakeError::OtherProtocol(_) => "other_protocol",
            HandshakeError::Socks5Off => "socks5_off",
            HandshakeError::NoMethod(_) => "no_method",
            HandshakeError::LeftAfterGreeting => "left_after_greeting",
            HandshakeError::LoginFailed { .. } => "login_failed",
        }
    }

    /// Why the first message after the greeting of SOCKS5 was not read.
    pub(crate) fn after_greeting(error: ReadError) -> HandshakeError {
        match error {
            ReadError::Incomplete(0, error) if has_left(&error) => {
                HandshakeError::LeftAfterGreeting
            }
            error => HandshakeError::Read(error),
        }
    }
}

/// Does this error of a read say that the client has left, by FIN or by RST?
fn has_left(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    )
}

impl From<ReadError> for HandshakeError {
    fn from(error: ReadError) -> HandshakeError {
        HandshakeError::Read(error)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Read(error) => write_read_error(error, out),
            HandshakeError::ProxyHeader(error) => write_header_error(error, out),
            HandshakeError::OtherProtocol(protocol) => write!(out, "the client speaks {protocol}"),
            HandshakeError::Socks5Off => out.write_str("SOCKS5 is turned off (--socks 4)"),
            HandshakeError::NoMethod(offered) => write!(
                out,
                "the server accepts none of the SOCKS5 methods that the client offers: \
                 {offered:?} (0: without login, 2: user and password)"
            ),
            HandshakeError::LeftAfterGreeting => {
                out.write_str("the client has left after the greeting")
            }
            HandshakeError::AfterLogin { user, error } => {
                write!(out, "after the login of {}: ", QuotedName(user))?;
                write_read_error(error, out)
            }
            HandshakeError::LoginFailed { user, error } => {
                write!(out, "login of {} failed: {error}", QuotedName(user))
            }
        }
    }
}

/// Writes what is wrong with a request or with a message before it.
fn write_read_error(error: &ReadError, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        ReadError::Incomplete(0, error) => write!(out, "no request: {error}"),
        ReadError::Incomplete(received, error) => {
            write!(
                out,
                "the request is incomplete after {received} bytes: {error}"
            )
        }
        ReadError::Protocol(error) => write!(out, "not a valid SOCKS request: {error}"),
    }
}

/// Writes what is wrong with a header of the PROXY protocol.
fn write_header_error(error: &ReadError, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        ReadError::Incomplete(received, error) => write!(
            out,
            "the PROXY header is incomplete after {received} bytes: {error}"
        ),
        ReadError::Protocol(ProtocolError::ProxyHeader(
            error @ (ProxyHeaderError::Missing | ProxyHeaderError::NoClient),
        )) => write!(out, "{error}"),
        ReadError::Protocol(error) => write!(out, "not a valid PROXY header: {error}"),
    }
}

impl std::error::Error for HandshakeError {}

impl fmt::Display for RequestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Socks4Off => out.write_str("SOCKS4 is turned off (--socks 5)"),
            RequestError::InvalidHostName(error) => error.fmt(out),
            RequestError::Denied(verdict) => verdict.fmt(out),
            RequestError::IdentFailed(error) => {
                write!(out, "no usable reply from the client's identd: {error}")
            }
            RequestError::UserMismatch(instead) => {
                write!(out, "the user is not confirmed: {instead}")
            }
            RequestError::NotLoggedIn => {
                out.write_str("a rule requires a login, and the client has not logged in")
            }
            RequestError::UnusableDestination(reason) => out.write_str(reason),
            RequestError::Loop => out.write_str("this server itself has sent the request (a loop)"),
            RequestError::NotFound(name, reason) => write!(out, "{name} was not found: {reason}"),
            RequestError::Unreachable(address, error) => write!(out, "{address}: {error}"),
            RequestError::TimedOut => {
                out.write_str("no connection was established within the time limit")
            }
            RequestError::ClientLeft => out.write_str("the client disconnected before the reply"),
            RequestError::Terminated => {
                out.write_str("the session was terminated before the reply")
            }
            RequestError::UnexpectedPeer(peer) => {
                write!(out, "an unexpected peer has connected: {peer}")
            }
            RequestError::TooManyAssociations(max) => {
                write!(out, "all {max} UDP associations are in use")
            }
            RequestError::ResourceExhausted(resource, error) => {
                write!(out, "this machine has no {resource} left: {error}")
            }
        }
    }
}

impl std::error::Error for RequestError {}
