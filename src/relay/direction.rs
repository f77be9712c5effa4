//! One direction of a relay, from its first byte to its end.

use std::io;

use super::copy;
use super::linger;
use super::state::{Direction, RelayState};
use super::stream::RelayStream;

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
            // It was terminated after it had read bytes and before it had written all.
            Ok(()) if state.is_terminated() && state.is_writing(direction) => {
                state.abort(from, to);
            }
            Ok(()) if self.eof_hides_reset(from) => {}
            Ok(()) => to.shutdown_write(),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // This direction was told of no reset, and holds no bytes for `to`.
                state.end_write(direction);
                if !linger::drain_while_reverse_ends(from, state, direction) {
                    state.abort(from, to);
                }
            }
            Err(_) => state.abort(from, to),
        }
        state.end(direction);
        result
    }

    /// Is this EOF of `from` really a reset that the other direction was told of, or the
    /// effect of a termination that left bytes unwritten?
    ///
    /// The system reports a reset only once. If the other direction was writing to
    /// `from`, its write failed, and the read of this direction returns EOF. So where
    /// the EOF is doubtful, this direction waits until the other one has dealt with its
    /// write.
    fn eof_hides_reset<A: RelayStream>(self, from: &A) -> bool {
        let RelayDirection { state, direction } = self;
        if from.is_disconnected() || state.is_terminated() {
            state.wait_until_written(direction.reverse());
        }
        state.is_aborted()
    }
}
