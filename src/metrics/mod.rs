//! Metrics: what the server counts, and the text that Prometheus reads (`--metrics`).
//!
//! The counts do not depend on the queue of the logger, which may drop events: each event is
//! counted by the thread that reports it, before the queue. So they are complete, and no other
//! code has to count. They are kept without `--metrics` too: an event costs a few additions.
//!
//! - `counters`: the counts, and the events that add to them
//! - `text_format`: the format of Prometheus, version 0.0.4
//! - `http`: requests and the heads of replies
//!
//! [`server::metrics`](crate::server) has the connections, and adds what the server knows at the
//! moment of a request.

mod counters;
mod histogram;
mod http;
mod text_format;
mod word_counts;

pub(crate) use counters::{Counters, Output};
pub(crate) use http::{MAX_HEAD, Reply, is_complete};
pub(crate) use text_format::{Kind, TextFormat};
