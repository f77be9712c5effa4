//! What a command line requests: an action and the options of a server.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::admin::explain::ExplainQuery;
use crate::config::Settings;
use crate::logger::{LogFormat, Verbosity};
use crate::trace::TraceTarget;

/// What the program is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the server.
    Serve(Options),
    /// Print the rules that a server with these options has; check the users file too, if
    /// there is one.
    Check {
        /// The options of the server.
        options: Options,
        /// Is a warning an error?
        strict: bool,
    },
    /// Explain the verdict on this query in a server with these options.
    Explain(Options, ExplainQuery),
    /// Read the password of a user.
    NewUser {
        /// The name of the user.
        name: Vec<u8>,
        /// The users file that gets the line. `None`: print the line.
        file: Option<PathBuf>,
        /// May the file have the user already?
        replace: bool,
    },
    /// Ask whether a server answers at this address.
    Probe(SocketAddr),
    /// Run a program through a SOCKS server, with these arguments of threadsocks-run.
    Run(Vec<OsString>),
    /// Print the completion script for this shell.
    Completion(Shell),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// A shell that completes the words of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// The options of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address and port on which the server listens for clients.
    pub address: SocketAddr,
    /// `--config`: the rules file. `None`: the server looks for it.
    pub config: Option<PathBuf>,
    /// `--users`: the users file. `None`: clients cannot log in.
    pub users: Option<PathBuf>,
    /// Timeouts and limits. Its `max_sessions`, `max_associations` and `max_name_lookups` are
    /// not set yet: they also depend on the machine.
    pub settings: Settings,
    /// `--max-sessions`; `None`: only the machine limits the sessions.
    pub max_sessions: Option<usize>,
    /// What stdout gets.
    pub log: LogFormat,
    /// `--metrics`: where Prometheus reads the metrics. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How much is written to stderr.
    pub verbosity: Verbosity,
    /// `--trace`: where a trace of the threads goes. `None`: there is none.
    pub trace: Option<TraceTarget>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1080),
            config: None,
            users: None,
            settings: Settings::default(),
            max_sessions: None,
            log: LogFormat::default(),
            metrics: None,
            verbosity: Verbosity::default(),
            trace: None,
        }
    }
}
