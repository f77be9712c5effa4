//! Sessions and their registry: a termination misses no remote, and a slot is free before the sockets close.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::channel::RecvTimeoutError;
use crate::config::Settings;
use crate::control::{self, any, one_in, pause};
use crate::events::{ClientRequest, CloseReason, Event};
use crate::local_time::LocalClock;
use crate::logger::{Log, LogFormat, Queue, Verbosity};
use crate::net;
use crate::protocol::{Command, Destination, Host, ReplyEncoder};
use crate::relay::Direction;
use crate::rules::{AccessQuery, RulesFile, WeekTime};
use crate::server::Server;
use crate::server::access::enforce::{Enforcer, publish_and_recheck};
use crate::server::context::ServerContext;
use crate::server::pending_request::PendingRequest;
use crate::server::request_log::RequestLog;
use crate::server::session::{Session, SessionSlot};
use crate::sync::thread;
use crate::sync::wait_group::{AllDone, Token, wait_group};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn settings(max_sessions: usize) -> Settings {
    Settings {
        max_sessions,
        enforce: true,
        ..Settings::default()
    }
}

/// A server's shared state without its threads, and what tests need of it.
struct Scene {
    context: Arc<ServerContext>,
    /// The rules file of the context.
    rules: tempfile::NamedTempFile,
    queue: Queue,
    token: Token,
    all_done: AllDone,
}

impl Scene {
    fn new(settings: Settings) -> Scene {
        control::begin(false);
        let (token, all_done) = wait_group();
        let (log, queue) = Log::new(Verbosity::Sessions, LogFormat::Screen, 8192);
        let rules = tempfile::NamedTempFile::new().unwrap();
        fs::write(rules.path(), "permit - -\n").unwrap();
        let rules_file = RulesFile::open(rules.path()).unwrap();
        let clock = LocalClock::from_fn(|| WeekTime::MONDAY);
        let context = Server::new(settings, rules_file, clock, log).context;
        Scene {
            context,
            rules,
            queue,
            token,
            all_done,
        }
    }

    /// Starts a session as the accept loop does; returns the session and its client.
    fn start_session(&self, number: u64) -> (Arc<Session>, TcpStream) {
        let slot = SessionSlot::try_acquire(&self.context.registry, number, Some(CLIENT)).unwrap();
        let (socket, client) = net::pair();
        let log = self.context.log.clone();
        let address = SocketAddr::from((CLIENT, 1080));
        let session = Session::new(slot, log, socket, address, self.token.clone());
        let session = Arc::new(session);
        self.context.registry.add(number, &session);
        (session, client)
    }
}

/// The numbers of the sessions that were reported as closed, in order.
pub(crate) fn closed_sessions(queue: &Queue) -> Vec<u64> {
    let number = |event: Event| match event {
        Event::SessionClosed(closed) => Some(closed.session),
        _ => None,
    };
    let events = queue.events.try_iter().map(|timed| timed.event);
    let mut closed: Vec<u64> = events.filter_map(number).collect();
    closed.sort_unstable();
    closed
}

/// The remote of a terminated session is closed, or was never attached, whatever the
/// session's own thread is about to do.
pub(crate) fn a_termination_misses_no_remote() {
    let scene = Scene::new(settings(usize::MAX));
    let (session, client) = scene.start_session(1);
    let (remote, peer) = net::pair();
    let attaching = thread::spawn({
        let session = session.clone();
        move || session.attach(remote)
    });
    let terminating = thread::spawn({
        let (session, context) = (session.clone(), scene.context.clone());
        let only_this = any(&[true, false]);
        move || match only_this {
            true => session.terminate(CloseReason::Idle),
            false => {
                context.registry.terminate_all();
            }
        }
    });
    let attached = attaching.join().unwrap();
    terminating.join().unwrap();
    assert_eq!(attached, session.remote().is_some());
    // A relay that begins now ends at once.
    if let Some(remote) = session.remote() {
        let (up, down) = (Direction::Up, Direction::Down);
        let relay = &session.relay;
        relay.direction(up).run(&session.client, remote).unwrap();
        relay.direction(down).run(remote, &session.client).unwrap();
    }
    drop(session);
    assert!(net::has_ended(&peer), "the remote is open");
    assert!(net::has_ended(&client), "the client is open");
}

/// A thread that waits for the termination is woken, whether it begins to wait before or
/// after it.
pub(crate) fn a_termination_wakes_the_waiting_thread() {
    let scene = Scene::new(settings(usize::MAX));
    let (session, _client) = scene.start_session(1);
    let waiting = thread::spawn({
        let session = session.clone();
        move || session.terminated().recv_timeout(Duration::MAX)
    });
    session.terminate(CloseReason::ServerStopped);
    let woken = waiting.join().unwrap();
    assert_eq!(woken, Err(RecvTimeoutError::Disconnected));
}

/// A client that sees its connection end can connect again at once.
pub(crate) fn a_slot_is_free_before_the_sockets_close() {
    let scene = Scene::new(settings(1));
    let (session, client) = scene.start_session(1);
    session.set_outgoing(any_address(), any_address());
    let other = thread::spawn({
        let session = session.clone();
        move || drop(session)
    });
    let again = thread::spawn({
        let registry = scene.context.registry.clone();
        move || {
            net::read_to_end(&client);
            let is_loop = registry.is_own_connection(any_address(), any_address());
            assert!(!is_loop, "the connection counts as a loop");
            SessionSlot::try_acquire(&registry, 2, Some(CLIENT)).expect("a slot");
        }
    });
    drop(session);
    other.join().unwrap();
    again.join().unwrap();
    assert_eq!(scene.context.registry.len(), 0);
}

/// Of many clients at once no more get a slot than there are, in total or per client.
pub(crate) fn the_last_slot_is_given_once() {
    let per_client = Settings {
        max_per_client: Some(1),
        ..settings(usize::MAX)
    };
    let scene = Scene::new(match one_in(2) {
        true => settings(1),
        false => per_client,
    });
    let in_use = Arc::new(AtomicUsize::new(0));
    let acquire = |number| {
        let (registry, in_use) = (scene.context.registry.clone(), in_use.clone());
        thread::spawn(move || {
            if let Ok(slot) = SessionSlot::try_acquire(&registry, number, Some(CLIENT)) {
                let others = in_use.fetch_add(1, Ordering::SeqCst);
                assert_eq!(others, 0, "clients that have the last slot already");
                thread::yield_now();
                in_use.fetch_sub(1, Ordering::SeqCst);
                drop(slot);
            }
        })
    };
    for acquiring in [acquire(1), acquire(2), acquire(3)] {
        acquiring.join().unwrap();
    }
    assert_eq!(scene.context.registry.len(), 0);
}

fn any_address() -> SocketAddr {
    "192.0.2.7:70".parse().unwrap()
}

/// When all tokens are dropped, all sessions have ended and are reported, even if the sweep
/// or the stop was looking at them just then.
pub(crate) fn the_wait_group_ends_after_all_reports() {
    let scene = Scene::new(settings(usize::MAX));
    let mut clients = Vec::new();
    for number in 1..=2 {
        let (session, client) = scene.start_session(number);
        clients.push(client);
        thread::spawn_named("session", move || {
            pause();
            session.set_close_reason(CloseReason::Silent);
        });
    }
    let sweeping = thread::spawn({
        let registry = scene.context.registry.clone();
        let settings = Settings {
            idle_timeout: Some(Duration::ZERO),
            ..Settings::default()
        };
        move || {
            for _ in 0..2 {
                registry.terminate_idle(&settings);
                registry.terminate_all();
            }
        }
    });
    drop(scene.token);
    scene.all_done.recv_timeout(Duration::MAX).unwrap_err();
    assert_eq!(closed_sessions(&scene.queue), [1, 2]);
    assert_eq!(scene.context.registry.len(), 0);
    sweeping.join().unwrap();
    drop(scene.context);
    assert_eq!(scene.queue.events.senders(), 0);
}

/// A session that the old rules have permitted, or are about to permit, ends when the new
/// rules are in force and were enforced.
pub(crate) fn no_session_outlives_its_permit() {
    let scene = Scene::new(settings(usize::MAX));
    let (session, client) = scene.start_session(1);
    let request = ClientRequest {
        encoder: ReplyEncoder::Socks4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)),
        command: Command::Connect,
        destination: Destination {
            host: Host::Address(Ipv4Addr::LOCALHOST.into()),
            port: 80,
        },
        user: Vec::new(),
        logged_in: false,
    };
    let serving = thread::spawn({
        let (context, session) = (scene.context.clone(), session.clone());
        move || {
            let pending = PendingRequest {
                context: &context,
                session: &session,
                request: &request,
            };
            let request_log = RequestLog::new(&request.destination);
            let verdict = context.rules().evaluate(&AccessQuery {
                address: request_log.address,
                ..pending.access_query()
            });
            // The rules may change between the verdict and the grant.
            pause();
            verdict.permitted
                && publish_and_recheck(pending, vec![request_log.address], &request_log).is_ok()
        }
    });
    let enforcing = thread::spawn({
        let context = scene.context.clone();
        let path = scene.rules.path().to_owned();
        move || {
            let mut enforcer = Enforcer::new(true);
            if one_in(2) {
                enforcer.check(&context);
            }
            fs::write(&path, "permit c 10.\n").unwrap();
            enforcer.check(&context);
        }
    });
    enforcing.join().unwrap();
    if serving.join().unwrap() {
        assert!(net::has_ended(&client), "the session continues");
    }
}
