//! The arguments read so far, which become one action.

use std::net::{IpAddr, SocketAddr};

use super::action::{Action, Options, Shell};
use super::usage_error::UsageError;
use crate::admin::explain::ExplainQuery;
use crate::protocol::Nat64Prefix;

/// The arguments read so far.
#[derive(Default)]
pub(super) struct Given {
    pub(super) options: Options,
    /// `--bind`.
    pub(super) bind: Option<IpAddr>,
    /// The address in the argument ADDR:PORT.
    pub(super) address: Option<SocketAddr>,
    port: Option<u16>,
    /// `--help` or `--version`: the arguments after it are not read.
    pub(super) at_once: Option<Action>,
    tasks: Vec<Task>,
    pub(super) strict: bool,
    pub(super) replace: bool,
}

/// What the program does instead of running a server.
pub(super) enum Task {
    Check,
    Explain(ExplainQuery),
    NewUser(Vec<u8>),
    Probe(SocketAddr),
    Completion(Shell),
}

impl Task {
    /// The option that requests it.
    fn option(&self) -> &'static str {
        match self {
            Task::Check => "--check",
            Task::Explain(_) => "--explain",
            Task::NewUser(_) => "--new-user",
            Task::Probe(_) => "--probe",
            Task::Completion(_) => "--completion",
        }
    }
}

impl Given {
    /// What to write instead of a word that is no port, if the last task tells it.
    pub(super) fn advice_on_word(&self) -> Option<&'static str> {
        match self.tasks.last()? {
            Task::NewUser(_) => Some("the program asks for the password"),
            Task::Check | Task::Explain(_) => Some("write --config FILE for the rules file"),
            Task::Probe(_) | Task::Completion(_) => None,
        }
    }

    pub(super) fn add_task(&mut self, task: Task) {
        self.tasks.push(task);
    }

    /// Sets PORT.
    pub(super) fn set_port(&mut self, port: u16) -> Result<(), String> {
        match self.port.replace(port) {
            None => Ok(()),
            Some(first) => Err(format!(
                "write only one PORT; {port} is a second one after {first}"
            )),
        }
    }

    /// Adds a NAT64 prefix. No address may begin with two of them.
    pub(super) fn add_nat64(&mut self, prefix: Nat64Prefix) -> Result<(), String> {
        let prefixes = &mut self.options.settings.nat64;
        match prefixes.iter().find(|other| other.overlaps(prefix)) {
            Some(other) if *other == prefix => {
                Err(format!("{prefix} is given twice; give each prefix once"))
            }
            Some(other) => Err(format!(
                "{other} and {prefix} overlap, so some addresses would contain two IPv4 \
                 addresses; give only one of these prefixes"
            )),
            None => {
                prefixes.push(prefix);
                Ok(())
            }
        }
    }

    /// The action that the arguments request together.
    pub(super) fn into_action(mut self) -> Result<Action, UsageError> {
        if let [one, other, ..] = self.tasks.as_slice() {
            let (one, other) = (one.option(), other.option());
            return Err(UsageError(match one == other {
                true => format!("{one} is given twice"),
                false => format!("{one} and {other} cannot be combined; choose one"),
            }));
        }
        let task = self.tasks.pop();
        self.check_combination(task.as_ref())?;
        let mut options = self.options;
        if let Some(address) = self.bind {
            options.address.set_ip(address);
        }
        // With the zone of a link-local address.
        options.address = self.address.unwrap_or(options.address);
        if let Some(port) = self.port {
            options.address.set_port(port);
        }
        let strict = self.strict;
        Ok(match task {
            None => Action::Serve(options),
            Some(Task::Check) => Action::Check { options, strict },
            Some(Task::Explain(query)) => Action::Explain(options, query),
            Some(Task::NewUser(name)) => Action::NewUser {
                name,
                file: options.users,
                replace: self.replace,
            },
            Some(Task::Probe(address)) => Action::Probe(address),
            Some(Task::Completion(shell)) => Action::Completion(shell),
        })
    }

    /// Requires that each option has an effect beside the others.
    fn check_combination(&self, task: Option<&Task>) -> Result<(), UsageError> {
        let has_users = self.options.users.is_some();
        let adds_user = matches!(task, Some(Task::NewUser(_)));
        let reason = if self.options.settings.allow_anonymous && !has_users {
            "--allow-anonymous has an effect only with --users"
        } else if !self.options.settings.socks5 && has_users {
            "--users has no effect with --socks 4: SOCKS4 has no login"
        } else if self.strict && !matches!(task, Some(Task::Check)) {
            "--strict has an effect only with --check"
        } else if self.replace && !(adds_user && has_users) {
            "--replace has an effect only with --new-user NAME and --users FILE"
        } else if self.bind.is_some() && self.address.is_some() {
            "write the address only once: in ADDR:PORT or with --bind"
        } else {
            return Ok(());
        };
        Err(UsageError(reason.to_owned()))
    }
}
