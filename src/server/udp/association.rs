//! The two directions of a UDP association, a thread for each.
//!
//! ```text
//!              header, data                              data
//!     client  ==============>  client  | remote  ==============>  any host
//!             <==============  socket  | socket  <==============
//! ```
//!
//! Both last as long as the connection over which the client has requested them. A
//! datagram that cannot be forwarded at once is dropped and counted, unless it waits for the
//! lookup of a name (`named_hosts.rs`): UDP promises no more. The two threads wait only for
//! datagrams; another thread checks the rules file, for which they wait 20 ms after a pause.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{MsgFlags, SockaddrStorage, sendmsg};

use super::bindings::UdpBinding;
use super::client_port::{ClientPort, Origin};
use super::icmp_errors::take_icmp_errors;
use super::name_cache::NameCache;
use super::peer_filter::PeerFilter;
use super::receiver::{DatagramReceiver, Received};
use super::recent_rules::RecentRules;
use crate::events::{ClientRequest, DropReason, Event};
use crate::protocol::socks5::{UdpHeader, udp_header_length};
use crate::protocol::{Destination, Host, HostName, canonical};
use crate::relay::Direction;
use crate::rules::{AccessQuery, unusable_reason};
use crate::server::access::permit::access_query;
use crate::server::context::ServerContext;
use crate::server::limits::name_lookups::of_one_association;
use crate::server::pending_request::PendingRequest;
use crate::server::session::{Session, TerminateOnPanic};
use crate::sync::thread_pool::ReservedThread;
use crate::sync::{OrderedMutex, Rank};

/// How often the server tries to send one datagram. Each ICMP error for an earlier datagram
/// makes one send fail; the datagram must not be lost for that.
const MAX_SEND_ATTEMPTS: usize = 16;

/// What the two directions share, and the threads that look names up.
#[derive(Debug)]
pub(crate) struct Association {
    /// Before the sockets, so that it is dropped before them.
    _binding: UdpBinding,
    client_socket: UdpSocket,
    remote_socket: UdpSocket,
    /// Is the remote socket an IPv6 socket, which sends to IPv4-mapped addresses?
    is_dual_stack: bool,
    pub(super) context: Arc<ServerContext>,
    pub(super) session: Arc<Session>,
    request: ClientRequest,
    /// Has identd confirmed the user?
    confirmed: bool,
    /// Where the client sends from; a leaf in the lock order.
    client_port: OrderedMutex<ClientPort>,
    /// The peers to which the client has sent; a leaf in the lock order.
    peers: OrderedMutex<PeerFilter>,
    rules: RecentRules,
    /// A leaf in the lock order.
    pub(super) names: OrderedMutex<NameCache>,
}

impl Association {
    pub(crate) fn new(
        pending: PendingRequest<'_>,
        confirmed: bool,
        binding: UdpBinding,
        client_socket: UdpSocket,
        remote_socket: UdpSocket,
    ) -> Association {
        let is_dual_stack = remote_socket
            .local_addr()
            .is_ok_and(|local| local.is_ipv6());
        let client = pending.session.client_address().ip();
        let announced = &pending.request.destination;
        let announced = announced.host.address();
        let announced = announced.map(|ip| (ip, pending.request.destination.port).into());
        let max_lookups = of_one_association(pending.context.settings.max_name_lookups);
        let rules = RecentRules::new(pending.context.rules_for_datagrams());
        Association {
            _binding: binding,
            client_socket,
            remote_socket,
            is_dual_stack,
            context: Arc::clone(pending.context),
            session: Arc::clone(pending.session),
            request: pending.request.clone(),
            confirmed,
            client_port: OrderedMutex::new(Rank::Leaf, ClientPort::new(client, announced)),
            peers: OrderedMutex::new(Rank::Leaf, PeerFilter::default()),
            rules,
            names: OrderedMutex::new(Rank::Leaf, NameCache::new(max_lookups)),
        }
    }

    /// Relays until the client's connection ends. The calling thread runs the direction
    /// from the client, the reserved thread the other one.
    pub(crate) fn relay(self: Arc<Association>, reverse: ReservedThread) {
        reverse.start(format!("s{}-down", self.session.number()), {
            let association = Arc::clone(&self);
            move || {
                let _guard = TerminateOnPanic(&association.session);
                association.remote_loop();
            }
        });
        self.client_loop();
        self.session.end_association();
    }

    fn client_loop(self: &Arc<Association>) {
        let client = &self.session.client;
        let mut receiver = DatagramReceiver::new(&self.client_socket, client);
        while let Some(received) = receiver.next() {
            let Received::Datagram(datagram, from) = received else {
                // This socket has no queue of ICMP errors.
                receiver.note_error();
                continue;
            };
            if let Err(reason) = self.forward_to_remote(datagram, from) {
                self.session.count_drop(reason);
            }
        }
    }

    /// Forwards a datagram that has come to the client socket.
    fn forward_to_remote(
        self: &Arc<Association>,
        datagram: &[u8],
        from: SocketAddr,
    ) -> Result<(), DropReason> {
        let (header, data) = UdpHeader::split(datagram).map_err(|_| DropReason::BadHeader)?;
        // Fragments are not supported; RFC 1928, section 7, permits that.
        if header.fragment != 0 {
            return Err(DropReason::BadHeader);
        }
        let Destination { host, port } = header.destination;
        self.check_client_port(from, &host, port)?;
        if port == 0 {
            return Err(DropReason::UnusableDestination);
        }
        match host {
            Host::Address(ip) => self.send(None, SocketAddr::new(ip, port), data),
            Host::Name(name) => self.send_to_name(name, port, data),
            Host::Invalid(_) => Err(DropReason::BadHeader),
        }
    }

    /// Checks that the datagram comes from the client. If its port is new, the destination
    /// must be permitted too: a datagram of another program must not fix the port.
    fn check_client_port(
        &self,
        from: SocketAddr,
        host: &Host,
        port: u16,
    ) -> Result<(), DropReason> {
        let (session, client) = (self.session.number(), self.session.client_address());
        let now = Instant::now();
        let origin = self.client_port.lock().judge(from, now);
        match origin {
            Origin::Known => return Ok(()),
            Origin::Other | Origin::Foreign { is_first: false } => {}
            Origin::Foreign { is_first: true } => self.context.log.send(Event::ForeignDatagram {
                session,
                client,
                from: canonical(from),
            }),
            Origin::New { previous } => {
                self.judge_destination(host, port)?;
                // Before the datagram is sent: the answer may come at once.
                self.client_port.lock().set(from, now);
                self.context.log.send(Event::ClientPort {
                    session,
                    client,
                    announced: self.request.destination.port,
                    previous,
                    port: from.port(),
                });
                return Ok(());
            }
        }
        Err(DropReason::UnknownPeer)
    }

    /// Could a datagram to this destination be sent? For a name, before its lookup.
    fn judge_destination(&self, host: &Host, port: u16) -> Result<(), DropReason> {
        match host {
            Host::Address(ip) => self.judge_address(None, (*ip, port).into()).map(drop),
            _ if port == 0 => Err(DropReason::UnusableDestination),
            Host::Name(name) if self.permits(Some(name), None, port) => Ok(()),
            Host::Name(_) => Err(DropReason::Denied),
            Host::Invalid(_) => Err(DropReason::BadHeader),
        }
    }

    /// The address in canonical form, if the client may send to it.
    fn judge_address(
        &self,
        name: Option<&HostName>,
        address: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        let address = canonical(address);
        let is_own = self.context.udp_bindings.contains(address);
        let nat64 = &self.context.settings.nat64;
        if is_own || unusable_reason(address.ip(), address.port(), nat64).is_some() {
            return Err(DropReason::UnusableDestination);
        }
        match self.permits(name, Some(address.ip()), address.port()) {
            true => Ok(address),
            false => Err(DropReason::Denied),
        }
    }

    /// Sends the client's data to this address, which may be an address of a name.
    pub(super) fn send(
        &self,
        name: Option<&HostName>,
        address: SocketAddr,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let address = self.judge_address(name, address)?;
        // Before the datagram is sent: the answer may come at once.
        self.peers.lock().add(address, name);
        let to = self.for_remote_socket(address);
        self.send_datagram(data, to)?;
        let count = udp_header_length(address.ip()) + data.len();
        self.session.relay.add(Direction::Up, count);
        Ok(())
    }

    /// Sends to this address, also if ICMP errors for earlier datagrams have come: each of
    /// them makes a send fail, whatever its destination.
    fn send_datagram(&self, data: &[u8], to: SocketAddr) -> Result<(), DropReason> {
        for attempt in 1..=MAX_SEND_ATTEMPTS {
            match self.remote_socket.send_to(data, to) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(DropReason::BufferFull);
                }
                // The first failure may have taken the only error.
                Err(_) if self.take_icmp_errors() == 0 && attempt > 1 => break,
                Err(_) => {}
            }
        }
        Err(DropReason::SendFailed)
    }

    /// Lets flows leave the addresses at which a datagram has not arrived.
    fn take_icmp_errors(&self) -> usize {
        take_icmp_errors(&self.remote_socket, |to| {
            let now = Instant::now();
            self.names.lock().unreachable(canonical(to), now);
        })
    }

    /// Do the rules permit the client to send to this address, if it is known, and port?
    pub(super) fn permits(
        &self,
        name: Option<&HostName>,
        address: Option<IpAddr>,
        port: u16,
    ) -> bool {
        let now = self.context.clock.now();
        let client = self.session.client_address();
        let nat64 = &self.context.settings.nat64;
        let query = AccessQuery {
            name,
            address,
            port: Some(port),
            ..access_query(&self.request, client, now, nat64)
        };
        self.rules.permits(
            (name.cloned(), address, port),
            now,
            || self.context.rules_for_datagrams(),
            |rules| rules.evaluate(&query).grants(self.confirmed),
        )
    }

    /// The address in the form that the remote socket takes.
    fn for_remote_socket(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.is_dual_stack => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            other => other,
        }
    }

    fn remote_loop(&self) {
        let client = &self.session.client;
        let mut receiver = DatagramReceiver::new(&self.remote_socket, client);
        while let Some(received) = receiver.next() {
            match received {
                Received::Datagram(data, from) => {
                    match self.forward_to_client(data, canonical(from)) {
                        Ok(count) => self.session.relay.add(Direction::Down, count),
                        Err(reason) => self.session.count_drop(reason),
                    }
                }
                // The other direction has taken the errors, or recvmsg(2) fails.
                Received::IcmpErrors if self.take_icmp_errors() == 0 => receiver.note_error(),
                Received::IcmpErrors => {}
            }
        }
    }

    /// Forwards data that have come to the remote socket. Returns the bytes that were sent,
    /// header included.
    fn forward_to_client(&self, data: &[u8], from: SocketAddr) -> Result<usize, DropReason> {
        // Without an address the client has sent nothing, so nothing can be an answer.
        let client = self.client_port.lock().address();
        let client = client.ok_or(DropReason::UnknownPeer)?;
        let is_exact = self.check_peer(from)?;
        self.names.lock().answered(from, is_exact, Instant::now());
        let client = SockaddrStorage::from(client);
        let header = UdpHeader {
            fragment: 0,
            destination: Destination {
                host: Host::Address(from.ip()),
                port: from.port(),
            },
        };
        let header = header.encode();
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
        let socket = self.client_socket.as_raw_fd();
        let sent = sendmsg(socket, &parts, &[], MsgFlags::MSG_DONTWAIT, Some(&client));
        sent.map_err(|_| DropReason::SendFailed)
    }

    /// Continues if the client has sent something to this peer, and the rules still permit
    /// that; also for another port of the same host if the client might send to it: a TFTP
    /// server answers from another port (RFC 1350). Returns whether the client has sent to this
    /// port.
    fn check_peer(&self, from: SocketAddr) -> Result<bool, DropReason> {
        let (name, is_exact) = match self.peers.lock().find(from) {
            Some(peer) => (peer.name.cloned(), peer.is_exact),
            None => return Err(DropReason::UnknownPeer),
        };
        match from.port() != 0 && self.permits(name.as_ref(), Some(from.ip()), from.port()) {
            true => Ok(is_exact),
            false => Err(DropReason::UnknownPeer),
        }
    }
}
