//! A trace of the threads (`--trace`): the jobs that each thread runs, what it waits for, and since when.
//!
//! A thread records what it does with `wait`, `job`, `hand_over` and `mark`. Without
//! `--trace` each of these costs one atomic load. With it, an event goes into one bounded queue,
//! and no thread waits for another. [`Trace::finish`] makes a file of the events.
//!
//! This module imports nothing of the program, so each other module can use it.

mod event;
mod file;
mod json;
mod lanes;
mod recorder;
mod scale;
mod svg;
mod timeline;

pub(crate) use event::{Mark, Wait, peer};
pub use file::{Summary, Trace, TraceError, TraceTarget};
pub use recorder::MEMORY_OF_TRACE;
pub(crate) use recorder::{HandOver, hand_over, job, mark, session_began, session_ended, wait};
