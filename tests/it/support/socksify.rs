//! Dante's `socksify`: programs that know nothing of SOCKS go through the proxy.

use std::net::SocketAddr;
use std::process::Command;

/// Runs the program that is named next through the proxy: Dante's library takes
/// over its `connect`, `bind`, `accept` and `sendto`. The variable for the server's
/// address says in which language to talk to it.
pub(crate) fn socksify((version_variable, proxy): (&str, SocketAddr)) -> Command {
    let mut command = Command::new("socksify");
    command
        // Otherwise the library goes round the proxy for loopback.
        .env("SOCKS_AUTOADD_LANROUTES", "no")
        .env(version_variable, proxy.to_string())
        // The settings of this machine are not those of the test.
        .env("SOCKS_CONF", "/dev/null");
    command
}
