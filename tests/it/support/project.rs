//! The folder of the project, its files, and the other packages in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use super::child::RunningChild;

/// Before version 1.91, cargo compiles the model checker for the lessons once more, with
/// optimization, while other tests run. Another cargo may hold the lock of `target` meanwhile.
const BUILD_TIMEOUT: Duration = Duration::from_secs(300);

/// The package of the console, and its program.
const CONSOLE: &str = "threadsocks-console";

/// The package that runs programs through a server, and its program.
const RUN: &str = "threadsocks-run";

pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of this file.
pub(crate) fn project_file(name: &str) -> String {
    fs::read_to_string(project().join(name)).expect(name)
}

/// The console's binary.
pub(crate) fn console_binary() -> &'static Path {
    other_program(CONSOLE)
}

/// The binary that runs programs through a server.
pub(crate) fn run_binary() -> &'static Path {
    other_program(RUN)
}

/// The binary of another package. Cargo builds both at their first use, in the folder and with the
/// profile of the server's binary: no variable names them. Without names of packages and with the
/// server's example, cargo chooses the features that it has chosen for the tests, so it compiles
/// these two only, or nothing after `cargo test` without arguments.
fn other_program(name: &str) -> &'static Path {
    static PROGRAMS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_threadsocks"))
            .parent()
            .unwrap();
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            name => name,
        };
        let options = [
            "--bin",
            CONSOLE,
            "--bin",
            RUN,
            "--example",
            "shell_server",
            "--profile",
            profile,
        ];
        build(&[], &options, folder.parent().unwrap())
    });
    let mut programs = PROGRAMS.iter();
    programs.find(|it| it.ends_with(name)).unwrap()
}

/// Builds the programs of a package of the workspace, into a folder of their own. Returns this
/// folder.
pub(crate) fn build_package(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name);
    let programs = build(&[name], &["--bins"], &target);
    programs[0].parent().unwrap().to_owned()
}

/// Builds these packages; none means the default members of the workspace. The lock file and the crates are those of the tests, so no network is
/// needed, and cargo 1.91 and later find the crates that are compiled already. Returns the
/// programs.
fn build(packages: &[&str], options: &[&str], target: &Path) -> Vec<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(project());
    cargo.args(["build", "--frozen", "--message-format=json", "--quiet"]);
    for name in packages {
        cargo.args(["--package", name]);
    }
    cargo.args(options).arg("--target-dir").arg(target);
    let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    cargo.env("CARGO_BUILD_BUILD_DIR", compiled);
    let output = RunningChild::start(&mut cargo, b"").wait_for_exit(BUILD_TIMEOUT);
    assert!(output.status.success(), "{output:?}");
    let text = output.text();
    let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let program = |message: serde_json::Value| message["executable"].as_str().map(PathBuf::from);
    messages.filter_map(program).collect()
}
