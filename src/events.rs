//! Everything that can happen, in the past tense.
//!
//! An event is self-sufficient: whoever prints it needs nothing else. The
//! server only states facts; words and layout belong to the
//! [`logger`](crate::logger).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::AuthError;
use crate::config::ReloadEvent;
use crate::protocol::{
    Command, Destination, HostName, InvalidHostName, ReadError, ReplyEncoder, ReplyError,
};
use crate::rules::Verdict;

/// One thing that happened in the server.
#[derive(Debug)]
pub enum Event {
    /// The server takes clients from now on, at this address.
    Listening(SocketAddr),
    /// A request got its last reply. Sent exactly once for every request.
    RequestAnswered(RequestAnswered),
    /// A session is over. Sent exactly once for every session.
    SessionClosed(Box<SessionClosed>),
    /// A client was closed at once, or could not be taken at all.
    Rejected(Rejected),
    /// What a file says has changed, or could not be changed.
    FileReloaded {
        /// The file.
        path: PathBuf,
        /// What it is about: "rules".
        about: &'static str,
        /// What happened to it.
        event: ReloadEvent,
    },
    /// The operator request for a file to be read again; it had not changed.
    FileUnchanged {
        /// The file.
        path: PathBuf,
    },
    /// No new clients from now on; those present may stay this long.
    Stopping {
        /// How many sessions are still open.
        sessions: usize,
        /// The time they have.
        grace: Duration,
    },
}

/// What the screen message shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestAnswered {
    /// The client.
    pub client: SocketAddr,
    /// The address dialled or expected; none if a name never resolved.
    pub destination: Option<IpAddr>,
    /// The port dialled or expected.
    pub port: u16,
    /// What was request.
    pub command: Command,
    /// Did the client get it?
    pub accepted: bool,
}

/// What the line about an ended session shows.
#[derive(Debug)]
pub struct SessionClosed {
    /// The session's number; its thread is called `s` and this.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// What it request for, if it came to that.
    pub request: Option<ClientRequest>,
    /// The address dialled or expected, once known.
    pub address: Option<IpAddr>,
    /// Has identd confirmed the user?
    pub confirmed: bool,
    /// The line of `socks.conf` that decided, if one did.
    pub rule: Option<usize>,
    /// Bytes relayed from client to remote; of datagrams, with their headers.
    pub up: u64,
    /// Bytes relayed from remote to client.
    pub down: u64,
    /// For UDP ASSOCIATE, what was not passed on.
    pub drops: Option<Drops>,
    /// From accept to now.
    pub lasted: Duration,
    /// Why it ended.
    pub ending: CloseReason,
}

/// Datagrams that were not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// Those that the rules do not permit.
    pub denied: u64,
    /// Others: from strangers, unreadable, to impossible addresses, with names
    /// that were not found, too large for the way back.
    pub other: u64,
}

/// What a session request for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// How it put it.
    pub language: ReplyEncoder,
    /// What is to be done.
    pub command: Command,
    /// As requested, so with the name if it was one.
    pub target: Destination,
    /// The user id, or who has logged in; opaque bytes.
    pub user: Vec<u8>,
    /// Has the user logged in?
    pub logged_in: bool,
}

/// Why a session ended.
#[derive(Debug)]
pub enum CloseReason {
    /// Both directions were relayed to their end.
    Finished,
    /// One end broke the connection.
    ConnectionError(io::Error),
    /// Nothing moved for the idle limit.
    Idle,
    /// One direction had ended and nothing moved in the other for its limit.
    HalfClosedIdle,
    /// The rules have changed, or an hour is over, and this is what they say now.
    PermitWithdrawn(Verdict),
    /// The server stopped.
    ServerStopped,
    /// A thread of the session panicked: a mistake in this program.
    Panicked,
    /// The client sent nothing and left, or stayed silent: a health check.
    Silent,
    /// The client sent no complete request.
    HandshakeFailed(HandshakeError),
    /// The request was refused.
    Refused(RequestError),
}

/// Why what the client sent was no request.
#[derive(Debug)]
pub enum HandshakeError {
    /// It broke off, or it is not a message of the protocol.
    Read(ReadError),
    /// SOCKS5: none of the methods that it offers is one of ours; their numbers.
    NoMethod(Vec<u8>),
    /// SOCKS5: it has logged in, and then this came in the place of a request.
    AfterLogin {
        /// Who has logged in; opaque bytes.
        user: Vec<u8>,
        /// What came.
        unread: ReadError,
    },
    /// SOCKS5: the login is not accepted.
    LoginFailed {
        /// Who it claimed to be; opaque bytes.
        user: Vec<u8>,
        /// Why not.
        why: AuthError,
    },
}

/// Why a request was refused, for the operator. The client only learns
/// [`RequestError::refusal`].
#[derive(Debug)]
pub enum RequestError {
    /// The name field is no host name.
    InvalidHostName(InvalidHostName),
    /// A rule denies it, or no rule permits it.
    Denied(Verdict),
    /// The client's identd gave no usable answer.
    IdentFailed(io::Error),
    /// The client's identd did not confirm the user; what it said instead.
    UserMismatch(String),
    /// A rule wants the user to have logged in, which a client of SOCKS5 has not.
    NotLoggedIn,
    /// The address or port can be nobody's.
    UnusableDestination(&'static str),
    /// The request came from ourselves: a loop.
    Loop,
    /// The name lookup failed, or brought no usable address.
    NotFound(HostName, String),
    /// The address could not be reached.
    Unreachable(SocketAddr, io::Error),
    /// The total limit for the connection ran out.
    TimedOut,
    /// The client went away before the answer.
    ClientLeft,
    /// Another than the expected peer came.
    UnexpectedPeer(SocketAddr),
    /// There are as many UDP associations as there may be: so many.
    TooManyAssociations(usize),
    /// The machine lacks something the session needs: a thread, a port.
    ResourceExhausted(&'static str, io::Error),
}

impl RequestError {
    /// What the client is told.
    pub fn refusal(&self) -> ReplyError {
        match self {
            RequestError::Denied(_)
            | RequestError::NotLoggedIn
            | RequestError::UnexpectedPeer(_) => ReplyError::NotAllowed,
            RequestError::IdentFailed(_) => ReplyError::IdentFailed,
            RequestError::UserMismatch(_) => ReplyError::UserMismatch,
            RequestError::InvalidHostName(_) | RequestError::NotFound(..) => {
                ReplyError::HostUnreachable
            }
            RequestError::Unreachable(_, error) => unreachable_because(error),
            RequestError::TimedOut => ReplyError::TimedOut,
            RequestError::UnusableDestination(_)
            | RequestError::Loop
            | RequestError::ClientLeft
            | RequestError::TooManyAssociations(_)
            | RequestError::ResourceExhausted(..) => ReplyError::Rejected,
        }
    }
}

/// What the system's reason for not connecting means to the client.
fn unreachable_because(error: &io::Error) -> ReplyError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ReplyError::ConnectionRefused,
        // The last is said of routes that swallow everything, and of addresses that
        // mean something only within a network that is not named (fe80::1).
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::InvalidInput => ReplyError::NetworkUnreachable,
        io::ErrorKind::HostUnreachable => ReplyError::HostUnreachable,
        io::ErrorKind::TimedOut => ReplyError::TimedOut,
        io::ErrorKind::PermissionDenied => ReplyError::NotAllowed,
        _ => ReplyError::Rejected,
    }
}

/// A client that never became a session.
#[derive(Debug)]
pub enum Rejected {
    /// All sessions were taken.
    AtCapacity {
        /// How many there may be.
        max_sessions: usize,
    },
    /// This client had all the sessions that one client may have.
    PerClientLimit {
        /// Its address.
        client: IpAddr,
        /// How many that is.
        max_per_client: usize,
    },
    /// The system gave us no socket for the client.
    AcceptFailed(io::Error),
    /// The system gave us no thread for the client.
    NoThread(io::Error),
}

impl fmt::Display for ClientRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.command, self.target)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Finished => out.write_str("finished"),
            CloseReason::ConnectionError(error) => write!(out, "broken: {error}"),
            CloseReason::Idle => out.write_str("idle for too long"),
            CloseReason::HalfClosedIdle => out.write_str("half-closed and silent for too long"),
            CloseReason::PermitWithdrawn(verdict) => write!(out, "no longer permitted: {verdict}"),
            CloseReason::ServerStopped => out.write_str("the server stopped"),
            CloseReason::Panicked => out.write_str("an error in the server itself"),
            CloseReason::Silent => out.write_str("no request came"),
            CloseReason::HandshakeFailed(why) => why.fmt(out),
            CloseReason::Refused(cause) => write!(out, "refused: {cause}"),
        }
    }
}

impl From<ReadError> for HandshakeError {
    fn from(unread: ReadError) -> HandshakeError {
        HandshakeError::Read(unread)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Read(ReadError::Incomplete(received, error)) => {
                write!(out, "the request broke off after {received} bytes: {error}")
            }
            HandshakeError::Read(ReadError::Protocol(malformed)) => {
                write!(out, "no SOCKS request: {malformed}")
            }
            HandshakeError::NoMethod(offered) => write!(
                out,
                "none of the SOCKS5 methods it offers is accepted here: {offered:?}"
            ),
            HandshakeError::AfterLogin { user, unread } => {
                write!(
                    out,
                    "\"{}\" has logged in; then {}",
                    user.escape_ascii(),
                    unread
                )
            }
            HandshakeError::LoginFailed { user, why } => {
                write!(out, "login of \"{}\" failed: {why}", user.escape_ascii())
            }
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::InvalidHostName(bad) => bad.fmt(out),
            RequestError::Denied(verdict) => verdict.fmt(out),
            RequestError::IdentFailed(error) => {
                write!(out, "no word from the client's identd: {error}")
            }
            RequestError::UserMismatch(instead) => {
                write!(out, "the user is not confirmed: {instead}")
            }
            RequestError::NotLoggedIn => out.write_str("the client has not logged in"),
            RequestError::UnusableDestination(why) => out.write_str(why),
            RequestError::Loop => {
                out.write_str("the request came through this very server (a loop)")
            }
            RequestError::NotFound(name, why) => write!(out, "{name} was not found: {why}"),
            RequestError::Unreachable(address, error) => write!(out, "{address}: {error}"),
            RequestError::TimedOut => out.write_str("nothing answered within the time limit"),
            RequestError::ClientLeft => out.write_str("the client left before the answer"),
            RequestError::UnexpectedPeer(peer) => {
                write!(out, "{peer} came, which was not expected")
            }
            RequestError::TooManyAssociations(most) => {
                write!(out, "all {most} UDP associations are taken")
            }
            RequestError::ResourceExhausted(what, error) => {
                write!(out, "this machine has no {what} left: {error}")
            }
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::AtCapacity { max_sessions } => {
                write!(out, "at capacity: all {max_sessions} sessions are taken")
            }
            Rejected::PerClientLimit {
                client,
                max_per_client,
            } => write!(
                out,
                "{client} has {max_per_client} sessions, and may have no more"
            ),
            Rejected::AcceptFailed(error) => write!(out, "cannot accept a client: {error}"),
            Rejected::NoThread(error) => write!(out, "no thread for a client: {error}"),
        }
    }
}
