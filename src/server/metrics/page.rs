//! The page of metrics: the counts, and what the server is doing at this moment.

use std::time::Duration;

use super::process;
use crate::metrics::{Kind, TextFormat};
use crate::relay::Direction;
use crate::server::context::ServerContext;
use crate::server::session_state::{State, StateCounts};

/// The metrics of this server now, whose process has `started` since 1970.
pub(super) fn page(context: &ServerContext, started: Option<Duration>) -> String {
    let mut page = TextFormat::default();
    let mut samples = page.metric(
        "threadsocks_build_info",
        Kind::Gauge,
        "Always 1; the label has the version of the server.",
    );
    samples.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let counters = context.log.counters();
    counters.write(&mut page, context.authenticator.get().is_some());
    let mut states = StateCounts::default();
    let bytes = counters.relayed_bytes(|| add_live(context, &mut states));
    // A session that has ended still counts while a thread works for it.
    let ended = context.registry.len().saturating_sub(states.total());
    states.add(State::Closing, ended);
    let mut samples = page.metric(
        "threadsocks_sessions",
        Kind::Gauge,
        "Sessions by state. Their sum counts against the limit.",
    );
    for (state, count) in states.each() {
        samples.add(&[("state", state)], count);
    }
    page.metric(
        "threadsocks_sessions_limit",
        Kind::Gauge,
        "Sessions at a time; one client more is rejected.",
    )
    .add(&[], context.settings.max_sessions);
    let mut samples = page.metric(
        "threadsocks_relayed_bytes_total",
        Kind::Counter,
        "Bytes relayed from clients (up) and to them (down), those of live sessions included.",
    );
    for (direction, count) in ["up", "down"].into_iter().zip(bytes) {
        samples.add(&[("direction", direction)], count);
    }
    process::write(&mut page, started);
    page.finish()
}

/// Counts the live sessions by state, and returns their bytes.
fn add_live(context: &ServerContext, states: &mut StateCounts) -> [u64; 2] {
    let mut bytes = [0, 0];
    // Drops each session at once: an `Arc` that is held longer delays the close of its sockets.
    for session in context.registry.live() {
        states.add(State::of(&session), 1);
        let [up, down] = &mut bytes;
        *up += session.relay.bytes(Direction::Up);
        *down += session.relay.bytes(Direction::Down);
    }
    bytes
}
