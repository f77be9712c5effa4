//! OS threads for sessions.

use std::io;
use std::thread;

/// Stack of a session's thread in bytes. Our own frames need a few KiB, the
/// system resolver tens of them, and with some name service modules a hundred
/// or more: servers of this kind have crashed with less. Only what is touched
/// becomes memory; the rest is address space.
pub const STACK: usize = 256 << 10;

/// Starts a thread of this name (15 bytes show up in `ps -T` and `top -H`).
///
/// # Errors
///
/// The system has no thread left; the job has been dropped.
pub(super) fn start(name: String, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name).stack_size(STACK);
    // Nobody joins it: the session it works for tells when it is over.
    builder.spawn(job).map(drop)
}
