//! The registry: no cut misses a remote, and the slot is free first.

use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::channel::{Receiver, Sender, bounded};
use crate::events::{ClientRequest, CloseReason};
use crate::local_time::LocalClock;
use crate::logger::Log;
use crate::net;
use crate::protocol::{Command, Destination, Host, ReplyEncoder};
use crate::rules::{AccessQuery, RulesFile, WeekTime};
use crate::server::access::enforce::{self, Enforcer};
use crate::server::access::permission;
use crate::server::request_log::RequestLog;
use crate::server::session::registry::{Session, SessionRegistry};
use crate::server::{Server, ServerContext, Settings};
use crate::sync::{self, any, one_in, pause, thread};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// With so many slots.
fn slots(max_sessions: usize) -> Settings {
    Settings {
        max_sessions,
        enforce: true,
        ..Settings::default()
    }
}

/// A registry, its log, and what sessions keep until they are over.
struct Scene {
    registry: Arc<SessionRegistry>,
    context: Arc<ServerContext>,
    /// The rules file of the context.
    rules: tempfile::NamedTempFile,
    log: Log,
    present: Sender<Infallible>,
    all_left: Receiver<Infallible>,
}

impl Scene {
    fn new() -> Scene {
        sync::begin(false);
        let (present, all_left) = bounded(0);
        let log = Log::default();
        let rules = tempfile::NamedTempFile::new().unwrap();
        fs::write(rules.path(), "permit - -\n").unwrap();
        let rules_file = RulesFile::open(rules.path()).unwrap();
        let clock = LocalClock::showing(|| WeekTime::MONDAY);
        let context = Server::new(slots(usize::MAX), rules_file, clock, log.clone()).context;
        Scene {
            registry: context.registry.clone(),
            context,
            rules,
            log,
            present,
            all_left,
        }
    }

    /// As `ServerContext::admit`: a session that has entered, and its client.
    fn enter(&self, number: u64) -> (Arc<Session>, TcpStream) {
        let slot = self.registry.slot(number, CLIENT, &self.context.settings);
        let (client, far) = net::pair();
        let context = self.context.clone();
        let present = self.present.clone();
        let session = Session::new(
            context,
            slot.unwrap(),
            client,
            (CLIENT, 1080).into(),
            present,
        );
        let session = Arc::new(session);
        self.registry.enter(&session);
        (session, far)
    }
}

/// The remote of a session that is cut is shut, or was never taken in; whoever
/// cuts it, and whatever it is about to do.
pub(crate) fn a_cut_misses_no_remote() {
    let scene = Scene::new();
    let (session, client) = scene.enter(1);
    let (remote, far) = net::pair();
    let attaching = thread::spawn({
        let session = session.clone();
        move || session.attach(remote)
    });
    let cutting = thread::spawn({
        let (session, registry) = (session.clone(), scene.registry.clone());
        let one = any(&[true, false]);
        move || match one {
            true => session.terminate(CloseReason::Idle),
            false => registry.terminate_all(),
        }
    });
    let attached = attaching.join().unwrap();
    cutting.join().unwrap();
    assert_eq!(attached, session.remote().is_some());
    // Whoever begins to relay now is done at once.
    if let Some(remote) = session.remote() {
        session
            .relay
            .upstream()
            .run(&session.client, remote)
            .unwrap();
        session
            .relay
            .downstream()
            .run(remote, &session.client)
            .unwrap();
    }
    assert!(net::has_ended(&far), "the remote is open");
    assert!(net::has_ended(&client), "the client is open");
}

/// It does not matter whether one begins to wait before the cut or after it.
pub(crate) fn who_waits_hears_of_the_cut() {
    let scene = Scene::new();
    let (session, _client) = scene.enter(1);
    let waiting = thread::spawn({
        let session = session.clone();
        move || {
            session
                .terminated()
                .recv_timeout(Duration::MAX)
                .unwrap_err()
        }
    });
    session.terminate(CloseReason::ServerStopped);
    waiting.join().unwrap();
}

/// Whoever sees its connection end may come again at once.
pub(crate) fn the_seat_is_free_first() {
    let scene = Scene::new();
    let (session, client) = scene.enter(1);
    session.register_outgoing(any_address(), any_address());
    let other = thread::spawn({
        let session = session.clone();
        move || drop(session)
    });
    let again = thread::spawn({
        let registry = scene.registry.clone();
        move || {
            net::read_to_end(&client);
            let here_again = registry.made(any_address(), any_address());
            assert!(!here_again, "it counts as a loop");
            registry.slot(2, CLIENT, &slots(1)).expect("a slot");
        }
    });
    drop(session);
    other.join().unwrap();
    again.join().unwrap();
    assert_eq!(scene.registry.len(), 0);
}

/// However many ask at once, no more than that many have a slot, whether all of
/// them may not or one client may not.
pub(crate) fn one_to_a_seat() {
    let scene = Scene::new();
    let for_one_client = Settings {
        max_per_client: Some(1),
        ..slots(usize::MAX)
    };
    let limit = match one_in(2) {
        true => slots(1),
        false => for_one_client,
    };
    let seated = Arc::new(AtomicUsize::new(0));
    let ask = |number| {
        let (registry, seated) = (scene.registry.clone(), seated.clone());
        let limit = limit.clone();
        thread::spawn(move || {
            if let Ok(slot) = registry.slot(number, CLIENT, &limit) {
                assert_eq!(seated.fetch_add(1, Ordering::SeqCst), 0);
                thread::yield_now();
                seated.fetch_sub(1, Ordering::SeqCst);
                drop(slot);
            }
        })
    };
    for asking in [ask(1), ask(2), ask(3)] {
        asking.join().unwrap();
    }
    assert_eq!(scene.registry.len(), 0);
}

fn any_address() -> std::net::SocketAddr {
    "192.0.2.7:70".parse().unwrap()
}

/// When nobody is present any more, all sessions are over and have been told to
/// the log, even if the close_idle or the stop were looking at them just then.
pub(crate) fn the_last_to_leave_tells() {
    let scene = Scene::new();
    let mut clients = Vec::new();
    for number in 1..=2 {
        let (session, client) = scene.enter(number);
        clients.push(client);
        thread::spawn(move || {
            pause();
            session.set_close_reason(CloseReason::Silent);
        });
    }
    let sweeping = thread::spawn({
        let registry = scene.registry.clone();
        let settings = Settings {
            idle_timeout: Some(Duration::ZERO),
            ..Settings::default()
        };
        move || {
            for _ in 0..2 {
                registry.close_idle(&settings);
                registry.terminate_all();
            }
        }
    });
    drop(scene.present);
    scene.all_left.recv_timeout(Duration::MAX).unwrap_err();
    let mut closed = scene.log.closed();
    closed.sort_unstable();
    assert_eq!(closed, [1, 2]);
    assert_eq!(scene.registry.len(), 0);
    sweeping.join().unwrap();
    drop(scene.context);
    assert_eq!(scene.log.holders(), 1);
}

/// A session that was permitted by the last rules, and one that is about to be
/// permitted by them: when the new ones are in force and were enforced, both are
/// over.
pub(crate) fn nobody_stays_without_a_permit() {
    let scene = Scene::new();
    let (session, client) = scene.enter(1);
    let request = ClientRequest {
        language: ReplyEncoder::Socks4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)),
        command: Command::Connect,
        target: Destination {
            host: Host::Address(Ipv4Addr::LOCALHOST.into()),
            port: 80,
        },
        user: Vec::new(),
        logged_in: false,
    };
    let serving = thread::spawn({
        let session = session.clone();
        move || {
            let log_entry = RequestLog::new(&request.target);
            let unseen = permission::query(&session, &request);
            let query = AccessQuery {
                address: log_entry.address,
                ..unseen
            };
            let verdict = session.context.rules().evaluate(&query);
            verdict.permitted
                && enforce::publish_and_recheck(
                    &session,
                    &request,
                    vec![log_entry.address],
                    &log_entry,
                )
                .is_ok()
        }
    });
    let enforcing = thread::spawn({
        let context = scene.context.clone();
        let path = scene.rules.path().to_owned();
        move || {
            let mut enforcer = Enforcer::new(true);
            if one_in(2) {
                enforcer.look(&context);
            }
            fs::write(&path, "permit c 10.\n").unwrap();
            enforcer.look(&context);
        }
    });
    enforcing.join().unwrap();
    if serving.join().unwrap() {
        assert!(net::has_ended(&client), "it goes on");
    }
}
