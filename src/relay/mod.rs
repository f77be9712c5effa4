//! The relay: two threads copy bytes between two ends, one per direction.
//!
//! ```text
//!                up: client to remote
//!     client  ===========================>  remote
//!             <===========================
//!               down: remote to client
//! ```
//!
//! Each thread blocks in a read of its source, or in a write to its destination. A destination that reads slowly blocks the write, so the source is
//! not read either, and TCP slows its sender down: backpressure, without any queue here.
//! EOF of one direction is passed on and leaves the other direction open; an error ends
//! both.
//!
//! Read in this order: `state.rs`, `stream.rs`, `direction.rs`, `copy.rs`, `splice.rs`,
//! `linger.rs`.

mod copy;
mod direction;
mod linger;
#[cfg(target_os = "linux")]
mod splice;
mod state;
mod stream;

pub(crate) use copy::LARGE_BUFFER;
pub use direction::RelayDirection;
#[cfg(target_os = "linux")]
pub(crate) use splice::max_pipes;
pub use state::{Direction, RelayState};
pub(crate) use stream::IDLE_RELEASE;
pub use stream::RelayStream;

/// Only Linux has splice(2) and needs pipes for it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn max_pipes(_descriptors: u64) -> usize {
    0
}
