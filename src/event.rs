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

use crate::book::News;
use crate::firewall::Verdict;
use crate::users::NoEntry;
use crate::wire::{BadName, Command, HostName, Language, Refusal, Target, Unread};

/// One thing that happened in the server.
#[derive(Debug)]
pub enum Event {
    /// The server takes clients from now on, at this address.
    Listening(SocketAddr),
    /// A request got its last reply. Sent exactly once for every request.
    Answered(Answered),
    /// A session is over. Sent exactly once for every session.
    Closed(Box<Closed>),
    /// A client was closed at once, or could not be taken at all.
    TurnedAway(TurnedAway),
    /// What a file says has changed, or could not be changed.
    File {
        /// The file.
        path: PathBuf,
        /// What it is about: "rules".
        about: &'static str,
        /// What happened to it.
        news: News,
    },
    /// The operator asked for a file to be read again; it had not changed.
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
pub struct Answered {
    /// The client.
    pub client: SocketAddr,
    /// The address dialled or expected; none if a name never resolved.
    pub destination: Option<IpAddr>,
    /// The port dialled or expected.
    pub port: u16,
    /// What was asked.
    pub command: Command,
    /// Did the client get it?
    pub accepted: bool,
}

/// What the line about an ended session shows.
#[derive(Debug)]
pub struct Closed {
    /// The session's number; its thread is called `s` and this.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// What it asked for, if it came to that.
    pub asked: Option<Asked>,
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
    pub ending: Ending,
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

/// What a session asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How it put it.
    pub language: Language,
    /// What is to be done.
    pub command: Command,
    /// As requested, so with the name if it was one.
    pub target: Target,
    /// The user id, or who has logged in; opaque bytes.
    pub user: Vec<u8>,
    /// Has the user logged in?
    pub logged_in: bool,
}

/// Why a session ended.
#[derive(Debug)]
pub enum Ending {
    /// Both directions were relayed to their end.
    Finished,
    /// One end broke the connection.
    Broken(io::Error),
    /// Nothing moved for the idle limit.
    Idle,
    /// One direction had ended and nothing moved in the other for its limit.
    HalfClosed,
    /// The rules have changed, or an hour is over, and this is what they say now.
    Withdrawn(Verdict),
    /// The server stopped.
    Stopped,
    /// A thread of the session panicked: a mistake in this program.
    Panicked,
    /// The client sent nothing and left, or stayed silent: a health check.
    Silent,
    /// The client sent no complete request.
    NoRequest(NoRequest),
    /// The request was refused.
    Refused(Cause),
}

/// Why what the client sent was no request.
#[derive(Debug)]
pub enum NoRequest {
    /// It broke off, or it is not a message of the protocol.
    Unread(Unread),
    /// SOCKS5: none of the methods that it offers is one of ours; their numbers.
    NoMethod(Vec<u8>),
    /// SOCKS5: it has logged in, and then this came in the place of a request.
    AfterLogin {
        /// Who has logged in; opaque bytes.
        user: Vec<u8>,
        /// What came.
        unread: Unread,
    },
    /// SOCKS5: the login is not accepted.
    NoEntry {
        /// Who it claimed to be; opaque bytes.
        user: Vec<u8>,
        /// Why not.
        why: NoEntry,
    },
}

/// Why a request was refused, for the operator. The client only learns
/// [`Cause::refusal`].
#[derive(Debug)]
pub enum Cause {
    /// The name field is no host name.
    BadName(BadName),
    /// A rule denies it, or no rule permits it.
    Denied(Verdict),
    /// The client's identd gave no usable answer.
    NoIdent(io::Error),
    /// The client's identd did not confirm the user; what it said instead.
    OtherUser(String),
    /// A rule wants the user to have logged in, which a client of SOCKS5 has not.
    NotLoggedIn,
    /// The address or port can be nobody's.
    Impossible(&'static str),
    /// The request came from ourselves: a loop.
    Loop,
    /// The name lookup failed, or brought no usable address.
    NotFound(HostName, String),
    /// The address could not be reached.
    Unreachable(SocketAddr, io::Error),
    /// The total limit for the connection ran out.
    TooLate,
    /// The client went away before the answer.
    ClientLeft,
    /// Another than the expected peer came.
    Stranger(SocketAddr),
    /// There are as many UDP associations as there may be: so many.
    TooMany(usize),
    /// The machine lacks something the session needs: a thread, a port.
    Exhausted(&'static str, io::Error),
}

impl Cause {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Cause::Denied(_) | Cause::NotLoggedIn | Cause::Stranger(_) => Refusal::Denied,
            Cause::NoIdent(_) => Refusal::NoIdent,
            Cause::OtherUser(_) => Refusal::OtherUser,
            Cause::BadName(_) | Cause::NotFound(..) => Refusal::HostUnreachable,
            Cause::Unreachable(_, error) => unreachable_because(error),
            Cause::TooLate => Refusal::TooLate,
            Cause::Impossible(_)
            | Cause::Loop
            | Cause::ClientLeft
            | Cause::TooMany(_)
            | Cause::Exhausted(..) => Refusal::Rejected,
        }
    }
}

/// What the system's reason for not connecting means to the client.
fn unreachable_because(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Refusal::ConnectionRefused,
        // The last is said of routes that swallow everything, and of addresses that
        // mean something only within a network that is not named (fe80::1).
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::InvalidInput => Refusal::NetworkUnreachable,
        io::ErrorKind::HostUnreachable => Refusal::HostUnreachable,
        io::ErrorKind::TimedOut => Refusal::TooLate,
        io::ErrorKind::PermissionDenied => Refusal::Denied,
        _ => Refusal::Rejected,
    }
}

/// A client that never became a session.
#[derive(Debug)]
pub enum TurnedAway {
    /// All sessions were taken.
    Full {
        /// How many there may be.
        max_sessions: usize,
    },
    /// This client had all the sessions that one client may have.
    Greedy {
        /// Its address.
        client: IpAddr,
        /// How many that is.
        max_per_client: usize,
    },
    /// The system gave us no socket for the client.
    NotAccepted(io::Error),
    /// The system gave us no thread for the client.
    NoThread(io::Error),
}

impl fmt::Display for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.command, self.target)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Finished => out.write_str("finished"),
            Ending::Broken(error) => write!(out, "broken: {error}"),
            Ending::Idle => out.write_str("idle for too long"),
            Ending::HalfClosed => out.write_str("half-closed and silent for too long"),
            Ending::Withdrawn(verdict) => write!(out, "no longer permitted: {verdict}"),
            Ending::Stopped => out.write_str("the server stopped"),
            Ending::Panicked => out.write_str("an error in the server itself"),
            Ending::Silent => out.write_str("no request came"),
            Ending::NoRequest(why) => why.fmt(out),
            Ending::Refused(cause) => write!(out, "refused: {cause}"),
        }
    }
}

impl From<Unread> for NoRequest {
    fn from(unread: Unread) -> NoRequest {
        NoRequest::Unread(unread)
    }
}

impl fmt::Display for NoRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoRequest::Unread(Unread::Incomplete(received, error)) => {
                write!(out, "the request broke off after {received} bytes: {error}")
            }
            NoRequest::Unread(Unread::Malformed(malformed)) => {
                write!(out, "no SOCKS request: {malformed}")
            }
            NoRequest::NoMethod(offered) => write!(
                out,
                "none of the SOCKS5 methods it offers is accepted here: {offered:?}"
            ),
            NoRequest::AfterLogin { user, unread } => {
                write!(
                    out,
                    "\"{}\" has logged in; then {}",
                    user.escape_ascii(),
                    unread
                )
            }
            NoRequest::NoEntry { user, why } => {
                write!(out, "login of \"{}\" failed: {why}", user.escape_ascii())
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::BadName(bad) => bad.fmt(out),
            Cause::Denied(verdict) => verdict.fmt(out),
            Cause::NoIdent(error) => write!(out, "no word from the client's identd: {error}"),
            Cause::OtherUser(instead) => write!(out, "the user is not confirmed: {instead}"),
            Cause::NotLoggedIn => out.write_str("the client has not logged in"),
            Cause::Impossible(why) => out.write_str(why),
            Cause::Loop => out.write_str("the request came through this very server (a loop)"),
            Cause::NotFound(name, why) => write!(out, "{name} was not found: {why}"),
            Cause::Unreachable(address, error) => write!(out, "{address}: {error}"),
            Cause::TooLate => out.write_str("nothing answered within the time limit"),
            Cause::ClientLeft => out.write_str("the client left before the answer"),
            Cause::Stranger(peer) => write!(out, "{peer} came, which was not expected"),
            Cause::TooMany(most) => write!(out, "all {most} UDP associations are taken"),
            Cause::Exhausted(what, error) => {
                write!(out, "this machine has no {what} left: {error}")
            }
        }
    }
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TurnedAway::Full { max_sessions } => {
                write!(out, "at capacity: all {max_sessions} sessions are taken")
            }
            TurnedAway::Greedy {
                client,
                max_per_client,
            } => write!(
                out,
                "{client} has {max_per_client} sessions, and may have no more"
            ),
            TurnedAway::NotAccepted(error) => write!(out, "cannot accept a client: {error}"),
            TurnedAway::NoThread(error) => write!(out, "no thread for a client: {error}"),
        }
    }
}
