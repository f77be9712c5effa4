//! The slot of one session: its number, and its share of the connection limit.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::registry::Registry;
use crate::protocol::canonical;
use crate::sync::OnceLock;
use crate::sync::semaphore::{AcquireError, SlotGuard};

/// The slot of one session. A thread that still works for a session holds its slot, even
/// after the session has ended: its work counts until it is done. Dropping the slot
/// removes all that the registry knows of the session.
#[derive(Debug)]
pub(crate) struct SessionSlot<S> {
    registry: Arc<Registry<S>>,
    number: u64,
    source_prefix: IpAddr,
    /// The connection to the remote, once this server has made it.
    outgoing: OnceLock<(SocketAddr, SocketAddr)>,
    _slot: SlotGuard<IpAddr>,
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
        let source_prefix = source_prefix(client);
        let slot = registry.try_acquire(source_prefix)?;
        Ok(SessionSlot {
            registry: Arc::clone(registry),
            number,
            source_prefix,
            outgoing: OnceLock::new(),
            _slot: slot,
        })
    }

    /// The number of the session, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What counts as the same client.
    pub(crate) fn source_prefix(&self) -> IpAddr {
        self.source_prefix
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

/// What counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address,
/// since a host usually has all addresses that begin with them.
fn source_prefix(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_a_client_is_an_ipv4_address_or_an_ipv6_prefix_of_64_bits() {
        for (client, counted) in [
            ("127.0.0.2", "127.0.0.2"),
            ("::ffff:127.0.0.2", "127.0.0.2"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let [client, counted]: [IpAddr; 2] =
                [client, counted].map(|address| address.parse().unwrap());
            assert_eq!(source_prefix(client), counted);
        }
    }
}
