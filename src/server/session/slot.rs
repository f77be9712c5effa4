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
    source_prefixes: SourcePrefixes,
    /// The connection to the remote, once this server has made it.
    outgoing: OnceLock<(SocketAddr, SocketAddr)>,
    _slot: SlotGuard<SourcePrefix>,
}

impl<S> SessionSlot<S> {
    /// Takes a slot for the session of this number.
    ///
    /// # Errors
    ///
    /// All slots are in use, or all that this client may have.
    pub(crate) fn try_acquire(
        registry: &Arc<Registry<S>>,
        number: u64,
        client: IpAddr,
    ) -> Result<SessionSlot<S>, AcquireError> {
        let source_prefixes = SourcePrefixes::of(client);
        let slot = registry.try_acquire(source_prefixes)?;
        Ok(SessionSlot::new(registry, number, source_prefixes, slot))
    }

    /// The same, but waits for at most `limit` while all slots are in use.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub(crate) fn acquire_within(
        registry: &Arc<Registry<S>>,
        number: u64,
        client: IpAddr,
        limit: Duration,
    ) -> Result<SessionSlot<S>, AcquireError> {
        let source_prefixes = SourcePrefixes::of(client);
        let slot = registry.acquire_within(source_prefixes, limit)?;
        Ok(SessionSlot::new(registry, number, source_prefixes, slot))
    }

    fn new(
        registry: &Arc<Registry<S>>,
        number: u64,
        source_prefixes: SourcePrefixes,
        slot: SlotGuard<SourcePrefix>,
    ) -> SessionSlot<S> {
        SessionSlot {
            registry: Arc::clone(registry),
            number,
            source_prefixes,
            outgoing: OnceLock::new(),
            _slot: slot,
        }
    }

    /// The number of the session, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What counts as the same client.
    pub(crate) fn source_prefixes(&self) -> SourcePrefixes {
        self.source_prefixes
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
