//! What the server says at its start: the rules, users and limits in force, and warnings.

use std::fmt::Display;
use std::net::SocketAddr;

use threadsocks::auth::UsersFile;
use threadsocks::config::ClientKinds;
use threadsocks::events::{Event, Level};
use threadsocks::rules::{RulesFile, WeekTime};
use threadsocks::server::Limits;

/// What is in force at the start.
pub(crate) struct StartFacts<'a> {
    pub(crate) rules_file: &'a RulesFile,
    pub(crate) users_file: Option<&'a UsersFile>,
    pub(crate) clients: ClientKinds,
    pub(crate) now: WeekTime,
    pub(crate) limits: Limits,
    /// `--max-unheard`.
    pub(crate) max_unheard: Option<usize>,
    /// The listeners that the service manager has passed.
    pub(crate) inherited: Vec<SocketAddr>,
    /// PORT and `--bind`.
    pub(crate) requested: SocketAddr,
    /// Where the metrics are served.
    pub(crate) metrics: Option<SocketAddr>,
    /// Did the system choose their port? Then the operator learns it only from the log.
    pub(crate) has_chosen_metrics_port: bool,
}

impl StartFacts<'_> {
    /// A message for each fact, and for each warning.
    pub(crate) fn messages(&self) -> Vec<Event> {
        let lines = [self.of_files(), self.of_limits(), self.of_listeners()].concat();
        let message = |(level, line)| Event::StartMessage {
            line,
            level,
            even_if_quiet: false,
        };
        let mut messages: Vec<Event> = lines.into_iter().map(message).collect();
        if let Some(address) = self.metrics {
            messages.push(Event::StartMessage {
                line: format!("metrics at http://{address}/metrics"),
                level: Level::Info,
                even_if_quiet: self.has_chosen_metrics_port,
            });
            messages.extend(warning_of_metrics(address).map(message));
        }
        messages
    }

    fn of_listeners(&self) -> Vec<(Level, String)> {
        let line = |address: &SocketAddr| {
            let line = format!(
                "the service manager has passed {address} (LISTEN_FDS); PORT and --bind are ignored"
            );
            // Another address can be open to more networks than --bind says.
            match *address == self.requested {
                true => (Level::Info, line),
                false => (Level::Warning, format!("warning: {line}")),
            }
        };
        self.inherited.iter().map(line).collect()
    }

    fn of_files(&self) -> Vec<(Level, String)> {
        let path = self.rules_file.path().display();
        let (rules, _) = self.rules_file.current();
        let mut lines = vec![(Level::Info, format!("{path}: {rules} in force"))];
        lines.extend(warnings(
            &path,
            self.rules_file.remarks(self.now, self.clients),
        ));
        if let Some(users_file) = self.users_file {
            let path = users_file.path().display();
            let (users, _) = users_file.current();
            lines.push((Level::Info, format!("{path}: {users} in force")));
            lines.extend(warnings(&path, users_file.remarks()));
        }
        lines
    }

    fn of_limits(&self) -> Vec<(Level, String)> {
        let Limits {
            max_sessions,
            limited_by,
            has_unknown_memory,
            ..
        } = self.limits;
        let sessions = if max_sessions == 1 {
            "session"
        } else {
            "sessions"
        };
        let line = format!("up to {max_sessions} {sessions} at a time, limited by {limited_by}");
        let mut lines = vec![(Level::Info, line)];
        if let Some(max_unheard) = self.max_unheard.filter(|&it| it > max_sessions) {
            let line = format!(
                "warning: --max-unheard {max_unheard} is more than the number of sessions, and \
                 counts as {max_sessions}"
            );
            lines.push((Level::Warning, line));
        }
        if has_unknown_memory {
            let line = "warning: the memory limit of the control group cannot be read; if there \
                        is one, set --max-sessions to 3 for each MiB of it, or the kernel may \
                        kill the server";
            lines.push((Level::Warning, line.to_owned()));
        }
        lines
    }
}

/// The remarks on this file, a line each.
fn warnings(path: &impl Display, remarks: Vec<String>) -> impl Iterator<Item = (Level, String)> {
    let lines = remarks.into_iter();
    lines.map(move |remark| (Level::Warning, format!("{path}: {remark}")))
}

/// A warning, if other hosts may reach the metrics at this address.
fn warning_of_metrics(address: SocketAddr) -> Option<(Level, String)> {
    let line = format!(
        "warning: --metrics {address} is no loopback address: the metrics have no login; let a \
         firewall admit only the host of Prometheus"
    );
    (!address.ip().to_canonical().is_loopback()).then_some((Level::Warning, line))
}
