//! What is known of the program's sockets, by the cookie that the kernel gives each socket.
//!
//! A cookie stays the same through dup(2), fork(2), execve(2) and the passing of descriptors, so
//! the state of a socket is in one place, whatever process uses it.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// What a socket is doing.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// bind(2) was called for a free port, by this process. It may become a BIND.
    Bound { process: i32 },
    /// A request for it is on its way to the server.
    Connecting,
    /// The server has connected it.
    Connected {
        /// The address for which the program has asked.
        peer: SocketAddr,
        /// The server's own address on that connection.
        local: Option<SocketAddr>,
        /// Has a call said so?
        announced: bool,
    },
    /// The request has failed, and no call has said so yet.
    Failed(Errno),
    /// The server listens for it.
    Listening(Listening),
}

/// A socket for which the server listens (BIND).
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    /// Where the server listens.
    pub(crate) local: SocketAddr,
    /// Has the program called listen(2)?
    pub(crate) is_listening: bool,
    /// The process that has called bind(2).
    pub(crate) process: i32,
    /// The connections that the supervisor makes to the program's socket, by their own address,
    /// and the peers for which they stand.
    pub(crate) arrivals: HashMap<SocketAddr, SocketAddr>,
    /// The connection on which the server will report the peer.
    pub(crate) waits_at: Option<Arc<TcpStream>>,
    /// Why no peer will come.
    pub(crate) failed: Option<Errno>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// The number of the socket in /proc/net/tcp.
    inode: u64,
    since: Instant,
}

/// All sockets that have a state. The lock is a leaf: no other lock is taken, and nothing is waited
/// for, while it is held.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    table: Mutex<HashMap<u64, Entry>>,
    /// Notified after a state has changed.
    changed: Condvar,
}

/// A socket of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketId {
    pub(crate) cookie: u64,
    pub(crate) inode: u64,
}

impl Sockets {
    fn table(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self, cookie: u64) -> Option<State> {
        let table = self.table();
        table.get(&cookie).map(|entry| entry.state.clone())
    }

    /// The socket with this inode that has a state.
    pub(crate) fn with_inode(&self, inode: u64) -> Option<SocketId> {
        let table = self.table();
        let found = table.iter().find(|(_, entry)| entry.inode == inode);
        found.map(|(cookie, _)| SocketId {
            cookie: *cookie,
            inode,
        })
    }

    pub(crate) fn set(&self, socket: SocketId, state: State) {
        let entry = Entry {
            state,
            inode: socket.inode,
            since: Instant::now(),
        };
        self.table().insert(socket.cookie, entry);
        self.changed.notify_all();
    }

    pub(crate) fn remove(&self, cookie: u64) {
        self.table().remove(&cookie);
        self.changed.notify_all();
    }

    /// Changes a state, if there is one. Returns what the change returns.
    pub(crate) fn update<T>(&self, cookie: u64, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let result = self
            .table()
            .get_mut(&cookie)
            .map(|it| change(&mut it.state));
        self.changed.notify_all();
        result
    }

    /// Waits until the state satisfies the condition, or for this time. Returns the state then.
    pub(crate) fn wait(
        &self,
        cookie: u64,
        limit: Duration,
        mut is_over: impl FnMut(Option<&State>) -> bool,
    ) -> Option<State> {
        let state = |table: &HashMap<u64, Entry>| table.get(&cookie).map(|it| it.state.clone());
        let waits =
            |table: &mut HashMap<u64, Entry>| !is_over(table.get(&cookie).map(|it| &it.state));
        match self.changed.wait_timeout_while(self.table(), limit, waits) {
            Ok((table, _)) => state(&table),
            Err(poisoned) => state(&poisoned.into_inner().0),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    /// Removes the sockets that are gone. `live` are the sockets in /proc/net/tcp; a socket that
    /// is bound only is not in it, and goes with its process.
    pub(crate) fn sweep(
        &self,
        young: Duration,
        is_live: impl Fn(u64) -> bool,
        has_process: impl Fn(i32) -> bool,
    ) {
        let stays = |entry: &Entry| {
            entry.since.elapsed() < young
                || match &entry.state {
                    State::Bound { process } => has_process(*process),
                    State::Listening(it) if !it.is_listening => has_process(it.process),
                    // Its thread ends it.
                    State::Connecting => true,
                    State::Connected { .. } | State::Failed(_) | State::Listening(_) => {
                        is_live(entry.inode)
                    }
                }
        };
        let mut ended = Vec::new();
        self.table().retain(|_, entry| {
            let stays = stays(entry);
            if let (false, State::Listening(listening)) = (stays, &mut entry.state) {
                ended.extend(listening.waits_at.take());
            }
            stays
        });
        self.changed.notify_all();
        // Wakes the threads that wait for a peer of a socket that is gone.
        for stream in ended {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The inodes in a table of sockets such as /proc/net/tcp.
pub(crate) fn inodes(table: &str) -> impl Iterator<Item = u64> {
    let inode = |line: &str| line.split_whitespace().nth(9)?.parse().ok();
    table.lines().skip(1).filter_map(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(cookie: u64) -> SocketId {
        let inode = cookie + 100;
        SocketId { cookie, inode }
    }

    #[test]
    fn k14_the_sweep_removes_what_is_gone_and_nothing_else() {
        let sockets = Sockets::default();
        let address: SocketAddr = ([192, 0, 2, 1], 80).into();
        let connected = || State::Connected {
            peer: address,
            local: None,
            announced: true,
        };
        sockets.set(socket(1), connected());
        sockets.set(socket(2), connected());
        sockets.set(socket(3), State::Bound { process: 7 });
        sockets.set(socket(4), State::Bound { process: 8 });
        sockets.set(socket(5), State::Connecting);
        sockets.set(socket(6), State::Failed(Errno::EACCES));
        sockets.sweep(Duration::from_secs(60), |_| false, |_| false);
        assert_eq!(sockets.table().len(), 6);
        sockets.sweep(Duration::ZERO, |inode| inode == 101, |process| process == 8);
        let mut left: Vec<u64> = sockets.table().keys().copied().collect();
        left.sort_unstable();
        assert_eq!(left, [1, 4, 5]);
    }

    #[test]
    fn the_inodes_are_read_from_the_table_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n";
        assert_eq!(inodes(table).collect::<Vec<_>>(), [4711]);
    }
}
