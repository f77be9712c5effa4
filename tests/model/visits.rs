//! The registry: no cut misses a remote, and the seat is free first.

#[path = "../../src/server/crowd.rs"]
mod crowd;
#[path = "../../src/server/drops.rs"]
mod drops;
#[path = "../../src/server/enforce.rs"]
mod enforce;
#[path = "../../src/server/notes.rs"]
mod notes;
#[path = "../../src/server/permission.rs"]
mod permission;
#[path = "../../src/server/registry.rs"]
mod registry;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::channel::{Receiver, Sender, bounded};
use crate::clock::Clock;
use crate::event::{Asked, Ending};
use crate::firewall::{self, Moment, Question, Rules};
use crate::logger::Log;
use crate::net;
use crate::server::Settings;
use crate::sync::{self, Mutex, any, lock, one_in, pause, thread};
use crate::wire::{Command, Host, Language, Target};
use enforce::Enforcer;
use notes::Notes;
use registry::{Registry, Visit};

/// What these rooms need of the house.
#[derive(Debug)]
pub(crate) struct House {
    settings: Settings,
    clock: Clock,
    registry: Arc<Registry>,
    log: Log,
    rules: Mutex<Arc<Rules>>,
}

impl House {
    fn rules(&self) -> Arc<Rules> {
        lock(&self.rules).clone()
    }
}

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(firewall::parse(text.as_bytes()).unwrap())
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// With so many seats.
fn seats(max_sessions: usize) -> Settings {
    Settings {
        max_sessions,
        enforce: true,
        ..Settings::default()
    }
}

/// A registry, its log, and what visits keep until they are over.
struct Scene {
    registry: Arc<Registry>,
    house: Arc<House>,
    log: Log,
    present: Sender<Infallible>,
    all_left: Receiver<Infallible>,
}

impl Scene {
    fn new() -> Scene {
        sync::begin(false);
        let (present, all_left) = bounded(0);
        let registry = Arc::<Registry>::default();
        let log = Log::default();
        let house = House {
            settings: seats(usize::MAX),
            clock: Clock::showing(|| Moment::MONDAY),
            registry: registry.clone(),
            log: log.clone(),
            rules: Mutex::new(rules("permit - -")),
        };
        Scene {
            registry,
            house: Arc::new(house),
            log,
            present,
            all_left,
        }
    }

    /// As `House::admit`: a visit that has entered, and its client.
    fn enter(&self, number: u64) -> (Arc<Visit>, TcpStream) {
        let seat = self.registry.seat(number, CLIENT, &self.house.settings);
        let (client, far) = net::pair();
        let house = self.house.clone();
        let present = self.present.clone();
        let visit = Visit::new(house, seat.unwrap(), client, (CLIENT, 1080).into(), present);
        let visit = Arc::new(visit);
        self.registry.enter(&visit);
        (visit, far)
    }
}

/// The remote of a visit that is cut is shut, or was never taken in; whoever
/// cuts it, and whatever it is about to do.
pub(crate) fn a_cut_misses_no_remote() {
    let scene = Scene::new();
    let (visit, client) = scene.enter(1);
    let (remote, far) = net::pair();
    let attaching = thread::spawn({
        let visit = visit.clone();
        move || visit.attach(remote)
    });
    let cutting = thread::spawn({
        let (visit, registry) = (visit.clone(), scene.registry.clone());
        let one = any(&[true, false]);
        move || match one {
            true => visit.cut(Ending::Idle),
            false => registry.cut_all(),
        }
    });
    let attached = attaching.join().unwrap();
    cutting.join().unwrap();
    assert_eq!(attached, visit.remote().is_some());
    // Whoever begins to relay now is done at once.
    if let Some(remote) = visit.remote() {
        visit.meter.pump_up().run(&visit.client, remote).unwrap();
        visit.meter.pump_down().run(remote, &visit.client).unwrap();
    }
    assert!(net::has_ended(&far), "the remote is open");
    assert!(net::has_ended(&client), "the client is open");
}

/// It does not matter whether one begins to wait before the cut or after it.
pub(crate) fn who_waits_hears_of_the_cut() {
    let scene = Scene::new();
    let (visit, _client) = scene.enter(1);
    let waiting = thread::spawn({
        let visit = visit.clone();
        move || visit.when_cut().recv_timeout(Duration::MAX).unwrap_err()
    });
    visit.cut(Ending::Stopped);
    waiting.join().unwrap();
}

/// Whoever sees its connection end may come again at once.
pub(crate) fn the_seat_is_free_first() {
    let scene = Scene::new();
    let (visit, client) = scene.enter(1);
    visit.note_outgoing(any_address(), any_address());
    let other = thread::spawn({
        let visit = visit.clone();
        move || drop(visit)
    });
    let again = thread::spawn({
        let registry = scene.registry.clone();
        move || {
            net::read_to_end(&client);
            let here_again = registry.made(any_address(), any_address());
            assert!(!here_again, "it counts as a loop");
            registry.seat(2, CLIENT, &seats(1)).expect("a seat");
        }
    });
    drop(visit);
    other.join().unwrap();
    again.join().unwrap();
    assert_eq!(scene.registry.len(), 0);
}

/// However many ask at once, no more than that many have a seat, whether all of
/// them may not or one client may not.
pub(crate) fn one_to_a_seat() {
    let scene = Scene::new();
    let for_one_client = Settings {
        max_per_client: Some(1),
        ..seats(usize::MAX)
    };
    let limit = match one_in(2) {
        true => seats(1),
        false => for_one_client,
    };
    let seated = Arc::new(AtomicUsize::new(0));
    let ask = |number| {
        let (registry, seated) = (scene.registry.clone(), seated.clone());
        let limit = limit.clone();
        thread::spawn(move || {
            if let Ok(seat) = registry.seat(number, CLIENT, &limit) {
                assert_eq!(seated.fetch_add(1, Ordering::SeqCst), 0);
                thread::yield_now();
                seated.fetch_sub(1, Ordering::SeqCst);
                drop(seat);
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

/// When nobody is present any more, all visits are over and have been told to
/// the log, even if the sweep or the stop were looking at them just then.
pub(crate) fn the_last_to_leave_tells() {
    let scene = Scene::new();
    let mut clients = Vec::new();
    for number in 1..=2 {
        let (visit, client) = scene.enter(number);
        clients.push(client);
        thread::spawn(move || {
            pause();
            visit.ends_because(Ending::Silent);
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
                registry.sweep(&settings);
                registry.cut_all();
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
    drop(scene.house);
    assert_eq!(scene.log.holders(), 1);
}

/// A visit that was permitted by the last rules, and one that is about to be
/// permitted by them: when the new ones are in force and were enforced, both are
/// over.
pub(crate) fn nobody_stays_without_a_permit() {
    let scene = Scene::new();
    let (visit, client) = scene.enter(1);
    let asked = Asked {
        language: Language::Socks4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)),
        command: Command::Connect,
        target: Target {
            host: Host::Address(Ipv4Addr::LOCALHOST.into()),
            port: 80,
        },
        user: Vec::new(),
        logged_in: false,
    };
    let serving = thread::spawn({
        let visit = visit.clone();
        move || {
            let notes = Notes::new(&asked.target);
            let unseen = permission::question(&visit, &asked);
            let question = Question {
                address: notes.address,
                ..unseen
            };
            let verdict = visit.house.rules().judge(&question);
            verdict.permitted
                && enforce::subject(&visit, &asked, vec![notes.address], &notes).is_ok()
        }
    });
    let enforcing = thread::spawn({
        let house = scene.house.clone();
        move || {
            let mut enforcer = Enforcer::new(true);
            if one_in(2) {
                enforcer.look(&house);
            }
            *lock(&house.rules) = rules("permit c 10.");
            enforcer.look(&house);
        }
    });
    enforcing.join().unwrap();
    if serving.join().unwrap() {
        assert!(net::has_ended(&client), "it goes on");
    }
}
