//! curl, nc, socat, Chromium, FTP clients and servers.

use std::io::Write;
use std::process::{Command, Stdio};

/// Is this program installed? If not, the test says so on the real stderr, past
/// the test runner's capture, and is skipped; where everything must be there
/// (`THREADSOCKS_REQUIRE_ALL=1`) it fails.
pub(crate) fn present(program: &str, package: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        let required =
            std::env::var_os("THREADSOCKS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(
            !required,
            "{program} is missing: install the package {package}"
        );
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {program} is missing; install the package {package} to run this test"
        );
    }
    found
}
