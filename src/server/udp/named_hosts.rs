//! Datagrams to hosts by name: an association carries out what its name cache says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::association::Association;
use super::name_cache::NameAction;
use super::name_flows::Route;
use crate::events::DropReason;
use crate::net::resolve;
use crate::protocol::HostName;
use crate::server::lookup_queue::NameSource;

impl Association {
    /// Sends the client's data to a host by its name, as soon as the name is resolved.
    pub(super) fn send_to_name(
        self: &Arc<Association>,
        name: HostName,
        port: u16,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let now = Instant::now();
        let action = self.names.lock().route(&name, port, data, now);
        match action {
            NameAction::Send { route, is_expired } => {
                if is_expired
                    && self.permits(Some(&name), None, port)
                    && self.names.lock().begin_refresh(&name)
                {
                    self.request_lookup();
                }
                self.send_along(&route, &name, port, data)
            }
            NameAction::Queued => Ok(()),
            NameAction::Drop(reason) => Err(reason),
            NameAction::LookUp => {
                // A client that no rule permits does not make the server use the resolver.
                if !self.permits(Some(&name), None, port) {
                    return Err(DropReason::Denied);
                }
                if self.names.lock().begin_lookup(name, port, data, now)? {
                    self.request_lookup();
                }
                Ok(())
            }
        }
    }

    /// Sends to the first address that is permitted and can be reached. A full send buffer is
    /// no reason to send to another host.
    fn send_along(
        &self,
        route: &Route,
        name: &HostName,
        port: u16,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let mut result = Err(DropReason::Unresolved);
        for (position, &address) in route.addresses.iter().enumerate() {
            result = self.send(Some(name), SocketAddr::new(address, port), data);
            match result {
                Ok(()) if position > 0 => {
                    let now = Instant::now();
                    self.names.lock().set_address(name, port, address, now);
                    break;
                }
                Ok(()) | Err(DropReason::BufferFull) => break,
                Err(DropReason::SendFailed) if route.is_established => break,
                Err(_) => {}
            }
        }
        result
    }

    /// Enters the queue for lookups. An association enters once, however many of its names
    /// wait.
    fn request_lookup(self: &Arc<Association>) {
        let association: Weak<Association> = Arc::downgrade(self);
        let (context, prefixes) = (&self.context, self.context.source_prefixes(&self.session));
        let queue = &context.name_lookups;
        queue.request(&context.threads, prefixes, association);
    }

    /// Sends what has waited for this name, in its order.
    fn finish_lookup(&self, name: &HostName, addresses: &[IpAddr]) {
        loop {
            let queue = self.names.lock().resolved(name, addresses, Instant::now());
            if queue.is_empty() {
                return;
            }
            for queued in queue {
                let (port, now) = (queued.port, Instant::now());
                let route = self.names.lock().next_route(name, port, now);
                let sent = self.send_along(&route, name, port, &queued.data);
                if let Err(reason) = sent {
                    self.session.count_drop(reason);
                }
            }
        }
    }
}

impl NameSource for Association {
    /// During the lookup the thread holds the session's slot, since it still works for the
    /// session. It holds only a weak reference to the association: nothing can interrupt
    /// the resolver, and the sockets must not stay open for it.
    fn look_up_next(self: Arc<Association>) {
        let Some((name, enters_queue)) = self.names.lock().next_lookup() else {
            return;
        };
        if enters_queue {
            // Other threads look up other names meanwhile.
            self.request_lookup();
        }
        let (slot, association) = (self.session.slot(), Arc::downgrade(&self));
        drop(self);
        // The port is that of each datagram.
        let addresses = resolve::lookup(&name, 0).unwrap_or_default();
        let addresses: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        if let Some(association) = association.upgrade() {
            association.finish_lookup(&name, &addresses);
            // This thread takes the next turn.
            if association.names.lock().end_lookup() {
                let prefixes = association.context.source_prefixes(&association.session);
                let waiting: Weak<Association> = Arc::downgrade(&association);
                association.context.name_lookups.push(prefixes, waiting);
            }
        }
        drop(slot);
    }

    fn fail(&self, _: io::Error) {
        let dropped = self.names.lock().drop_waiting();
        (0..dropped).for_each(|_| self.session.count_drop(DropReason::Unresolved));
    }
}
