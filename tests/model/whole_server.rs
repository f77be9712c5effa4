//! A whole server with clients, from start to stop: it stops whatever they do, and all sessions end.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::channel::bounded;
use crate::config::Settings;
use crate::control::{self, any, one_in, pause};
use crate::events::{CloseReason, Event, Rejected};
use crate::local_time::LocalClock;
use crate::logger::{Log, LogFormat, Queue, Verbosity};
use crate::net::{self, Listeners, resolve};
use crate::protocol::Network;
use crate::rules::{RulesFile, WeekTime};
use crate::server::{Control, Server, ShutdownKind};
use crate::sync::thread;

/// No timeout runs out: a second stop ends the grace period, and the server waits until the
/// last session has ended.
pub(crate) fn it_stops() {
    let run = run(false, &[Control::Reload, Control::Stop, Control::Stop]);
    assert_eq!(run.queue.events.senders(), 0, "a session is left");
    run.end();
}

/// Any timeout may run out at any time, the system may lack threads, and the controls may
/// be disconnected.
pub(crate) fn it_stops_with_timeouts() {
    let run = run(true, any(&[&[], &[Control::Stop], &[Control::Stop; 2]]));
    control::disable_timeouts();
    run.end();
}

/// From here the second client connects. Sometimes the server takes it for a proxy.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A server that has stopped.
struct Run {
    has_proxy: bool,
    queue: Queue,
    clients: [thread::JoinHandle<()>; 2],
}

/// Runs a server from start to stop, while its clients are active.
fn run(timeouts: bool, controls: &'static [Control]) -> Run {
    control::begin(timeouts);
    net::begin();
    let (log, queue) = Log::new(Verbosity::Sessions, LogFormat::Screen, 8192);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    resolve::set_answers(one_in(2));
    let has_proxy = one_in(2);
    let clients = [("a client", Ipv4Addr::LOCALHOST), ("another client", PROXY)];
    let clients = clients.map(|(name, from)| {
        let is_proxy = has_proxy && from == PROXY;
        thread::spawn_named(name, move || client(from, address, is_proxy))
    });
    let networks = Network::parse_canonical(&PROXY.to_string());
    let settings = Settings {
        idle_timeout: any(&[None, Some(Duration::ZERO)]),
        max_sessions: any(&[1, 2]),
        max_per_client: any(&[None, Some(1)]),
        max_unheard: any(&[None, Some(2)]),
        enforce: one_in(2),
        proxy_from: networks.into_iter().filter(|_| has_proxy).collect(),
        ..Settings::default()
    };
    let rules_file = RulesFile::open(rules()).unwrap();
    let server = Server::new(settings, rules_file, clock(), log);
    let (operator, received) = bounded(1);
    thread::spawn_named("operator", move || {
        for control in controls {
            pause();
            let _ = operator.send(*control);
        }
        pause();
    });
    let kind = server.run(Listeners::own(listener), &received).unwrap();
    assert!(matches!(
        kind,
        ShutdownKind::Forced | ShutdownKind::Graceful
    ));
    Run {
        has_proxy,
        queue,
        clients,
    }
}

impl Run {
    /// The clients see that the server has stopped, its threads end, and each session was
    /// reported once. A client that was dropped because it had sent no request has no request.
    fn end(self) {
        for client in self.clients {
            client.join().unwrap();
        }
        resolve::set_answers(true);
        control::wait_for_all_threads();
        assert_eq!(self.queue.events.senders(), 0);
        let mut closed = Vec::new();
        let (mut dropped, mut told) = (0, 0);
        for timed in self.queue.events.try_iter() {
            match timed.event {
                Event::SessionClosed(session) => {
                    closed.push(session.session);
                    if let CloseReason::Unheard = session.reason {
                        assert!(session.request.is_none(), "a dropped client went on");
                        dropped += 1;
                    }
                }
                Event::Rejected(Rejected::Unheard { .. }) => told += 1,
                Event::Rejected(Rejected::AcceptFailed(error)) => panic!("accept: {error}"),
                _ => {}
            }
        }
        // A session's thread that drops another client can be slower than the stop: then the
        // stop is the reason why that session has ended.
        assert!(dropped <= told, "a dropped client is not reported");
        assert!(self.has_proxy || dropped == told, "reported twice");
        let reports = closed.len();
        closed.sort_unstable();
        closed.dedup();
        assert_eq!(closed.len(), reports, "a session was reported twice");
    }
}

/// A client that sends a request, or none, and then leaves or stays until the server ends
/// its session. A proxy first says who the client is, or that itself is the client.
fn client(from: Ipv4Addr, server: SocketAddr, is_proxy: bool) {
    if one_in(2) {
        pause();
    }
    let Ok(stream) = net::connect_from(from, server) else {
        return;
    };
    if is_proxy {
        let header = any(&[
            &b"PROXY TCP4 127.0.0.1 127.0.0.2 1 2\r\n"[..],
            b"PROXY TCP4 203.0.113.9 192.0.2.2 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
            b"PROXY UNKNOWN\r\n",
            b"PROXY",
        ]);
        let _ = net::write_all(&stream, header);
        pause();
    }
    let port = net::destination().port().to_be_bytes();
    let request = |command, address: [u8; 4], name: &[u8]| {
        let user = any(&[&b"\0"[..], b"user\0"]);
        [&[4, command], &port[..], &address[..], user, name].concat()
    };
    let request = match any(&[0, 0, 1, 2, 3]) {
        0 => request(1, [127, 0, 0, 1], b""),
        1 => request(1, [0, 0, 0, 1], b"name\0"),
        2 => request(2, [127, 0, 0, 1], b""),
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
    // Thousands of connections in TIME_WAIT would slow the models down.
    net::reset_on_close(&stream);
}

/// A clock that sometimes shows Tuesday, when the rules permit nothing.
fn clock() -> LocalClock {
    let tuesday = WeekTime::parse("tue/00:00").unwrap();
    LocalClock::from_fn(move || match one_in(10) {
        true => tuesday,
        false => WeekTime::MONDAY,
    })
}

/// Rules that permit everything on Mondays, to one user only after identd confirms it.
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
