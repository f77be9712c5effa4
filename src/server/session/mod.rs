//! A session: the sockets of one client, and what other threads may see and do of it.

mod activity;
mod close;
mod grant;
mod registry;
mod slot;
mod sweep;

use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use activity::{Activity, ActivitySample};
use close::CloseState;
pub(crate) use grant::Grant;

use crate::config::Settings;
use crate::events::{ClientRequest, CloseReason, DropReason, Event, SessionClosed};
use crate::logger::Log;
use crate::net;
use crate::protocol::{ReplyEncoder, ReplyError};
use crate::relay::{Direction, RelayState};
use crate::server::request_log::RequestLog;
use crate::server::udp::drops::DropCounter;
use crate::sync::semaphore::AcquireError;
use crate::sync::wait_group::{AllDone, Token};
use crate::sync::{AtomicBool, OnceLock, OrderedMutex, Rank, thread};
use crate::trace::{self, Mark};

pub(crate) type SessionRegistry = registry::Registry<Session>;
pub(crate) type SessionSlot = slot::SessionSlot<Session>;

/// One session.
///
/// Its threads share it by `Arc`. When the last of them drops it, it sends its report to the
/// logger, gives its slot back, and closes its sockets, in this order.
#[derive(Debug)]
pub(crate) struct Session {
    /// The first field, so it is dropped before the sockets close: a client that sees its
    /// connection end can connect again at once.
    slot: Arc<SessionSlot>,
    log: Log,
    /// The connection of the client, or of the proxy through which it comes.
    pub(crate) client: TcpStream,
    /// The other end of this connection.
    peer: SocketAddr,
    /// What the proxy has announced: its client, and where that has connected to.
    announced: OnceLock<(SocketAddr, SocketAddr)>,
    began: Instant,
    pub(crate) relay: RelayState,
    remote: OnceLock<TcpStream>,
    request: OnceLock<ClientRequest>,
    request_log: OnceLock<RequestLog>,
    /// `terminate` also takes the relay's lock while it holds this one.
    state: OrderedMutex<SessionState>,
    is_udp_association: AtomicBool,
    /// Is the thread of the handshake not blocked in a wait for bytes?
    pub(crate) is_reading: AtomicBool,
    is_checking_login: AtomicBool,
    drops: DropCounter,
    /// The last field: when all tokens are dropped, all sessions are closed and reported.
    _token: Token,
}

/// What a session's lock guards.
#[derive(Debug)]
struct SessionState {
    close: CloseState,
    activity: Activity,
    /// The encoder of a BIND whose first reply is sent, and not its second.
    bind: Option<ReplyEncoder>,
    /// What is to be judged again when the rules change.
    grant: Option<Arc<Grant>>,
}

impl Session {
    pub(crate) fn new(
        slot: SessionSlot,
        log: Log,
        client: TcpStream,
        peer: SocketAddr,
        token: Token,
    ) -> Session {
        trace::session_began();
        let now = Instant::now();
        let state = SessionState {
            close: CloseState::default(),
            activity: Activity::new(now),
            bind: None,
            grant: None,
        };
        Session {
            slot: Arc::new(slot),
            log,
            client,
            peer,
            announced: OnceLock::new(),
            began: now,
            relay: RelayState::default(),
            remote: OnceLock::new(),
            request: OnceLock::new(),
            request_log: OnceLock::new(),
            state: OrderedMutex::new(Rank::SessionState, state),
            is_udp_association: AtomicBool::new(false),
            is_reading: AtomicBool::new(false),
            is_checking_login: AtomicBool::new(false),
            drops: DropCounter::default(),
            _token: token,
        }
    }

    /// The number of the session, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.slot.number()
    }

    /// The client: the peer of the connection, or the address that a listed proxy has announced.
    /// Everything that depends on the client uses this address.
    pub(crate) fn client_address(&self) -> SocketAddr {
        self.announced
            .get()
            .map_or(self.peer, |(client, _)| *client)
    }

    /// The proxy that has announced the client.
    pub(crate) fn via(&self) -> Option<SocketAddr> {
        self.announced.get().map(|_| self.peer)
    }

    /// Notes what the proxy has announced: its client, and where that has connected to.
    pub(crate) fn set_announced(&self, client: SocketAddr, destination: SocketAddr) {
        // A connection has one header, so the field is empty.
        let _ = self.announced.set((client, destination));
    }

    /// Counts the session for its client, which was not known before.
    ///
    /// # Errors
    ///
    /// The client has as many sessions as it may have.
    pub(crate) fn count_for(&self, client: IpAddr) -> Result<(), AcquireError> {
        self.slot.count_for(client)
    }

    /// Has the client connected over a connection that this server has made?
    pub(crate) fn is_loop(&self, registry: &SessionRegistry) -> bool {
        let accepted_on = self.client.local_addr();
        let is_own = |(from, to)| registry.is_own_connection(from, to);
        // A proxy on the way ends the connection that this server has made, and announces it.
        accepted_on.is_ok_and(|local| is_own((self.peer, local)))
            || self.announced.get().copied().is_some_and(is_own)
    }

    /// The session's slot, for work that may outlast the session.
    pub(crate) fn slot(&self) -> Arc<SessionSlot> {
        Arc::clone(&self.slot)
    }

    /// Sends a reply to the client; false if its connection is gone.
    pub(crate) fn send_reply(&self, message: &[u8]) -> bool {
        net::send_nonblocking(&self.client, message).is_ok()
    }

    /// Sends the last reply to the client; false if its connection is gone. Under the same
    /// lock as [`terminate`](Self::terminate), so that a BIND gets no third reply.
    pub(crate) fn send_last_reply(&self, message: &[u8]) -> bool {
        let mut state = self.state.lock();
        state.bind = None;
        self.send_reply(message)
    }

    /// The remote, after [`attach`](Self::attach).
    pub(crate) fn remote(&self) -> Option<&TcpStream> {
        self.remote.get()
    }

    /// Takes the remote's socket. False, and the socket is closed, if the session is
    /// closing: under the same lock as [`terminate`](Self::terminate), so that no remote
    /// is attached after a termination has looked for it.
    pub(crate) fn attach(&self, remote: TcpStream) -> bool {
        let state = self.state.lock();
        !state.close.is_closing() && self.remote.set(remote).is_ok()
    }

    /// Notes that this server itself has made the connection between these addresses.
    pub(crate) fn set_outgoing(&self, local: SocketAddr, remote: SocketAddr) {
        self.slot.set_outgoing(local, remote);
    }

    /// Marks the session as a UDP association.
    pub(crate) fn mark_udp_association(&self) {
        // Relaxed: the flag says how to treat the session, and publishes no other data.
        self.is_udp_association.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_udp_association(&self) -> bool {
        self.is_udp_association.load(Ordering::Relaxed)
    }

    /// Notes whether the credentials of the client are being checked now.
    pub(crate) fn set_checking_login(&self, is_checking: bool) {
        // Relaxed, as above.
        self.is_checking_login.store(is_checking, Ordering::Relaxed);
    }

    /// Is the thread reading what the client has sent, or will it do so as soon as it runs? A
    /// login can wait for half a minute, and what follows it is not read until then.
    pub(crate) fn is_about_to_read(&self) -> bool {
        let is_reading = self.is_reading.load(Ordering::Relaxed);
        !self.is_checking_login.load(Ordering::Relaxed)
            && (is_reading || net::has_unread_bytes(&self.client))
    }

    /// Makes the close of both connections send RST, before the reply says that the request
    /// is granted. From now on only the proper end of a direction sends FIN, so a process
    /// that is killed cuts off no transfer without notice.
    pub(crate) fn reset_on_close(&self) {
        net::reset_on_close(&self.client);
        if let Some(remote) = self.remote() {
            net::reset_on_close(remote);
        }
    }

    /// As [`reset_on_close`](Self::reset_on_close), before the first reply of a BIND. A
    /// session that is terminated before the second one refuses it with this encoder.
    pub(crate) fn begin_bind(&self, encoder: ReplyEncoder) {
        self.state.lock().bind = Some(encoder);
        self.reset_on_close();
    }

    /// Ends the connection of a UDP association whose client has closed it: FIN, unless the
    /// session was terminated.
    pub(crate) fn end_association(&self) {
        if !self.state.lock().close.is_closing() {
            // Fails only if the connection is gone already.
            let _ = net::send_fin(&self.client);
        }
    }

    /// Ends the session now. Wakes threads that are blocked in a read or in poll(2) on one of
    /// its sockets; a blocked write returns at its send timeout. What was granted ends with
    /// RST, since more was to come; a BIND that waits ends with its second reply.
    pub(crate) fn terminate(&self, reason: CloseReason) {
        trace::mark(|| Mark::Terminate(self.number(), reason.to_string()));
        let error = match reason {
            CloseReason::PermitWithdrawn(_) => ReplyError::NotAllowed,
            _ => ReplyError::Rejected,
        };
        let mut state = self.state.lock();
        state.close.terminate(reason);
        // The calls fail only if the connection is gone already.
        match self.remote() {
            Some(remote) => self.relay.abort(&self.client, remote),
            None if self.is_udp_association() => {
                let _ = self.client.shutdown(Shutdown::Read);
            }
            None => {
                if let Some(encoder) = state.bind {
                    self.send_reply(&encoder.refused(error));
                }
                let _ = net::send_fin(&self.client);
                let _ = self.client.shutdown(Shutdown::Both);
            }
        }
    }

    /// Is there a reason to end? Its threads may still be at work.
    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().close.is_closing()
    }

    /// Sets why the session ends, unless another reason was set before.
    pub(crate) fn set_close_reason(&self, reason: CloseReason) {
        self.state.lock().close.set_reason(reason);
    }

    /// A channel that is disconnected when the session is terminated: for the session's
    /// first thread while it waits for something other than one of the sockets.
    pub(crate) fn terminated(&self) -> AllDone {
        self.state.lock().close.terminated()
    }

    /// Publishes the request, for the table of sessions and for the report at the end.
    pub(crate) fn set_request(&self, request: ClientRequest) -> &ClientRequest {
        // A session has one request, so the field is empty.
        self.request.get_or_init(|| request)
    }

    /// The request, from the end of the handshake.
    pub(crate) fn request(&self) -> Option<&ClientRequest> {
        self.request.get()
    }

    /// Publishes what is known of the request after its last reply.
    pub(crate) fn set_request_log(&self, request_log: RequestLog) {
        // A session has one request, so the field is empty.
        let _ = self.request_log.set(request_log);
    }

    /// What is known of the request, after its last reply.
    pub(crate) fn request_log(&self) -> Option<&RequestLog> {
        self.request_log.get()
    }

    /// Publishes what is to be judged again when the rules change.
    pub(crate) fn set_grant(&self, grant: Grant) {
        self.state.lock().grant = Some(Arc::new(grant));
    }

    /// What is to be judged again; `None` before a request is granted, and always without
    /// `--enforce`.
    pub(crate) fn grant(&self) -> Option<Arc<Grant>> {
        self.state.lock().grant.clone()
    }

    fn sample(&self) -> ActivitySample {
        let relay = &self.relay;
        ActivitySample {
            is_relaying: self.remote().is_some() || self.is_udp_association(),
            bytes: (relay.bytes(Direction::Up), relay.bytes(Direction::Down)),
            ended: (
                relay.has_ended(Direction::Up),
                relay.has_ended(Direction::Down),
            ),
        }
    }

    /// Counts a datagram of the association that was dropped.
    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.drops.count(reason);
        self.log.send(Event::DatagramDropped(reason));
    }

    /// The time since accept.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// For how long nothing has moved, as far as this function and the sweep have seen; `None`
    /// before the relay begins.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        self.update_activity(self.sample(), now)
    }

    fn update_activity(&self, sample: ActivitySample, now: Instant) -> Option<Duration> {
        let update = || self.state.lock().activity.update(sample, now);
        sample.is_relaying.then(update)
    }

    /// Why the relay is to end, if nothing has moved for its timeout. A session that does not
    /// relay yet has a deadline for each stage.
    fn idle_reason(&self, settings: &Settings, now: Instant) -> Option<CloseReason> {
        let sample = self.sample();
        let idle = self.update_activity(sample, now)?;
        let is_over = |timeout: Option<_>| timeout.is_some_and(|timeout| idle >= timeout);
        if self.is_udp_association() {
            return is_over(settings.udp_timeout).then_some(CloseReason::Idle);
        }
        let is_half_closed = sample.ended.0 || sample.ended.1;
        if is_half_closed && is_over(settings.half_closed_timeout) {
            Some(CloseReason::HalfClosedIdle)
        } else if is_over(settings.idle_timeout) {
            Some(CloseReason::Idle)
        } else {
            None
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let reason = self.state.lock().close.take_reason();
        let request = self.request.take();
        let request_log = self.request_log.take();
        let confirmed = request_log.as_ref().is_some_and(|it| it.confirmed);
        let closed = SessionClosed {
            session: self.number(),
            client: self.client_address(),
            via: self.via(),
            request,
            address: request_log.as_ref().and_then(|it| it.address),
            confirmed,
            rule: request_log.and_then(|it| it.rule),
            up: self.relay.bytes(Direction::Up),
            down: self.relay.bytes(Direction::Down),
            drops: self.is_udp_association().then(|| self.drops.counts()),
            lasted: self.began.elapsed(),
            reason: reason.unwrap_or(CloseReason::Finished),
        };
        self.log.send(Event::SessionClosed(Box::new(closed)));
        trace::session_ended();
    }
}

/// Terminates the session if its thread panics, and with it the session's other threads:
/// panic isolation. Other sessions continue.
pub(crate) struct TerminateOnPanic<'a>(pub(crate) &'a Session);

impl Drop for TerminateOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.terminate(CloseReason::Panicked);
        }
    }
}
