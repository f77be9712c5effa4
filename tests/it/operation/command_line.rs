//! The tasks of the program beside the server, and what it says about a command line.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::endpoints::{dial, read_all, shutdown_write, write};
use crate::support::proxy::{Proxy, binary};
use crate::support::tools::{is_installed, skip};

/// The exit status of a program, its stdout and its stderr.
fn result(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    (output.status.code(), stdout, stderr)
}

/// Runs the program in this folder.
fn run_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.args(arguments).current_dir(folder);
    result(command.output().expect("the program starts"))
}

/// Runs the program in this folder, where the folder /etc has only the file
/// threadsocks/socks.conf, with these rules if there are any.
fn run_with_etc(folder: &Path, rules: Option<&str>) -> (Option<i32>, String, String) {
    let script = "mount -t tmpfs none /etc && mkdir /etc/threadsocks && cd \"$1\" &&
                  { [ -z \"$2\" ] || printf %s \"$2\" > /etc/threadsocks/socks.conf; } &&
                  exec \"$0\" --check";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(binary().get_program())
        .args([folder.as_os_str(), OsStr::new(rules.unwrap_or_default())])
        .output();
    result(output.expect("unshare starts"))
}

#[test]
fn m01_the_rules_are_in_the_current_folder_or_else_in_etc() {
    if !Uid::effective().is_root() {
        return skip("not root: the test needs another /etc");
    }
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("socks.conf");
    let of_etc = "permit c 10.0.0.7 - - -\n";
    let (status, stdout, _) = run_with_etc(folder.path(), Some(of_etc));
    assert_eq!(status, Some(0));
    let expected = "/etc/threadsocks/socks.conf:1: permit c 10.0.0.7 - - -\n";
    assert!(stdout.starts_with(expected), "{stdout}");
    let (status, _, stderr) = run_with_etc(folder.path(), None);
    assert_eq!(status, Some(1));
    let expected = "the rules are in ./socks.conf, or else in /etc/threadsocks/socks.conf";
    assert!(stderr.contains(expected), "{stderr}");
    fs::write(&local, "permit c 10.0.0.8 - - -\n").unwrap();
    let (_, stdout, _) = run_with_etc(folder.path(), Some(of_etc));
    assert!(
        stdout.starts_with("socks.conf:1: permit c 10.0.0.8"),
        "{stdout}"
    );
    // Local rules that cannot be read are an error: others would be in force unnoticed.
    fs::remove_file(&local).unwrap();
    symlink("nowhere", &local).unwrap();
    let (status, _, stderr) = run_with_etc(folder.path(), Some(of_etc));
    assert_eq!(status, Some(1));
    assert!(stderr.contains("socks.conf: No such file"), "{stderr}");
}

/// Runs `--new-user` for a users file with the password `secret`.
fn add_user(name: &str, file: &Path, options: &[&str]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command
        .args(["--new-user", name, "--users"])
        .arg(file)
        .args(options);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // The write fails with EPIPE if the program needs no password.
    let _ = child.stdin.take().unwrap().write_all(b"secret\n");
    result(child.wait_with_output().unwrap())
}

fn mode_of(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
}

#[test]
fn m02_new_user_writes_the_line_into_the_users_file() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let (status, stdout, stderr) = add_user("alice", &users, &[]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.ends_with("users: \"alice\" can log in\n"),
        "{stdout}"
    );
    assert_eq!(mode_of(&users), 0o600);
    let alice = fs::read_to_string(&users).unwrap();
    // Comments, line ends and a last line without a newline stay.
    let before = format!("\u{FEFF}# staff\r\n{}\r\n\n# end", alice.trim_end());
    fs::write(&users, &before).unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(add_user("b o", &users, &[]).0, Some(0));
    let after = fs::read_to_string(&users).unwrap();
    let added = after.strip_prefix(&before).expect("the old text");
    assert!(added.starts_with("\nb o:$argon2id$"), "{added}");
    assert_eq!(mode_of(&users), 0o640, "other accounts have no access");
    // A user that is there stays, unless --replace is given.
    let (status, _, stderr) = add_user("alice", &users, &[]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("users: line 2: \"alice\" is a user already; --replace"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&users).unwrap(), after);
    let (status, _, stderr) = add_user("dave", &users, &["--replace"]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("users: there is no user \"dave\""),
        "{stderr}"
    );
    assert_eq!(add_user("alice", &users, &["--replace"]).0, Some(0));
    let replaced = fs::read_to_string(&users).unwrap();
    assert_eq!(replaced.lines().count(), after.lines().count());
    assert!(!replaced.contains(alice.trim_end()), "{replaced}");
    assert_eq!(mode_of(&users), 0o640);
    // The file behind a symbolic link is replaced, and the link stays.
    let link = folder.path().join("link");
    symlink("users", &link).unwrap();
    assert_eq!(add_user("carol", &link, &[]).0, Some(0));
    assert!(link.is_symlink());
    assert!(fs::read_to_string(&users).unwrap().contains("\ncarol:"));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// An access control list of a file, as Linux stores it (acl(5)): version 2, then a tag, permissions
/// and an id for each entry. The last but one is the mask, which the mode shows as the group's.
fn acl_with_user(id: u32) -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01u16, 6u16, u32::MAX),
        (0x02, 4, id),
        (0x04, 0, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[test]
fn m02_access_control_lists_stay_and_none_is_added() {
    const OF_FILE: &str = "system.posix_acl_access";
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    assert_eq!(add_user("alice", &users, &[]).0, Some(0));
    let list = acl_with_user(1002);
    if xattr::set(&users, OF_FILE, &list).is_err() {
        return skip("the file system has no access control lists");
    }
    assert_eq!(add_user("bob", &users, &[]).0, Some(0));
    assert_eq!(xattr::get(&users, OF_FILE).unwrap(), Some(list));
    // A folder that gives a list to each new file.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let users = other.join("users");
    fs::write(&users, "").unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o640)).unwrap();
    xattr::set(&other, "system.posix_acl_default", &acl_with_user(1003)).unwrap();
    assert_eq!(add_user("alice", &users, &[]).0, Some(0));
    assert_eq!(xattr::get(&users, OF_FILE).unwrap(), None);
    assert_eq!(mode_of(&users), 0o640);
}

/// ramfs has no access control lists.
#[test]
fn m02_a_file_system_without_access_control_lists_is_enough() {
    if !Uid::effective().is_root() {
        return skip("not root: the test mounts a file system");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t ramfs none \"$1\" && cd \"$1\" &&
                  for user in alice bob; do echo secret | \"$0\" --new-user $user --users users; done";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]);
    command.arg(binary().get_program()).arg(folder.path());
    let (status, stdout, stderr) = result(command.output().unwrap());
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(
        stdout.matches(" can log in\n").count(),
        2,
        "{stdout} {stderr}"
    );
}

#[test]
fn m02_no_file_is_written_that_the_server_would_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let almost_full = "#".repeat((4 << 20) - 30) + "\n";
    fs::write(&users, &almost_full).unwrap();
    let (status, _, stderr) = add_user("alice", &users, &[]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("would be larger than 4194304 bytes"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&users).unwrap(), almost_full);
    // A run that was killed has left its file.
    let left = folder.path().join(".users.new");
    fs::write(&users, "").unwrap();
    fs::write(&left, "left").unwrap();
    assert_eq!(add_user("alice", &users, &[]).0, Some(0));
    assert!(!left.exists());
    // Every account that may read the folder can lock it.
    let lock = File::open(folder.path()).unwrap();
    lock.lock_shared().unwrap();
    let (status, _, stderr) = add_user("bob", &users, &[]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("another process holds a lock of this folder"),
        "{stderr}"
    );
}

#[test]
fn m02_a_users_file_that_cannot_be_edited_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("invalid"), "alice\n").unwrap();
    mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    for (name, reason) in [
        ("invalid", "invalid: line 1: there is no colon"),
        ("pipe", "pipe: it is not a regular file"),
        (".", "it is not a regular file"),
        ("dangling", "dangling: No such file or directory"),
        (
            "no-folder/users",
            "no-folder/users: No such file or directory",
        ),
    ] {
        let (status, stdout, stderr) = add_user("bob", &path(name), &[]);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{name}");
        assert!(stderr.contains(reason), "{name}: {stderr}");
    }
    // An empty password ends the program before the file is touched.
    let users = path("users");
    let mut command = binary();
    command.args(["--new-user", "alice", "--users"]).arg(&users);
    let (status, ..) = result(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(status, Some(1));
    assert!(!users.exists());
    assert_eq!(fs::read(path("invalid")).unwrap(), b"alice\n");
}

#[test]
fn m02_users_that_are_added_at_the_same_time_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let names: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    let start = |name: &String| {
        let mut command = binary();
        command.args(["--new-user", name, "--users"]).arg(&users);
        RunningChild::start(&mut command, b"secret\n")
    };
    let children: Vec<RunningChild> = names.iter().map(start).collect();
    for child in children {
        let output = child.wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:?}");
    }
    let text = fs::read_to_string(&users).unwrap();
    assert_eq!(text.lines().count(), names.len());
    for name in names {
        assert!(text.contains(&format!("{name}:")), "{name}: {text}");
    }
}

#[test]
fn m03_the_exit_status_of_explain_is_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "deny c - - *.example -\npermit c 10. - 192.0.2.1 80\npermit b 10. - - -\n";
    fs::write(folder.path().join("socks.conf"), rules).unwrap();
    for (query, status) in [
        ("c 10.0.0.1 192.0.2.1 80", 0),
        ("c 10.0.0.1 192.0.2.2 80", 3),
        ("c 10.0.0.1 a.example 80", 3),
        ("b 10.0.0.1 0.0.0.0 0", 0),
        ("b 11.0.0.1 0.0.0.0 0", 3),
        ("u 10.0.0.1 192.0.2.1 80", 3),
        ("c 10.0.0.1 192.0.2.1", 2),
    ] {
        let (found, _, stderr) = run_in(folder.path(), &["--explain", query]);
        assert_eq!(found, Some(status), "{query}: {stderr}");
    }
}

#[test]
fn m04_a_probe_finds_each_server_healthy_and_the_server_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    assert_eq!(add_user("alice", &users, &[]).0, Some(0));
    let users = users.to_str().unwrap();
    // With `--socks 4` the first probe causes the line that SOCKS5 is turned off, and the next two
    // clients are counted.
    for (options, lines, last) in [
        (&[][..], 1, "0x47"),
        (&["--users", users], 1, "0x47"),
        (
            &["--socks", "4"],
            2,
            "2 more clients without a valid request",
        ),
    ] {
        // Rules that permit nothing.
        let proxy = Proxy::start("deny - 10.\n", options);
        let before = proxy.stderr_lines().len();
        let address = proxy.address();
        for argument in [address.to_string(), address.port().to_string()] {
            let answer = run_in(folder.path(), &["--probe", &argument]);
            let line = format!("{address}: a SOCKS5 server answers\n");
            assert_eq!(answer, (Some(0), line, String::new()), "{options:?}");
        }
        // A line about a probe would be there before that about the next client.
        let client = dial(address);
        write(&client, &[0x47]);
        // The server waits neither for more of the line nor for the end of the client.
        shutdown_write(&client);
        read_all(&client);
        proxy.stderr_line(last);
        assert_eq!(
            proxy.stderr_lines().len(),
            before + lines,
            "{:?}",
            proxy.stderr_lines()
        );
        proxy.finish();
    }
}

#[test]
fn m04_a_probe_says_what_is_wrong_with_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = |address: SocketAddr| {
        let mut command = binary();
        command
            .args(["--probe", &address.to_string()])
            .current_dir(folder.path());
        RunningChild::start(&mut command, b"")
    };
    let failed = |child: RunningChild, reason: &str| {
        let output = child.wait_for_exit(LONG_TIMEOUT);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(output.stderr.contains(reason), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    };
    let silent = listener();
    let waiting = probe(silent.local_addr().unwrap());
    let closed = listener().local_addr().unwrap();
    failed(probe(closed), "Connection refused");
    for (answer, reason) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            "the answer 0x48 0x54 is not that of a SOCKS5 server",
        ),
        // The echo of the greeting.
        (
            b"\x05\x03\x00\x02\x00",
            "the answer 0x05 0x03 is not that of a SOCKS5 server",
        ),
        (b"", "closed the connection without an answer"),
        (b"\x05", "closed the connection without an answer"),
    ] {
        let server = listener();
        let child = probe(server.local_addr().unwrap());
        let (mut client, _) = server.accept().unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        client.write_all(answer).unwrap();
        drop(client);
        failed(child, reason);
    }
    failed(waiting, "no answer within 5s");
}

/// The completion script for this shell, in a file.
fn script_for(shell: &str, folder: &Path) -> String {
    let (status, script, _) = run_in(folder, &["--completion", shell]);
    assert_eq!(status, Some(0));
    let file = folder.join(format!("completion.{shell}"));
    fs::write(&file, script).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Asserts that the command, which gets these lines as arguments, prints the words that are offered
/// after each, and a line "end" after each.
fn assert_completes(mut command: Command, lines: &[(&str, &[&str])], folder: &Path) {
    command
        .args(lines.iter().map(|(line, _)| line))
        .current_dir(folder);
    let (_, stdout, stderr) = result(command.output().unwrap());
    assert_eq!(stderr, "");
    let all: Vec<&str> = stdout.split_whitespace().collect();
    let mut found = all.split(|word| *word == "end");
    for (line, expected) in lines {
        let mut words = found.next().unwrap_or_default().to_vec();
        words.sort_unstable();
        assert_eq!(words, *expected, "{line}");
    }
}

/// Lines that end with the word to complete, and the words that each shell offers.
const COMPLETIONS: &[(&str, &[&str])] = &[
    ("--bind", &["--bind", "--bind-ports", "--bind-timeout"]),
    ("--log ", &["json", "none", "screen"]),
    ("--log s", &["screen"]),
    ("--idle-timeout o", &["off"]),
    ("--completion f", &["fish"]),
    ("-q --enf", &["--enforce"]),
    ("--config rul", &["rules.conf"]),
    ("-c rul", &["rules.conf"]),
    ("--bind-ports ", &[]),
];

/// A folder with a file to complete.
fn folder_with_rules() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.conf"), "").unwrap();
    folder
}

#[test]
fn m05_bash_completes_options_values_and_files() {
    let folder = folder_with_rules();
    let script = script_for("bash", folder.path());
    // The words as readline splits them, at blanks and equals signs. compopt works only while
    // readline completes.
    let driver = r#"compopt() { :; }; source "$1"
        for line in "${@:2}"; do
            read -ra COMP_WORDS <<< "threadsocks ${line//=/ = }"
            [[ $line != *' ' ]] || COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _threadsocks
            printf '%s\n' "${COMPREPLY[@]}" end
        done"#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", driver, "bash", &script]);
    let with_equals = [
        ("--log=s", &["screen"][..]),
        ("--users=rul", &["rules.conf"]),
    ];
    assert_completes(bash, &[COMPLETIONS, &with_equals].concat(), folder.path());
}

#[test]
fn m05_fish_completes_options_values_and_files() {
    if !is_installed("fish", "fish") {
        return;
    }
    let folder = folder_with_rules();
    let script = script_for("fish", folder.path());
    let driver = "source $argv[1]
        for line in $argv[2..]; complete -C \"threadsocks $line\" | cut -f1; echo end; end";
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", driver, &script]);
    assert_completes(fish, COMPLETIONS, folder.path());
}

/// zsh completes only at a terminal: zpty(1) gives it one, and a command that lists the matches.
#[test]
fn m05_zsh_completes_options_values_and_files() {
    if !is_installed("zsh", "zsh") {
        return;
    }
    let folder = folder_with_rules();
    let script = script_for("zsh", folder.path());
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", include_str!("complete.zsh"), "zsh", &script]);
    assert_completes(zsh, COMPLETIONS, folder.path());
}

#[test]
fn m05_each_completion_has_all_options() {
    let folder = tempfile::tempdir().unwrap();
    let help = threadsocks::cli::help();
    let names = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"));
    let names: Vec<&str> = names.filter(|word| !word.starts_with("--socks5")).collect();
    assert!(names.len() > 30, "{names:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (_, script, _) = run_in(folder.path(), &["--completion", shell]);
        for name in &names {
            let name = name.trim_end_matches([':', ',', ';', '.']);
            let written = match shell {
                "fish" => name.replacen("--", "-l ", 1),
                _ => name.to_owned(),
            };
            assert!(script.contains(&written), "{shell}: {name}");
        }
    }
}

#[test]
fn m07_a_port_that_cannot_be_opened_is_reported_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("socks.conf"), "deny - -\n").unwrap();
    // An address for documents (RFC 5737), which no interface has.
    let (status, _, stderr) = run_in(folder.path(), &["192.0.2.1:1080"]);
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("no interface of this machine has this address"),
        "{stderr}"
    );
    if !Uid::effective().is_root() {
        return skip("not root: the test needs another user");
    }
    // A copy that the other user can reach.
    let program = folder.path().join("threadsocks");
    fs::copy(binary().get_program(), &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(program)
        .arg("127.0.0.1:99")
        .current_dir(folder.path())
        .output();
    let (status, _, stderr) = result(output.unwrap());
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("needs the capability CAP_NET_BIND_SERVICE"),
        "{stderr}"
    );
}

#[test]
fn m08_files_that_everyone_can_write_and_users_files_without_users_are_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let [rules, users] = ["socks.conf", "users"].map(|name| folder.path().join(name));
    fs::write(&rules, "permit c 10. - 10. - auth\n").unwrap();
    fs::write(&users, "# none yet\n").unwrap();
    fs::set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
    let options = ["--check", "--users", "users", "--strict"];
    for (mode, expected) in [(0o666, 2), (0o664, 1)] {
        fs::set_permissions(&rules, Permissions::from_mode(mode)).unwrap();
        let (status, stdout, stderr) = run_in(folder.path(), &options);
        assert_eq!(status, Some(2));
        let empty = "users: warning: there is no user, so no client can log in";
        assert!(stdout.contains(empty), "{stdout}");
        let writable = "every account of this machine can change this file; run: chmod o-w";
        assert_eq!(stdout.contains(writable), expected == 2, "{stdout}");
        assert_eq!(stderr.matches(": warning: ").count(), expected, "{stderr}");
    }
}
