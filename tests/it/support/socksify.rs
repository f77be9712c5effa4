//! Dante's `socksify`, which runs programs without SOCKS support through the proxy.

use std::net::SocketAddr;
use std::process::Command;

/// A command that runs the program in its next argument through the proxy: Dante's library
/// replaces `connect`, `bind`, `accept` and `sendto`.
///
/// `version_variable` is the environment variable for the proxy's address. Its name selects the
/// version of the protocol: `SOCKS4_SERVER` or `SOCKS5_SERVER`.
pub(crate) fn socksify((version_variable, proxy): (&str, SocketAddr)) -> Command {
    let mut command = Command::new("socksify");
    command
        // Otherwise the library connects to local networks directly, without the proxy.
        .env("SOCKS_AUTOADD_LANROUTES", "no")
        .env(version_variable, proxy.to_string())
        // The machine's own configuration is ignored.
        .env("SOCKS_CONF", "/dev/null");
    command
}
