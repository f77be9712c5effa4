//! The registry knows who is in the context.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::events::{ClientRequest, CloseReason, Event, Rejected, SessionClosed};
use crate::net;
use crate::protocol::ReplyError;
use crate::relay::RelayState;
use crate::rules::canonical;
use crate::server::request_log::{Grant, RequestLog};
use crate::server::udp::drops::DropCounter;
use crate::server::{ServerContext, Settings};
use crate::sync::semaphore::{KeyCounts, source_prefix};
use crate::sync::{AtomicBool, Mutex, OnceLock, lock};

/// One client's session: its sockets, and what others may see and do of it.
///
/// The session's threads share it; when the last of them lets go, the sockets
/// close and the log is told of it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Given back before the sockets close: when both have, it is free.
    slot: Arc<SessionSlot>,
    pub(crate) context: Arc<ServerContext>,
    pub(crate) client: TcpStream,
    pub(crate) client_address: SocketAddr,
    pub(crate) began: Instant,
    pub(crate) relay: RelayState,
    remote: OnceLock<TcpStream>,
    log_entry: OnceLock<(ClientRequest, RequestLog)>,
    grant: Mutex<Option<Grant>>,
    close_state: Mutex<CloseState>,
    activity: Mutex<Activity>,
    is_association: AtomicBool,
    pub(crate) drops: DropCounter,
    /// DropReason with the session: the last one tells the server that all have left.
    _present: Sender<Infallible>,
}

/// Whether and why the session is over. Whoever writes this also acts on it under
/// the same lock.
#[derive(Debug, Default)]
struct CloseState {
    ending: Option<CloseReason>,
    /// DropReason when the session is cut, which wakes who waits for that.
    not_cut: Option<Sender<Infallible>>,
}

/// A place among the sessions there may be at a time, for all and for one client,
/// with what the registry knows under its number. Kept by whoever still works for
/// the session, even when the session itself is over.
#[derive(Debug)]
pub(crate) struct SessionSlot {
    registry: Arc<SessionRegistry>,
    number: u64,
    source_prefix: IpAddr,
    /// The local and remote address of a connection this server has made.
    outgoing: OnceLock<Pair>,
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut slots = lock(&self.registry.slots);
        slots.sessions.remove(&self.number);
        slots.taken.remove(self.source_prefix);
        drop(slots);
        if let Some(pair) = self.outgoing.get() {
            lock(&self.registry.outgoing).remove(pair);
        }
    }
}

/// A connection, by its local and its remote address.
type Pair = (SocketAddr, SocketAddr);

/// What changes when something moves; of both directions, up and down.
#[derive(Debug, Default, PartialEq)]
struct ActivitySample {
    is_relaying: bool,
    bytes: (u64, u64),
    ended: (bool, bool),
}

/// What the last round of [`SessionRegistry::close_idle`] saw.
#[derive(Debug)]
struct Activity {
    state: ActivitySample,
    since: Instant,
    /// When a round last saw that bytes had moved.
    moved: Option<Instant>,
}

/// Nothing moves in a session if nothing has for so long, as far as the rounds of
/// the close_idle tell: who breathes between two parts of a message is not at rest.
const REST_TIME: Duration = Duration::from_secs(2);

impl Session {
    pub(crate) fn new(
        context: Arc<ServerContext>,
        slot: SessionSlot,
        client: TcpStream,
        client_address: SocketAddr,
        present: Sender<Infallible>,
    ) -> Session {
        let now = Instant::now();
        Session {
            context,
            client,
            client_address,
            began: now,
            relay: RelayState::default(),
            remote: OnceLock::new(),
            log_entry: OnceLock::new(),
            grant: Mutex::default(),
            slot: Arc::new(slot),
            close_state: Mutex::default(),
            activity: Mutex::new(Activity {
                state: ActivitySample::default(),
                since: now,
                moved: None,
            }),
            is_association: AtomicBool::new(false),
            drops: DropCounter::default(),
            _present: present,
        }
    }

    /// Counts the sessions, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.slot.number
    }

    /// What counts as the same client as this one.
    pub(crate) fn source_prefix(&self) -> IpAddr {
        self.slot.source_prefix
    }

    /// Tells the client something; false if it is gone.
    pub(crate) fn send_reply(&self, message: &[u8]) -> bool {
        net::send_nonblocking(&self.client, message).is_ok()
    }

    /// The other end, once it is attached.
    pub(crate) fn remote(&self) -> Option<&TcpStream> {
        self.remote.get()
    }

    /// Takes the other end in; not if the session has been cut meanwhile, which
    /// would leave this socket open. True if it was taken.
    pub(crate) fn attach(&self, remote: TcpStream) -> bool {
        let close_state = lock(&self.close_state);
        close_state.ending.is_none() && self.remote.set(remote).is_ok()
    }

    /// Remembers that this server itself made the connection between these
    /// addresses, for as long as the session lasts.
    pub(crate) fn register_outgoing(&self, local: SocketAddr, remote: SocketAddr) {
        let pair = (canonical(local), canonical(remote));
        if self.slot.outgoing.set(pair).is_ok() {
            lock(&self.slot.registry.outgoing).insert(pair);
        }
    }

    /// From now on it is a UDP association.
    pub(crate) fn mark_udp_association(&self) {
        self.is_association.store(true, Ordering::Relaxed);
    }

    fn is_association(&self) -> bool {
        self.is_association.load(Ordering::Relaxed)
    }

    /// Ends the session now, for this reason, and wakes every thread that waits
    /// for one of its sockets. What has moved lately ends in a reset, since there
    /// was more to come.
    pub(crate) fn terminate(&self, why: CloseReason) {
        let is_at_rest = match why {
            CloseReason::Panicked => false,
            // It has been still for its limit, however short that is.
            CloseReason::Idle | CloseReason::HalfClosedIdle => !self.moves(),
            _ => !self.moves() && !self.moved_recently(),
        };
        let mut close_state = lock(&self.close_state);
        close_state.ending.get_or_insert(why);
        close_state.not_cut = None;
        match self.remote() {
            Some(remote) => self.relay.terminate(&self.client, remote, is_at_rest),
            None => {
                // Some wait for a peer: it will not come.
                if let Some(grant) = lock(&self.grant).as_ref()
                    && !self.is_association()
                {
                    let language = grant.request.language;
                    self.send_reply(&language.refused(ReplyError::NotAllowed));
                }
                // Fails only if the client is gone already.
                drop(self.client.shutdown(Shutdown::Both));
            }
        }
    }

    /// Breaks off what does not end in time.
    pub(crate) fn reset(&self) {
        if let Some(remote) = self.remote() {
            let is_at_rest = false;
            self.relay.terminate(&self.client, remote, is_at_rest);
        }
    }

    /// RequestLog why the session is over, unless something else ended it before.
    pub(crate) fn set_close_reason(&self, why: CloseReason) {
        lock(&self.close_state).ending.get_or_insert(why);
    }

    /// Keeps what it request for, and what was taken down about that.
    pub(crate) fn keep(&self, request: ClientRequest, log_entry: RequestLog) {
        // A session has one request.
        let _ = self.log_entry.set((request, log_entry));
    }

    /// From now on it set_grant for this.
    pub(crate) fn set_grant(&self, grant: Grant) {
        *lock(&self.grant) = Some(grant);
    }

    /// Looks at what it set_grant for; at nothing as long as that is nothing.
    pub(crate) fn with_grant<E>(
        &self,
        look: impl FnOnce(&Grant) -> Result<(), E>,
    ) -> Result<(), E> {
        lock(&self.grant).as_ref().map_or(Ok(()), look)
    }

    /// A channel on which nobody ever sends; it is disconnected when the session
    /// is cut. For who waits for something else than one of the sockets.
    pub(crate) fn terminated(&self) -> Receiver<Infallible> {
        let (not_cut, terminated) = bounded(0);
        let mut close_state = lock(&self.close_state);
        close_state.not_cut = close_state.ending.is_none().then_some(not_cut);
        terminated
    }

    /// The session's place, for work that may outlast it.
    pub(crate) fn slot(&self) -> Arc<SessionSlot> {
        Arc::clone(&self.slot)
    }

    /// Why the relay is over, if nothing has moved for too long.
    fn idle_reason(&self, settings: &Settings, now: Instant) -> Option<CloseReason> {
        let idle = self.idle_for(now);
        let over = |limit: Option<Duration>| limit.is_some_and(|limit| idle >= limit);
        if self.is_association() {
            return over(settings.udp_timeout).then_some(CloseReason::Idle);
        }
        // If it is not relaying yet, each stage has its own deadline.
        self.remote()?;
        let half = self.relay.up.has_ended() || self.relay.down.has_ended();
        if half && over(settings.half_closed_timeout) {
            Some(CloseReason::HalfClosedIdle)
        } else if over(settings.idle_timeout) {
            Some(CloseReason::Idle)
        } else {
            None
        }
    }

    /// Has a byte moved since the last round of the close_idle?
    fn moves(&self) -> bool {
        lock(&self.activity).state.bytes != self.state().bytes
    }

    /// Has a round lately seen that bytes had moved?
    fn moved_recently(&self) -> bool {
        let lately = |moved: Instant| moved.elapsed() < REST_TIME;
        lock(&self.activity).moved.is_some_and(lately)
    }

    fn state(&self) -> ActivitySample {
        let (up, down) = (&self.relay.up, &self.relay.down);
        ActivitySample {
            is_relaying: self.remote().is_some() || self.is_association(),
            bytes: (up.bytes(), down.bytes()),
            ended: (up.has_ended(), down.has_ended()),
        }
    }

    /// How long nothing has moved, as far as the rounds of the close_idle tell.
    fn idle_for(&self, now: Instant) -> Duration {
        let state = self.state();
        let mut activity = lock(&self.activity);
        if activity.state != state {
            let has_moved = activity.state.bytes != state.bytes;
            *activity = Activity {
                moved: if has_moved { Some(now) } else { activity.moved },
                state,
                since: now,
            };
        }
        now.saturating_duration_since(activity.since)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let ending = lock(&self.close_state).ending.take();
        let (request, log_entry) = self.log_entry.take().unzip();
        let confirmed = log_entry
            .as_ref()
            .is_some_and(|log_entry| log_entry.confirmed);
        self.context
            .log
            .send(Event::SessionClosed(Box::new(SessionClosed {
                session: self.number(),
                client: self.client_address,
                request,
                address: log_entry.as_ref().and_then(|log_entry| log_entry.address),
                confirmed,
                rule: log_entry.and_then(|log_entry| log_entry.rule),
                up: self.relay.up.bytes(),
                down: self.relay.down.bytes(),
                drops: self.is_association().then(|| self.drops.counts()),
                lasted: self.began.elapsed(),
                ending: ending.unwrap_or(CloseReason::Finished),
            })));
    }
}

/// All sessions, and all connections this server has made.
#[derive(Debug, Default)]
pub(crate) struct SessionRegistry {
    slots: Mutex<Seats>,
    outgoing: Mutex<HashSet<Pair>>,
}

/// The slots that are taken.
#[derive(Debug, Default)]
struct Seats {
    /// The sessions on them, by number.
    sessions: HashMap<u64, Weak<Session>>,
    taken: KeyCounts,
}

impl SessionRegistry {
    /// Gives a slot to the session of this number, unless all are taken, or all
    /// that one client may have.
    pub(crate) fn slot(
        self: &Arc<SessionRegistry>,
        number: u64,
        client: IpAddr,
        settings: &Settings,
    ) -> Result<SessionSlot, Rejected> {
        let &Settings {
            max_sessions,
            max_per_client,
            ..
        } = settings;
        let source_prefix = source_prefix(client);
        let mut slots = lock(&self.slots);
        if slots.sessions.len() >= max_sessions {
            return Err(Rejected::AtCapacity { max_sessions });
        }
        let taken = slots.taken.len_of(source_prefix);
        if let Some(max_per_client) = max_per_client.filter(|most| taken >= *most) {
            return Err(Rejected::PerClientLimit {
                client,
                max_per_client,
            });
        }
        slots.taken.add(source_prefix);
        slots.sessions.insert(number, Weak::new());
        Ok(SessionSlot {
            registry: Arc::clone(self),
            number,
            source_prefix,
            outgoing: OnceLock::new(),
        })
    }

    /// From now on the registry knows the session on its slot.
    pub(crate) fn enter(&self, session: &Arc<Session>) {
        let number = session.number();
        lock(&self.slots)
            .sessions
            .insert(number, Arc::downgrade(session));
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.slots).sessions.len()
    }

    /// Has this server itself made the connection between these addresses? A
    /// client that comes over it is ourselves.
    ///
    /// The address it comes from is not enough: the system gives the same local
    /// port to connections with different ends.
    pub(crate) fn made(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        lock(&self.outgoing).contains(&(canonical(local), canonical(remote)))
    }

    /// Everybody in the context. The lock is released before anybody does
    /// anything with them, since the last one to let go of a session takes it.
    pub(crate) fn present(&self) -> Vec<Arc<Session>> {
        lock(&self.slots)
            .sessions
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Ends all sessions.
    pub(crate) fn terminate_all(&self) {
        for session in self.present() {
            session.terminate(CloseReason::ServerStopped);
        }
    }

    /// One round: ends the relays in which nothing has moved for the limit.
    pub(crate) fn close_idle(&self, settings: &Settings) {
        let now = Instant::now();
        for session in self.present() {
            if let Some(why) = session.idle_reason(settings, now) {
                session.terminate(why);
            }
        }
    }
}
