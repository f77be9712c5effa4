//! The server: takes clients in, gives each a thread, and sees everybody out.
//!
//! Read `session.rs` first: one client's session from top to bottom. This file is
//! the context around it.
//!
//! ```text
//!   accept ──> s1, s2, s3 ...        one thread per session, which becomes the
//!                │                   pump from client to remote
//!                └──> s1-down ...    the pump from remote to client
//!   main   <── Control                 rereads the rules, sweeps out the idle, stops
//!   logger <── Event                 owns the output
//! ```

pub(crate) mod access;
mod commands;
mod handler;
mod handshake;
mod limits;
pub(crate) mod request_log;
pub(crate) mod session;
mod udp;

pub use crate::sync::thread_pool::STACK_SIZE;
pub use limits::{LimitedBy, Limits};

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

use crate::auth::Authenticator;
use crate::auth::LoginRateLimiter;
use crate::config::{Content, ReloadEvent, WatchedFile};
use crate::events::{Event, Rejected};
use crate::local_time::LocalClock;
use crate::logger::Log;
use crate::net;
use crate::net::PortRange;
use crate::protocol::socks4::Reply;
use crate::rules::{Rules, RulesFile};
use crate::sync::semaphore::KeyedSemaphore;
use crate::sync::thread_pool::ThreadPool;
use crate::sync::{AtomicBool, OnceLock, thread};
use access::enforce::Enforcer;
use session::registry::{Session, SessionRegistry};
use udp::bindings::UdpBindings;

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
    /// PortRange for BIND and for clients' datagrams; `None`: any the system gives.
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
    /// Rounds of the close_idle are this far apart: a tenth of the shortest limit,
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
            .unwrap_or(Self::MAX_SWEEP_INTERVAL)
            .clamp(Self::MIN_SWEEP_INTERVAL, Self::MAX_SWEEP_INTERVAL)
    }

    /// A round looks at every session, so it should not come all the time.
    const MIN_SWEEP_INTERVAL: Duration = Duration::from_millis(10);
    const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(30);
}

/// What the operator tells a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Look at the rules, and the users if there are any, now and say so.
    Reload,
    /// Take no more clients; leave when they have, or when the grace is over.
    /// Given twice: leave now.
    Stop,
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownKind {
    /// All sessions ended, or were cut at the end of their grace.
    Drained,
    /// A second order to stop cut the grace short.
    Forced,
}

/// Time for the threads of cut sessions to leave. All of them wake up within half
/// a second.
const TERMINATION_TIME: Duration = Duration::from_secs(3);

/// A SOCKS server, ready to run.
#[derive(Debug)]
pub struct Server {
    pub(crate) context: Arc<ServerContext>,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(crate) settings: Settings,
    pub(crate) rules_file: RulesFile,
    /// Set before the server runs, or not: then nobody can log in.
    pub(crate) authenticator: OnceLock<Authenticator>,
    pub(crate) login_rate: LoginRateLimiter,
    pub(crate) clock: LocalClock,
    pub(crate) log: Log,
    pub(crate) registry: Arc<SessionRegistry>,
    pub(crate) threads: ThreadPool,
    /// NameCache that are being looked up for datagrams.
    pub(crate) lookups: KeyedSemaphore,
    /// Clients that wait for their next try to log in.
    pub(crate) waiting_logins: KeyedSemaphore,
    pub(crate) udp_bindings: UdpBindings,
    pub(crate) ports: PortRange,
    pub(crate) stopping: AtomicBool,
}

impl Server {
    /// A server with these settings and rules, which goes by this clock and tells
    /// this log.
    pub fn new(settings: Settings, rules_file: RulesFile, clock: LocalClock, log: Log) -> Server {
        Server {
            context: Arc::new(ServerContext {
                ports: PortRange::new(settings.bind_ports.clone()),
                settings,
                rules_file,
                authenticator: OnceLock::new(),
                login_rate: LoginRateLimiter::default(),
                clock,
                log,
                registry: Arc::default(),
                threads: ThreadPool::default(),
                lookups: KeyedSemaphore::default(),
                waiting_logins: KeyedSemaphore::default(),
                udp_bindings: UdpBindings::default(),
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// The same, where clients of SOCKS5 must log in with this authenticator.
    pub fn with_users(self, authenticator: Authenticator) -> Server {
        // Of two, the first stays.
        let _ = self.context.authenticator.set(authenticator);
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
    pub fn run(
        self,
        listener: TcpListener,
        orders: &Receiver<Control>,
    ) -> io::Result<ShutdownKind> {
        let context = self.context;
        listener.set_nonblocking(false)?;
        net::lengthen_backlog(&listener)?;
        net::tune(&listener)?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);

        // Every session holds a copy of `present`, and nobody ever sends: when
        // the last copy is gone, `all_left` is disconnected.
        let (present, all_left) = bounded::<Infallible>(0);
        let spare = SpareFd::new();
        let accepting = thread::Builder::new().name("accept".to_owned()).spawn({
            let (context, listener) = (Arc::clone(&context), Arc::clone(&listener));
            move || accept_clients(&context, &listener, &present, spare)
        });
        let accepting = accepting.map_err(|error| {
            io::Error::new(error.kind(), format!("no thread to take clients: {error}"))
        })?;
        context.log.send(Event::Listening(address));

        let round = tick(context.settings.sweep_interval());
        let mut enforcer = Enforcer::new(context.settings.enforce);
        context.run_until_stop(orders, &round, &mut enforcer);

        context.stopping.store(true, Ordering::SeqCst);
        net::stop_listening(&listener);
        drop(listener);
        // Fails if that thread panicked; then it accepts no more either.
        let _ = accepting.join();
        let stopped = context.drain(&all_left, orders, &round, &mut enforcer);
        context.registry.terminate_all();
        let _ = all_left.recv_timeout(TERMINATION_TIME);
        // Who is still busy has more to come: the system must not end his
        // connections properly when it closes them.
        context.registry.present().iter().for_each(|it| it.reset());
        Ok(stopped)
    }
}

impl ServerContext {
    /// Carries out orders, and sweeps now and then, until one says stop (or
    /// nobody is left who could say so).
    fn run_until_stop(
        &self,
        orders: &Receiver<Control>,
        round: &Receiver<Instant>,
        enforcer: &mut Enforcer,
    ) {
        loop {
            select! {
                recv(orders) -> order => match order {
                    Ok(Control::Reload) => self.reload_files(enforcer),
                    Ok(Control::Stop) | Err(_) => return,
                },
                recv(enforcer.round) -> _ => enforcer.look(self),
                recv(round) -> _ => self.registry.close_idle(&self.settings),
            }
        }
    }

    /// Waits for all to leave, at most for the grace.
    fn drain(
        &self,
        all_left: &Receiver<Infallible>,
        orders: &Receiver<Control>,
        round: &Receiver<Instant>,
        enforcer: &mut Enforcer,
    ) -> ShutdownKind {
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
                recv(all_left) -> _ => return ShutdownKind::Drained,
                recv(over) -> _ => return ShutdownKind::Drained,
                recv(enforcer.round) -> _ => enforcer.look(self),
                recv(round) -> _ => self.registry.close_idle(&self.settings),
                recv(orders) -> order => match order {
                    Ok(Control::Stop) => return ShutdownKind::Forced,
                    Ok(Control::Reload) => self.reload_files(enforcer),
                    Err(_) => orders = &nobody,
                },
            }
        }
    }

    /// The rules in force, as the file says at this moment.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.look_up(&self.rules_file)
    }

    /// What this book says at this moment.
    fn look_up<T: Content>(&self, book: &WatchedFile<T>) -> Arc<T> {
        let (content, event) = book.current();
        if let Some(event) = event {
            self.log_reload(book, event);
        }
        content
    }

    fn reload_files(&self, enforcer: &mut Enforcer) {
        self.reload(&self.rules_file);
        if let Some(authenticator) = self.authenticator.get() {
            self.reload(authenticator.book());
        }
        enforcer.look(self);
    }

    /// Looks at the book's file because the operator asks, and says so.
    fn reload<T: Content>(&self, book: &WatchedFile<T>) {
        match book.reload() {
            Some(event) => self.log_reload(book, event),
            None => self.log.send(Event::FileUnchanged {
                path: book.path().to_owned(),
            }),
        }
    }

    fn log_reload<T: Content>(&self, book: &WatchedFile<T>, event: ReloadEvent) {
        self.log.send(Event::FileReloaded {
            path: book.path().to_owned(),
            about: T::NAME,
            event,
        });
    }

    /// Gives a new client a thread, or turns it away.
    fn start_session(
        self: &Arc<ServerContext>,
        number: u64,
        client: TcpStream,
        client_address: SocketAddr,
        present: &Sender<Infallible>,
    ) {
        let address = client_address.ip();
        let slot = match self.registry.slot(number, address, &self.settings) {
            Ok(slot) => slot,
            Err(why) => {
                self.reject(&client, why);
                return;
            }
        };
        let thread = match self.threads.reserve() {
            Ok(thread) => thread,
            Err(error) => {
                self.reject(&client, Rejected::NoThread(error));
                return;
            }
        };
        let context = Arc::clone(self);
        let session = Session::new(context, slot, client, client_address, present.clone());
        let session = Arc::new(session);
        self.registry.enter(&session);
        thread.start(format!("s{number}"), move || handler::run_session(&session));
    }

    /// Refuses a client that has not been heard, without waiting for anything.
    fn reject(&self, client: &TcpStream, why: Rejected) {
        // In which language is not known: a no of SOCKS4 is no greeting of SOCKS5 either.
        let _ = net::send_nonblocking(client, &Reply::REJECTED.encode());
        self.log.send(Event::Rejected(why));
    }
}

/// The accept loop: it ends when the server stops, and at nothing else.
fn accept_clients(
    context: &Arc<ServerContext>,
    listener: &TcpListener,
    present: &Sender<Infallible>,
    mut spare: SpareFd,
) {
    for number in 1.. {
        let (client, address) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(_) if context.stopping.load(Ordering::SeqCst) => return,
                Err(error) if net::is_transient(&error) => {}
                Err(error) => {
                    if let Some(accepted) = spare.help(listener) {
                        break accepted;
                    }
                    if context.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let why = Rejected::AcceptFailed(error);
                    context.log.send(Event::Rejected(why));
                }
            }
        };
        spare.recovered();
        context.start_session(number, client, address, present);
    }
}

/// What the accept loop does when it cannot accept: without a free descriptor
/// the waiting client stays in the queue, and accept(2) would fail again at
/// once and for ever.
#[derive(Debug)]
struct SpareFd {
    /// Gives up its descriptor to accept one client and close it.
    file: Option<File>,
    /// How long to wait when even that does not help.
    pause: Duration,
}

impl SpareFd {
    const MIN_BACKOFF: Duration = Duration::from_millis(10);
    const MAX_BACKOFF: Duration = Duration::from_secs(1);

    fn new() -> SpareFd {
        SpareFd {
            file: File::open("/dev/null").ok(),
            pause: Self::MIN_BACKOFF,
        }
    }

    /// Waits for a client, since accept(2) fails for want of a descriptor even
    /// while there is none, and tries once more. If that fails as well, the
    /// client is turned away, or if even that is impossible, left waiting.
    fn help(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        net::wait_acceptable(listener);
        let error = match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) => error,
        };
        let no_descriptor = error.raw_os_error() == Some(Errno::EMFILE as i32);
        if no_descriptor && self.file.take().is_some() {
            let rejected = listener.accept();
            drop(rejected);
            self.file = File::open("/dev/null").ok();
        } else {
            thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(Self::MAX_BACKOFF);
        }
        None
    }

    fn recovered(&mut self) {
        self.pause = Self::MIN_BACKOFF;
        if self.file.is_none() {
            self.file = File::open("/dev/null").ok();
        }
    }
}
