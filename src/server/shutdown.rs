//! The main thread while the server runs: it reloads files, ends idle sessions, and shuts down.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select, tick};

use super::access::enforce::Enforcer;
use super::context::ServerContext;
use crate::events::Event;
use crate::sync::wait_group::AllDone;
use crate::systemd::ServiceManager;
use crate::trace::{self, Wait};

/// How long the threads of terminated sessions may take to end. A blocked write returns at
/// its send timeout of half a second, a blocked splice(2) within two seconds.
pub(super) const TERMINATION_TIME: Duration = Duration::from_secs(3);

/// What the stop takes beside the grace period: the end of the sessions, and that of the logger,
/// which has one second. After a shorter grace period, also a second for the clients in the backlog.
const STOP_TIME: Duration = Duration::from_secs(5);

/// What the operator wants of a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Read the rules, and the users if there are any, again, and report the result.
    Reload,
    /// Graceful shutdown: accept no more clients, and end when all sessions have ended or
    /// the grace period is over. Sent twice: end all sessions now.
    Stop,
}

/// How a server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownKind {
    /// All sessions have ended, or were terminated at the end of the grace period.
    Graceful,
    /// A second [`Control::Stop`] ended the grace period.
    Forced,
}

/// What the main thread waits for while the server runs.
#[derive(Debug)]
pub(super) struct MainLoop<'a> {
    context: &'a ServerContext,
    controls: &'a Receiver<Control>,
    sweep: Receiver<Instant>,
    enforcer: Enforcer,
    service_manager: ServiceManager,
}

impl<'a> MainLoop<'a> {
    pub(super) fn new(
        context: &'a ServerContext,
        controls: &'a Receiver<Control>,
        service_manager: ServiceManager,
    ) -> MainLoop<'a> {
        MainLoop {
            context,
            controls,
            sweep: tick(context.settings.sweep_interval()),
            enforcer: Enforcer::new(context.settings.enforce),
            service_manager,
        }
    }

    /// Runs until a control says stop, or until no more control can come. Returns the end of the
    /// grace period, which begins then: the accept loop may take a second more.
    pub(super) fn run_until_stop(&mut self) -> Receiver<Instant> {
        self.service_manager.ready(self.session_count());
        self.wait_for_stop();
        let grace = self.context.settings.grace;
        let grace_over = crossbeam_channel::after(grace);
        self.service_manager.stopping(grace + STOP_TIME, "stopping");
        grace_over
    }

    fn wait_for_stop(&mut self) {
        loop {
            let wait = trace::wait(|| Wait::Control);
            select! {
                recv(self.controls) -> control => {
                    drop(wait);
                    match control {
                        Ok(Control::Reload) => self.reload(),
                        Ok(Control::Stop) | Err(_) => return,
                    }
                },
                recv(self.enforcer.next) -> _ => {
                    drop(wait);
                    self.enforcer.check(self.context);
                },
                recv(self.sweep) -> _ => {
                    drop(wait);
                    self.terminate_idle();
                },
            }
        }
    }

    /// Waits until all sessions have ended, until the end of the grace period at the latest.
    pub(super) fn drain(
        &mut self,
        all_done: &AllDone,
        grace_over: &Receiver<Instant>,
    ) -> ShutdownKind {
        self.context.log.send(Event::Stopping {
            sessions: self.context.registry.len(),
            grace: self.context.settings.grace,
        });
        let disconnected = crossbeam_channel::never();
        let mut controls = self.controls;
        loop {
            let wait = trace::wait(|| Wait::AllDone);
            select! {
                recv(all_done) -> _ => return ShutdownKind::Graceful,
                recv(grace_over) -> _ => return ShutdownKind::Graceful,
                recv(self.enforcer.next) -> _ => {
                    drop(wait);
                    self.enforcer.check(self.context);
                },
                recv(self.sweep) -> _ => {
                    drop(wait);
                    self.terminate_idle();
                },
                recv(controls) -> control => {
                    drop(wait);
                    match control {
                        Ok(Control::Stop) => return ShutdownKind::Forced,
                        Ok(Control::Reload) => self.reload(),
                        // A disconnected channel is always ready: never look at it again.
                        Err(_) => controls = &disconnected,
                    }
                },
            }
        }
    }

    fn reload(&mut self) {
        self.service_manager.reloading();
        self.context.reload_files();
        self.service_manager.reloaded();
        self.enforcer.check(self.context);
    }

    fn terminate_idle(&mut self) {
        self.context.registry.terminate_idle(&self.context.settings);
        let sessions = self.session_count();
        self.service_manager.status(sessions, Instant::now());
    }

    /// In words, for the service manager.
    fn session_count(&self) -> String {
        let sessions = self.context.registry.len();
        let max_sessions = self.context.settings.max_sessions;
        format!("{sessions} of {max_sessions} sessions")
    }
}
