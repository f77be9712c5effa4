//! What all threads of the supervisor share.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use threadsocks::protocol::{Destination, Host, Network};
use threadsocks::sync::thread_pool::ThreadPool;

use crate::address::is_loopback;
use crate::kept::KeptSockets;
use crate::messages::Messages;
use crate::names::{self, Names};
use crate::server::Server;
use crate::sockets::Sockets;

/// What all threads share.
pub(crate) struct Context {
    /// Receives the calls of the program.
    pub(crate) listener: OwnedFd,
    pub(crate) server: Server,
    pub(crate) direct: Vec<Network>,
    pub(crate) loopback: bool,
    pub(crate) strict: bool,
    pub(crate) threads: ThreadPool,
    pub(crate) sockets: Sockets,
    pub(crate) names: Names,
    /// `None`: the supervisor copies the sockets when it needs them.
    pub(crate) kept: Option<KeptSockets>,
    pub(crate) messages: Messages,
    /// Where the supervisor's name server listens; `None`: it has no port.
    pub(crate) name_server: Option<SocketAddr>,
    /// Where datagrams go that are refused.
    pub(crate) refused_datagrams: Option<SocketAddr>,
    /// Who sends them.
    pub(crate) refused_senders: Mutex<HashMap<SocketAddr, String>>,
    /// One more reference exists for each relay that still reads from the program.
    pub(crate) relays: Arc<()>,
    peers: Mutex<Peers>,
}

/// What BIND needs of earlier connections. Its lock is a leaf.
#[derive(Default)]
struct Peers {
    /// The destination to which each process has connected last.
    last: HashMap<i32, Destination>,
    /// The server's own addresses, which programs take for their own.
    reported: HashSet<IpAddr>,
}

/// How a connection is made.
#[derive(Debug)]
pub(crate) enum Route {
    /// Without the server.
    Direct,
    Server(Destination),
}

/// What a context is made of.
pub(crate) struct Parts {
    pub(crate) listener: OwnedFd,
    pub(crate) server: Server,
    pub(crate) direct: Vec<Network>,
    pub(crate) loopback: bool,
    pub(crate) strict: bool,
    pub(crate) name_server: Option<SocketAddr>,
    pub(crate) refused_datagrams: Option<SocketAddr>,
    pub(crate) keeps_sockets: bool,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Context {
        Context {
            listener: parts.listener,
            server: parts.server,
            direct: parts.direct,
            loopback: parts.loopback,
            strict: parts.strict,
            threads: ThreadPool::default(),
            sockets: Sockets::default(),
            names: Names::default(),
            kept: parts.keeps_sockets.then(KeptSockets::default),
            messages: Messages::default(),
            name_server: parts.name_server,
            refused_datagrams: parts.refused_datagrams,
            refused_senders: Mutex::default(),
            relays: Arc::default(),
            peers: Mutex::default(),
        }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to connect to this address.
    ///
    /// # Errors
    ///
    /// `ENETUNREACH` for an address that would stand for a name, but stands for none.
    pub(crate) fn route(&self, address: SocketAddr) -> Result<Route, Errno> {
        let ip = address.ip().to_canonical();
        let port = address.port();
        if names::is_stand_in(ip) {
            let name = self.names.name_of(ip).ok_or(Errno::ENETUNREACH)?;
            let host = Host::Name(name);
            return Ok(Route::Server(Destination { host, port }));
        }
        let is_local = is_loopback(ip) && !self.loopback;
        if is_local || self.direct.iter().any(|it| it.contains(ip)) {
            return Ok(Route::Direct);
        }
        let ip = match ip {
            IpAddr::V4(it) if it.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(it) if it.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let host = Host::Address(ip);
        Ok(Route::Server(Destination { host, port }))
    }

    /// The kernel has the socket now, or its state says everything: gives up a copy.
    pub(crate) fn release(&self, inode: u64) {
        if let Some(kept) = &self.kept {
            kept.release(inode);
        }
    }

    /// Remembers a connection of this process.
    pub(crate) fn note_connected(
        &self,
        process: i32,
        destination: Destination,
        local: Option<SocketAddr>,
    ) {
        let mut peers = self.peers();
        peers.last.insert(process, destination);
        peers
            .reported
            .extend(local.map(|it| it.ip().to_canonical()));
    }

    /// The destination to which this process has connected last.
    pub(crate) fn last_destination(&self, process: i32) -> Option<Destination> {
        self.peers().last.get(&process).cloned()
    }

    /// Has a program been told that this address is its own?
    pub(crate) fn is_reported(&self, address: IpAddr) -> bool {
        self.peers().reported.contains(&address.to_canonical())
    }

    /// Forgets the processes that have ended.
    pub(crate) fn forget_processes(&self, has_process: impl Fn(i32) -> bool) {
        self.peers().last.retain(|process, _| has_process(*process));
    }
}
