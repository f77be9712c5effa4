//! One direction, by plain reads and writes, or in bulk where the system can.

use std::io;
use std::time::Duration;

#[cfg(target_os = "linux")]
use super::splice::Pipe;
use super::{DirectionState, RelayStream};
use crate::sync::thread;

/// The buffer of a direction on which little moves. It lies on the thread's
/// stack, in a page that is there anyway: thousands of waiting connections need
/// no memory for it.
const SMALL_BUFFER: usize = 2 << 10;

/// The buffer once that was filled: past 64 KiB a larger one saves hardly any
/// system calls.
pub(crate) const LARGE_BUFFER: usize = 64 << 10;

/// A large buffer, or a pipe, is given back after so long without a byte.
pub(crate) const IDLE_RELEASE: Duration = Duration::from_millis(100);

/// Copies until `from` ends, or until this is over: an end that is no longer
/// read from may have sent a lot before.
///
/// # Errors
///
/// That of the first read or write that failed.
pub(super) fn copy<A: RelayStream, B: RelayStream>(
    from: &A,
    to: &B,
    state: &DirectionState,
    is_over: impl Fn() -> bool,
) -> io::Result<()> {
    let mut small = [0; SMALL_BUFFER];
    let mut large = Vec::new();
    let mut may_go_in_bulk = true;
    loop {
        if !large.is_empty() && !from.wait_readable(IDLE_RELEASE)? {
            large = Vec::new();
        }
        let buffer = match large.is_empty() {
            true => &mut small[..],
            false => &mut large[..],
        };
        let count = match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // In this order: whoever says that it is over, and then sees nobody
        // writing, knows that no more will be written.
        state.set_writing(true);
        if is_over() {
            return Ok(());
        }
        // After a failure it stays set, until all that follows is done.
        let bytes = buffer.get(..count).unwrap_or_default();
        if !write_all(to, bytes, state, &is_over)? {
            return Ok(());
        }
        state.set_writing(false);
        if count == SMALL_BUFFER && large.is_empty() {
            large = vec![0; LARGE_BUFFER];
        } else if count == LARGE_BUFFER && may_go_in_bulk {
            match bulk(from, to, state, &is_over)? {
                SpliceStop::Stopped => return Ok(()),
                SpliceStop::Idle => large = Vec::new(),
                SpliceStop::NoPipe => {}
                SpliceStop::Unsupported => may_go_in_bulk = false,
            }
        }
    }
}

/// Writes all of it, and measures each part as it goes; false if this was over
/// before the reader had taken all.
fn write_all<B: RelayStream>(
    to: &B,
    mut bytes: &[u8],
    state: &DirectionState,
    is_over: &impl Fn() -> bool,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                state.add(count);
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // Also where the reader is only slow.
        if !bytes.is_empty() && is_over() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why a direction in bulk has stopped without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "only Linux splices")
)]
pub(super) enum SpliceStop {
    /// It is over: what came is no longer wanted.
    Stopped,
    /// Nothing comes for now, or reading must tell what comes.
    Idle,
    /// All pipes are in use; nothing has been moved.
    NoPipe,
    /// Between these two it does not work; nothing has been moved.
    Unsupported,
}

/// Moves what comes past this program, if both ends are plain sockets.
#[cfg(target_os = "linux")]
fn bulk<A: RelayStream, B: RelayStream>(
    from: &A,
    to: &B,
    state: &DirectionState,
    is_over: &impl Fn() -> bool,
) -> io::Result<SpliceStop> {
    let (Some(from), Some(to)) = (from.socket(), to.socket()) else {
        return Ok(SpliceStop::Unsupported);
    };
    match Pipe::open() {
        Some(pipe) => pipe.pump(from, to, state, is_over),
        None => Ok(SpliceStop::NoPipe),
    }
}

/// Other systems copy.
#[cfg(not(target_os = "linux"))]
fn bulk<A: RelayStream, B: RelayStream>(
    _from: &A,
    _to: &B,
    _gauge: &DirectionState,
    _is_over: &impl Fn() -> bool,
) -> io::Result<SpliceStop> {
    Ok(SpliceStop::Unsupported)
}

/// SpliceStop for each full buffer of what nobody wants, and less for less: whoever
/// sends without end must not fill the network for it. Some 2.6 MB/s pass.
const DRAIN_PAUSE: Duration = Duration::from_millis(25);

/// Reads and drops what still comes, until `from` ends (then true), or until
/// this is over.
pub(super) fn drain<A: RelayStream>(from: &A, is_over: impl Fn() -> bool) -> bool {
    let mut buffer = vec![0; LARGE_BUFFER];
    while !is_over() {
        match from.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => thread::sleep(DRAIN_PAUSE.mul_f64(count as f64 / LARGE_BUFFER as f64)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
    false
}
