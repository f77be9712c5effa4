//! Where the server receives the datagrams of its clients: one UDP binding per association.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::protocol::canonical;
use crate::sync::semaphore::{AcquireError, KeyedSemaphore, SlotGuard};
use crate::sync::{OrderedMutex, Rank};

/// All UDP bindings of the server.
#[derive(Debug)]
pub(crate) struct UdpBindings {
    max: usize,
    /// Limits the associations; without keys.
    slots: KeyedSemaphore<()>,
    /// The addresses in use; a leaf in the lock order.
    addresses: Arc<OrderedMutex<HashSet<SocketAddr>>>,
}

/// The binding of one association. It is dropped before its socket is closed: after that
/// another socket may get the same address.
#[derive(Debug)]
pub(crate) struct UdpBinding {
    addresses: Arc<OrderedMutex<HashSet<SocketAddr>>>,
    address: SocketAddr,
    _slot: SlotGuard<()>,
}

impl UdpBindings {
    pub(crate) fn new(max: usize) -> UdpBindings {
        UdpBindings {
            max,
            slots: KeyedSemaphore::new(max, max),
            addresses: Arc::new(OrderedMutex::new(Rank::Leaf, HashSet::new())),
        }
    }

    /// How many associations there may be at a time.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Takes a slot for one association, before its socket is opened.
    pub(crate) fn try_acquire(&self) -> Result<SlotGuard<()>, AcquireError> {
        self.slots.try_acquire([])
    }

    /// Notes the address of the association's socket.
    pub(crate) fn register(&self, slot: SlotGuard<()>, address: SocketAddr) -> UdpBinding {
        let address = canonical(address);
        self.addresses.lock().insert(address);
        UdpBinding {
            addresses: Arc::clone(&self.addresses),
            address,
            _slot: slot,
        }
    }

    /// Does this server receive datagrams of a client at this address?
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.addresses.lock().contains(&address)
    }
}

impl Drop for UdpBinding {
    fn drop(&mut self) {
        self.addresses.lock().remove(&self.address);
    }
}
