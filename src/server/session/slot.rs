//! The slot of one session: its number, and its share of the connection limit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::registry::Registry;
use crate::protocol::canonical;
use crate::source_prefix::{SourcePrefix, SourcePrefixes};
use crate::sync::OnceLock;
use crate::sync::semaphore::{AcquireError, SlotGuard};

/// The slot of one session. A thread that still works for a session holds its slot, even
/// after the session has ended: its work counts until it is done. Dropping the slot
/// removes all that the registry knows of the session.
#[derive(Debug)]
pub(crate) struct SessionSlot<S> {
    registry: Arc<Registry<S>>,
    number: u64,
    /// The connection to the remote, once this server has made it.
    outgoing: OnceLock<(SocketAddr, SocketAddr)>,
    slot: SlotGuard<SourcePrefix>,
}

impl<S> SessionSlot<S> {
    /// Takes a slot for the session of this number. It counts for this client, or for none if
    /// the client is not known yet.
    ///
    /// # Errors
    ///
    /// All slots are in use, or all that this client may have.
    pub(crate) fn try_acquire(
        registry: &Arc<Registry<S>>,
        number: u64,
        client: Option<IpAddr>,
    ) -> Result<SessionSlot<S>, AcquireError> {
        let slot = registry.try_acquire(client.map(SourcePrefixes::of))?;
        Ok(SessionSlot::new(registry, number, slot))
    }

    /// The same, but waits for at most `limit` while all slots are in use.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub(crate) fn acquire_within(
        registry: &Arc<Registry<S>>,
        number: u64,
        client: Option<IpAddr>,
        limit: Duration,
    ) -> Result<SessionSlot<S>, AcquireError> {
        let slot = registry.acquire_within(client.map(SourcePrefixes::of), limit)?;
        Ok(SessionSlot::new(registry, number, slot))
    }

    fn new(
        registry: &Arc<Registry<S>>,
        number: u64,
        slot: SlotGuard<SourcePrefix>,
    ) -> SessionSlot<S> {
        SessionSlot {
            registry: Arc::clone(registry),
            number,
            outgoing: OnceLock::new(),
            slot,
        }
    }

    /// Counts the slot for this client, which was not known before.
    ///
    /// # Errors
    ///
    /// All slots that this client may have are in use.
    pub(crate) fn count_for(&self, client: IpAddr) -> Result<(), AcquireError> {
        self.registry
            .count_for(&self.slot, SourcePrefixes::of(client))
    }

    /// The number of the session, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Notes that this server itself has made the connection between these addresses.
    pub(crate) fn set_outgoing(&self, local: SocketAddr, remote: SocketAddr) {
        let connection = (canonical(local), canonical(remote));
        if self.outgoing.set(connection).is_ok() {
            self.registry.add_outgoing(connection);
        }
    }
}

impl<S> Drop for SessionSlot<S> {
    fn drop(&mut self) {
        self.registry.remove(self.number);
        if let Some(connection) = self.outgoing.get() {
            self.registry.remove_outgoing(connection);
        }
    }
}
