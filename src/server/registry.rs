//! The registry knows who is in the house.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::crowd::{Crowd, household};
use super::drops::DropCounter;
use super::notes::{Notes, Standing};
use super::{House, Settings};
use crate::event::{Asked, Closed, Ending, Event, TurnedAway};
use crate::firewall::canonical;
use crate::net;
use crate::relay::Meter;
use crate::sync::{AtomicBool, Mutex, OnceLock, lock};
use crate::wire::Refusal;

/// One client's visit: its sockets, and what others may see and do of it.
///
/// The session's threads share it; when the last of them lets go, the sockets
/// close and the log is told of it.
#[derive(Debug)]
pub(super) struct Visit {
    /// Given back before the sockets close: when both have, it is free.
    seat: Arc<Seat>,
    pub(super) house: Arc<House>,
    pub(super) client: TcpStream,
    pub(super) client_address: SocketAddr,
    pub(super) began: Instant,
    pub(super) meter: Meter,
    remote: OnceLock<TcpStream>,
    notes: OnceLock<(Asked, Notes)>,
    standing: Mutex<Option<Standing>>,
    fate: Mutex<Fate>,
    progress: Mutex<Progress>,
    is_association: AtomicBool,
    pub(super) drops: DropCounter,
    /// Dropped with the visit: the last one tells the server that all have left.
    _present: Sender<Infallible>,
}

/// Whether and why the visit is over. Whoever writes this also acts on it under
/// the same lock.
#[derive(Debug, Default)]
struct Fate {
    ending: Option<Ending>,
    /// Dropped when the visit is cut, which wakes who waits for that.
    not_cut: Option<Sender<Infallible>>,
}

/// A place among the sessions there may be at a time, for all and for one client,
/// with what the registry knows under its number. Kept by whoever still works for
/// the visit, even when the visit itself is over.
#[derive(Debug)]
pub(super) struct Seat {
    registry: Arc<Registry>,
    number: u64,
    household: IpAddr,
    /// The local and remote address of a connection this server has made.
    outgoing: OnceLock<Pair>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = lock(&self.registry.seats);
        seats.visits.remove(&self.number);
        seats.taken.remove(self.household);
        drop(seats);
        if let Some(pair) = self.outgoing.get() {
            lock(&self.registry.outgoing).remove(pair);
        }
    }
}

/// A connection, by its local and its remote address.
type Pair = (SocketAddr, SocketAddr);

/// What changes when something moves; of both directions, up and down.
#[derive(Debug, Default, PartialEq)]
struct State {
    is_relaying: bool,
    bytes: (u64, u64),
    ended: (bool, bool),
}

/// What the last round of [`Registry::sweep`] saw.
#[derive(Debug)]
struct Progress {
    state: State,
    since: Instant,
    /// When a round last saw that bytes had moved.
    moved: Option<Instant>,
}

/// Nothing moves in a session if nothing has for so long, as far as the rounds of
/// the sweep tell: who breathes between two parts of a message is not at rest.
const STILL: Duration = Duration::from_secs(2);

impl Visit {
    pub(super) fn new(
        house: Arc<House>,
        seat: Seat,
        client: TcpStream,
        client_address: SocketAddr,
        present: Sender<Infallible>,
    ) -> Visit {
        let now = Instant::now();
        Visit {
            house,
            client,
            client_address,
            began: now,
            meter: Meter::default(),
            remote: OnceLock::new(),
            notes: OnceLock::new(),
            standing: Mutex::default(),
            seat: Arc::new(seat),
            fate: Mutex::default(),
            progress: Mutex::new(Progress {
                state: State::default(),
                since: now,
                moved: None,
            }),
            is_association: AtomicBool::new(false),
            drops: DropCounter::default(),
            _present: present,
        }
    }

    /// Counts the visits, from 1.
    pub(super) fn number(&self) -> u64 {
        self.seat.number
    }

    /// What counts as the same client as this one.
    pub(super) fn household(&self) -> IpAddr {
        self.seat.household
    }

    /// Tells the client something; false if it is gone.
    pub(super) fn tell(&self, message: &[u8]) -> bool {
        net::send_now(&self.client, message).is_ok()
    }

    /// The other end, once it is attached.
    pub(super) fn remote(&self) -> Option<&TcpStream> {
        self.remote.get()
    }

    /// Takes the other end in; not if the visit has been cut meanwhile, which
    /// would leave this socket open. True if it was taken.
    pub(super) fn attach(&self, remote: TcpStream) -> bool {
        let fate = lock(&self.fate);
        fate.ending.is_none() && self.remote.set(remote).is_ok()
    }

    /// Remembers that this server itself made the connection between these
    /// addresses, for as long as the visit lasts.
    pub(super) fn note_outgoing(&self, local: SocketAddr, remote: SocketAddr) {
        let pair = (canonical(local), canonical(remote));
        if self.seat.outgoing.set(pair).is_ok() {
            lock(&self.seat.registry.outgoing).insert(pair);
        }
    }

    /// From now on it is a UDP association.
    pub(super) fn become_association(&self) {
        self.is_association.store(true, Ordering::Relaxed);
    }

    fn is_association(&self) -> bool {
        self.is_association.load(Ordering::Relaxed)
    }

    /// Ends the visit now, for this reason, and wakes every thread that waits
    /// for one of its sockets. What has moved lately ends in a reset, since there
    /// was more to come.
    pub(super) fn cut(&self, why: Ending) {
        let is_at_rest = match why {
            Ending::Panicked => false,
            // It has been still for its limit, however short that is.
            Ending::Idle | Ending::HalfClosed => !self.moves(),
            _ => !self.moves() && !self.has_moved_lately(),
        };
        let mut fate = lock(&self.fate);
        fate.ending.get_or_insert(why);
        fate.not_cut = None;
        match self.remote() {
            Some(remote) => self.meter.cut(&self.client, remote, is_at_rest),
            None => {
                // Some wait for a peer: it will not come.
                if let Some(standing) = lock(&self.standing).as_ref()
                    && !self.is_association()
                {
                    let language = standing.asked.language;
                    self.tell(&language.refused(Refusal::Denied));
                }
                // Fails only if the client is gone already.
                drop(self.client.shutdown(Shutdown::Both));
            }
        }
    }

    /// Breaks off what does not end in time.
    pub(super) fn abandon(&self) {
        if let Some(remote) = self.remote() {
            let is_at_rest = false;
            self.meter.cut(&self.client, remote, is_at_rest);
        }
    }

    /// Notes why the visit is over, unless something else ended it before.
    pub(super) fn ends_because(&self, why: Ending) {
        lock(&self.fate).ending.get_or_insert(why);
    }

    /// Keeps what it asked for, and what was taken down about that.
    pub(super) fn keep(&self, asked: Asked, notes: Notes) {
        // A visit has one request.
        let _ = self.notes.set((asked, notes));
    }

    /// From now on it stands for this.
    pub(super) fn stands(&self, standing: Standing) {
        *lock(&self.standing) = Some(standing);
    }

    /// Looks at what it stands for; at nothing as long as that is nothing.
    pub(super) fn while_it_stands<E>(
        &self,
        look: impl FnOnce(&Standing) -> Result<(), E>,
    ) -> Result<(), E> {
        lock(&self.standing).as_ref().map_or(Ok(()), look)
    }

    /// A channel on which nobody ever sends; it is disconnected when the visit
    /// is cut. For who waits for something else than one of the sockets.
    pub(super) fn when_cut(&self) -> Receiver<Infallible> {
        let (not_cut, when_cut) = bounded(0);
        let mut fate = lock(&self.fate);
        fate.not_cut = fate.ending.is_none().then_some(not_cut);
        when_cut
    }

    /// The visit's place, for work that may outlast it.
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// Why the relay is over, if nothing has moved for too long.
    fn overstayed(&self, settings: &Settings, now: Instant) -> Option<Ending> {
        let idle = self.idle_at(now);
        let over = |limit: Option<Duration>| limit.is_some_and(|limit| idle >= limit);
        if self.is_association() {
            return over(settings.udp_timeout).then_some(Ending::Idle);
        }
        // If it is not relaying yet, each stage has its own deadline.
        self.remote()?;
        let half = self.meter.up.has_ended() || self.meter.down.has_ended();
        if half && over(settings.half_closed_timeout) {
            Some(Ending::HalfClosed)
        } else if over(settings.idle_timeout) {
            Some(Ending::Idle)
        } else {
            None
        }
    }

    /// Has a byte moved since the last round of the sweep?
    fn moves(&self) -> bool {
        lock(&self.progress).state.bytes != self.state().bytes
    }

    /// Has a round lately seen that bytes had moved?
    fn has_moved_lately(&self) -> bool {
        let lately = |moved: Instant| moved.elapsed() < STILL;
        lock(&self.progress).moved.is_some_and(lately)
    }

    fn state(&self) -> State {
        let (up, down) = (&self.meter.up, &self.meter.down);
        State {
            is_relaying: self.remote().is_some() || self.is_association(),
            bytes: (up.bytes(), down.bytes()),
            ended: (up.has_ended(), down.has_ended()),
        }
    }

    /// How long nothing has moved, as far as the rounds of the sweep tell.
    fn idle_at(&self, now: Instant) -> Duration {
        let state = self.state();
        let mut progress = lock(&self.progress);
        if progress.state != state {
            let has_moved = progress.state.bytes != state.bytes;
            *progress = Progress {
                moved: if has_moved { Some(now) } else { progress.moved },
                state,
                since: now,
            };
        }
        now.saturating_duration_since(progress.since)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let ending = lock(&self.fate).ending.take();
        let (asked, notes) = self.notes.take().unzip();
        let confirmed = notes.as_ref().is_some_and(|notes| notes.confirmed);
        self.house.log.send(Event::Closed(Box::new(Closed {
            session: self.number(),
            client: self.client_address,
            asked,
            address: notes.as_ref().and_then(|notes| notes.address),
            confirmed,
            rule: notes.and_then(|notes| notes.rule),
            up: self.meter.up.bytes(),
            down: self.meter.down.bytes(),
            drops: self.is_association().then(|| self.drops.so_far()),
            lasted: self.began.elapsed(),
            ending: ending.unwrap_or(Ending::Finished),
        })));
    }
}

/// All visits, and all connections this server has made.
#[derive(Debug, Default)]
pub(super) struct Registry {
    seats: Mutex<Seats>,
    outgoing: Mutex<HashSet<Pair>>,
}

/// The seats that are taken.
#[derive(Debug, Default)]
struct Seats {
    /// The visits on them, by number.
    visits: HashMap<u64, Weak<Visit>>,
    taken: Crowd,
}

impl Registry {
    /// Gives a seat to the visit of this number, unless all are taken, or all
    /// that one client may have.
    pub(super) fn seat(
        self: &Arc<Registry>,
        number: u64,
        client: IpAddr,
        settings: &Settings,
    ) -> Result<Seat, TurnedAway> {
        let &Settings {
            max_sessions,
            max_per_client,
            ..
        } = settings;
        let household = household(client);
        let mut seats = lock(&self.seats);
        if seats.visits.len() >= max_sessions {
            return Err(TurnedAway::Full { max_sessions });
        }
        let taken = seats.taken.len_of(household);
        if let Some(max_per_client) = max_per_client.filter(|most| taken >= *most) {
            return Err(TurnedAway::Greedy {
                client,
                max_per_client,
            });
        }
        seats.taken.add(household);
        seats.visits.insert(number, Weak::new());
        Ok(Seat {
            registry: Arc::clone(self),
            number,
            household,
            outgoing: OnceLock::new(),
        })
    }

    /// From now on the registry knows the visit on its seat.
    pub(super) fn enter(&self, visit: &Arc<Visit>) {
        let number = visit.number();
        lock(&self.seats)
            .visits
            .insert(number, Arc::downgrade(visit));
    }

    /// How many visits there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.seats).visits.len()
    }

    /// Has this server itself made the connection between these addresses? A
    /// client that comes over it is ourselves.
    ///
    /// The address it comes from is not enough: the system gives the same local
    /// port to connections with different ends.
    pub(super) fn made(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        lock(&self.outgoing).contains(&(canonical(local), canonical(remote)))
    }

    /// Everybody in the house. The lock is released before anybody does
    /// anything with them, since the last one to let go of a visit takes it.
    pub(super) fn present(&self) -> Vec<Arc<Visit>> {
        lock(&self.seats)
            .visits
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Ends all visits.
    pub(super) fn cut_all(&self) {
        for visit in self.present() {
            visit.cut(Ending::Stopped);
        }
    }

    /// One round: ends the relays in which nothing has moved for the limit.
    pub(super) fn sweep(&self, settings: &Settings) {
        let now = Instant::now();
        for visit in self.present() {
            if let Some(why) = visit.overstayed(settings, now) {
                visit.cut(why);
            }
        }
    }
}
