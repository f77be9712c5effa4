//! Where the server takes the datagrams of its clients, and how many may have such a place.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::rules::canonical;
use crate::sync::{Mutex, lock};

/// All places at which datagrams are taken.
#[derive(Debug, Default)]
pub(crate) struct UdpBindings(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    /// With those that have no address yet.
    count: usize,
    addresses: HashSet<SocketAddr>,
}

/// The place of one association. To be dropped before its socket: then another may
/// have the address.
#[derive(Debug)]
pub(crate) struct UdpBinding {
    taken: Arc<Mutex<Taken>>,
    address: Option<SocketAddr>,
}

impl UdpBindings {
    /// One more, if there are fewer than so many.
    pub(crate) fn reserve(&self, most: usize) -> Option<UdpBinding> {
        let mut taken = lock(&self.0);
        if taken.count >= most {
            return None;
        }
        taken.count += 1;
        Some(UdpBinding {
            taken: Arc::clone(&self.0),
            address: None,
        })
    }

    /// Does this server take a client's datagrams there?
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        lock(&self.0).addresses.contains(&address)
    }
}

impl UdpBinding {
    /// From now on it is there.
    pub(crate) fn set_address(&mut self, address: SocketAddr) {
        let address = canonical(address);
        self.address = Some(address);
        lock(&self.taken).addresses.insert(address);
    }
}

impl Drop for UdpBinding {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.count -= 1;
        if let Some(address) = self.address {
            taken.addresses.remove(&address);
        }
    }
}
