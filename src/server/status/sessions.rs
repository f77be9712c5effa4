//! The table of sessions.

use std::fmt::Display;
use std::time::Instant;

use super::columns::{MAX_ROWS, Table, UNKNOWN, short};
use crate::config::QuotedName;
use crate::events::SessionRow;
use crate::relay::Direction;
use crate::server::context::ServerContext;
use crate::server::session::Session;
use crate::server::session_state::{State, StateCounts};

const HEADINGS: [&str; 13] = [
    "SESSION", "CLIENT", "STATE", "VERSION", "COMMAND", "TARGET", "ADDRESS", "USER", "RULE", "UP",
    "DOWN", "AGE", "IDLE",
];

/// The sessions that are shown, oldest first, and how many there are in each state.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) rows: Vec<SessionRow>,
    counts: StateCounts,
    max: usize,
}

impl Sessions {
    /// The live sessions of this server.
    pub(super) fn of(context: &ServerContext) -> Sessions {
        let now = Instant::now();
        let mut live = context.registry.live();
        live.sort_unstable_by_key(|session| session.number());
        let mut sessions = Sessions {
            rows: Vec::new(),
            counts: StateCounts::default(),
            max: context.settings.max_sessions,
        };
        // Drops each session at once: an `Arc` that is held longer delays the close of its sockets.
        for session in live {
            let state = State::of(&session);
            if sessions.rows.len() < MAX_ROWS {
                sessions.rows.push(row(&session, state, now));
            }
            sessions.counts.add(state, 1);
        }
        sessions
    }

    /// How many sessions there are in each state.
    pub(super) fn summary(&self) -> String {
        let present = self.counts.each().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = present
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let separator = if parts.is_empty() { "" } else { ": " };
        let (total, max, parts) = (self.counts.total(), self.max, parts.join(", "));
        format!("{total} of {max} sessions{separator}{parts}")
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new("sessions", HEADINGS);
        self.rows.iter().for_each(|row| table.add(|| cells(row)));
        table.hide(self.counts.total() - self.rows.len());
        table.to_string()
    }
}

fn row(session: &Session, state: State, now: Instant) -> SessionRow {
    let request_log = session.request_log();
    SessionRow {
        session: session.number(),
        client: session.client_address(),
        via: session.via(),
        state: state.word(),
        request: session.request().cloned(),
        address: request_log.and_then(|it| it.address),
        confirmed: request_log.is_some_and(|it| it.confirmed),
        rule: request_log.and_then(|it| it.rule),
        up: session.relay.bytes(Direction::Up),
        down: session.relay.bytes(Direction::Down),
        age: session.age(now),
        idle: session.idle(now),
    }
}

fn cells(row: &SessionRow) -> [String; HEADINGS.len()] {
    let request = row.request.as_ref();
    // An empty user is no user.
    let user = request.map(|it| &it.user).filter(|user| !user.is_empty());
    [
        format!("s{}", row.session),
        row.client.to_string(),
        row.state.to_owned(),
        shown(request.map(|it| it.encoder)),
        shown(request.map(|it| it.command)),
        shown(request.map(|it| &it.destination)),
        shown(row.address),
        shown(user.map(|user| QuotedName(user))),
        shown(row.rule),
        row.up.to_string(),
        row.down.to_string(),
        short(row.age),
        shown(row.idle.map(short)),
    ]
}

/// The value, or a mark that it is unknown.
fn shown(value: Option<impl Display>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}
