//! What a trace records: waits, jobs, hand-overs, marks and the number of sessions.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::sys::socket::{SockaddrStorage, getpeername};

/// One thing that a thread has done.
#[derive(Debug)]
pub(super) struct Event {
    /// The thread; threads count from 0, in the order of their first event.
    pub(super) thread: u32,
    /// Nanoseconds since the start of the trace; of a wait, when it began.
    pub(super) at: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The first event of a thread, with its open wait: see [`super::recorder`].
    Thread(Arc<AtomicU64>),
    /// A wait that is over, and when it ended.
    Wait(Wait, u64),
    /// A job begins. The number is that of the hand-over from the thread that has started it.
    JobBegin(Box<str>, Option<u64>),
    JobEnd,
    /// The thread starts a job on another thread; each hand-over has its own number.
    HandOver(u64),
    Mark(Mark),
    /// A session has begun (1) or ended (-1).
    Sessions(i64),
}

/// What a thread waits for. An address is that of the peer, if it is known.
#[derive(Debug)]
pub(crate) enum Wait {
    /// poll(2) of the listeners, and of the pipe that is closed at the stop.
    Client,
    /// read(2) of a socket.
    Read(Option<SocketAddr>),
    /// poll(2) of one socket.
    Readable(Option<SocketAddr>),
    /// write(2) to a socket.
    Write(Option<SocketAddr>),
    /// splice(2) out of a socket.
    SpliceFrom(Option<SocketAddr>),
    /// splice(2) into a socket.
    SpliceTo(Option<SocketAddr>),
    /// poll(2) of attempts to connect; the address is that of the oldest.
    Connect(Option<SocketAddr>),
    /// poll(2) for the peer of a BIND.
    BindPeer,
    /// poll(2) for a datagram.
    Datagram,
    /// poll(2) of any sockets.
    Events,
    /// getaddrinfo(3) for this name.
    Resolver(Box<str>),
    /// The thread that looks this name up.
    Lookup(Box<str>),
    /// A thread of the pool has no job.
    Job,
    /// The logger has nothing to print.
    LogEvent,
    /// The main thread has nothing to do.
    Control,
    /// The main thread waits for the end of all sessions.
    AllDone,
    /// A mutex, locked at this place of the source.
    Lock(&'static Location<'static>),
    /// A condition variable, waited for at this place of the source.
    Notification(&'static Location<'static>),
    /// A slot of a semaphore.
    Slot,
    /// The thread that reads the rules and the users.
    Files,
    /// The rate limit of logins.
    LoginTurn,
    /// write(2) of the logger.
    Output,
    /// A pause: nothing ends it early.
    Sleep,
}

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitKind {
    /// Something outside the program: a peer, the resolver, a signal, a reader of the output.
    Outside,
    /// Another thread of the program.
    Thread,
    /// The thread that holds a lock.
    Lock,
    /// The clock.
    Clock,
}

/// The kind of each wait, and its words if nothing else is known; the index is
/// [`Wait::number`]. The words are those of the tables that USR1 prints, where these have them.
const WAITS: [(WaitKind, &str); 23] = [
    (WaitKind::Outside, "waits for a client (poll)"),
    (WaitKind::Outside, "waits to read from a socket"),
    (WaitKind::Outside, "waits for an event on a socket (poll)"),
    (WaitKind::Outside, "waits to write to a socket"),
    (WaitKind::Outside, "waits to read from a socket (splice)"),
    (WaitKind::Outside, "waits to write to a socket (splice)"),
    (WaitKind::Outside, "waits to connect (poll)"),
    (WaitKind::Outside, "waits for the peer of a BIND (poll)"),
    (WaitKind::Outside, "waits for a datagram (poll)"),
    (WaitKind::Outside, "waits for an event on sockets (poll)"),
    (WaitKind::Outside, "waits for the resolver"),
    (WaitKind::Thread, "waits for a name lookup"),
    (WaitKind::Thread, "waits for a job"),
    (WaitKind::Thread, "waits for an event to print (channel)"),
    (WaitKind::Outside, "waits for a signal (channel)"),
    (WaitKind::Thread, "waits until all sessions have ended"),
    (WaitKind::Lock, "waits for a lock"),
    (
        WaitKind::Thread,
        "waits for a notification (condition variable)",
    ),
    (WaitKind::Thread, "waits for a slot (semaphore)"),
    (WaitKind::Thread, "waits for the thread that reads files"),
    (
        WaitKind::Clock,
        "waits until the rate limit admits the login",
    ),
    (WaitKind::Outside, "waits to write to a file or pipe"),
    (WaitKind::Clock, "sleeps"),
];

impl Wait {
    /// The place in [`WAITS`].
    pub(super) fn number(&self) -> usize {
        match self {
            Wait::Client => 0,
            Wait::Read(_) => 1,
            Wait::Readable(_) => 2,
            Wait::Write(_) => 3,
            Wait::SpliceFrom(_) => 4,
            Wait::SpliceTo(_) => 5,
            Wait::Connect(_) => 6,
            Wait::BindPeer => 7,
            Wait::Datagram => 8,
            Wait::Events => 9,
            Wait::Resolver(_) => 10,
            Wait::Lookup(_) => 11,
            Wait::Job => 12,
            Wait::LogEvent => 13,
            Wait::Control => 14,
            Wait::AllDone => 15,
            Wait::Lock(_) => 16,
            Wait::Notification(_) => 17,
            Wait::Slot => 18,
            Wait::Files => 19,
            Wait::LoginTurn => 20,
            Wait::Output => 21,
            Wait::Sleep => 22,
        }
    }

    /// The kind and the words, with what is known.
    pub(super) fn describe(&self) -> (WaitKind, Cow<'static, str>) {
        let (kind, plain) = describe_number(self.number());
        let words = match self {
            Wait::Read(Some(peer)) => format!("waits to read {peer}"),
            Wait::Readable(Some(peer)) => format!("waits to read {peer} (poll)"),
            Wait::Write(Some(peer)) => format!("waits to write to {peer}"),
            Wait::SpliceFrom(Some(peer)) => format!("waits to read {peer} (splice)"),
            Wait::SpliceTo(Some(peer)) => format!("waits to write to {peer} (splice)"),
            Wait::Connect(Some(peer)) => format!("waits to connect to {peer} (poll)"),
            Wait::Resolver(name) => format!("{plain}: {name}"),
            Wait::Lookup(name) => format!("{plain}: {name}"),
            Wait::Lock(place) | Wait::Notification(place) => {
                format!("{plain}, {}:{}", place.file(), place.line())
            }
            _ => return (kind, plain.into()),
        };
        (kind, words.into())
    }
}

/// The kind of the wait with this number, and its words without the peer.
pub(super) fn describe_number(number: usize) -> (WaitKind, &'static str) {
    let found = WAITS.get(number).copied();
    found.unwrap_or((WaitKind::Outside, "waits"))
}

/// Something that happens at one moment.
#[derive(Debug)]
pub(crate) enum Mark {
    /// EOF is passed on to this peer: a FIN.
    HalfClose(Option<SocketAddr>),
    /// A relay ends with RST on both sides because a read or write has failed.
    Reset,
    /// A session is ended from outside: its number, and why.
    Terminate(u64, String),
    /// A client gets no session; why.
    Reject(String),
    /// Events are lost from now on, until the logger has room again.
    QueueFull,
    /// The server stops.
    Stop,
}

impl fmt::Display for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::HalfClose(Some(peer)) => write!(out, "half-close: FIN to {peer}"),
            Mark::HalfClose(None) => out.write_str("half-close: FIN"),
            Mark::Reset => out.write_str("reset: both ends close with RST"),
            Mark::Terminate(session, reason) => write!(out, "terminate: s{session}, {reason}"),
            Mark::Reject(reason) => write!(out, "reject: {reason}"),
            Mark::QueueFull => out.write_str("overflow: the queue of the log is full"),
            Mark::Stop => out.write_str("stop: no more clients"),
        }
    }
}

/// The peer of this socket.
pub(crate) fn peer(socket: &impl AsFd) -> Option<SocketAddr> {
    let address: SockaddrStorage = getpeername(socket.as_fd().as_raw_fd()).ok()?;
    let v4 = address
        .as_sockaddr_in()
        .map(|it| SocketAddr::V4((*it).into()));
    let address = v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|it| SocketAddr::V6((*it).into()))
    })?;
    // An IPv4-mapped IPv6 address means IPv4.
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o21_a_wait_is_described_in_words() {
        let peer = Some(([10, 0, 0, 5], 7301).into());
        for (wait, kind, words) in [
            (Wait::Client, WaitKind::Outside, "waits for a client (poll)"),
            (
                Wait::Read(peer),
                WaitKind::Outside,
                "waits to read 10.0.0.5:7301",
            ),
            (
                Wait::Read(None),
                WaitKind::Outside,
                "waits to read from a socket",
            ),
            (
                Wait::Write(peer),
                WaitKind::Outside,
                "waits to write to 10.0.0.5:7301",
            ),
            (
                Wait::SpliceFrom(peer),
                WaitKind::Outside,
                "waits to read 10.0.0.5:7301 (splice)",
            ),
            (
                Wait::Resolver("a.test".into()),
                WaitKind::Outside,
                "waits for the resolver: a.test",
            ),
            (Wait::Job, WaitKind::Thread, "waits for a job"),
            (Wait::Sleep, WaitKind::Clock, "sleeps"),
        ] {
            assert_eq!(wait.describe(), (kind, words.into()), "{wait:?}");
        }
        let lock = Wait::Lock(Location::caller()).describe();
        assert_eq!(lock.0, WaitKind::Lock);
        assert!(lock.1.starts_with("waits for a lock, src/"), "{lock:?}");
        assert_eq!(Wait::Sleep.number(), WAITS.len() - 1);
    }
}
