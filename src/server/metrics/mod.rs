//! The endpoint of `--metrics`: HTTP connections on threads of their own.
//!
//! The threads exist from the start, so a server that has all its sessions answers as well. They
//! take no lock for longer than it takes to copy the list of sessions.

mod connection;
mod page;
mod process;

use std::io::{self, PipeReader, PipeWriter};
use std::net::TcpListener;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::context::ServerContext;
use crate::events::{Event, Rejected};
use crate::net;
use crate::sync::thread;
use crate::trace;

/// Threads, so connections at a time. A further one waits in the backlog.
pub(super) const METRICS_THREADS: usize = 4;

/// Serves the metrics until it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    /// Its drop wakes the threads, and they end. None waits for them: one that writes to a slow
    /// reader ends with the process, or at its deadline.
    _stop: PipeWriter,
}

/// What the threads share.
struct Shared {
    listener: TcpListener,
    stop: PipeReader,
    /// Weak: a slow reader does not keep the server, and with it the logger, from ending.
    context: Weak<ServerContext>,
    /// When the process has started, since 1970.
    started: Option<Duration>,
}

impl MetricsServer {
    /// Serves the metrics of this server on this listener.
    ///
    /// # Errors
    ///
    /// The system has no pipe or no thread.
    pub(super) fn start(
        listener: TcpListener,
        context: &Arc<ServerContext>,
    ) -> io::Result<MetricsServer> {
        listener.set_nonblocking(true)?;
        let (stop, writer) = io::pipe()?;
        let shared = Arc::new(Shared {
            listener,
            stop,
            context: Arc::downgrade(context),
            started: process::started(),
        });
        for _ in 0..METRICS_THREADS {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("metrics".to_owned())
                .stack_size(super::STACK_SIZE)
                .spawn(move || serve(&shared))?;
        }
        Ok(MetricsServer { _stop: writer })
    }
}

/// The body of a thread `metrics`: one connection after the other.
fn serve(shared: &Shared) {
    let _job = trace::job("metrics", None);
    let report = |error: io::Error| {
        if let Some(context) = shared.context.upgrade() {
            let error = io::Error::new(error.kind(), format!("--metrics: {error}"));
            let reason = Rejected::AcceptFailed(error);
            context.log.send(Event::Rejected(reason));
        }
    };
    while let Some(client) = net::accept_until_stop(&shared.listener, &shared.stop, report) {
        connection::serve(&client, || {
            // `None`: the server has ended.
            let context = shared.context.upgrade()?;
            Some(page::page(&context, shared.started))
        });
    }
}
