//! A SOCKS proxy made of plain OS threads.
//!
//! The rooms, in reading order:
//!
//! - [`wire`]: bytes on the wire and what they mean
//! - [`firewall`]: `socks.conf` and its verdicts
//! - [`book`]: a file that is followed while it changes
//! - [`users`]: who may log in
//! - [`server`]: the context; its `session.rs` is one client's visit, top to bottom
//! - [`relay`]: two pumps, one per direction
//! - [`event`] and [`logger`]: what happened, and the one thread that prints it
//! - [`client`]: the other side of the same language
//! - [`resolve`], [`clock`] and [`net`]: what the others need of names, hours and sockets
//! - [`cli`], [`ask`] and [`inspect`]: what an operator types, and gets explained
//!
//! A server in a few lines; see `src/main.rs` for the whole of it:
//!
//! ```
//! use std::net::TcpListener;
//! use std::path::Path;
//! use threadsocks::local_time::LocalClock;
//! use threadsocks::rules::RulesFile;
//! use threadsocks::logger::{self, Verbosity, OutputConfig, Stdout};
//! use threadsocks::server::{Control, Server, Settings, ShutdownKind};
//!
//! let rules_file = RulesFile::open(Path::new("socks.conf")).expect("good rules");
//! let output = OutputConfig {
//!     screen: Some(Box::new(Stdout)),
//!     diagnostics: Box::new(std::io::stderr()),
//!     detail: Verbosity::Normal,
//! };
//! let (logger, log) = logger::start(output)?;
//! let (operator, orders) = crossbeam_channel::bounded(1);
//! let server = Server::new(Settings::default(), rules_file, LocalClock::local(), log);
//! operator.send(Control::Stop)?; // so that this example ends
//! let stopped = server.run(TcpListener::bind("127.0.0.1:0")?, &orders)?;
//! assert_eq!(stopped, ShutdownKind::Drained);
//! # drop(logger);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod protocol;

pub mod rules;

pub mod config;

pub mod auth;

pub mod server;

pub mod relay;

pub mod events;

pub mod logger;

pub mod client;

pub mod local_time;

pub mod net;

mod sync;

pub mod cli;

pub mod admin;
