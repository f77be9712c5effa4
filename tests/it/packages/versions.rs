//! The versions of the Debian packages, and what `make deb` checks first.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{PLAIN_VERSION, succeed};
use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::project::project;
use crate::support::tools::is_installed;

/// A folder with the files that `packaging/version` reads.
struct Source(TempDir);

impl Source {
    fn new() -> Source {
        let source = Source(tempfile::tempdir().unwrap());
        fs::create_dir(source.path("packaging")).unwrap();
        for name in ["Cargo.toml", "packaging/version"] {
            fs::copy(project().join(name), source.path(name)).unwrap();
        }
        source
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn version(&self) -> String {
        let output = succeed(
            &mut Command::new(self.path("packaging/version")),
            LONG_TIMEOUT,
        );
        output.trim_end().to_owned()
    }

    /// git(1) at this time.
    fn git(&self, time: &str, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Tests", "-c", "user.email=tests@localhost"]);
        git.args(arguments).current_dir(self.0.path());
        git.env("GIT_COMMITTER_DATE", time);
        succeed(&mut git, LONG_TIMEOUT);
    }

    /// The version after a commit at this time.
    fn commit(&self, time: &str) -> String {
        self.git(time, &["commit", "--quiet", "--allow-empty", "-m", "x"]);
        self.version()
    }
}

/// Fails unless dpkg sorts each version below the next.
fn assert_ascending(versions: &[&str]) {
    for pair in versions.windows(2) {
        let mut dpkg = Command::new("dpkg");
        dpkg.args(["--compare-versions", pair[0], "lt", pair[1]]);
        succeed(&mut dpkg, LONG_TIMEOUT);
    }
}

#[test]
fn a_source_without_git_has_the_version_of_the_release() {
    assert_eq!(Source::new().version(), PLAIN_VERSION);
}

#[test]
fn each_build_has_a_version_of_its_own_and_dpkg_sorts_them() {
    if !is_installed("git", "git") || !is_installed("dpkg", "dpkg") {
        return;
    }
    let source = Source::new();
    source.git("", &["init", "--quiet"]);
    source.git("", &["add", "."]);
    // The same second in two time zones, and the next one.
    let first = source.commit("2026-11-28T09:00:01+0200");
    let prefix = concat!(env!("CARGO_PKG_VERSION"), "~git20261128.070001.");
    assert!(first.starts_with(prefix), "{first}");
    let second = source.commit("2026-11-28T07:00:02+0000");
    fs::write(source.path("edited"), "").unwrap();
    let edited = source.version();
    assert!(edited.ends_with(".dirty-1"), "{edited}");
    fs::remove_file(source.path("edited")).unwrap();

    source.git("", &["tag", concat!("v", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(source.version(), PLAIN_VERSION);
    let later = source.commit("2026-11-28T09:00:03+0000");
    assert_ascending(&[&first, &second, PLAIN_VERSION, &later]);
    assert_ascending(&[&edited, PLAIN_VERSION]);
}

#[test]
fn make_deb_names_everything_that_is_missing_before_it_builds() {
    let folder = tempfile::tempdir().unwrap();
    if !is_installed("make", "make") {
        return;
    }
    for program in ["dirname", "sh"] {
        let path = Path::new("/usr/bin").join(program);
        symlink(path, folder.path().join(program)).unwrap();
    }
    let mut make = Command::new("make");
    make.args(["deb", "MAINTAINER= <>"]).current_dir(project());
    make.arg(format!("PATH={}", folder.path().display()));
    let output = RunningChild::start(&mut make, b"").wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.status.code(), Some(2));
    for line in [
        "cargo-deb is missing: cargo install cargo-deb --locked --version ",
        "dpkg-shlibdeps is missing: sudo apt install dpkg-dev\n",
        "the maintainer of the packages is missing: make deb MAINTAINER='",
    ] {
        assert!(output.stderr.contains(line), "{output:#?}");
    }
    assert_eq!(output.text(), "");
}
