//! A server from its start to its end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::accept::{SpareFd, accept_clients};
use super::context::ServerContext;
use super::limits::LimitedBy;
use super::metrics::MetricsServer;
use super::shutdown::{Control, MainLoop, ShutdownKind};
use super::status::StatusReporter;
use crate::auth::Authenticator;
use crate::config::Settings;
use crate::events::{Event, Listening};
use crate::local_time::LocalClock;
use crate::logger::Log;
use crate::net;
use crate::rules::RulesFile;
use crate::sync::thread;
use crate::sync::wait_group::wait_group;
use crate::trace::{self, Mark};

/// How long the threads of terminated sessions may take to end. A blocked write returns at
/// its send timeout of half a second, a blocked splice(2) within two seconds.
const TERMINATION_TIME: Duration = Duration::from_secs(3);

/// A SOCKS server that is ready to run.
#[derive(Debug)]
pub struct Server {
    pub(crate) context: Arc<ServerContext>,
    /// For the log.
    limited_by: Option<LimitedBy>,
}

impl Server {
    /// A server with these settings and rules. It reads the time from this clock and sends
    /// its events to this log.
    pub fn new(settings: Settings, rules_file: RulesFile, clock: LocalClock, log: Log) -> Server {
        let context = ServerContext::new(settings, rules_file, clock, log);
        Server {
            context: Arc::new(context),
            limited_by: None,
        }
    }

    /// The same server, whose log says what limits the number of sessions.
    pub fn limited_by(self, limited_by: LimitedBy) -> Server {
        Server {
            limited_by: Some(limited_by),
            ..self
        }
    }

    /// The same server, whose SOCKS5 clients must log in.
    pub fn with_users(self, authenticator: Authenticator) -> Server {
        // Of two authenticators the first one stays.
        let _ = self.context.authenticator.set(authenticator);
        self
    }

    /// Prints tables of the sessions and threads while the server runs.
    pub fn status_reporter(&self) -> StatusReporter {
        StatusReporter::new(&self.context)
    }

    /// Serves the metrics of this server on this listener, until the result is dropped.
    ///
    /// # Errors
    ///
    /// The system has no pipe or no thread.
    pub fn serve_metrics(&self, listener: TcpListener) -> io::Result<MetricsServer> {
        MetricsServer::start(listener, &self.context)
    }

    /// Serves the clients of this listener until a control says stop: graceful shutdown.
    ///
    /// When it returns, the sessions have ended and are reported to the log, and idle
    /// threads are ending. A relay that does not end in time is left: then the end of the
    /// process resets its connections. So may be a thread in a name lookup, which nothing
    /// can interrupt; no thread waits for it.
    ///
    /// # Errors
    ///
    /// Only at the start: the listener cannot be used, or the system has no thread.
    pub fn run(
        self,
        listener: TcpListener,
        controls: &Receiver<Control>,
    ) -> io::Result<ShutdownKind> {
        let context = self.context;
        listener.set_nonblocking(false)?;
        net::lengthen_backlog(&listener)?;
        net::set_options(&listener)?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);

        // Every session holds a clone of the token.
        let (token, all_done) = wait_group();
        let spare = SpareFd::new();
        let accepting = thread::Builder::new().name("accept".to_owned()).spawn({
            let (context, listener) = (Arc::clone(&context), Arc::clone(&listener));
            move || accept_clients(&context, &listener, &token, spare)
        });
        let accepting = accepting.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot start the thread that accepts clients: {error}"),
            )
        })?;
        context.log.send(Event::Listening(Box::new(Listening {
            address,
            max_sessions: context.settings.max_sessions,
            limited_by: self.limited_by.map(|it| it.to_string()),
            rules: context.rule_count(),
            users: context.user_count(),
        })));

        let _job = trace::job("threadsocks", None);
        let mut main_loop = MainLoop::new(&context, controls);
        main_loop.run_until_stop();
        trace::mark(|| Mark::Stop);

        // In this order: accept(2) fails after the listener is shut down, and the accept
        // loop then finds the flag set.
        context.stopping.store(true, Ordering::SeqCst);
        net::stop_listening(&listener);
        drop(listener);
        // Fails if the thread has panicked; then it accepts no more clients either. After
        // this no session is added, so the loops below reach all of them.
        let _ = accepting.join();
        let kind = main_loop.drain(&all_done);
        let cut = context.registry.terminate_all();
        let _ = all_done.recv_timeout(TERMINATION_TIME);
        context.log.send(Event::Stopped {
            forced: kind == ShutdownKind::Forced,
            cut,
        });
        Ok(kind)
    }
}
