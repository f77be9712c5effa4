//! The two directions of a session, a thread for each.

use std::io;
use std::sync::Arc;

use crate::events::{CloseReason, RequestError};
use crate::server::session::registry::Session;
use crate::server::udp::association::Association;
use crate::sync::thread;
use crate::sync::thread_pool::ReservedThread;

/// A request that can be granted: everything its relay needs is there.
#[derive(Debug)]
pub(crate) struct Granted {
    /// What the client is told.
    pub(crate) reply: Vec<u8>,
    pub(crate) relay: RelayKind,
}

/// What is relayed once the request is granted.
#[derive(Debug)]
pub(crate) enum RelayKind {
    /// Two streams, for which there is a thread for the second direction.
    Streams(ReverseDirection),
    /// Datagrams, with the thread for those that come back.
    Datagrams(Arc<Association>, ReservedThread),
}

impl RelayKind {
    /// Relays. The calling thread takes the direction from client to remote, and
    /// is done when that has ended; the last of the two to leave ends the session.
    pub(crate) fn run(self, session: &Arc<Session>) {
        match self {
            RelayKind::Streams(down) => down.relay(session),
            RelayKind::Datagrams(association, down) => association.relay(down),
        }
    }
}

/// The thread for the direction from remote to client. It is reserved before
/// the client hears that its request is granted.
#[derive(Debug)]
pub(crate) struct ReverseDirection(ReservedThread);

impl ReverseDirection {
    pub(crate) fn reserve(session: &Session) -> Result<ReverseDirection, RequestError> {
        let thread = session.context.threads.reserve();
        thread
            .map(ReverseDirection)
            .map_err(|error| RequestError::ResourceExhausted("thread", error))
    }

    fn relay(self, session: &Arc<Session>) {
        self.0.start(format!("s{}-down", session.number()), {
            let session = Arc::clone(session);
            move || {
                let _guard = TerminateOnPanic(&session);
                if let Some(remote) = session.remote() {
                    let result = session.relay.downstream().run(remote, &session.client);
                    record_error(&session, result);
                }
            }
        });
        if let Some(remote) = session.remote() {
            let result = session.relay.upstream().run(&session.client, remote);
            record_error(session, result);
        }
    }
}

fn record_error(session: &Session, result: io::Result<()>) {
    if let Err(error) = result {
        session.set_close_reason(CloseReason::ConnectionError(error));
    }
}

/// A thread that panics takes the session's sockets, and with them its other
/// thread, along.
pub(crate) struct TerminateOnPanic<'a>(pub(crate) &'a Session);

impl Drop for TerminateOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.terminate(CloseReason::Panicked);
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

    use crate::local_time::LocalClock;
    use crate::logger::{self, OutputConfig, Verbosity};
    use crate::rules::RulesFile;
    use crate::server::{Server, ServerContext, Settings};

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

    fn context(diagnostics: Sender<Vec<u8>>) -> Arc<ServerContext> {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("socks.conf");
        std::fs::write(&rules, "permit - -\n").expect("written");
        let output = OutputConfig {
            screen: None,
            diagnostics: Box::new(Told(diagnostics)),
            detail: Verbosity::Sessions,
        };
        let (_logger, log) = logger::start(output).expect("a thread");
        let rules_file = RulesFile::open(&rules).expect("good rules");
        Server::new(Settings::default(), rules_file, LocalClock::local(), log).context
    }

    /// A session with both its ends, and the other ends of both.
    fn session(
        context: &Arc<ServerContext>,
        present: &Sender<Infallible>,
    ) -> (Arc<Session>, [TcpStream; 2]) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let connect = || {
            let far = TcpStream::connect(listener.local_addr().expect("an address"));
            let far = far.expect("a connection");
            far.set_read_timeout(Some(PATIENCE)).expect("set");
            (listener.accept().expect("a connection"), far)
        };
        let ((client, address), client_far) = connect();
        let ((remote, _), remote_far) = connect();
        let slot = context.registry.slot(1, address.ip(), &context.settings);
        let slot = slot.expect("a slot");
        let session = Session::new(Arc::clone(context), slot, client, address, present.clone());
        assert!(session.attach(remote));
        (Arc::new(session), [client_far, remote_far])
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
        let context = context(tell);
        let (present, all_left) = bounded::<Infallible>(0);
        let (healthy, [client, remote]) = session(&context, &present);
        let down = ReverseDirection::reserve(&healthy).expect("a thread");
        let relay = move || RelayKind::Streams(down).run(&healthy);
        context
            .threads
            .start("s1".to_owned(), relay)
            .expect("a thread");
        let (ill, far_ends) = session(&context, &present);
        let panics = move || {
            let _guard = TerminateOnPanic(&ill);
            panic!("on purpose");
        };
        context
            .threads
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
