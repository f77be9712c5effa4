//! Copies of the program's sockets, where the supervisor may not copy them from the program.
//!
//! A container may forbid pidfd_getfd(2). Then the supervisor makes the program's sockets itself, and
//! keeps a copy of each until it is connected. After that a copy would hold the connection open.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The copies, by the number that the kernel shows for a socket (its inode). The lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct KeptSockets {
    table: Mutex<HashMap<u64, Kept>>,
}

#[derive(Debug)]
struct Kept {
    descriptor: OwnedFd,
    /// The process for which it was made.
    process: i32,
    since: Instant,
}

impl KeptSockets {
    fn table(&self) -> MutexGuard<'_, HashMap<u64, Kept>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, inode: u64, descriptor: OwnedFd, process: i32) {
        let since = Instant::now();
        let kept = Kept {
            descriptor,
            process,
            since,
        };
        self.table().insert(inode, kept);
    }

    /// A further copy of this socket.
    pub(crate) fn copy(&self, inode: u64) -> Option<OwnedFd> {
        self.table().get(&inode)?.descriptor.try_clone().ok()
    }

    /// Gives up the copy.
    pub(crate) fn release(&self, inode: u64) {
        self.table().remove(&inode);
    }

    /// Gives up the copies of sockets that the program has closed.
    pub(crate) fn sweep(&self, young: Duration) {
        let old = |kept: &Kept| kept.since.elapsed() >= young;
        let candidates: Vec<(u64, i32)> = {
            let table = self.table();
            let old = table.iter().filter(|(_, kept)| old(kept));
            old.map(|(inode, kept)| (*inode, kept.process)).collect()
        };
        // Files are read without the lock.
        for (inode, process) in candidates {
            if !has_socket(process, inode) {
                self.release(inode);
            }
        }
    }
}

/// Does a process have a descriptor of this socket?
pub(crate) fn has_socket(process: i32, inode: u64) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return false;
    };
    let mut targets = descriptors.flatten().map(|it| fs::read_link(it.path()));
    targets.any(|target| target.is_ok_and(|it| inode_in(&it.to_string_lossy()) == Some(inode)))
}

/// The inode in `socket:[4711]`, to which the link in /proc/PID/fd leads.
pub(crate) fn inode_in(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}
