//! Everything that can happen in the server, as facts for the logger.
//!
//! An event contains all that is needed to print it. The server only states facts; the
//! words and their layout belong to the [`logger`](crate::logger).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ReloadEvent;
use crate::protocol::{Command, Destination, ReplyEncoder};
pub use crate::request_error::{AuthError, HandshakeError, RequestError};
use crate::rules::Verdict;
use crate::sync::wait_group::Token;
use crate::words::words;

/// One thing that happened in the server.
#[derive(Debug)]
pub enum Event {
    /// A line about the start of the program.
    StartMessage {
        /// What is in force, a warning, or why the program cannot start.
        line: String,
        /// How important it is.
        level: Level,
        /// Is it printed with `--quiet` too? Errors and warnings always are.
        even_if_quiet: bool,
    },
    /// The server accepts clients.
    Listening(Box<Listening>),
    /// A client was accepted; it may be rejected at once. Only the metrics count it.
    ClientAccepted,
    /// A request was answered, or its client has left before. Sent exactly once for every
    /// request.
    RequestAnswered(RequestAnswered),
    /// A session has ended. Sent exactly once for every session.
    SessionClosed(Box<SessionClosed>),
    /// The datagrams of a UDP association come from this port of the client from now on.
    ClientPort {
        /// The number of the session.
        session: u64,
        /// The client, with the port of its connection.
        client: SocketAddr,
        /// The port in its request; 0 if it has announced none.
        announced: u16,
        /// The port that they came from before; none at the first datagram.
        previous: Option<u16>,
        /// The port from which they come.
        port: u16,
    },
    /// A datagram for a UDP association has come from another address than the client's, and
    /// was dropped. Sent for the first one of an association.
    ForeignDatagram {
        /// The number of the session.
        session: u64,
        /// The client, with the port of its connection.
        client: SocketAddr,
        /// Where the datagram has come from.
        from: SocketAddr,
    },
    /// The login of a client was right. Only the metrics count it.
    LoginAccepted,
    /// A datagram of a UDP association was dropped. Only the metrics count it.
    DatagramDropped(DropReason),
    /// The login of a client was refused. Not sent if this machine has no memory for the
    /// check, or the server has terminated the session: then the login may be right.
    LoginFailed(LoginFailed),
    /// A client was rejected before its session began, or dropped before its request.
    Rejected(Rejected),
    /// A file was reloaded, or could not be.
    FileReloaded {
        /// The file.
        path: PathBuf,
        /// What it contains: "rules".
        about: &'static str,
        /// What happened.
        event: ReloadEvent,
        /// Remarks on the new content, a sentence each; none if the old content stays.
        remarks: Vec<String>,
    },
    /// The operator has requested a reload, and the file has not changed.
    FileUnchanged {
        /// The file.
        path: PathBuf,
        /// What it contains: "rules".
        about: &'static str,
        /// Remarks on its content, a sentence each.
        remarks: Vec<String>,
    },
    /// The server accepts no more clients; live sessions have the grace period.
    Stopping {
        /// How many sessions are open, or have ended in a name lookup that still runs.
        sessions: usize,
        /// The grace period.
        grace: Duration,
    },
    /// The server has stopped.
    Stopped {
        /// Did a second signal end the grace period?
        forced: bool,
        /// How many sessions were terminated.
        cut: usize,
    },
    /// The tables of sessions and threads, which the operator has requested.
    Status(Status),
}

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something has failed.
    Error,
    /// The operator should look at it.
    Warning,
    /// Nothing is wrong.
    Info,
}

impl Level {
    /// The priority with which a line for the journal begins (sd-daemon(3)); a line for another
    /// output has none.
    pub fn prefix(self, is_for_journal: bool) -> &'static str {
        match self {
            _ if !is_for_journal => "",
            Level::Error => "<3>",
            Level::Warning => "<4>",
            Level::Info => "<6>",
        }
    }
}

/// What is in force when the server begins to accept clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    /// Did the system choose the port? Then the operator learns it only from the log.
    pub has_chosen_port: bool,
    /// Sessions at a time.
    pub max_sessions: usize,
    /// What limits them, if that is known.
    pub limited_by: Option<String>,
    /// How many rules there are.
    pub rules: usize,
    /// How many users there are; 0 without a users file.
    pub users: usize,
    /// How many networks of proxies are listed (`--proxy-from`).
    pub proxy_from: usize,
}

/// The tables of sessions and threads.
#[derive(Debug)]
pub struct Status {
    /// All lines for stderr, without a newline at the end.
    pub(crate) text: String,
    /// For `--log json`: the sessions, which the text does not have then.
    pub(crate) rows: Vec<SessionRow>,
    /// Dropped with the event, when the tables are printed or lost: at most one pair of tables
    /// waits for the logger.
    pub(crate) _token: Token,
}

/// One session in the table of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The number of the session.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// The proxy that has announced the client (`--proxy-from`), if one has.
    pub via: Option<SocketAddr>,
    /// What the session is doing, in a word.
    pub state: &'static str,
    /// The request, if the client has sent one.
    pub request: Option<ClientRequest>,
    /// The address that was dialled or expected, once known.
    pub address: Option<IpAddr>,
    /// Has identd confirmed the user?
    pub confirmed: bool,
    /// The line of `socks.conf` that decided, once known.
    pub rule: Option<usize>,
    /// Bytes relayed from client to remote.
    pub up: u64,
    /// Bytes relayed from remote to client.
    pub down: u64,
    /// Time since accept.
    pub age: Duration,
    /// For how long nothing has moved; none before the relay begins.
    pub idle: Option<Duration>,
}

/// The content of a screen message, and for `--log json` more.
#[derive(Debug)]
pub struct RequestAnswered {
    /// The client.
    pub client: SocketAddr,
    /// The proxy that has announced the client (`--proxy-from`), if one has.
    pub via: Option<SocketAddr>,
    /// The address that was dialled or expected; none if a name was not resolved.
    pub destination: Option<IpAddr>,
    /// The port that was dialled or expected.
    pub port: u16,
    /// The version of the client, which encodes its replies.
    pub encoder: ReplyEncoder,
    /// The command of the request.
    pub command: Command,
    /// Why the request was refused, in a word: [`RequestError::word`]. None: it was granted.
    pub cause: Option<&'static str>,
    /// Time from the request to its last reply.
    pub waited: Duration,
    /// What only `--log json` prints.
    pub details: Option<Box<RequestDetails>>,
}

/// What `--log json` says of a request beside its screen message.
#[derive(Debug)]
pub struct RequestDetails {
    /// The number of the session.
    pub session: u64,
    /// The request.
    pub request: ClientRequest,
    /// The line of `socks.conf` that decided, if one did.
    pub rule: Option<usize>,
    /// Has identd confirmed the user?
    pub confirmed: bool,
    /// The code in the reply; none if the client has left before.
    pub reply: Option<u8>,
    /// Why the request was refused, as a sentence.
    pub why: Option<String>,
}

/// A login that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFailed {
    /// The number of the session.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// The address under which the client counts for limits: behind NAT64 its IPv4 address.
    pub counted: IpAddr,
    /// The proxy that has announced the client (`--proxy-from`), if one has.
    pub via: Option<SocketAddr>,
    /// The user of the login; any bytes.
    pub user: Vec<u8>,
    /// Why it was refused.
    pub error: AuthError,
}

/// The content of the line for a session that has ended.
#[derive(Debug)]
pub struct SessionClosed {
    /// The number of the session; the name of its thread is `s` and this number.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// The proxy that has announced the client (`--proxy-from`), if one has.
    pub via: Option<SocketAddr>,
    /// The request, if the client has sent one.
    pub request: Option<ClientRequest>,
    /// The address that was dialled or expected, once known.
    pub address: Option<IpAddr>,
    /// Has identd confirmed the user?
    pub confirmed: bool,
    /// The line of `socks.conf` that decided, if one did.
    pub rule: Option<usize>,
    /// Bytes relayed from client to remote; of datagrams with their headers.
    pub up: u64,
    /// Bytes relayed from remote to client; of datagrams with their headers.
    pub down: u64,
    /// Datagrams that were dropped; only for UDP ASSOCIATE.
    pub drops: Option<Drops>,
    /// Time from accept to the end.
    pub lasted: Duration,
    /// Why the session ended.
    pub reason: CloseReason,
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The rules do not permit it.
    Denied,
    /// It comes from a host that is not the client, or to which the client has sent
    /// nothing.
    UnknownPeer,
    /// It has no valid header, or is a fragment.
    BadHeader,
    /// Its destination cannot be an address of another host.
    UnusableDestination,
    /// Its destination is a name that has no address, or too much waits for names already.
    Unresolved,
    /// The system cannot send it to this address.
    SendFailed,
    /// The send buffer of the socket is full.
    BufferFull,
}

/// How many datagrams were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// The rules do not permit them.
    pub denied: u64,
    /// For another reason: from unknown peers, without a valid header, to unusable
    /// destinations, to names that were not resolved, too large for the way back.
    pub other: u64,
}

/// A request, whatever the version of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// Encodes the replies in the client's version.
    pub encoder: ReplyEncoder,
    /// What the server is to do.
    pub command: Command,
    /// As requested, so with the name if there is one.
    pub destination: Destination,
    /// The user id of SOCKS4, or the user who has logged in; any bytes.
    pub user: Vec<u8>,
    /// Has the user logged in?
    pub logged_in: bool,
}

/// Why a session ended.
#[derive(Debug)]
pub enum CloseReason {
    /// Both directions were relayed to their end.
    Finished,
    /// A read or write of the relay failed.
    ConnectionError(io::Error),
    /// Nothing moved for the idle timeout.
    Idle,
    /// One direction had ended, and nothing moved in the other for its timeout.
    HalfClosedIdle,
    /// The rules or the time have changed, and this verdict holds now.
    PermitWithdrawn(Verdict),
    /// The server stopped.
    ServerStopped,
    /// A thread of the session panicked: an error in this program.
    Panicked,
    /// The client has sent nothing: a health check.
    Silent,
    /// The client was dropped before its request was complete.
    Unheard,
    /// A proxy has announced the client, which has as many sessions as it may have.
    PerClientLimit,
    /// The client has sent no valid request.
    HandshakeFailed(HandshakeError),
    /// The request was refused.
    Refused(RequestError),
}

/// Why a client was rejected before its session began, or dropped before its request.
#[derive(Debug)]
pub enum Rejected {
    /// All sessions are in use.
    AtCapacity {
        /// How many there may be.
        max_sessions: usize,
    },
    /// This client, or its IPv6 network, has as many sessions as it may have.
    PerClientLimit {
        /// Its address.
        client: IpAddr,
        /// How many one client may have.
        max_per_client: usize,
    },
    /// There are too many clients without a request, and this one was dropped.
    Unheard {
        /// Its address.
        client: IpAddr,
    },
    /// The system gave no socket for the client.
    AcceptFailed(io::Error),
    /// The system gave no thread for the client.
    NoThread(io::Error),
}

words! {
    /// The reason in one word, for programs that read the log or the metrics. These words do not
    /// change.
    CloseReason {
        CloseReason::Finished => "finished",
        CloseReason::ConnectionError(_) => "connection_error",
        CloseReason::Idle => "idle",
        CloseReason::HalfClosedIdle => "half_closed_idle",
        CloseReason::PermitWithdrawn(_) => "permit_withdrawn",
        CloseReason::ServerStopped => "server_stopped",
        CloseReason::Panicked => "panicked",
        CloseReason::Silent => "silent",
        CloseReason::Unheard => "unheard",
        CloseReason::PerClientLimit => "max_per_client",
        CloseReason::HandshakeFailed(_) => "handshake_failed",
        CloseReason::Refused(_) => "refused",
    }
}

impl CloseReason {
    /// The cause of a failed handshake or a refused request, in one word.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            CloseReason::HandshakeFailed(error) => Some(error.word()),
            CloseReason::Refused(error) => Some(error.word()),
            _ => None,
        }
    }
}

words! {
    /// The cause in one word, for programs that read the log or the metrics. These words do not
    /// change.
    Rejected {
        Rejected::AtCapacity { .. } => "full",
        Rejected::PerClientLimit { .. } => "max_per_client",
        Rejected::NoThread(_) => "no_thread",
        Rejected::AcceptFailed(_) => "no_descriptor",
        Rejected::Unheard { .. } => "unheard",
    }
}

words! {
    /// The reason in one word, for programs that read the metrics. These words do not change.
    DropReason {
        DropReason::Denied => "denied",
        DropReason::UnknownPeer => "unknown_peer",
        DropReason::BadHeader => "bad_header",
        DropReason::UnusableDestination => "unusable_destination",
        DropReason::Unresolved => "unresolved",
        DropReason::SendFailed => "send_failed",
        DropReason::BufferFull => "buffer_full",
    }
}

impl Rejected {
    /// The client, if its address is known.
    pub fn client(&self) -> Option<IpAddr> {
        match self {
            Rejected::PerClientLimit { client, .. } | Rejected::Unheard { client } => Some(*client),
            Rejected::AtCapacity { .. } | Rejected::AcceptFailed(_) | Rejected::NoThread(_) => None,
        }
    }

    /// The limit that was reached, if it is one of the server's own.
    pub fn limit(&self) -> Option<usize> {
        match self {
            Rejected::AtCapacity { max_sessions } => Some(*max_sessions),
            Rejected::PerClientLimit { max_per_client, .. } => Some(*max_per_client),
            Rejected::Unheard { .. } | Rejected::AcceptFailed(_) | Rejected::NoThread(_) => None,
        }
    }
}

impl fmt::Display for ClientRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.command, self.destination)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Finished => out.write_str("finished"),
            CloseReason::ConnectionError(error) => write!(out, "connection error: {error}"),
            CloseReason::Idle => out.write_str("idle for too long"),
            CloseReason::HalfClosedIdle => out.write_str("half-closed and idle for too long"),
            CloseReason::PermitWithdrawn(verdict) => write!(out, "no longer permitted: {verdict}"),
            CloseReason::ServerStopped => out.write_str("the server stopped"),
            CloseReason::Panicked => {
                out.write_str("internal error: a thread of the session panicked")
            }
            CloseReason::Silent => out.write_str("the client has sent no request"),
            CloseReason::Unheard => {
                out.write_str("dropped: too many clients have not sent their request")
            }
            CloseReason::PerClientLimit => {
                out.write_str("rejected: the client has as many sessions as it may have")
            }
            CloseReason::HandshakeFailed(error) => error.fmt(out),
            CloseReason::Refused(error) => write!(out, "refused: {error}"),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::AtCapacity { max_sessions } => {
                write!(out, "at capacity: all {max_sessions} sessions are in use")
            }
            Rejected::PerClientLimit {
                client,
                max_per_client,
            } if client.is_ipv4() => write!(
                out,
                "{client} has {max_per_client} sessions, the limit for one client (--max-per-client)"
            ),
            Rejected::PerClientLimit {
                client,
                max_per_client,
            } => write!(
                out,
                "the network of {client} has the sessions that --max-per-client {max_per_client} \
                 permits to a /64, a /56 or a /48"
            ),
            Rejected::Unheard { client } => write!(
                out,
                "{client} was dropped: too many clients have not sent their request (--max-unheard)"
            ),
            Rejected::AcceptFailed(error) => write!(out, "cannot accept a client: {error}"),
            Rejected::NoThread(error) => write!(out, "no thread for a client: {error}"),
        }
    }
}
