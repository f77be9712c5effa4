//! How a direction ends whose destination has closed while its source still sends.
//!
//! Example: the remote sends its last bytes and closes both directions. The client is
//! still sending, so its bytes cannot be delivered (`EPIPE`). But the last bytes of the
//! remote may still be on their way to the client, and a reset would destroy them: a
//! reset by the relay, or by the system, which sends one when a socket is closed with
//! unread bytes. So the client's bytes are read and discarded for a while, slowly.

use std::io;
use std::time::Duration;

use super::state::{Direction, RelayState};
use super::stream::RelayStream;
use crate::net::Deadline;
use crate::sync::thread;
use crate::trace::{self, Wait};

/// How long the source is read if little was moved. Two seconds suffice for what is on
/// its way.
const MIN_LINGER: Duration = Duration::from_secs(2);

/// One second more for every 64 KiB that the opposite direction has moved:
/// more than the buffers hold for a client that reads at 1 Mbit/s.
const LINGER_BYTES_PER_SECOND: u64 = 64 << 10;

/// How long the source is read at most.
const MAX_LINGER: Duration = Duration::from_secs(60);

/// Bytes that are read at once. A larger buffer saves hardly any system call.
const DISCARD_BUFFER: usize = 64 << 10;

/// Pause after each full buffer, shorter after less: a rate limit of some 2.6 MB/s. A
/// client that sends without end must not load the network with bytes that are discarded.
const DISCARD_PAUSE: Duration = Duration::from_millis(25);

/// Reads and discards what `from` still sends, until it ends. False if it still sends
/// after the time.
///
/// The time is tested between reads. A source that sends nothing blocks the read, like in
/// any half-closed session: its EOF ends the wait, or a termination does.
pub(super) fn discard_input<A: RelayStream>(
    from: &A,
    state: &RelayState,
    direction: Direction,
) -> bool {
    let moved = state.bytes(direction.reverse());
    let more = Duration::from_secs(moved / LINGER_BYTES_PER_SECOND);
    let deadline = Deadline::after((MIN_LINGER + more).min(MAX_LINGER));
    discard(from, || deadline.is_over() || state.is_aborted())
}

/// Reads and discards until `from` ends, then true, or until this is over.
fn discard<A: RelayStream>(from: &A, is_over: impl Fn() -> bool) -> bool {
    let mut buffer = vec![0; DISCARD_BUFFER];
    while !is_over() {
        match from.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => {
                let share = count as f64 / DISCARD_BUFFER as f64;
                let _wait = trace::wait(|| Wait::Sleep);
                thread::sleep(DISCARD_PAUSE.mul_f64(share));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
    false
}
