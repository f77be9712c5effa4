//! The folder of the project, its files, and the other packages in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::child::RunningChild;

/// Before version 1.91, cargo compiles the model checker for the lessons once more, with
/// optimization, while other tests run. Another cargo may hold the lock of `target` meanwhile.
const BUILD_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of this file.
pub(crate) fn project_file(name: &str) -> String {
    fs::read_to_string(project().join(name)).expect(name)
}

/// Builds the programs of a package of the workspace, into a folder of their own. The lock file
/// and the crates are those of the tests, so no network is needed, and cargo 1.91 and later find
/// the crates that are compiled already. Returns the folder of the programs.
pub(crate) fn build_package(name: &str) -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let target = build.join(name);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(project());
    cargo.args(["build", "--package", name, "--bins", "--frozen"]);
    cargo.args(["--message-format=json", "--quiet"]);
    cargo.arg("--target-dir").arg(target);
    cargo.env("CARGO_BUILD_BUILD_DIR", build);
    let output = RunningChild::start(&mut cargo, b"").wait_for_exit(BUILD_TIMEOUT);
    assert!(output.status.success(), "{output:?}");
    let text = output.text();
    let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut programs = messages
        .filter_map(|message: serde_json::Value| message["executable"].as_str().map(PathBuf::from));
    programs.next().unwrap().parent().unwrap().to_owned()
}
