//! The relay of a CONNECT or BIND: two directions, a thread for each.

use std::io;
use std::sync::Arc;

use crate::events::{CloseReason, RequestError};
use crate::relay::Direction;
use crate::server::context::ServerContext;
use crate::server::session::{Session, TerminateOnPanic};
use crate::sync::thread_pool::ReservedThread;

/// The thread for the direction from remote to client. It is reserved before the reply
/// says that the request is granted: after that a lack of threads could not be reported.
#[derive(Debug)]
pub(crate) struct ReverseDirection(ReservedThread);

impl ReverseDirection {
    /// Reserves the thread.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(crate) fn reserve(context: &ServerContext) -> Result<ReverseDirection, RequestError> {
        let reserved = context.threads.reserve();
        reserved
            .map(ReverseDirection)
            .map_err(|error| RequestError::ResourceExhausted("thread", error))
    }

    /// Relays both directions; the calling thread runs the one from client to remote.
    pub(crate) fn relay(self, session: &Arc<Session>) {
        self.0.start(format!("s{}-down", session.number()), {
            let session = Arc::clone(session);
            move || {
                let _guard = TerminateOnPanic(&session);
                run_direction(&session, Direction::Down);
            }
        });
        run_direction(session, Direction::Up);
    }
}

/// Runs one direction to its end.
fn run_direction(session: &Session, direction: Direction) {
    // A session that relays streams has a remote.
    let Some(remote) = session.remote() else {
        return;
    };
    let relay = session.relay.direction(direction);
    let result = match direction {
        Direction::Up => relay.run(&session.client, remote),
        Direction::Down => relay.run(remote, &session.client),
    };
    record_error(session, result);
}

fn record_error(session: &Session, result: io::Result<()>) {
    if let Err(error) = result {
        session.set_close_reason(CloseReason::ConnectionError(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

    use crate::config::Settings;
    use crate::local_time::LocalClock;
    use crate::logger::{self, LogFormat, OutputConfig, Verbosity};
    use crate::rules::RulesFile;
    use crate::server::Server;
    use crate::server::session::SessionSlot;
    use crate::sync::wait_group::{Token, wait_group};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Sends what is written to it into a channel.
    struct ChannelWriter(Sender<Vec<u8>>);

    impl Write for ChannelWriter {
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
            screen: Box::new(std::io::sink()),
            format: LogFormat::None,
            diagnostics: Box::new(ChannelWriter(diagnostics)),
            verbosity: Verbosity::Sessions,
            has_priorities: false,
            queued_events: logger::MAX_QUEUED_EVENTS,
        };
        let (_logger, log) = logger::start(output).expect("a thread");
        let rules_file = RulesFile::open(&rules).expect("valid rules");
        Server::new(Settings::default(), rules_file, LocalClock::utc(), log).context
    }

    /// A session whose request is granted, with client and remote, and the peers of both.
    fn session(context: &Arc<ServerContext>, token: &Token) -> (Arc<Session>, [TcpStream; 2]) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let connect = || {
            let peer = TcpStream::connect(listener.local_addr().expect("an address"));
            let peer = peer.expect("a connection");
            peer.set_read_timeout(Some(TIMEOUT)).expect("set");
            (listener.accept().expect("a connection"), peer)
        };
        let ((client, address), client_peer) = connect();
        let ((remote, _), remote_peer) = connect();
        let slot = SessionSlot::try_acquire(&context.registry, 1, Some(address.ip()));
        let slot = slot.expect("a slot");
        let log = context.log.clone();
        let session = Session::new(slot, log, client, address, token.clone());
        assert!(session.attach(remote));
        session.reset_on_close();
        (Arc::new(session), [client_peer, remote_peer])
    }

    fn wait_for_output(diagnostics: &Receiver<Vec<u8>>, words: &str) {
        let mut all = String::new();
        while !all.contains(words) {
            let more = diagnostics.recv_timeout(TIMEOUT).expect(words);
            all.push_str(&String::from_utf8_lossy(&more));
        }
    }

    #[test]
    fn s12_a_panic_ends_its_session_and_no_other() {
        let (sender, diagnostics) = unbounded();
        let context = context(sender);
        let (token, all_done) = wait_group();
        let (healthy, [client, remote]) = session(&context, &token);
        let reverse = ReverseDirection::reserve(&context).expect("a thread");
        let relay = move || reverse.relay(&healthy);
        context
            .threads
            .start("s1".to_owned(), relay)
            .expect("a thread");
        let (panicking, peers) = session(&context, &token);
        let panics = move || {
            let _guard = TerminateOnPanic(&panicking);
            panic!("on purpose");
        };
        context
            .threads
            .start("s1".to_owned(), panics)
            .expect("a thread");
        for mut peer in peers {
            let error = peer.read(&mut [0]).expect_err("a reset, not EOF");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        wait_for_output(
            &diagnostics,
            "internal error: a thread of the session panicked",
        );
        // The other session continues.
        (&client).write_all(b"x").expect("sent");
        (&remote).read_exact(&mut [0]).expect("received");
        drop((client, remote, token));
        let done = all_done.recv_timeout(TIMEOUT);
        assert_eq!(done, Err(RecvTimeoutError::Disconnected));
    }
}
