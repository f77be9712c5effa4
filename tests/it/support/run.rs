//! `threadsocks run`: programs through the server under test.

use std::net::SocketAddr;
use std::process::Command;

use super::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use super::project::run_binary;
use super::proxy::Proxy;

/// curl without the configuration and the proxy settings of the user; a URL follows.
pub(crate) const CURL: [&str; 6] = ["curl", "-q", "--silent", "--show-error", "--noproxy", "*"];

/// The variables that name a server; each selects a version of the protocol.
pub(crate) const VERSIONS: [&str; 2] = ["SOCKS4_SERVER", "SOCKS5_SERVER"];

/// A command that runs the program in its next arguments through the proxy.
pub(crate) fn run((version_variable, proxy): (&str, SocketAddr)) -> Command {
    let mut command = Command::new(run_binary());
    command
        .env_remove("SOCKS4_SERVER")
        .env_remove("SOCKS5_SERVER")
        .env(version_variable, proxy.to_string())
        // The servers of the tests are on loopback.
        .args(["--loopback", "--"]);
    command
}

/// Runs a program through the proxy until it exits.
pub(crate) fn output_of(version: &str, proxy: &Proxy, words: &[&str]) -> ChildOutput {
    let mut command = run((version, proxy.address()));
    RunningChild::start(command.args(words), b"").wait_for_exit(LONG_TIMEOUT)
}

/// The summaries of the first messages of the proxy, once there are this many.
pub(crate) fn sessions(proxy: &Proxy, count: usize) -> Vec<String> {
    let messages = proxy.screen_messages(count);
    messages.iter().map(|message| message.summary()).collect()
}
