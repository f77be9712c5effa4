//! A whole server and its clients: it stops whatever they do, and then all have left.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::channel::{Receiver, bounded};
use crate::events::{Event, Rejected};
use crate::local_time::LocalClock;
use crate::logger::Log;
use crate::net;
use crate::net::resolve;
use crate::rules::{RulesFile, WeekTime};
use crate::server::{Control, Server, Settings, ShutdownKind};
use crate::sync::{self, any, one_in, pause, thread};

/// No limit runs out: a second order ends the grace, and the server waits until
/// the last session has left.
pub(crate) fn it_stops() {
    let (log, clients, stopped) = run(false, &[Control::Reload, Control::Stop, Control::Stop]);
    assert!(matches!(
        stopped,
        ShutdownKind::Forced | ShutdownKind::Drained
    ));
    assert_eq!(log.holders(), 1, "somebody is in the house");
    end(&log, clients);
}

/// Any limit may run out at any moment, any thread may be wanting, and the
/// operator may leave.
pub(crate) fn whatever_runs_out() {
    let (log, clients, stopped) = run(true, any(&[&[], &[Control::Stop], &[Control::Stop; 2]]));
    assert!(matches!(
        stopped,
        ShutdownKind::Forced | ShutdownKind::Drained
    ));
    sync::no_limits();
    end(&log, clients);
}

type Clients = Vec<thread::JoinHandle<()>>;

/// A server from start to stop, and what its clients do meanwhile.
fn run(limits: bool, orders: &'static [Control]) -> (Log, Clients, ShutdownKind) {
    sync::begin(limits);
    net::begin();
    let log = Log::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    resolve::answers(one_in(2));
    let clients = (0..2).map(|_| thread::spawn(move || client(address)));
    let clients = clients.collect();
    let settings = Settings {
        idle_timeout: any(&[None, Some(Duration::ZERO)]),
        max_sessions: any(&[1, 2]),
        max_per_client: any(&[None, Some(1)]),
        enforce: one_in(2),
        ..Settings::default()
    };
    let rules_file = RulesFile::open(rules()).unwrap();
    let server = Server::new(settings, rules_file, clock(), log.clone());
    let (operator, ordered) = bounded(1);
    thread::spawn(move || {
        for order in orders {
            pause();
            let _ = operator.send(*order);
        }
        pause();
    });
    let stopped = server.run(listener, &ordered).unwrap();
    (log, clients, stopped)
}

/// When the server has stopped, its clients see that, its threads leave, and
/// each session has been told once.
fn end(log: &Log, clients: Clients) {
    clients.into_iter().for_each(|it| it.join().unwrap());
    resolve::answers(true);
    sync::all_threads_leave();
    assert_eq!(log.holders(), 1);
    let mut closed = log.closed();
    let told = closed.len();
    closed.sort_unstable();
    closed.dedup();
    assert_eq!(closed.len(), told);
    let is_fault = |event: &Event| matches!(event, Event::Rejected(Rejected::AcceptFailed(_)));
    assert!(!log.read(|events| events.iter().any(is_fault)));
}

/// One that asks for something, or does not, and then goes by itself, or stays
/// until the server ends it.
fn client(server: SocketAddr) {
    if one_in(2) {
        pause();
    }
    let Ok(stream) = TcpStream::connect(server) else {
        return;
    };
    let port = net::elsewhere().port().to_be_bytes();
    let to = |command, address: [u8; 4], name: &[u8]| {
        let user = any(&[&b"\0"[..], b"user\0"]);
        [&[4, command], &port[..], &address[..], user, name].concat()
    };
    let request = match any(&[0, 0, 1, 2, 3]) {
        0 => to(1, [127, 0, 0, 1], b""),
        1 => to(1, [0, 0, 0, 1], b"name\0"),
        2 => to(2, [127, 0, 0, 1], b""),
        _ => Vec::new(),
    };
    let _ = net::write_all(&stream, &request);
    pause();
    let _ = net::write_all(&stream, any(&[&b""[..], b"words"]));
    if one_in(4) {
        return;
    }
    if one_in(4) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    net::read_to_end(&stream);
    // Thousands of connections that linger at their end would slow us down.
    net::reset_on_close(&stream);
}

/// Tells Tuesday now and then, at which nothing is permitted any more.
fn clock() -> LocalClock {
    let tuesday = WeekTime::parse("tue/00:00").unwrap();
    LocalClock::showing(move || {
        if one_in(10) {
            tuesday
        } else {
            WeekTime::MONDAY
        }
    })
}

/// Rules that permit everything on Mondays, to some with the word of identd.
fn rules() -> &'static Path {
    static FILE: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let write = || {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "permit cb - user=user ident time=mon/00:00-24:00\n\
                    permit cb - time=mon/00:00-24:00\n";
        file.write_all(text.as_bytes()).unwrap();
        file
    };
    FILE.get_or_init(write).path()
}
