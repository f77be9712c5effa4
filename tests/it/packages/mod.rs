//! What a user installs: the files of `make install`, of the Debian packages, of the image, of the
//! packages of cargo.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use crate::support::child::RunningChild;
use crate::support::project::{project, project_file};

mod crates;
mod debian;
mod debian_console;
mod image;
mod make_install;
mod versions;

/// The version of the Debian packages of a release.
const PLAIN_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");

/// A release build, perhaps from nothing.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a package manager may take.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a program until it exits with success, and returns its output on stdout.
fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(project());
    succeed(&mut command, INSTALL_TIMEOUT)
}

fn succeed(command: &mut Command, timeout: Duration) -> String {
    let output = RunningChild::start(command, b"").wait_for_exit(timeout);
    assert!(output.status.success(), "{command:?}: {output:#?}");
    output.text()
}

/// The folder into which `make` and `make deb` build. It is not the one of the tests, if they have
/// another with `--target-dir`.
fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    project().join(target)
}

/// The Debian packages of server and console. `make deb` makes them at the first use.
fn debian_packages() -> &'static [PathBuf; 2] {
    static PACKAGES: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
        let mut make = Command::new("make");
        make.arg("deb").current_dir(project());
        make.arg("MAINTAINER=The Tests <tests@threadsocks.test>");
        let output = succeed(&mut make, BUILD_TIMEOUT);
        ["threadsocks", "threadsocks-console"].map(|name| {
            let line = format!("/{name}_{}", env!("CARGO_PKG_VERSION"));
            let mut lines = output.lines();
            lines.find(|it| it.contains(&line)).expect(name).into()
        })
    });
    &PACKAGES
}

/// Compares files, each with its mode as ls(1) shows it, with a list in `packaging/lists`.
fn assert_listed(mut files: Vec<String>, list: &str) {
    files.sort_by(|one, other| path_of(one).cmp(path_of(other)));
    let expected = project_file(&format!("packaging/lists/{list}"));
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(files, expected, "{list}");
}

/// The path in a line of a list.
fn path_of(line: &str) -> &str {
    line.rsplit(' ').next().unwrap_or(line)
}

/// The files below this folder, as the lists have them.
fn files_below(folder: &str) -> Vec<String> {
    let files = run("find", &[folder, "!", "-type", "d", "-printf", "%M %P\n"]);
    files.lines().map(str::to_owned).collect()
}
