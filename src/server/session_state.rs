//! What a session is doing, and how many sessions do what.

use super::session::Session;
use crate::protocol::Command;

/// What a session is doing. A session publishes what it has, and the state follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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
    /// The state of this session now.
    pub(super) fn of(session: &Session) -> State {
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

    /// The state in one word, for people and for programs. These words do not change.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Handshake => "handshake",
            State::Connect => "connect",
            State::Bind => "bind",
            State::Relay => "relay",
            State::Association => "association",
            State::Closing => "closing",
        }
    }
}

/// How many sessions there are in each state.
#[derive(Debug)]
pub(super) struct StateCounts([(State, usize); STATES.len()]);

impl Default for StateCounts {
    fn default() -> StateCounts {
        StateCounts(STATES.map(|state| (state, 0)))
    }
}

impl StateCounts {
    /// Counts this many sessions in this state.
    pub(super) fn add(&mut self, state: State, more: usize) {
        let found = self.0.iter_mut().find(|(it, _)| *it == state);
        if let Some((_, count)) = found {
            *count += more;
        }
    }

    /// The sessions in all states.
    pub(super) fn total(&self) -> usize {
        self.each().map(|(_, count)| count).sum()
    }

    /// The word of each state with its number.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.0.iter().map(|(state, count)| (state.word(), *count))
    }
}
