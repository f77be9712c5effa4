//! The copy loop of one direction: plain reads and writes, and splice for bulk data.

use std::io;

#[cfg(target_os = "linux")]
use super::splice::Pipe;
use super::state::{Direction, RelayState, SpliceStop};
use super::stream::{IDLE_RELEASE, RelayStream};

/// Bytes of the buffer of a direction on which little moves. It lies on the thread's
/// stack, in a page that is touched anyway: thousands of silent sessions need no memory
/// for it.
const SMALL_BUFFER: usize = 2 << 10;

/// Bytes of the buffer after the small one was filled once. A larger buffer saves hardly
/// any system call.
pub(crate) const LARGE_BUFFER: usize = 64 << 10;

/// Copies until EOF of `from`, or until the relay is aborted.
///
/// # Errors
///
/// The first read or write that failed. After a failed write the direction still counts as
/// writing.
pub(super) fn copy<A: RelayStream, B: RelayStream>(
    from: &A,
    to: &B,
    state: &RelayState,
    direction: Direction,
) -> io::Result<()> {
    let mut small = [0; SMALL_BUFFER];
    let mut large = Vec::new();
    let mut may_splice = true;
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
        if !state.begin_write(direction) {
            return Ok(());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if !write_all(to, bytes, state, direction)? {
            return Ok(());
        }
        state.end_write(direction);
        if count == SMALL_BUFFER && large.is_empty() {
            large = vec![0; LARGE_BUFFER];
        } else if count == LARGE_BUFFER && may_splice {
            match splice(from, to, state, direction)? {
                SpliceStop::Aborted => return Ok(()),
                SpliceStop::Idle => large = Vec::new(),
                SpliceStop::NoPipe => {}
                SpliceStop::Unsupported => may_splice = false,
            }
        }
    }
}

/// Writes all bytes, and counts each part after it is written. False if the relay was
/// aborted before the peer had taken all of them.
fn write_all<B: RelayStream>(
    to: &B,
    mut bytes: &[u8],
    state: &RelayState,
    direction: Direction,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                state.add(direction, count);
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The send timeout: the peer takes nothing for now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // Also after a part was written: a slow peer must not delay a termination.
        if !bytes.is_empty() && state.is_aborted() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets the kernel move the bytes, if both ends are plain sockets.
#[cfg(target_os = "linux")]
fn splice<A: RelayStream, B: RelayStream>(
    from: &A,
    to: &B,
    state: &RelayState,
    direction: Direction,
) -> io::Result<SpliceStop> {
    let (Some(from), Some(to)) = (from.socket(), to.socket()) else {
        return Ok(SpliceStop::Unsupported);
    };
    match Pipe::open() {
        Some(pipe) => pipe.splice(from, to, state, direction),
        None => Ok(SpliceStop::NoPipe),
    }
}

/// Only Linux has splice(2); other systems copy.
#[cfg(not(target_os = "linux"))]
fn splice<A: RelayStream, B: RelayStream>(
    _from: &A,
    _to: &B,
    _state: &RelayState,
    _direction: Direction,
) -> io::Result<SpliceStop> {
    Ok(SpliceStop::Unsupported)
}
