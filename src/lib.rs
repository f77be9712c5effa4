//! A SOCKS proxy made of plain OS threads.
//!
//! The modules; ARCHITECTURE.md says in which order to read them:
//!
//! - [`server`]: sessions from accept to end
//! - [`sync`]: lock order, thread pool, semaphore, wait group
//! - [`relay`]: two threads copy bytes, one per direction
//! - [`events`] and [`logger`]: what happened, and the one thread that writes it
//! - [`protocol`]: the messages of SOCKS and IDENT
//! - [`rules`]: `socks.conf` and its verdicts
//! - [`config`]: settings, and files that take effect when they change
//! - [`auth`]: users, passwords, and the rate limit of logins
//! - [`net`] and [`local_time`]: what the others need of sockets, names and the clock
//! - [`trace`]: what each thread does and waits for (`--trace`)
//! - [`client`]: the client's side of the protocol
//! - [`cli`] and [`admin`]: the command line, `--check`, `--explain`, `--new-user` and
//!   `--probe`
//!
//! A server in a few lines; `src/main.rs` has the whole of it:
//!
//! ```
//! use std::net::TcpListener;
//! use std::path::Path;
//! use threadsocks::config::Settings;
//! use threadsocks::local_time::LocalClock;
//! use threadsocks::logger::{self, LogFormat, OutputConfig, Stderr, Stdout, Verbosity};
//! use threadsocks::net::Listeners;
//! use threadsocks::rules::RulesFile;
//! use threadsocks::server::{Control, Server, ShutdownKind};
//!
//! let rules_file = RulesFile::open(Path::new("socks.conf"))?;
//! let output = OutputConfig {
//!     screen: Box::new(Stdout),
//!     format: LogFormat::Screen,
//!     diagnostics: Box::new(Stderr),
//!     verbosity: Verbosity::Normal,
//!     has_priorities: false,
//!     queued_events: logger::MAX_QUEUED_EVENTS,
//! };
//! let (logger, log) = logger::start(output)?;
//! let (control_sender, controls) = crossbeam_channel::bounded(1);
//! let server = Server::new(Settings::default(), rules_file, LocalClock::local()?, log);
//! control_sender.send(Control::Stop)?; // so that this example ends
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let kind = server.run(Listeners::own(listener), &controls)?;
//! assert_eq!(kind, ShutdownKind::Graceful);
//! # drop(logger);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod admin;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod events;
pub mod local_time;
pub mod logger;
mod metrics;
pub mod net;
pub mod protocol;
pub mod relay;
mod request_error;
pub mod rules;
pub mod server;
mod source_prefix;
pub mod sync;
pub mod systemd;
pub mod trace;
mod words;
