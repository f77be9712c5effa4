//! What `cargo package` packs.

use std::process::Command;

use super::{INSTALL_TIMEOUT, run};
use crate::support::child::RunningChild;
use crate::support::project::{project, project_file};

/// Files that cargo adds: with its own form of the manifest, and the commit if there is one.
const CARGO_ADDS: [&str; 2] = [".cargo_vcs_info.json", "Cargo.toml.orig"];

#[test]
fn the_packages_of_cargo_have_the_source_the_licences_and_what_an_operator_needs() {
    for (package, folder, source) in [
        ("threadsocks", "src", "src/"),
        ("threadsocks-console", "cgi-bin/console", "console/"),
        ("threadsocks-run", "run/src", "src/"),
    ] {
        let packed = run(
            env!("CARGO"),
            &[
                "package",
                "--list",
                "--allow-dirty",
                "--offline",
                "--quiet",
                "--package",
                package,
            ],
        );
        let is_source = |path: &&str| path.starts_with(source);
        let mut others: Vec<&str> = packed.lines().filter(|it| !is_source(it)).collect();
        others.retain(|it| !CARGO_ADDS.contains(it));
        others.sort_unstable();
        let list = project_file(&format!("packaging/lists/{package}.crate.list"));
        assert_eq!(others, list.lines().collect::<Vec<_>>());
        let all = run("find", &[folder, "-type", "f"]);
        assert_eq!(
            packed.lines().filter(is_source).count(),
            all.lines().count()
        );
    }
}

/// Cargo has no setting by which a package can say that it has no address, or no tests.
#[test]
#[ignore = "builds packages"]
fn cargo_warns_about_nothing_but_the_missing_address_and_the_tests() {
    let mut package = Command::new(env!("CARGO"));
    package.current_dir(project());
    package.args(["package", "--no-verify", "--allow-dirty", "--offline"]);
    // The other default members are tests.
    package.args([
        "--package",
        "threadsocks",
        "--package",
        "threadsocks-console",
    ]);
    package.arg("--target-dir").arg(env!("CARGO_TARGET_TMPDIR"));
    let output = RunningChild::start(&mut package, b"").wait_for_exit(INSTALL_TIMEOUT);
    assert!(output.status.success(), "{output:#?}");
    let lines = output.stderr.lines();
    let warnings = lines.filter_map(|line| line.strip_prefix("warning: "));
    let address = "manifest has no documentation, homepage or repository";
    let of_tests = ["ignoring test ", "ignoring benchmark "];
    let other: Vec<&str> = warnings
        .filter(|it| *it != address && !of_tests.iter().any(|start| it.starts_with(start)))
        .collect();
    assert_eq!(other, [""; 0]);
}
