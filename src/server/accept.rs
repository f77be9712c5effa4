//! The accept loop: it gives each new client a thread, or rejects it.

use std::fs::File;
use std::io::{self, PipeReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::admission::admit;
use super::context::ServerContext;
use super::handler::run_session;
use super::session::Session;
use crate::events::{Event, Rejected};
use crate::net::{self, AcceptErrors, ClientWait, Deadline, Listeners};
use crate::protocol::canonical;
use crate::sync::thread;
use crate::sync::wait_group::Token;
use crate::trace::{self, Wait};

/// At the stop, how long the clients that wait at one listener are accepted: others may go on to
/// connect, and rules can make each client take long.
const BACKLOG_TIME: Duration = Duration::from_secs(1);

/// What the accept loop needs for each client.
#[derive(Debug)]
pub(super) struct Acceptor<'a> {
    context: &'a Arc<ServerContext>,
    /// Each session has a clone.
    token: Token,
    spare: SpareFd,
    errors: AcceptErrors,
    /// How many clients were accepted, and the number of the last session.
    accepted: u64,
}

impl<'a> Acceptor<'a> {
    pub(super) fn new(context: &'a Arc<ServerContext>, token: Token, spare: SpareFd) -> Self {
        Acceptor {
            context,
            token,
            spare,
            errors: AcceptErrors::new(),
            accepted: 0,
        }
    }

    /// Accepts clients until the other end of the pipe is closed. No error ends it.
    pub(super) fn accept_clients(mut self, listeners: &Listeners, stop: &PipeReader) {
        let _job = trace::job("accept", None);
        loop {
            match net::wait_for_clients(listeners.sockets(), stop) {
                // One client of each: a listener with many clients does not delay another one.
                Ok(ClientWait::Clients(ready)) => {
                    for listener in ready {
                        self.accept_one(listener);
                    }
                }
                Ok(ClientWait::Stop) => break,
                Err(error) => self.report_and_pause(error),
            }
        }
        // Clients that wait at a listener of this process would be reset at its close. A
        // balancer does not send such a connection to another server.
        if !listeners.are_inherited() {
            for listener in listeners.sockets() {
                self.accept_waiting(listener);
            }
        }
    }

    /// Accepts the client that poll(2) has reported.
    fn accept_one(&mut self, listener: &TcpListener) {
        match listener.accept() {
            Ok(accepted) => self.start(accepted),
            // Another process of this listener was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if self.errors.is_transient(&error) => {}
            Err(error) => {
                let no_descriptor = error.raw_os_error() == Some(Errno::EMFILE as i32);
                if no_descriptor && self.spare.reject_one(listener) {
                    self.report(error);
                } else {
                    self.report_and_pause(error);
                }
            }
        }
    }

    /// Accepts all clients that wait now.
    fn accept_waiting(&mut self, listener: &TcpListener) {
        let deadline = Deadline::after(BACKLOG_TIME);
        while !deadline.is_over() {
            match listener.accept() {
                Ok(accepted) => self.start(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if self.errors.is_transient(&error) => {}
                // The close of the listener resets those that still wait.
                Err(error) => return self.report(error),
            }
        }
    }

    fn start(&mut self, (client, address): (TcpStream, SocketAddr)) {
        self.errors = AcceptErrors::new();
        self.spare.reset();
        self.accepted += 1;
        let address = canonical(address);
        start_session(self.context, self.accepted, client, address, &self.token);
    }

    /// Reports the error, and sleeps for the backoff, since the next accept(2) would fail as
    /// well, in a busy loop.
    fn report_and_pause(&mut self, error: io::Error) {
        let of_one_connection = net::concerns_one_connection(&error);
        self.report(error);
        self.spare.pause(of_one_connection);
    }

    fn report(&self, error: io::Error) {
        let reason = Rejected::AcceptFailed(error);
        self.context.log.send(Event::Rejected(reason));
    }
}

/// Starts the session of a new client on a pool thread, or rejects the client.
fn start_session(
    context: &Arc<ServerContext>,
    number: u64,
    client: TcpStream,
    address: SocketAddr,
    token: &Token,
) {
    context.log.send(Event::ClientAccepted);
    let (slot, place) = match admit(context, number, address.ip()) {
        Ok(admitted) => admitted,
        Err(reason) => {
            context.reject(&client, reason);
            return;
        }
    };
    let reserved = match context.threads.reserve() {
        Ok(reserved) => reserved,
        Err(error) => {
            context.reject(&client, Rejected::NoThread(error));
            return;
        }
    };
    let log = context.log.clone();
    let session = Arc::new(Session::new(slot, log, client, address, token.clone()));
    context.registry.add(number, &session);
    let context = Arc::clone(context);
    reserved.start(format!("s{number}"), move || {
        run_session(&context, &session, place);
    });
}

/// A descriptor kept in reserve, for the time when accept(2) fails because no descriptor is
/// free. The waiting client would stay in the backlog then, and accept(2) would fail
/// again at once, in a busy loop.
#[derive(Debug)]
pub(super) struct SpareFd {
    /// Closed to accept one client, which is closed at once.
    file: Option<File>,
    /// How long to sleep if even that does not help.
    backoff: Duration,
}

impl SpareFd {
    const MIN_BACKOFF: Duration = Duration::from_millis(10);
    const MAX_BACKOFF: Duration = Duration::from_secs(1);

    pub(super) fn new() -> SpareFd {
        SpareFd {
            file: File::open("/dev/null").ok(),
            backoff: Self::MIN_BACKOFF,
        }
    }

    /// Closes one client by means of the spare descriptor. False if no client was closed:
    /// another thread may take each descriptor that is free.
    fn reject_one(&mut self, listener: &TcpListener) -> bool {
        if self.file.take().is_none() {
            return false;
        }
        // The client is dropped before the spare descriptor is opened again.
        let is_rejected = listener.accept().is_ok();
        self.file = File::open("/dev/null").ok();
        is_rejected
    }

    /// Sleeps for the backoff. A connection that is gone must not delay the next one for long.
    fn pause(&mut self, of_one_connection: bool) {
        let wait = trace::wait(|| Wait::Sleep);
        thread::sleep(self.backoff);
        drop(wait);
        if !of_one_connection {
            self.backoff = (self.backoff * 2).min(Self::MAX_BACKOFF);
        }
    }

    /// A client was accepted: the backoff begins anew, and the spare descriptor is opened
    /// again if it is missing.
    fn reset(&mut self) {
        self.backoff = Self::MIN_BACKOFF;
        if self.file.is_none() {
            self.file = File::open("/dev/null").ok();
        }
    }
}
