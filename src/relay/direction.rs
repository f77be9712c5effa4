//! One direction of a relay, from its first byte to its end.

use std::io;

use super::copy;
use super::linger;
use super::state::{Direction, RelayState};
use super::stream::RelayStream;
use crate::trace::{self, Mark};

/// One direction of a relay. One thread runs it, once.
#[derive(Clone, Copy, Debug)]
pub struct RelayDirection<'a> {
    state: &'a RelayState,
    direction: Direction,
}

impl RelayState {
    /// This direction of the relay.
    pub fn direction(&self, direction: Direction) -> RelayDirection<'_> {
        RelayDirection {
            state: self,
            direction,
        }
    }
}

impl RelayDirection<'_> {
    /// Moves everything from one end to the other and counts it. At EOF of `from` it
    /// sends EOF to `to` and leaves the opposite direction open (half-close).
    ///
    /// # Errors
    ///
    /// The first read or write that failed. Then the opposite direction ends as well.
    pub fn run<A: RelayStream, B: RelayStream>(self, from: &A, to: &B) -> io::Result<()> {
        let RelayDirection { state, direction } = self;
        let result = copy::copy(from, to, state, direction);
        match &result {
            Ok(()) if self.was_aborted(from) => {}
            Ok(()) => to.shutdown_write(),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // `to` has closed both directions, without a reset. The bytes that this
                // direction still holds can never be delivered: it has dealt with its write.
                state.end_write(direction);
                if !linger::discard_input(from, state, direction) {
                    trace::mark(|| Mark::Reset);
                    state.abort(from, to);
                }
            }
            Err(_) => {
                trace::mark(|| Mark::Reset);
                state.abort(from, to);
            }
        }
        state.end(direction);
        result
    }

    /// Is the EOF of `from` the effect of an abort? Then this direction sends no FIN, and
    /// `to` closes with RST.
    ///
    /// The system reports a reset only once. If the write of the other direction to `from`
    /// has failed because of the reset, the read of this direction returns EOF. So if
    /// `from` is disconnected, this direction waits first until the other one has finished
    /// its write, or has aborted the relay because of its error.
    fn was_aborted<A: RelayStream>(self, from: &A) -> bool {
        let RelayDirection { state, direction } = self;
        if from.is_disconnected() {
            state.wait_until_written(direction.reverse());
        }
        state.is_aborted()
    }
}
