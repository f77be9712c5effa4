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

use std::io::IoSlice;
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, sendmsg};

use super::drops::Dropped;
use super::duplex::CutOnPanic;
use super::inbox::Inbox;
use super::mailboxes::Mailbox;
use super::names::Names;
use super::permission::question;
use super::recent::Recent;
use super::registry::Visit;
use super::workers::Worker;
use crate::event::Asked;
use crate::firewall::{self, Question, Rules, canonical};
use crate::sync::{Mutex, OnceLock, lock};
use crate::wire::socks5::{Header, header_length};
use crate::wire::{Host, HostName, Target};

/// How long a look at the rules is good for, so that a flow of datagrams does not
/// look for each: that would cost a sixth of their number.
const MOMENT_AGO: Duration = Duration::from_millis(1);

/// What both directions share.
#[derive(Debug)]
pub(super) struct Association {
    /// Stands in front of its socket, to be given back before that.
    pub(super) _mailbox: Mailbox,
    /// The socket towards the client.
    pub(super) inner: UdpSocket,
    /// The socket towards everybody else.
    pub(super) outer: UdpSocket,
    /// Does that speak IPv4 in the clothes of IPv6?
    pub(super) is_dual: bool,
    pub(super) visit: Arc<Visit>,
    pub(super) asked: Asked,
    /// Has identd confirmed the user?
    pub(super) confirmed: bool,
    /// Where the client sends from: its first datagram tells.
    pub(super) client: OnceLock<SocketAddr>,
    pub(super) sent_to: Mutex<Recent>,
    /// The rules, and when they were seen.
    pub(super) rules: Mutex<Option<(Arc<Rules>, Instant)>>,
    pub(super) names: Names,
}

impl Association {
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
        let mut inbox = Inbox::of(&self.inner, &self.visit.client);
        while let Some((datagram, from)) = inbox.next() {
            if let Err(why) = self.take(datagram, from) {
                self.visit.drops.count(why);
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
        if port == 0 {
            return Err(Dropped::Impossible);
        }
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
        let is_ours = self.visit.house.mailboxes.has(to);
        if is_ours || firewall::nobodys(to.ip(), to.port()).is_some() {
            return Err(Dropped::Impossible);
        }
        if !self.permits(name, Some(to.ip()), to.port()) {
            return Err(Dropped::Denied);
        }
        // Before it goes, so that no answer comes too soon.
        lock(&self.sent_to).add(to, name);
        let sent = self.outer.send_to(data, self.as_dialled(to));
        sent.map_err(|_| Dropped::NotSent)?;
        self.visit.meter.up.add(header_length(to.ip()) + data.len());
        Ok(())
    }

    /// Do the rules permit the client to send to this address (if it is known)
    /// and port?
    pub(super) fn permits(
        &self,
        name: Option<&HostName>,
        address: Option<IpAddr>,
        port: u16,
    ) -> bool {
        let verdict = self.rules().judge(&Question {
            name,
            address,
            port: Some(port),
            ..question(&self.visit, &self.asked)
        });
        verdict.grants(self.confirmed)
    }

    /// The rules in force, or those of a moment ago.
    fn rules(&self) -> Arc<Rules> {
        let mut last = lock(&self.rules);
        match &*last {
            Some((rules, seen)) if seen.elapsed() < MOMENT_AGO => Arc::clone(rules),
            _ => {
                let rules = self.visit.house.rules();
                *last = Some((Arc::clone(&rules), Instant::now()));
                rules
            }
        }
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
        let mut inbox = Inbox::besides(&self.outer, &self.visit.client);
        while let Some((data, from)) = inbox.next() {
            match self.give(data, canonical(from)) {
                Ok(count) => self.visit.meter.down.add(count),
                Err(why) => self.visit.drops.count(why),
            }
        }
    }

    /// Data has come to the outer socket. How many bytes it has with its header.
    fn give(&self, data: &[u8], from: SocketAddr) -> Result<usize, Dropped> {
        if !self.is_awaited(from) {
            return Err(Dropped::Stranger);
        }
        let header = Header {
            fragment: 0,
            target: Target {
                host: Host::Address(from.ip()),
                port: from.port(),
            },
        };
        let header = header.encode();
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
        let inner = self.inner.as_raw_fd();
        let sent = sendmsg::<()>(inner, &parts, &[], MsgFlags::MSG_DONTWAIT, None);
        sent.map_err(|_| Dropped::NotSent)
    }

    /// Has the client sent something there, and may it still? Perhaps to another
    /// port of the same host (TFTP answers like that, RFC 1350), if it might send
    /// to this one.
    fn is_awaited(&self, from: SocketAddr) -> bool {
        let name = match lock(&self.sent_to).find(from) {
            Some(name) => name.cloned(),
            None => return false,
        };
        from.port() != 0 && self.permits(name.as_ref(), Some(from.ip()), from.port())
    }
}
