//! The two directions of a UDP association, a thread for each.
//!
//! ```text
//!              header, data                       data
//!     client  ==============>  inner | outer  ==============>  anywhere
//!             <==============        |        <==============
//! ```
//!
//! Both last as long as the connection over which the client has asked for them.
//! A datagram that cannot be passed on is dropped, and that is all: so it is with
//! datagrams everywhere.

use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;

use super::drops::Dropped;
use super::duplex::CutOnPanic;
use super::inbox::Inbox;
use super::names::Names;
use super::permission::question;
use super::recent::Recent;
use super::registry::Visit;
use super::workers::Worker;
use crate::event::Asked;
use crate::firewall::{self, Question, canonical};
use crate::sync::{Mutex, OnceLock, lock};
use crate::wire::socks5::{Header, MAX_HEADER};
use crate::wire::{Host, HostName, Target};

/// No datagram is larger, in bytes: its length field has 16 bits.
const LARGEST: usize = 65_535;

/// What both directions share.
#[derive(Debug)]
pub(super) struct Association {
    /// The socket towards the client.
    inner: UdpSocket,
    /// The socket towards everybody else.
    outer: UdpSocket,
    /// Does that speak IPv4 in the clothes of IPv6?
    is_dual: bool,
    pub(super) visit: Arc<Visit>,
    asked: Asked,
    confirmed: bool,
    /// Where the client sends from: its first datagram tells.
    client: OnceLock<SocketAddr>,
    sent_to: Mutex<Recent>,
    pub(super) names: Names,
}

impl Association {
    pub(super) fn new(
        visit: &Arc<Visit>,
        asked: Asked,
        confirmed: bool,
        inner: UdpSocket,
        outer: UdpSocket,
    ) -> Association {
        Association {
            is_dual: outer.local_addr().is_ok_and(|here| here.is_ipv6()),
            inner,
            outer,
            visit: Arc::clone(visit),
            asked,
            confirmed,
            client: OnceLock::new(),
            sent_to: Mutex::default(),
            names: Names::default(),
        }
    }

    /// Relays until the client's connection ends. The calling thread takes the
    /// direction from the client, the worker the other one.
    pub(super) fn relay(self: Arc<Association>, down: Worker) {
        down.start(format!("s{}-down", self.visit.number()), {
            let association = Arc::clone(&self);
            move || {
                let _guard = CutOnPanic(&association.visit);
                association.pass_down();
            }
        });
        self.pass_up();
        // Wakes the other direction. Fails only if the connection is gone.
        let _ = self.visit.client.shutdown(Shutdown::Both);
    }

    fn pass_up(self: &Arc<Association>) {
        let mut buffer = vec![0; LARGEST];
        let mut inbox = Inbox::of(&self.inner, &self.visit.client);
        while let Some((count, from)) = inbox.next(&mut buffer) {
            let datagram = buffer.get(..count).unwrap_or_default();
            match self.take(datagram, from) {
                Ok(()) => self.visit.meter.up.add(count),
                Err(why) => self.visit.drops.count(why),
            }
        }
    }

    /// A datagram has come to the inner socket.
    fn take(self: &Arc<Association>, datagram: &[u8], from: SocketAddr) -> Result<(), Dropped> {
        if !self.is_client(canonical(from)) {
            return Err(Dropped::Stranger);
        }
        let (header, data) = Header::split(datagram).map_err(|_| Dropped::Unreadable)?;
        if header.fragment != 0 {
            return Err(Dropped::Unreadable);
        }
        if self.client.set(from).is_ok() {
            // From now on the system keeps others away. If it does not, we do.
            let _ = self.inner.connect(from);
        }
        let Target { host, port } = header.target;
        match host {
            Host::Address(ip) => self.send(None, SocketAddr::new(ip, port), data),
            Host::Name(name) => Names::send(self, name, port, data),
            Host::Unusable(_) => Err(Dropped::Unreadable),
        }
    }

    /// Only who has made the connection may send, from one port.
    fn is_client(&self, from: SocketAddr) -> bool {
        if let Some(&client) = self.client.get() {
            return from == canonical(client);
        }
        let announced = self.asked.target.port;
        from.ip() == self.visit.client_address.ip().to_canonical()
            && (announced == 0 || announced == from.port())
    }

    /// Sends data of the client to this address, which may be that of a name.
    pub(super) fn send(
        &self,
        name: Option<&HostName>,
        to: SocketAddr,
        data: &[u8],
    ) -> Result<(), Dropped> {
        let to = canonical(to);
        let is_ours = self.visit.house.registry.takes_datagrams_at(to);
        if is_ours || firewall::nobodys(to.ip(), to.port()).is_some() {
            return Err(Dropped::Impossible);
        }
        if !self.permits(name, Some(to.ip()), to.port()) {
            return Err(Dropped::Denied);
        }
        // Before it goes, so that no answer comes too soon.
        lock(&self.sent_to).add(to);
        let sent = self.outer.send_to(data, self.as_dialled(to));
        sent.map(drop).map_err(|_| Dropped::NotSent)
    }

    /// Do the rules permit the client to send to this address (if it is known)
    /// and port?
    pub(super) fn permits(
        &self,
        name: Option<&HostName>,
        address: Option<IpAddr>,
        port: u16,
    ) -> bool {
        let verdict = self.visit.house.rules().judge(&Question {
            name,
            address,
            port: Some(port),
            ..question(&self.visit, &self.asked)
        });
        verdict.grants(self.confirmed)
    }

    /// The address as the outer socket wants it.
    fn as_dialled(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.is_dual => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            other => other,
        }
    }

    fn pass_down(&self) {
        // Room for the header, whatever its length, in front of the data.
        let mut buffer = vec![0; MAX_HEADER + LARGEST];
        let mut inbox = Inbox::besides(&self.outer, &self.visit.client);
        while let Some(data) = buffer.get_mut(MAX_HEADER..) {
            let Some((count, from)) = inbox.next(data) else {
                return;
            };
            match self.give(&mut buffer, count, canonical(from)) {
                Ok(count) => self.visit.meter.down.add(count),
                Err(why) => self.visit.drops.count(why),
            }
        }
    }

    /// So many bytes have come to the outer socket, and lie behind the room for
    /// their header. The whole length of the datagram that is sent.
    fn give(&self, buffer: &mut [u8], count: usize, from: SocketAddr) -> Result<usize, Dropped> {
        if !self.is_awaited(from) {
            return Err(Dropped::Stranger);
        }
        let target = Target {
            host: Host::Address(from.ip()),
            port: from.port(),
        };
        let header = Header {
            fragment: 0,
            target,
        };
        let header = header.encode();
        let start = MAX_HEADER.saturating_sub(header.len());
        if let Some(room) = buffer.get_mut(start..MAX_HEADER) {
            room.copy_from_slice(&header);
        }
        let datagram = buffer.get(start..MAX_HEADER + count).unwrap_or_default();
        self.inner.send(datagram).map_err(|_| Dropped::NotSent)
    }

    /// Has the client sent something there? From another port of the same host
    /// (as TFTP answers, RFC 1350) only what it could have sent something to.
    fn is_awaited(&self, from: SocketAddr) -> bool {
        let (is_known, is_host_known) = {
            let sent_to = lock(&self.sent_to);
            (sent_to.has(from), sent_to.has_host(from.ip()))
        };
        is_known || is_host_known && self.permits(None, Some(from.ip()), from.port())
    }
}
