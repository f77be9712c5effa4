//! The two directions of a session, a thread for each.

use std::io;
use std::sync::Arc;

use super::association::Association;
use super::registry::Visit;
use super::workers::Worker;
use crate::event::{Cause, Ending};
use crate::sync::thread;

/// A request that can be granted: everything its relay needs is there.
#[derive(Debug)]
pub(super) struct Ready {
    /// What the client is told.
    pub(super) reply: Vec<u8>,
    pub(super) relay: Relay,
}

/// What is relayed once the request is granted.
#[derive(Debug)]
pub(super) enum Relay {
    /// Two streams, for which there is a thread for the second direction.
    Streams(Down),
    /// Datagrams, with the thread for those that come back.
    Datagrams(Arc<Association>, Worker),
}

impl Relay {
    /// Relays. The calling thread takes the direction from client to remote, and
    /// is done when that has ended; the last of the two to leave ends the visit.
    pub(super) fn run(self, visit: &Arc<Visit>) {
        match self {
            Relay::Streams(down) => down.relay(visit),
            Relay::Datagrams(association, down) => association.relay(down),
        }
    }
}

/// The thread for the direction from remote to client. It is reserved before
/// the client hears that its request is granted.
#[derive(Debug)]
pub(super) struct Down(Worker);

impl Down {
    pub(super) fn reserve(visit: &Visit) -> Result<Down, Cause> {
        let worker = visit.house.workers.reserve();
        worker
            .map(Down)
            .map_err(|error| Cause::Exhausted("thread", error))
    }

    fn relay(self, visit: &Arc<Visit>) {
        self.0.start(format!("s{}-down", visit.number()), {
            let visit = Arc::clone(visit);
            move || {
                let _guard = CutOnPanic(&visit);
                if let Some(remote) = visit.remote() {
                    let result = visit.meter.pump_down().run(remote, &visit.client);
                    note_break(&visit, result);
                }
            }
        });
        if let Some(remote) = visit.remote() {
            let result = visit.meter.pump_up().run(&visit.client, remote);
            note_break(visit, result);
        }
    }
}

fn note_break(visit: &Visit, result: io::Result<()>) {
    if let Err(error) = result {
        visit.ends_because(Ending::Broken(error));
    }
}

/// A thread that panics takes the session's sockets, and with them its other
/// thread, along.
pub(super) struct CutOnPanic<'a>(pub(super) &'a Visit);

impl Drop for CutOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cut(Ending::Panicked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use crate::clock::Clock;
    use crate::firewall::Rulebook;
    use crate::logger::{self, Detail, Output};
    use crate::server::{House, Server, Settings};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Sends what is written to it.
    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn house(diagnostics: Sender<Vec<u8>>) -> Arc<House> {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("socks.conf");
        std::fs::write(&rules, "permit - -\n").expect("written");
        let output = Output {
            screen: None,
            diagnostics: Box::new(Told(diagnostics)),
            detail: Detail::Sessions,
        };
        let (_logger, log) = logger::start(output).expect("a thread");
        let rulebook = Rulebook::open(&rules).expect("good rules");
        Server::new(Settings::default(), rulebook, Clock::local(), log).house
    }

    /// A visit with both its ends, and the other ends of both.
    fn visit(house: &Arc<House>, present: &Sender<Infallible>) -> (Arc<Visit>, [TcpStream; 2]) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let connect = || {
            let far = TcpStream::connect(listener.local_addr().expect("an address"));
            let far = far.expect("a connection");
            far.set_read_timeout(Some(PATIENCE)).expect("set");
            (listener.accept().expect("a connection"), far)
        };
        let ((client, address), client_far) = connect();
        let ((remote, _), remote_far) = connect();
        let seat = house.registry.seat(1, address.ip(), &house.settings);
        let seat = seat.expect("a seat");
        let visit = Visit::new(Arc::clone(house), seat, client, address, present.clone());
        assert!(visit.attach(remote));
        (Arc::new(visit), [client_far, remote_far])
    }

    fn told(diagnostics: &Receiver<Vec<u8>>, words: &str) {
        let mut all = String::new();
        while !all.contains(words) {
            let more = diagnostics.recv_timeout(PATIENCE).expect(words);
            all.push_str(&String::from_utf8_lossy(&more));
        }
    }

    #[test]
    fn s12_a_panic_ends_its_session_and_no_other() {
        let (tell, diagnostics) = unbounded();
        let house = house(tell);
        let (present, all_left) = bounded::<Infallible>(0);
        let (healthy, [client, remote]) = visit(&house, &present);
        let down = Down::reserve(&healthy).expect("a thread");
        let relay = move || Relay::Streams(down).run(&healthy);
        house
            .workers
            .start("s1".to_owned(), relay)
            .expect("a thread");
        let (ill, far_ends) = visit(&house, &present);
        let panics = move || {
            let _guard = CutOnPanic(&ill);
            panic!("on purpose");
        };
        house
            .workers
            .start("s1".to_owned(), panics)
            .expect("a thread");
        for mut far in far_ends {
            let error = far.read(&mut [0]).expect_err("no proper end");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        told(&diagnostics, "an error in the server itself");
        // The other one goes on.
        (&client).write_all(b"x").expect("sent");
        (&remote).read_exact(&mut [0]).expect("received");
        drop((client, remote, present));
        let left = all_left.recv_timeout(PATIENCE);
        assert_eq!(left, Err(crossbeam_channel::RecvTimeoutError::Disconnected));
    }
}
