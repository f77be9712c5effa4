//! The server: takes clients in, gives each a thread, and sees everybody out.
//!
//! Read `session.rs` first: one client's visit from top to bottom. This file is
//! the house around it.
//!
//! ```text
//!   accept ──> s1, s2, s3 ...        one thread per session, which becomes the
//!                │                   pump from client to remote
//!                └──> s1-down ...    the pump from remote to client
//!   main   <── Order                 rereads the rules, sweeps out the idle, stops
//!   logger <── Event                 owns the output
//! ```

mod associate;
mod association;
mod bind;
mod connect;
mod crowd;
mod debts;
mod destination;
mod drops;
mod duplex;
mod enforce;
mod greeting;
mod inbox;
mod limits;
mod login;
mod mailboxes;
mod names;
mod notes;
mod permission;
mod ports;
mod recent;
mod registry;
mod session;
mod workers;

pub use limits::{Limits, Scarcity};
pub use workers::STACK;

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use nix::errno::Errno;

use crate::book::{Book, Content, News};
use crate::clock::Clock;
use crate::event::{Event, TurnedAway};
use crate::firewall::{Rulebook, Rules};
use crate::logger::Log;
use crate::net;
use crate::sync::{AtomicBool, OnceLock, thread};
use crate::users::Doorkeeper;
use crate::wire::socks4::Reply;
use crowd::Room;
use debts::Debts;
use enforce::Enforcer;
use mailboxes::Mailboxes;
use ports::Ports;
use registry::{Registry, Visit};
use workers::Workers;

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time from accept until the request must be complete.
    pub handshake_timeout: Duration,
    /// Time for a CONNECT, name lookup and all addresses included.
    pub connect_timeout: Duration,
    /// Time for the peer of a BIND to come.
    pub bind_timeout: Duration,
    /// Time for the client's identd, where a rule asks for its word.
    pub ident_timeout: Duration,
    /// Time without a byte either way after which a relay ends; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// The same once one direction has ended.
    pub half_closed_timeout: Option<Duration>,
    /// Time without a datagram either way after which an association ends; `None`:
    /// never.
    pub udp_timeout: Option<Duration>,
    /// Time that live sessions have when the server stops.
    pub grace: Duration,
    /// Sessions at a time; see [`Limits`].
    pub max_sessions: usize,
    /// Sessions that one client may have at a time; `None`: as many as all. What
    /// counts as one is its address, for IPv6 the first 64 bits of that.
    pub max_per_client: Option<usize>,
    /// With users: also take clients of SOCKS5 that offer no login?
    pub allow_anonymous: bool,
    /// End live sessions when the rules no longer permit them?
    pub enforce: bool,
    /// The address told to clients of BIND and UDP ASSOCIATE; `None`: the one at
    /// which they have reached us.
    pub advertise: Option<Ipv4Addr>,
    /// Ports for BIND and for clients' datagrams; `None`: any the system gives.
    pub bind_ports: Option<RangeInclusive<u16>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            handshake_timeout: Duration::from_secs(30),
            // Two minutes for both is what SOCKS4.protocol names.
            connect_timeout: Duration::from_secs(120),
            bind_timeout: Duration::from_secs(120),
            // RFC 1413 thinks of half a minute, for other networks than today's.
            ident_timeout: Duration::from_secs(10),
            idle_timeout: None,
            half_closed_timeout: Some(Duration::from_secs(300)),
            // What RFC 4787 (requirement 5) recommends to those who translate
            // addresses, and forget in the same way who talks to whom.
            udp_timeout: Some(Duration::from_secs(300)),
            grace: Duration::from_secs(10),
            max_sessions: 1000,
            max_per_client: None,
            allow_anonymous: false,
            enforce: false,
            advertise: None,
            bind_ports: None,
        }
    }
}

impl Settings {
    /// Rounds of the sweep are this far apart: a tenth of the shortest limit,
    /// so that no relay outlives its limit by more than that.
    fn sweep_interval(&self) -> Duration {
        let limits = [
            self.idle_timeout,
            self.half_closed_timeout,
            self.udp_timeout,
        ];
        let shortest = limits.into_iter().flatten().min();
        let tenth = shortest.map(|limit| limit / 10);
        tenth
            .unwrap_or(Self::LONGEST_ROUND)
            .clamp(Self::SHORTEST_ROUND, Self::LONGEST_ROUND)
    }

    /// A round looks at every session, so it should not come all the time.
    const SHORTEST_ROUND: Duration = Duration::from_millis(10);
    const LONGEST_ROUND: Duration = Duration::from_secs(30);
}

/// What the operator tells a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Look at the rules, and the users if there are any, now and say so.
    RereadRules,
    /// Take no more clients; leave when they have, or when the grace is over.
    /// Given twice: leave now.
    Stop,
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All sessions ended, or were cut at the end of their grace.
    Drained,
    /// A second order to stop cut the grace short.
    Forced,
}

/// Time for the threads of cut sessions to leave. All of them wake up within half
/// a second.
const LEAVING: Duration = Duration::from_secs(3);

/// A SOCKS server, ready to run.
#[derive(Debug)]
pub struct Server {
    house: Arc<House>,
}

/// What all sessions share.
#[derive(Debug)]
struct House {
    settings: Settings,
    rulebook: Rulebook,
    /// Set before the server runs, or not: then nobody can log in.
    doorkeeper: OnceLock<Doorkeeper>,
    debts: Debts,
    clock: Clock,
    log: Log,
    registry: Arc<Registry>,
    workers: Workers,
    /// Names that are being looked up for datagrams.
    lookups: Room,
    /// Clients that wait for their next try to log in.
    guessers: Room,
    mailboxes: Mailboxes,
    ports: Ports,
    stopping: AtomicBool,
}

impl Server {
    /// A server with these settings and rules, which goes by this clock and tells
    /// this log.
    pub fn new(settings: Settings, rulebook: Rulebook, clock: Clock, log: Log) -> Server {
        Server {
            house: Arc::new(House {
                ports: Ports::new(settings.bind_ports.clone()),
                settings,
                rulebook,
                doorkeeper: OnceLock::new(),
                debts: Debts::default(),
                clock,
                log,
                registry: Arc::default(),
                workers: Workers::default(),
                lookups: Room::default(),
                guessers: Room::default(),
                mailboxes: Mailboxes::default(),
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// The same, where clients of SOCKS5 must log in with this doorkeeper.
    pub fn with_users(self, doorkeeper: Doorkeeper) -> Server {
        // Of two, the first stays.
        let _ = self.house.doorkeeper.set(doorkeeper);
        self
    }

    /// Serves clients of this listener until ordered to stop.
    ///
    /// When it returns, all sessions are over and have been told to the log, and
    /// idle threads are leaving. Others that may still be there are held up in a
    /// name lookup, which nothing can interrupt, and nobody waits for them.
    ///
    /// # Errors
    ///
    /// Only at the start: the listener is unusable, or there is no thread.
    pub fn run(self, listener: TcpListener, orders: &Receiver<Order>) -> io::Result<Stopped> {
        let house = self.house;
        listener.set_nonblocking(false)?;
        net::lengthen_backlog(&listener)?;
        net::tune(&listener)?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);

        // Every visit holds a copy of `present`, and nobody ever sends: when
        // the last copy is gone, `all_left` is disconnected.
        let (present, all_left) = bounded::<Infallible>(0);
        let spare = Spare::new();
        let accepting = thread::Builder::new().name("accept".to_owned()).spawn({
            let (house, listener) = (Arc::clone(&house), Arc::clone(&listener));
            move || accept_clients(&house, &listener, &present, spare)
        });
        let accepting = accepting.map_err(|error| {
            io::Error::new(error.kind(), format!("no thread to take clients: {error}"))
        })?;
        house.log.send(Event::Listening(address));

        let round = tick(house.settings.sweep_interval());
        let mut enforcer = Enforcer::new(house.settings.enforce);
        house.carry_out(orders, &round, &mut enforcer);

        house.stopping.store(true, Ordering::SeqCst);
        net::stop_listening(&listener);
        drop(listener);
        // Fails if that thread panicked; then it accepts no more either.
        let _ = accepting.join();
        let stopped = house.drain(&all_left, orders, &round, &mut enforcer);
        house.registry.cut_all();
        let _ = all_left.recv_timeout(LEAVING);
        // Who is still busy has more to come: the system must not end his
        // connections properly when it closes them.
        house.registry.present().iter().for_each(|it| it.abandon());
        Ok(stopped)
    }
}

impl House {
    /// Carries out orders, and sweeps now and then, until one says stop (or
    /// nobody is left who could say so).
    fn carry_out(
        &self,
        orders: &Receiver<Order>,
        round: &Receiver<Instant>,
        enforcer: &mut Enforcer,
    ) {
        loop {
            select! {
                recv(orders) -> order => match order {
                    Ok(Order::RereadRules) => self.reread_rules(enforcer),
                    Ok(Order::Stop) | Err(_) => return,
                },
                recv(enforcer.round) -> _ => enforcer.look(self),
                recv(round) -> _ => self.registry.sweep(&self.settings),
            }
        }
    }

    /// Waits for all to leave, at most for the grace.
    fn drain(
        &self,
        all_left: &Receiver<Infallible>,
        orders: &Receiver<Order>,
        round: &Receiver<Instant>,
        enforcer: &mut Enforcer,
    ) -> Stopped {
        let grace = self.settings.grace;
        self.log.send(Event::Stopping {
            sessions: self.registry.len(),
            grace,
        });
        let over = crossbeam_channel::after(grace);
        let nobody = crossbeam_channel::never();
        let mut orders = orders;
        loop {
            select! {
                recv(all_left) -> _ => return Stopped::Drained,
                recv(over) -> _ => return Stopped::Drained,
                recv(enforcer.round) -> _ => enforcer.look(self),
                recv(round) -> _ => self.registry.sweep(&self.settings),
                recv(orders) -> order => match order {
                    Ok(Order::Stop) => return Stopped::Forced,
                    Ok(Order::RereadRules) => self.reread_rules(enforcer),
                    Err(_) => orders = &nobody,
                },
            }
        }
    }

    /// The rules in force, as the file says at this moment.
    fn rules(&self) -> Arc<Rules> {
        self.look_up(&self.rulebook)
    }

    /// What this book says at this moment.
    fn look_up<T: Content>(&self, book: &Book<T>) -> Arc<T> {
        let (content, news) = book.current();
        if let Some(news) = news {
            self.tell(book, news);
        }
        content
    }

    fn reread_rules(&self, enforcer: &mut Enforcer) {
        self.reread(&self.rulebook);
        if let Some(doorkeeper) = self.doorkeeper.get() {
            self.reread(doorkeeper.book());
        }
        enforcer.look(self);
    }

    /// Looks at the book's file because the operator asks, and says so.
    fn reread<T: Content>(&self, book: &Book<T>) {
        match book.reread() {
            Some(news) => self.tell(book, news),
            None => self.log.send(Event::FileUnchanged {
                path: book.path().to_owned(),
            }),
        }
    }

    fn tell<T: Content>(&self, book: &Book<T>, news: News) {
        self.log.send(Event::File {
            path: book.path().to_owned(),
            about: T::NAME,
            news,
        });
    }

    /// Gives a new client a thread, or turns it away.
    fn admit(
        self: &Arc<House>,
        number: u64,
        client: TcpStream,
        client_address: SocketAddr,
        present: &Sender<Infallible>,
    ) {
        let address = client_address.ip();
        let seat = match self.registry.seat(number, address, &self.settings) {
            Ok(seat) => seat,
            Err(why) => {
                self.turn_away(&client, why);
                return;
            }
        };
        let worker = match self.workers.reserve() {
            Ok(worker) => worker,
            Err(error) => {
                self.turn_away(&client, TurnedAway::NoThread(error));
                return;
            }
        };
        let house = Arc::clone(self);
        let visit = Visit::new(house, seat, client, client_address, present.clone());
        let visit = Arc::new(visit);
        self.registry.enter(&visit);
        worker.start(format!("s{number}"), move || session::serve(&visit));
    }

    /// Refuses a client that has not been heard, without waiting for anything.
    fn turn_away(&self, client: &TcpStream, why: TurnedAway) {
        // In which language is not known: a no of SOCKS4 is no greeting of SOCKS5 either.
        let _ = net::send_now(client, &Reply::REJECTED.encode());
        self.log.send(Event::TurnedAway(why));
    }
}

/// The accept loop: it ends when the server stops, and at nothing else.
fn accept_clients(
    house: &Arc<House>,
    listener: &TcpListener,
    present: &Sender<Infallible>,
    mut spare: Spare,
) {
    for number in 1.. {
        let (client, address) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(_) if house.stopping.load(Ordering::SeqCst) => return,
                Err(error) if net::is_transient(&error) => {}
                Err(error) => {
                    if let Some(accepted) = spare.help(listener) {
                        break accepted;
                    }
                    if house.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let why = TurnedAway::NotAccepted(error);
                    house.log.send(Event::TurnedAway(why));
                }
            }
        };
        spare.all_is_well();
        house.admit(number, client, address, present);
    }
}

/// What the accept loop does when it cannot accept: without a free descriptor
/// the waiting client stays in the queue, and accept(2) would fail again at
/// once and for ever.
#[derive(Debug)]
struct Spare {
    /// Gives up its descriptor to accept one client and close it.
    file: Option<File>,
    /// How long to wait when even that does not help.
    pause: Duration,
}

impl Spare {
    const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    fn new() -> Spare {
        Spare {
            file: File::open("/dev/null").ok(),
            pause: Self::SHORTEST_PAUSE,
        }
    }

    /// Waits for a client, since accept(2) fails for want of a descriptor even
    /// while there is none, and tries once more. If that fails as well, the
    /// client is turned away, or if even that is impossible, left waiting.
    fn help(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        net::wait_for_knock(listener);
        let error = match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) => error,
        };
        let no_descriptor = error.raw_os_error() == Some(Errno::EMFILE as i32);
        if no_descriptor && self.file.take().is_some() {
            let turned_away = listener.accept();
            drop(turned_away);
            self.file = File::open("/dev/null").ok();
        } else {
            thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        }
        None
    }

    fn all_is_well(&mut self) {
        self.pause = Self::SHORTEST_PAUSE;
        if self.file.is_none() {
            self.file = File::open("/dev/null").ok();
        }
    }
}
