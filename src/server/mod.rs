//! The server: sessions, their handshake, access control, commands, and the shutdown.
//!
//! ```text
//!   accept ──> s1, s2, s3 ...        one thread per session: handshake, command, then
//!                │                   the relay from client to remote
//!                └──> s1-down ...    the relay from remote to client
//!   main   <── Control               reloads files, ends idle sessions, shuts down
//!   logger <── Event                 writes all output
//!   status ──> Event                 tables of sessions and threads, on request
//!   metrics                          counts for Prometheus, on request
//! ```
//!
//! Read `handler.rs` first: one session from top to bottom.

mod accept;
pub(crate) mod access;
mod admission;
mod background_check;
mod commands;
pub(crate) mod context;
mod drop_order;
mod handler;
mod handshake;
mod limits;
pub(crate) mod lookup_queue;
mod metrics;
pub(crate) mod pending_request;
pub(crate) mod request_log;
mod run;
pub(crate) mod session;
mod session_state;
mod shutdown;
mod start_time;
mod status;
mod udp;
pub(crate) mod unheard;

#[cfg(target_os = "linux")]
pub use limits::use_one_arena;
pub use limits::{
    LimitedBy, Limits, LimitsError, MemoryError, MemorySource, OtherMemory, check_memory,
};
pub use metrics::MetricsServer;
pub use run::Server;
pub use shutdown::{Control, ShutdownKind};
pub use status::StatusReporter;

pub use crate::sync::thread_pool::STACK_SIZE;
