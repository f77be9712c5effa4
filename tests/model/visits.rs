//! The registry: no cut misses a remote, and the seat is free first.

#[path = "../../src/server/notes.rs"]
mod notes;
#[path = "../../src/server/registry.rs"]
mod registry;

use std::convert::Infallible;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::channel::{Receiver, Sender, bounded};
use crate::event::Ending;
use crate::logger::Log;
use crate::net;
use crate::server::Settings;
use crate::sync::{self, any, pause, thread};
use registry::{Registry, Visit};

/// What the registry needs of the house.
#[derive(Debug)]
pub(crate) struct House {
    log: Log,
}

/// A registry, its log, and what visits keep until they are over.
struct Scene {
    registry: Arc<Registry>,
    log: Log,
    present: Sender<Infallible>,
    all_left: Receiver<Infallible>,
}

impl Scene {
    fn new() -> Scene {
        sync::begin(false);
        let (present, all_left) = bounded(0);
        Scene {
            registry: Arc::default(),
            log: Log::default(),
            present,
            all_left,
        }
    }

    /// As `House::admit`: a visit that has entered, and its client.
    fn enter(&self, number: u64) -> (Arc<Visit>, TcpStream) {
        let seat = self.registry.seat(number, usize::MAX).unwrap();
        let (client, far) = net::pair();
        let house = House {
            log: self.log.clone(),
        };
        let address = "192.0.2.1:1080".parse().unwrap();
        let present = self.present.clone();
        let visit = Arc::new(Visit::new(Arc::new(house), seat, client, address, present));
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
            registry.seat(2, 1).expect("a seat");
        }
    });
    drop(visit);
    other.join().unwrap();
    again.join().unwrap();
    assert_eq!(scene.registry.len(), 0);
}

/// However many ask at once, no more than that many have a seat.
pub(crate) fn one_to_a_seat() {
    let scene = Scene::new();
    let seated = Arc::new(AtomicUsize::new(0));
    let ask = |number| {
        let (registry, seated) = (scene.registry.clone(), seated.clone());
        thread::spawn(move || {
            if let Some(seat) = registry.seat(number, 1) {
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
    assert_eq!(scene.log.holders(), 1);
    sweeping.join().unwrap();
}
