//! The registry: all sessions, and all connections that this server has made.
//!
//! `Registry` is generic over the type of a session, so this file does not import
//! `Session`, which holds a registry: no import circle.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::Settings;
use crate::protocol::canonical;
use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::semaphore::{AcquireError, KeyedSemaphore, SlotGuard};
use crate::sync::{OrderedMutex, Rank};

/// All sessions.
#[derive(Debug)]
pub(crate) struct Registry<S> {
    /// Limits the sessions in total and per client.
    slots: KeyedSemaphore<SourcePrefix>,
    /// The sessions by number. Weak: the registry does not keep a session alive. A leaf in
    /// the lock order.
    sessions: OrderedMutex<HashMap<u64, Weak<S>>>,
    /// The connections that this server has made. A leaf in the lock order.
    outgoing: OrderedMutex<HashSet<Connection>>,
}

/// A TCP connection, by its local and its remote address.
type Connection = (SocketAddr, SocketAddr);

impl<S> Registry<S> {
    /// With the limits of these settings.
    pub(crate) fn new(settings: &Settings) -> Registry<S> {
        let per_client = settings.max_per_client.unwrap_or(usize::MAX);
        Registry {
            slots: KeyedSemaphore::new(settings.max_sessions, per_client),
            sessions: OrderedMutex::new(Rank::Leaf, HashMap::new()),
            outgoing: OrderedMutex::new(Rank::Leaf, HashSet::new()),
        }
    }

    /// Takes one of the slots for sessions of this client; of no client, if it is not known.
    pub(super) fn try_acquire(
        &self,
        client: Option<SourcePrefixes>,
    ) -> Result<SlotGuard<SourcePrefix>, AcquireError> {
        let prefixes = client.into_iter().flat_map(SourcePrefixes::with_factors);
        self.slots.try_acquire(prefixes)
    }

    /// Counts a slot, which was taken for no client, for this one.
    pub(super) fn count_for(
        &self,
        slot: &SlotGuard<SourcePrefix>,
        client: SourcePrefixes,
    ) -> Result<(), AcquireError> {
        self.slots.add_keys(slot, client.with_factors())
    }

    /// The same, but waits for at most `limit` while all are in use.
    pub(super) fn acquire_within(
        &self,
        client: Option<SourcePrefixes>,
        limit: Duration,
    ) -> Result<SlotGuard<SourcePrefix>, AcquireError> {
        let prefixes = client.into_iter().flat_map(SourcePrefixes::with_factors);
        self.slots.acquire_within(limit, prefixes)
    }

    /// Adds a session under its number.
    pub(crate) fn add(&self, number: u64, session: &Arc<S>) {
        let session = Arc::downgrade(session);
        self.sessions.lock().insert(number, session);
    }

    /// Removes the session of this number.
    pub(super) fn remove(&self, number: u64) {
        self.sessions.lock().remove(&number);
    }

    /// The session of this number; `None` if it has ended.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<S>> {
        self.sessions.lock().get(&number)?.upgrade()
    }

    /// The number of slots in use. A session that has ended still counts while a thread
    /// works for it.
    pub(crate) fn len(&self) -> usize {
        self.slots.in_use()
    }

    /// All live sessions.
    ///
    /// Collects first and releases the lock: dropping the last `Arc` of a session locks
    /// the registry again and would deadlock.
    pub(crate) fn live(&self) -> Vec<Arc<S>> {
        let sessions = self.sessions.lock();
        sessions.values().filter_map(Weak::upgrade).collect()
    }

    /// Adds a connection that this server has made.
    pub(super) fn add_outgoing(&self, connection: Connection) {
        self.outgoing.lock().insert(connection);
    }

    /// Removes a connection that this server has made.
    pub(super) fn remove_outgoing(&self, connection: &Connection) {
        self.outgoing.lock().remove(connection);
    }

    /// Has this server itself made the connection between these addresses? Then a client
    /// that comes over it is the server itself: a loop.
    ///
    /// The client's address alone is not enough: the system gives the same local port to
    /// connections with different destinations.
    pub(crate) fn is_own_connection(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let connection = (canonical(local), canonical(remote));
        self.outgoing.lock().contains(&connection)
    }
}
