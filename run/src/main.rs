//! Runs an unmodified program through a SOCKS server: `threadsocks run -- PROGRAM`.
//!
//! The kernel hands the program's socket calls over to this supervisor (seccomp user
//! notification), which answers each of them on a thread of its own, by blocking code. Read in
//! this order: `filter.rs` (which calls), `start.rs` (the processes), `supervisor.rs` (the
//! threads), `call.rs` (one call), `connect.rs`, `relayed.rs`, `bind.rs`.

#[cfg(target_os = "linux")]
mod address;
#[cfg(target_os = "linux")]
mod bind;
#[cfg(target_os = "linux")]
mod call;
#[cfg(target_os = "linux")]
mod connect;
#[cfg(target_os = "linux")]
mod context;
#[cfg(target_os = "linux")]
mod datagrams;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod messages;
#[cfg(target_os = "linux")]
mod name_service;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod nscd;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod permissions;
#[cfg(target_os = "linux")]
mod queries;
#[cfg(target_os = "linux")]
mod relayed;
#[cfg(target_os = "linux")]
mod request;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod waiting;

use std::process::ExitCode;

/// Runs the program, and returns its exit status.
#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    start::run()
}

/// Only Linux can hand a program's system calls over to another process.
#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "threadsocks-run: works on Linux only");
    ExitCode::FAILURE
}
