//! The logger: one thread owns all output.
//!
//! Sessions send events into a bounded channel and continue; the logger thread receives
//! and prints them. If a terminal is not read, it blocks this thread and no other: when the
//! channel is full, events are dropped and counted, and the count is printed as soon as the
//! output continues.
//!
//! When the last [`Log`] is dropped, the channel is disconnected, and the logger thread
//! ends after it has printed everything.

mod config;
mod diagnostics;
mod format;
mod json;
mod login_lines;
mod printer;
mod queue;
mod thread;
mod throttle;
mod writer;

pub use config::{LogFormat, OutputConfig, Verbosity};
pub use login_lines::MEMORY_OF_LOGIN_LINES;
#[allow(unused_imports, reason = "tests/model reads the queue")]
pub(crate) use queue::Queue;
pub use queue::{Log, MAX_QUEUED_EVENTS, MEMORY_PER_EVENT};
pub use thread::{Logger, start};
pub use writer::{Stderr, Stdout};
