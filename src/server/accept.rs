//! The accept loop: it gives each new client a thread, or rejects it.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;

use super::admission::admit;
use super::context::ServerContext;
use super::handler::run_session;
use super::session::Session;
use crate::events::{Event, Rejected};
use crate::net::{self, AcceptErrors};
use crate::protocol::canonical;
use crate::sync::thread;
use crate::sync::wait_group::Token;
use crate::trace::{self, Wait};

/// Accepts clients until the server stops. No error ends it.
pub(super) fn accept_clients(
    context: &Arc<ServerContext>,
    listener: &TcpListener,
    token: &Token,
    mut spare: SpareFd,
) {
    let _job = trace::job("accept", None);
    for number in 1.. {
        let mut errors = AcceptErrors::new();
        let (client, address) = loop {
            match accept(listener) {
                Ok(accepted) => break accepted,
                Err(_) if context.stopping.load(Ordering::SeqCst) => return,
                Err(error) if errors.is_transient(&error) => {}
                Err(error) => {
                    if let Some(accepted) = spare.retry(listener) {
                        break accepted;
                    }
                    if context.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let reason = Rejected::AcceptFailed(error);
                    context.log.send(Event::Rejected(reason));
                }
            }
        };
        spare.reset();
        start_session(context, number, client, canonical(address), token);
    }
}

/// accept(2). A new client ends the wait, or the end of the listener.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let _wait = trace::wait(|| Wait::Client);
    listener.accept()
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
        run_session(&context, &session, &place);
    });
}

/// A descriptor kept in reserve, for the time when accept(2) fails because no descriptor is
/// free. The waiting client would stay in the backlog then, and accept(2) would fail
/// again at once, in a busy loop.
#[derive(Debug)]
pub(super) struct SpareFd {
    /// Closed to accept one client, which is closed at once.
    file: Option<File>,
    /// Backoff: how long to sleep when even that does not help.
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

    /// Waits for a client first, since accept(2) fails for lack of a descriptor even while
    /// no client waits; then accepts once more. If that fails as well, closes one client
    /// by means of the spare descriptor. If that fails too, sleeps for the backoff: another
    /// thread may take each descriptor that is free.
    fn retry(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        net::wait_acceptable(listener);
        let error = match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) => error,
        };
        let no_descriptor = error.raw_os_error() == Some(Errno::EMFILE as i32);
        if !(no_descriptor && self.reject_one(listener)) {
            let wait = trace::wait(|| Wait::Sleep);
            thread::sleep(self.backoff);
            drop(wait);
            // A connection that is gone must not delay the next one for long.
            if !net::concerns_one_connection(&error) {
                self.backoff = (self.backoff * 2).min(Self::MAX_BACKOFF);
            }
        }
        None
    }

    /// Closes one client by means of the spare descriptor. False if no client was closed.
    fn reject_one(&mut self, listener: &TcpListener) -> bool {
        if self.file.take().is_none() {
            return false;
        }
        // The client is dropped before the spare descriptor is opened again.
        let is_rejected = listener.accept().is_ok();
        self.file = File::open("/dev/null").ok();
        is_rejected
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
