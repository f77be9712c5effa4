//! The Debian packages: their files, and what dpkg does with them on a copy of this system.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use super::{PLAIN_VERSION, assert_listed, debian_packages, run, succeed};
use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::netns::in_own_network;
use crate::support::project::project_file;
use crate::support::tools::is_installed;
use crate::support::wait::until;

/// The helper programs that a system without systemd does not have.
const HELPERS: [&str; 3] = [
    "usr/bin/deb-systemd-helper",
    "usr/bin/deb-systemd-invoke",
    "usr/bin/systemd-sysusers",
];

/// What the installation of the packages may leave in a system after a purge. The user stays.
const LEFT: &str = "find \"$0\" -name '*threadsocks*' -not -path '*/var/log/*'";

/// This system, as dpkg sees it, in a folder. Changes are kept in memory, and only the thread of
/// the test sees them.
pub(super) struct CopiedSystem {
    folder: TempDir,
}

impl CopiedSystem {
    /// Runs a test with a copy of its own, in a network of its own. systemd does not run there.
    pub(super) fn with(test: impl FnOnce(&CopiedSystem) + Send) {
        if !is_installed("dpkg", "dpkg") {
            return;
        }
        in_own_network(|network| {
            network.ip("addr add 192.0.2.1/32 dev lo");
            network.ip("addr add 192.0.2.2/32 dev lo");
            let system = CopiedSystem {
                folder: tempfile::tempdir().unwrap(),
            };
            system.mount();
            test(&system);
        });
    }

    fn mount(&self) {
        let (none, flags) = (None::<&str>, MsFlags::empty());
        mount(
            Some("tmpfs"),
            self.folder.path(),
            Some("tmpfs"),
            flags,
            none,
        )
        .unwrap();
        for name in ["changes", "work", "root"] {
            fs::create_dir(self.folder.path().join(name)).unwrap();
        }
        let folder = self.folder.path().display();
        let layers = format!("lowerdir=/,upperdir={folder}/changes,workdir={folder}/work");
        mount(
            Some("overlay"),
            &self.root(),
            Some("overlay"),
            flags,
            Some(&*layers),
        )
        .unwrap();
        for name in ["dev", "proc"] {
            let from = Path::new("/").join(name);
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&from), &self.path(name), none, bind, none).unwrap();
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect(name)
    }

    /// The command that runs a program in this system.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.root()).arg(program).current_dir("/");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// dpkg(1) with its database in this system. An edited file stays, as by the answer that dpkg
    /// proposes when it asks.
    pub(super) fn dpkg(&self, arguments: &[&str], packages: &[&Path]) -> String {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.root().display()));
        dpkg.arg("--force-confold").args(arguments).args(packages);
        succeed(&mut dpkg, LONG_TIMEOUT)
    }

    /// The files of this name that the packages have left.
    fn left(&self) -> Vec<String> {
        let changes = self.folder.path().join("changes");
        let left = run("sh", &["-c", LEFT, changes.to_str().unwrap()]);
        // A file that was removed from this system stays as a character device in the layer.
        let lines = left.lines().filter(|it| Path::new(it).is_file());
        lines.map(str::to_owned).collect()
    }
}

/// A package that differs by its version, and by a line at the end of each of its configuration
/// files.
fn next_version(package: &Path, folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    let [from, to] = [package, &tree].map(|it| it.to_str().unwrap());
    run("dpkg-deb", &["--raw-extract", from, to]);
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let version = run("dpkg-deb", &["--field", from, "Version"]);
    assert!(text.contains(&version));
    fs::write(&control, text.replace(&version, "99-1\n")).unwrap();
    for name in fs::read_to_string(tree.join("DEBIAN/conffiles"))
        .unwrap()
        .lines()
    {
        let file = tree.join(name.trim_start_matches('/'));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text + "# of version 99\n").unwrap();
    }
    let next = folder.join("next.deb");
    run("dpkg-deb", &["--build", to, next.to_str().unwrap()]);
    next
}

#[test]
fn the_changelog_of_the_debian_packages_begins_with_this_version() {
    let changelog = project_file("packaging/debian/changelog");
    let first = format!("@PACKAGE@ ({PLAIN_VERSION}) ");
    assert!(changelog.starts_with(&first), "{changelog}");
}

#[test]
#[ignore = "builds packages"]
fn p04_the_debian_packages_have_the_listed_files_and_lintian_finds_no_error() {
    if !is_installed("lintian", "lintian") {
        return;
    }
    for (package, name) in debian_packages()
        .iter()
        .zip(["threadsocks", "threadsocks-console"])
    {
        let package = package.to_str().unwrap();
        let content = run("dpkg-deb", &["--contents", package]);
        let files = content.lines().filter(|line| !line.starts_with('d'));
        let files = files.map(|line| {
            let (mode, rest) = line.split_once(' ').unwrap();
            assert!(
                rest.starts_with("0/0 ") || rest.starts_with("root/root "),
                "{line}"
            );
            let (_, path) = rest.split_once(" ./").unwrap();
            format!("{mode} {}", path.split(" -> ").next().unwrap())
        });
        assert_listed(files.collect(), &format!("{name}.deb.list"));
        let needed = run("dpkg-deb", &["--field", package, "Depends"]);
        assert!(needed.contains("libc6 (>= "), "{needed}");
        run("lintian", &["--allow-root", "--fail-on", "error", package]);
    }
}

#[test]
#[ignore = "builds packages"]
fn p05_p06_an_upgrade_keeps_edits_a_removal_keeps_the_configuration_and_a_purge_nothing() {
    let [package, _] = debian_packages();
    let folder = tempfile::tempdir().unwrap();
    let next = next_version(package, folder.path());
    CopiedSystem::with(|system| {
        let (rules, options) = ("etc/threadsocks/socks.conf", "etc/default/threadsocks");
        let wanted = "etc/systemd/system/multi-user.target.wants/threadsocks.service";
        system.dpkg(&["--install"], &[package]);
        assert!(system.text("etc/passwd").contains("\n_threadsocks:"));
        assert!(system.path(wanted).is_symlink());
        assert!(
            !system
                .path("etc/systemd/system/sockets.target.wants/threadsocks.socket")
                .is_symlink()
        );
        fs::write(system.path(rules), "permit c 10. -\n").unwrap();

        system.dpkg(&["--install"], &[&next]);
        assert_eq!(system.text(rules), "permit c 10. -\n");
        assert!(system.text(options).ends_with("# of version 99\n"));

        // What the administrator has disabled stays disabled.
        let mut disable = system.command("systemctl");
        succeed(
            disable.args(["disable", "threadsocks.service"]),
            LONG_TIMEOUT,
        );
        system.dpkg(&["--install"], &[&next]);
        assert!(!system.path(wanted).is_symlink());

        system.dpkg(&["--remove", "threadsocks"], &[]);
        assert!(!system.path("usr/bin/threadsocks").exists());
        assert_eq!(system.text(rules), "permit c 10. -\n");
        assert!(system.path(options).exists());

        system.dpkg(&["--purge", "threadsocks"], &[]);
        assert_eq!(system.left(), [""; 0]);
        assert!(!system.path("etc/threadsocks").exists());
    });
}

/// dpkg keeps a folder that is not empty.
#[test]
#[ignore = "builds packages"]
fn a_purge_keeps_the_users_file_and_prints_no_error() {
    let [package, _] = debian_packages();
    CopiedSystem::with(|system| {
        system.dpkg(&["--install"], &[package]);
        let users = "etc/threadsocks/users";
        fs::write(system.path(users), "").unwrap();
        let mut purge = system.command("dpkg");
        purge.args(["--purge", "threadsocks"]);
        let output = RunningChild::start(&mut purge, b"").wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:#?}");
        assert!(system.path(users).exists());
        // dpkg names the folder; the maintainer scripts print nothing.
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert!(
            lines
                .iter()
                .all(|line| line.contains("directory '/etc/threadsocks' not empty")),
            "{lines:#?}"
        );
    });
}

#[test]
#[ignore = "builds packages"]
fn p07_a_system_without_systemd_installs_and_purges_the_package() {
    let [package, _] = debian_packages();
    CopiedSystem::with(|system| {
        for program in HELPERS {
            fs::remove_file(system.path(program)).expect(program);
        }
        system.dpkg(&["--install"], &[package]);
        assert!(system.path("usr/bin/threadsocks").exists());
        system.dpkg(&["--purge", "threadsocks"], &[]);
        assert_eq!(system.left(), [""; 0]);
    });
}

/// Starts the server as the unit of the package does, with the options in the line of the
/// installed file of options that begins with this key.
fn start_service(system: &CopiedSystem, key: &str) -> RunningChild {
    let unit = system.text("lib/systemd/system/threadsocks.service");
    let options = system.text("etc/default/threadsocks");
    let value = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        value.expect(key).to_owned()
    };
    let command = value(&unit, "ExecStart=");
    let command = command.replace("$OPTIONS", &value(&options, key));
    let command = command.replace("$PORT", &value(&options, "PORT="));
    let user = value(&unit, "User=");
    let mut server = system.command("setpriv");
    server.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    let mut server = RunningChild::start(server.args(command.split(' ')), b"");
    until("the server", || {
        server.assert_running();
        TcpStream::connect((Ipv4Addr::LOCALHOST, 1080)).ok()
    });
    server
}

#[test]
#[ignore = "builds packages"]
fn p08_the_installed_service_accepts_clients_of_this_machine_only() {
    let [package, _] = debian_packages();
    CopiedSystem::with(|system| {
        system.dpkg(&["--install"], &[package]);
        let _server = start_service(system, "OPTIONS=");
        let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1080);
        TcpStream::connect(other).expect_err("no listener");
    });
}

/// The copy of the users file is where systemd puts it, and belongs to the user of the service.
#[test]
#[ignore = "builds packages"]
fn the_options_for_passwords_in_the_file_of_options_work() {
    let [package, _] = debian_packages();
    CopiedSystem::with(|system| {
        system.dpkg(&["--install"], &[package]);
        let options = system.text("etc/default/threadsocks");
        let line = "\n#   LoadCredential=users:/etc/threadsocks/users\n";
        assert!(options.contains(line), "{options}");
        let mut new_user = system.command("threadsocks");
        new_user.args(["--new-user", "alice", "--users", "/etc/threadsocks/users"]);
        let output =
            RunningChild::start(&mut new_user, b"secret word\n").wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:#?}");
        let folder = "/run/credentials/threadsocks.service";
        let mut copy = system.command("install");
        copy.args(["-D", "-o", "_threadsocks", "-m", "400"]);
        copy.args(["/etc/threadsocks/users", &format!("{folder}/users")]);
        succeed(&mut copy, LONG_TIMEOUT);

        let _server = start_service(system, "#OPTIONS=");
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, 1080)).unwrap();
        // Offers "no authentication" and "password"; the server selects "password".
        client.write_all(&[5, 2, 0, 2]).unwrap();
        let mut selection = [0; 2];
        client.read_exact(&mut selection).unwrap();
        assert_eq!(selection, [5, 2]);
    });
}
