//! A server from its start to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::accept::{Acceptor, SpareFd};
use super::context::ServerContext;
use super::limits::LimitedBy;
use super::metrics::MetricsServer;
use super::shutdown::{Control, MainLoop, ShutdownKind, TERMINATION_TIME};
use super::status::StatusReporter;
use crate::auth::Authenticator;
use crate::config::Settings;
use crate::events::{Event, Listening};
use crate::local_time::LocalClock;
use crate::logger::Log;
use crate::net::Listeners;
use crate::rules::RulesFile;
use crate::sync::thread;
use crate::sync::wait_group::wait_group;
use crate::systemd::ServiceManager;
use crate::trace::{self, Mark};

/// A SOCKS server that is ready to run.
#[derive(Debug)]
pub struct Server {
    pub(crate) context: Arc<ServerContext>,
    /// For the log.
    limited_by: Option<LimitedBy>,
    service_manager: ServiceManager,
}

impl Server {
    /// A server with these settings and rules. It reads the time from this clock and sends
    /// its events to this log.
    pub fn new(settings: Settings, rules_file: RulesFile, clock: LocalClock, log: Log) -> Server {
        let context = ServerContext::new(settings, rules_file, clock, log);
        Server {
            context: Arc::new(context),
            limited_by: None,
            service_manager: ServiceManager::default(),
        }
    }

    /// The same server, whose log says what limits the number of sessions.
    pub fn limited_by(self, limited_by: LimitedBy) -> Server {
        Server {
            limited_by: Some(limited_by),
            ..self
        }
    }

    /// The same server, which reports its state to this service manager.
    pub fn managed_by(self, service_manager: ServiceManager) -> Server {
        Server {
            service_manager,
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

    /// Serves the clients of these listeners until a control says stop: graceful shutdown.
    ///
    /// When it returns, the sessions have ended and are reported to the log, and idle
    /// threads are ending. A relay that does not end in time is left: then the end of the
    /// process resets its connections. So may be a thread in a name lookup, which nothing
    /// can interrupt; no thread waits for it.
    ///
    /// # Errors
    ///
    /// Only at the start: a listener cannot be used, or the system has no thread.
    pub fn run(
        self,
        listeners: Listeners,
        controls: &Receiver<Control>,
    ) -> io::Result<ShutdownKind> {
        let context = self.context;
        listeners.prepare()?;
        let addresses = listeners.addresses()?;
        let has_chosen_port = listeners.has_chosen_port();
        // Set once: `run` takes the server.
        let ports = addresses.iter().map(SocketAddr::port).collect();
        let _ = context.listening_ports.set(ports);

        // Every session holds a clone of the token.
        let (token, all_done) = wait_group();
        // The end of the pipe that main keeps is open until the stop.
        let (stop, until_stop) = io::pipe()?;
        let spare = SpareFd::new();
        let accepting = thread::Builder::new().name("accept".to_owned()).spawn({
            let context = Arc::clone(&context);
            move || Acceptor::new(&context, token, spare).accept_clients(&listeners, &stop)
        });
        let accepting = accepting.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot start the thread that accepts clients: {error}"),
            )
        })?;
        for address in addresses {
            context.log.send(Event::Listening(Box::new(Listening {
                address,
                has_chosen_port,
                max_sessions: context.settings.max_sessions,
                limited_by: self.limited_by.as_ref().map(LimitedBy::to_string),
                rules: context.rule_count(),
                users: context.user_count(),
                proxy_from: context.settings.proxy_from.len(),
            })));
        }

        let _job = trace::job("threadsocks", None);
        let mut main_loop = MainLoop::new(&context, controls, self.service_manager);
        let grace_over = main_loop.run_until_stop();
        trace::mark(|| Mark::Stop);

        // In this order: the accept loop ends after the pipe is closed, and with it the
        // listeners of this process.
        drop(until_stop);
        // Fails if the thread has panicked; then it accepts no more clients either. After
        // this no session is added, so the loops below reach all of them.
        let _ = accepting.join();
        let kind = main_loop.drain(&all_done, &grace_over);
        let cut = context.registry.terminate_all();
        let _ = all_done.recv_timeout(TERMINATION_TIME);
        context.log.send(Event::Stopped {
            forced: kind == ShutdownKind::Forced,
            cut,
        });
        Ok(kind)
    }
}
