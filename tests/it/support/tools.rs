//! Programs that a test needs and that may be missing on a machine.

use std::io::Write;
use std::process::{Command, Stdio};

/// Whether this program is installed. If not, reports the test as skipped; the caller
/// returns.
pub(crate) fn is_installed(program: &str, package: &str) -> bool {
    let found = is_found(program);
    if !found {
        skip(&format!(
            "{program} is missing; install the package {package}"
        ));
    }
    found
}

/// Whether this program is installed. For programs that no test requires.
pub(crate) fn is_found(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Reports a skipped test on the real stderr, past the test runner's capture. With
/// `THREADSOCKS_REQUIRE_ALL=1` in the environment the test fails instead.
pub(crate) fn skip(reason: &str) {
    let required = std::env::var_os("THREADSOCKS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}
