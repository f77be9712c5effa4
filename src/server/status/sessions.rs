//! The table of sessions.

use std::fmt::{self, Display};
use std::time::Instant;

use super::columns::{Table, UNKNOWN, short};
use crate::config::QuotedName;
use crate::protocol::Command;
use crate::relay::Direction;
use crate::server::context::ServerContext;
use crate::server::session::Session;

const HEADINGS: [&str; 13] = [
    "SESSION", "CLIENT", "STATE", "VERSION", "COMMAND", "TARGET", "ADDRESS", "USER", "RULE", "UP",
    "DOWN", "AGE", "IDLE",
];

/// What a session is doing. A session publishes what it has, and the state follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has no request yet.
    Handshake,
    /// The request is a CONNECT without a remote: identd, name lookup, attempts to connect.
    Connect,
    /// The request is a BIND without a remote: the same steps, and the wait for the peer.
    Bind,
    /// It has a remote.
    Relay,
    /// The request is a UDP ASSOCIATE.
    Association,
    /// The reason of its end is known, and its threads have not ended yet.
    Closing,
}

/// All states, in the order of the summary.
const STATES: [State; 6] = [
    State::Handshake,
    State::Connect,
    State::Bind,
    State::Relay,
    State::Association,
    State::Closing,
];

impl State {
    fn of(session: &Session) -> State {
        if session.is_closing() {
            return State::Closing;
        }
        match session.request().map(|request| request.command) {
            None => State::Handshake,
            Some(Command::Associate) => State::Association,
            Some(_) if session.remote().is_some() => State::Relay,
            Some(Command::Connect) => State::Connect,
            Some(Command::Bind) => State::Bind,
        }
    }
}

impl Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            State::Handshake => "handshake",
            State::Connect => "connect",
            State::Bind => "bind",
            State::Relay => "relay",
            State::Association => "association",
            State::Closing => "closing",
        })
    }
}

/// The summary and the table, oldest session first.
pub(super) fn table(context: &ServerContext) -> String {
    let now = Instant::now();
    let mut sessions = context.registry.live();
    sessions.sort_unstable_by_key(|session| session.number());
    let total = sessions.len();
    let mut counts = STATES.map(|state| (state, 0));
    let mut table = Table::new("sessions", HEADINGS);
    // Drops each session at once: an `Arc` that is held longer delays the close of its sockets.
    for session in sessions {
        let state = State::of(&session);
        table.add(|| row(&session, state, now));
        let count = counts.iter_mut().find(|(it, _)| *it == state);
        if let Some((_, count)) = count {
            *count += 1;
        }
    }
    let present = counts.into_iter().filter(|(_, count)| *count > 0);
    let parts: Vec<String> = present
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let max = context.settings.max_sessions;
    let separator = if parts.is_empty() { "" } else { ": " };
    let parts = parts.join(", ");
    format!("{total} of {max} sessions{separator}{parts}\n{table}")
}

fn row(session: &Session, state: State, now: Instant) -> [String; HEADINGS.len()] {
    let request = session.request();
    let request_log = session.request_log();
    // An empty user is no user.
    let user = request.map(|it| &it.user).filter(|user| !user.is_empty());
    [
        format!("s{}", session.number()),
        session.client_address.to_string(),
        state.to_string(),
        shown(request.map(|it| it.encoder)),
        shown(request.map(|it| it.command)),
        shown(request.map(|it| &it.destination)),
        shown(request_log.and_then(|it| it.address)),
        shown(user.map(|user| QuotedName(user))),
        shown(request_log.and_then(|it| it.rule)),
        session.relay.bytes(Direction::Up).to_string(),
        session.relay.bytes(Direction::Down).to_string(),
        short(session.age(now)),
        shown(session.idle(now).map(short)),
    ]
}

/// The value, or a mark that it is unknown.
fn shown(value: Option<impl Display>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}
