//! The two directions of a UDP association, a thread for each.
//!
//! ```text
//!              header, data                       data
//!     client  ==============>  inner | outer  ==============>  anywhere
//!             <==============        |        <==============
//! ```
//!
//! Both last as long as the connection over which the client has request for them.
//! A datagram that cannot be passed on is dropped, and that is all: so it is with
//! datagrams everywhere.

use std::io::IoSlice;
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, sendmsg};

use crate::events::ClientRequest;
use crate::protocol::socks5::{UdpHeader, udp_header_length};
use crate::protocol::{Destination, Host, HostName};
use crate::rules::{self, AccessQuery, Rules, canonical};
use crate::server::access::permission::query;
use crate::server::commands::tcp_relay::TerminateOnPanic;
use crate::server::session::registry::Session;
use crate::server::udp::bindings::UdpBinding;
use crate::server::udp::drops::DropReason;
use crate::server::udp::name_cache::NameCache;
use crate::server::udp::peer_filter::PeerFilter;
use crate::server::udp::receiver::DatagramReceiver;
use crate::sync::thread_pool::ReservedThread;
use crate::sync::{Mutex, OnceLock, lock};

/// How long a look at the rules is good for, so that a flow of datagrams does not
/// look for each: that would cost a sixth of their number.
const RULES_TTL: Duration = Duration::from_millis(1);

/// What both directions share.
#[derive(Debug)]
pub(crate) struct Association {
    /// Stands in front of its socket, to be given back before that.
    pub(crate) _mailbox: UdpBinding,
    /// The socket towards the client.
    pub(crate) inner: UdpSocket,
    /// The socket towards everybody else.
    pub(crate) outer: UdpSocket,
    /// Does that speak IPv4 in the clothes of IPv6?
    pub(crate) is_dual: bool,
    pub(crate) session: Arc<Session>,
    pub(crate) request: ClientRequest,
    /// Has identd confirmed the user?
    pub(crate) confirmed: bool,
    /// Where the client sends from: its first datagram tells.
    pub(crate) client: OnceLock<SocketAddr>,
    pub(crate) sent_to: Mutex<PeerFilter>,
    /// The rules, and when they were seen.
    pub(crate) rules: Mutex<Option<(Arc<Rules>, Instant)>>,
    pub(crate) names: NameCache,
}

impl Association {
    /// Relays until the client's connection ends. The calling thread takes the
    /// direction from the client, the thread the other one.
    pub(crate) fn relay(self: Arc<Association>, down: ReservedThread) {
        down.start(format!("s{}-down", self.session.number()), {
            let association = Arc::clone(&self);
            move || {
                let _guard = TerminateOnPanic(&association.session);
                association.remote_loop();
            }
        });
        self.client_loop();
        // Wakes the other direction. Fails only if the connection is gone.
        let _ = self.session.client.shutdown(Shutdown::Both);
    }

    fn client_loop(self: &Arc<Association>) {
        let mut receiver = DatagramReceiver::of(&self.inner, &self.session.client);
        while let Some((datagram, from)) = receiver.next() {
            if let Err(why) = self.take(datagram, from) {
                self.session.drops.count(why);
            }
        }
    }

    /// A datagram has come to the inner socket.
    fn take(self: &Arc<Association>, datagram: &[u8], from: SocketAddr) -> Result<(), DropReason> {
        if !self.is_client(canonical(from)) {
            return Err(DropReason::UnknownPeer);
        }
        let (header, data) = UdpHeader::split(datagram).map_err(|_| DropReason::BadHeader)?;
        if header.fragment != 0 {
            return Err(DropReason::BadHeader);
        }
        if self.client.set(from).is_ok() {
            // From now on the system keeps others away. If it does not, we do.
            let _ = self.inner.connect(from);
        }
        let Destination { host, port } = header.target;
        if port == 0 {
            return Err(DropReason::UnusableDestination);
        }
        match host {
            Host::Address(ip) => self.send(None, SocketAddr::new(ip, port), data),
            Host::Name(name) => NameCache::send(self, name, port, data),
            Host::Invalid(_) => Err(DropReason::BadHeader),
        }
    }

    /// Only who has made the connection may send, from one port.
    fn is_client(&self, from: SocketAddr) -> bool {
        if let Some(&client) = self.client.get() {
            return from == canonical(client);
        }
        let announced = self.request.target.port;
        from.ip() == self.session.client_address.ip().to_canonical()
            && (announced == 0 || announced == from.port())
    }

    /// Sends data of the client to this address, which may be that of a name.
    pub(crate) fn send(
        &self,
        name: Option<&HostName>,
        to: SocketAddr,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let to = canonical(to);
        let is_ours = self.session.context.udp_bindings.has(to);
        if is_ours || rules::unusable_reason(to.ip(), to.port()).is_some() {
            return Err(DropReason::UnusableDestination);
        }
        if !self.permits(name, Some(to.ip()), to.port()) {
            return Err(DropReason::Denied);
        }
        // Before it goes, so that no answer comes too soon.
        lock(&self.sent_to).add(to, name);
        let sent = self.outer.send_to(data, self.as_dialled(to));
        sent.map_err(|_| DropReason::SendFailed)?;
        self.session
            .relay
            .up
            .add(udp_header_length(to.ip()) + data.len());
        Ok(())
    }

    /// Do the rules permit the client to send to this address (if it is known)
    /// and port?
    pub(crate) fn permits(
        &self,
        name: Option<&HostName>,
        address: Option<IpAddr>,
        port: u16,
    ) -> bool {
        let verdict = self.rules().evaluate(&AccessQuery {
            name,
            address,
            port: Some(port),
            ..query(&self.session, &self.request)
        });
        verdict.grants(self.confirmed)
    }

    /// The rules in force, or those of a moment ago.
    fn rules(&self) -> Arc<Rules> {
        let mut last = lock(&self.rules);
        match &*last {
            Some((rules, seen)) if seen.elapsed() < RULES_TTL => Arc::clone(rules),
            _ => {
                let rules = self.session.context.rules();
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

    fn remote_loop(&self) {
        let mut receiver = DatagramReceiver::besides(&self.outer, &self.session.client);
        while let Some((data, from)) = receiver.next() {
            match self.give(data, canonical(from)) {
                Ok(count) => self.session.relay.down.add(count),
                Err(why) => self.session.drops.count(why),
            }
        }
    }

    /// Data has come to the outer socket. How many bytes it has with its header.
    fn give(&self, data: &[u8], from: SocketAddr) -> Result<usize, DropReason> {
        if !self.is_awaited(from) {
            return Err(DropReason::UnknownPeer);
        }
        let header = UdpHeader {
            fragment: 0,
            target: Destination {
                host: Host::Address(from.ip()),
                port: from.port(),
            },
        };
        let header = header.encode();
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
        let inner = self.inner.as_raw_fd();
        let sent = sendmsg::<()>(inner, &parts, &[], MsgFlags::MSG_DONTWAIT, None);
        sent.map_err(|_| DropReason::SendFailed)
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
