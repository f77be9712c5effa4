//! `make install` and `make uninstall`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{assert_listed, files_below};
use crate::support::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use crate::support::project::{project, project_file, run_binary};
use crate::support::tools::is_installed;

/// A folder in place of the root, and a folder of cargo in which the server is built.
struct Installation {
    folder: TempDir,
}

impl Installation {
    /// Runs a test, if make is installed.
    fn with(test: impl FnOnce(&Installation)) {
        if is_installed("make", "make") {
            test(&Installation::new());
        }
    }

    fn new() -> Installation {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("target/release");
        fs::create_dir_all(&release).unwrap();
        let program = env!("CARGO_BIN_EXE_threadsocks");
        symlink(program, release.join("threadsocks")).unwrap();
        symlink(run_binary(), release.join("threadsocks-run")).unwrap();
        Installation { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs make with this goal and these settings.
    fn make(&self, goal: &str, settings: &[&str]) -> ChildOutput {
        let mut make = Command::new("make");
        make.current_dir(project()).arg(goal);
        make.arg(format!("DESTDIR={}", self.path("root")));
        make.args(settings);
        make.env("CARGO_TARGET_DIR", self.path("target"));
        // Without cargo in the path, each attempt to build fails.
        make.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin")));
        RunningChild::start(&mut make, b"").wait_for_exit(LONG_TIMEOUT)
    }

    fn succeed(&self, goal: &str) -> String {
        let output = self.make(goal, &[]);
        assert!(output.status.success(), "{output:#?}");
        output.text()
    }

    /// Runs make without DESTDIR; the folders are below the one of this test.
    fn make_unstaged(&self, goal: &str) -> ChildOutput {
        let prefix = format!("PREFIX={}", self.path("usr"));
        let configuration = format!("SYSCONFDIR={}", self.path("etc"));
        self.make(goal, &["DESTDIR=", &prefix, &configuration])
    }

    fn files(&self) -> Vec<String> {
        files_below(&self.path("root"))
    }
}

#[test]
fn p01_make_install_installs_what_is_built_and_keeps_edited_files() {
    Installation::with(|installation| {
        installation.succeed("install");
        assert_listed(installation.files(), "install.list");
        let rules = installation.path("root/etc/threadsocks/socks.conf");
        fs::write(&rules, "permit c 10. -\n").unwrap();
        let output = installation.succeed("install");
        assert!(
            output.contains("socks.conf exists and stays as it is"),
            "{output}"
        );
        assert_eq!(fs::read_to_string(&rules).unwrap(), "permit c 10. -\n");
    });
}

#[test]
fn p02_make_install_without_a_program_changes_nothing() {
    Installation::with(|installation| {
        for program in ["threadsocks-run", "threadsocks"] {
            fs::remove_file(installation.path(&format!("target/release/{program}"))).unwrap();
            let output = installation.make("install", &[]);
            assert_eq!(output.status.code(), Some(2));
            let text = output.text();
            let reason = format!("release/{program} does not exist: run make first");
            assert!(text.contains(&reason), "{text}");
            assert!(!Path::new(&installation.path("root")).exists());
        }
    });
}

#[test]
fn p03_make_uninstall_removes_everything_but_edited_files() {
    Installation::with(|installation| {
        installation.succeed("install");
        installation.succeed("uninstall");
        assert_eq!(installation.files(), [""; 0]);
        installation.succeed("install");
        let options = installation.path("root/etc/default/threadsocks");
        fs::write(&options, "PORT=1081\n").unwrap();
        let output = installation.succeed("uninstall");
        assert_eq!(installation.files(), ["-rw-r--r-- etc/default/threadsocks"]);
        assert!(
            output.contains("default/threadsocks differs from docs/threadsocks.default and stays"),
            "{output}"
        );
    });
}

#[test]
fn make_install_prints_the_next_steps_unless_it_stages() {
    Installation::with(|installation| {
        let output = installation.make_unstaged("install");
        assert!(output.status.success(), "{output:#?}");
        let text = output.text();
        let unit = installation.path("usr/lib/systemd/system/threadsocks.service");
        for step in [
            "  systemctl daemon-reload\n".to_owned(),
            format!("  systemctl enable --now {unit}\n"),
            format!("edit {}\n", installation.path("etc/default/threadsocks")),
            format!("edit {};", installation.path("etc/threadsocks/socks.conf")),
        ] {
            assert!(text.contains(&step), "{step}: {text}");
        }
        let staged = installation.succeed("install");
        assert!(!staged.contains("systemctl"), "{staged}");
    });
}

/// A program in place of systemctl(1) knows which unit is enabled.
#[test]
fn make_uninstall_refuses_while_a_unit_is_enabled() {
    Installation::with(|installation| {
        installation.make_unstaged("install");
        let enabled = installation.path("enabled");
        let script = format!(
            "#!/bin/sh\n[ \"$2 $3\" = 'is-enabled threadsocks.socket' ] && [ -e {enabled} ]\n"
        );
        fs::create_dir(installation.path("bin")).unwrap();
        fs::write(installation.path("bin/systemctl"), script).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(installation.path("bin/systemctl"), mode).unwrap();

        fs::write(&enabled, "").unwrap();
        let output = installation.make_unstaged("uninstall");
        assert_eq!(output.status.code(), Some(2));
        let text = output.text();
        let first = "first: systemctl disable --now threadsocks.socket\n";
        assert!(text.contains(first), "{text}");
        assert!(Path::new(&installation.path("usr/bin/threadsocks")).exists());

        fs::remove_file(&enabled).unwrap();
        let output = installation.make_unstaged("uninstall");
        assert!(output.status.success(), "{output:#?}");
        assert!(!Path::new(&installation.path("usr/bin/threadsocks")).exists());
    });
}

/// The folders in which Debian's fish searches, without and with a package manager.
#[test]
fn fish_searches_the_folders_of_its_completions() {
    if !is_installed("fish", "fish") {
        return;
    }
    let mut fish = Command::new("fish");
    fish.args(["-c", "printf '%s\\n' $fish_complete_path"]);
    fish.env_remove("XDG_DATA_DIRS");
    let output = RunningChild::start(&mut fish, b"").wait_for_exit(LONG_TIMEOUT);
    let text = output.text();
    for list in ["install.list", "threadsocks.deb.list"] {
        let list = project_file(&format!("packaging/lists/{list}"));
        let script = list
            .lines()
            .find(|line| line.ends_with("/threadsocks.fish"));
        let (_, path) = script.unwrap().split_once(' ').unwrap();
        let folder = format!("/{}", path.trim_end_matches("/threadsocks.fish"));
        assert!(text.lines().any(|line| line == folder), "{folder}: {text}");
    }
}

/// systemd starts the program that was installed, with the rules that were installed.
#[test]
fn the_unit_names_the_folders_of_the_installation() {
    Installation::with(|installation| {
        let output = installation.make("install", &["PREFIX=/opt/socks", "SYSCONFDIR=/opt/etc"]);
        assert!(output.status.success(), "{output:#?}");
        let unit = installation.path("root/opt/socks/lib/systemd/system/threadsocks.service");
        let unit = fs::read_to_string(unit).unwrap();
        let program = "=/opt/socks/bin/threadsocks ";
        assert_eq!(unit.matches(program).count(), 2, "{unit}");
        assert_eq!(
            unit.matches("--config /opt/etc/threadsocks/socks.conf")
                .count(),
            2
        );
        assert!(unit.contains("\nEnvironmentFile=-/opt/etc/default/threadsocks\n"));
        assert!(
            !unit.contains("/usr/local/bin") && !unit.contains("=/etc/"),
            "{unit}"
        );
    });
}

#[test]
fn make_help_has_a_line_for_each_target() {
    Installation::with(|installation| {
        let makefile = project_file("Makefile");
        let rules = makefile.lines().filter_map(|line| line.split_once(':'));
        let is_target = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase());
        let mut targets: Vec<&str> = rules.map(|(name, _)| name).filter(is_target).collect();
        // A target with variables of its own has more than one line.
        targets.dedup();
        let list = format!(".PHONY: {}\n", targets.join(" "));
        assert!(makefile.contains(&list), "{list}");
        let help = installation.succeed("help");
        for target in targets.iter().filter(|it| !["build", "help"].contains(it)) {
            let line = format!("make {target} ");
            let is_there = help.lines().any(|it| it.starts_with(&line));
            assert!(is_there, "{target}: {help}");
        }
        assert!(help.starts_with("make       "), "{help}");
    });
}
