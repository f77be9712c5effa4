//! One direction, by plain reads and writes, or in bulk where the system can.

use std::io;
use std::thread;
use std::time::Duration;

#[cfg(target_os = "linux")]
use super::splice::Pipe;
use super::{Gauge, Leg};

/// Where a direction begins: enough for a request, small enough that thousands
/// of silent connections cost little.
const SMALL: usize = 4 << 10;

/// Where it ends up if reads keep filling the buffer: past 64 KiB a larger one
/// saves hardly any system calls.
const LARGE: usize = 64 << 10;

/// Copies until `from` ends, or until this is over: an end that is no longer
/// read from may have sent a lot before.
///
/// # Errors
///
/// That of the first read or write that failed.
pub(super) fn copy<A: Leg, B: Leg>(
    from: &A,
    to: &B,
    gauge: &Gauge,
    is_over: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; SMALL];
    let mut may_go_in_bulk = true;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) if is_over() => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        gauge.set_writing(true);
        // After a failure it stays set, until all that follows is done.
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        gauge.set_writing(false);
        gauge.add(count);
        if count < buffer.len() {
            continue;
        }
        if count < LARGE {
            buffer.resize(LARGE, 0);
        } else if may_go_in_bulk {
            match bulk(from, to, gauge, &is_over)? {
                Pause::End => return Ok(()),
                Pause::Lull => buffer = vec![0; SMALL],
                Pause::NoPipe => {}
                Pause::Unfit => may_go_in_bulk = false,
            }
        }
    }
}

/// Why a direction in bulk has stopped without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The direction has ended.
    End,
    /// Nothing comes for now.
    Lull,
    /// All pipes are in use; nothing has been moved.
    NoPipe,
    /// Between these two it does not work; nothing has been moved.
    Unfit,
}

/// Moves what comes past this program, if both ends are plain sockets.
#[cfg(target_os = "linux")]
fn bulk<A: Leg, B: Leg>(
    from: &A,
    to: &B,
    gauge: &Gauge,
    is_over: &impl Fn() -> bool,
) -> io::Result<Pause> {
    let (Some(from), Some(to)) = (from.socket(), to.socket()) else {
        return Ok(Pause::Unfit);
    };
    match Pipe::open() {
        Some(pipe) => pipe.pump(from, to, gauge, is_over),
        None => Ok(Pause::NoPipe),
    }
}

/// Other systems copy.
#[cfg(not(target_os = "linux"))]
fn bulk<A: Leg, B: Leg>(
    _from: &A,
    _to: &B,
    _gauge: &Gauge,
    _is_over: &impl Fn() -> bool,
) -> io::Result<Pause> {
    Ok(Pause::Unfit)
}

/// Pause for each full buffer of what nobody wants, and less for less: whoever
/// sends without end must not fill the network for it. Some 2.6 MB/s pass.
const TRICKLE: Duration = Duration::from_millis(25);

/// Reads and drops what still comes, until `from` ends (then true), or until
/// this is over.
pub(super) fn discard<A: Leg>(from: &A, is_over: impl Fn() -> bool) -> bool {
    let mut buffer = vec![0; LARGE];
    while !is_over() {
        match from.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => thread::sleep(TRICKLE.mul_f64(count as f64 / LARGE as f64)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
    false
}
