//! Start, exit status, signals, messages, and the end of the supervisor.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use threadsocks::auth::users_file_line;

use crate::support::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use crate::support::endpoints::Origin;
use crate::support::project::run_binary;
use crate::support::proxy::{Proxy, binary};
use crate::support::run::{output_of, run, sessions};
use crate::support::tools::is_installed;
use crate::support::wait::until;
use crate::support::web_site::{Page, WebSite};

const SITE: &[Page] = &[("/", "text/plain", "a page of this site\n")];

/// Runs a program with these options, without any server that would answer.
fn start(options: &[&str]) -> ChildOutput {
    let mut command = Command::new(run_binary());
    command
        .env_remove("SOCKS4_SERVER")
        .env_remove("SOCKS5_SERVER");
    RunningChild::start(command.args(options), b"").wait_for_exit(LONG_TIMEOUT)
}

#[test]
fn k01_the_exit_status_is_that_of_the_program() {
    let server = ["--socks5", "127.0.0.1:9", "--"];
    for (words, code) in [
        (&["sh", "-c", "exit 0"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["threadsocks-has-no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let output = start(&[&server, words].concat());
        assert_eq!(output.status.code(), Some(code), "{words:?} {output:#?}");
        assert_eq!(output.stderr.contains(words[0]), code > 7, "{output:#?}");
    }
    use std::os::unix::process::ExitStatusExt;
    let output = start(&[&server[..], &["sh", "-c", "kill -TERM $$"]].concat());
    assert_eq!(output.status.signal(), Some(libc_sigterm()), "{output:#?}");
}

fn libc_sigterm() -> i32 {
    Signal::SIGTERM as i32
}

#[test]
fn k01_without_a_server_the_status_is_2() {
    let output = start(&["--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{output:#?}");
    for variable in ["SOCKS5_SERVER", "SOCKS4_SERVER"] {
        assert!(output.stderr.contains(variable), "{output:#?}");
    }
}

#[test]
fn k01_the_server_program_finds_the_one_that_runs_others() {
    // Built beside it.
    let folder = run_binary().parent().unwrap();
    let mut command = Command::new(folder.join("threadsocks"));
    command.args(["run", "--socks5", "127.0.0.1:9", "--", "sh", "-c", "exit 7"]);
    let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.status.code(), Some(7), "{output:#?}");
    // Alone in a folder, and not in PATH either.
    let alone = tempfile::tempdir().unwrap();
    let copy = alone.path().join("threadsocks");
    fs::copy(binary().get_program(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(["run", "--", "true"])
        .env("PATH", alone.path());
    let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.status.code(), Some(126), "{output:#?}");
    assert!(
        output.stderr.contains("threadsocks-run is missing"),
        "{output:#?}"
    );
}

#[test]
fn k06_a_signal_is_passed_on_once() {
    const SCRIPT: &str = "trap 'echo caught' TERM; echo ready; while :; do sleep 0.01; done";
    let mut command = Command::new(run_binary());
    command.args(["--socks5", "127.0.0.1:9", "--", "sh", "-c", SCRIPT]);
    let child = RunningChild::start(&mut command, b"");
    until("the program", || {
        child.stdout_so_far().contains("ready").then_some(())
    });
    child.terminate();
    until("its handler", || {
        child.stdout_so_far().contains("caught").then_some(())
    });
    assert_eq!(child.stdout_so_far(), "ready\ncaught\n");
}

#[test]
fn k17_a_pipe_ends_when_the_program_closes_it() {
    let mut command = Command::new(run_binary());
    command.args(["--socks5", "127.0.0.1:9", "--"]);
    // The shell ends, the process in the background goes on and holds no pipe.
    let script = "sleep 20 >/dev/null 2>&1 </dev/null & echo $!";
    let child = command
        .args(["sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(child.wait().unwrap().success());
    let background = Pid::from_raw(text.trim_end().parse().unwrap());
    kill(background, Signal::SIGKILL).expect("it still runs");
}

/// The children of a process.
fn children(process: i32) -> Vec<i32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    let numbers = text.split_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect()
}

#[test]
fn k18_a_program_whose_supervisor_is_killed_does_not_go_around_the_server() {
    if !is_installed("python3", "python3") {
        return;
    }
    // The first process is killed too; its child goes on, and can connect no more.
    const SCRIPT: &str = "
import os, signal, socket, sys, time
port = int(sys.argv[1])
socket.create_connection(('127.0.0.1', port))
if os.fork():
    signal.pause()
parent = os.getppid()
print('ready', flush=True)
while os.getppid() == parent:
    time.sleep(0.01)
try:
    socket.create_connection(('127.0.0.1', port))
    print('connected', flush=True)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
";
    let (proxy, origin) = (Proxy::open(), Origin::echo());
    let mut command = run(("SOCKS5_SERVER", proxy.address()));
    command.args(["python3", "-c", SCRIPT, &origin.port().to_string()]);
    let child = RunningChild::start(&mut command, b"");
    until("the program", || {
        child.stdout_so_far().contains("ready").then_some(())
    });
    let [supervisor] = *children(child.id() as i32) else {
        panic!("not one child");
    };
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    let text = until("the child", || {
        let text = child.stdout_so_far();
        text.lines().nth(1).map(str::to_owned)
    });
    assert_eq!(text, "Function not implemented");
    let output = child.wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(
        output.stderr.contains("the supervisor was killed"),
        "{output:#?}"
    );
    sessions(&proxy, 1);
    proxy.finish();
}

/// What a program may not do, or what is said about it.
const AROUND: &str = "
import socket, sys, time
def attempt(name, action):
    try:
        action()
        print(name, 'done')
    except OSError as error:
        print(name, 'failed')
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt('sendto', lambda: datagrams.sendto(b'x', ('192.0.2.1', 9)))
attempt('sendmsg', lambda: datagrams.sendmsg([b'x'], [], 0, ('192.0.2.2', 9)))
attempt('question', lambda: datagrams.sendto(b'x', ('192.0.2.3', 53)))
attempt('loopback', lambda: datagrams.sendto(b'x', ('127.0.0.1', 9)))
# glibc does this to sort addresses.
sorting = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt('sorting', lambda: sorting.connect(('192.0.2.4', 9)))
sorting.close()
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt('connect', lambda: connected.connect(('192.0.2.5', 9)))
attempt('send', lambda: connected.send(b'x'))
time.sleep(1.5)
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
";

#[test]
fn k19_what_goes_around_the_server_is_said_and_refused_with_strict() {
    if !is_installed("python3", "python3") {
        return;
    }
    let run = |options: &[&str]| {
        let server = ["--socks5", "127.0.0.1:9"];
        let words = ["--", "python3", "-c", AROUND];
        start(&[&server, options, &words].concat())
    };
    let permitted = run(&[]);
    for part in [
        "sends UDP to 192.0.2.1:9 around the server",
        "sends a DNS question to 192.0.2.3:53 around the server",
        "sends UDP to 192.0.2.5:9 around the server",
        "opens a raw socket",
    ] {
        assert!(permitted.stderr.contains(part), "{part}: {permitted:#?}");
    }
    assert!(!permitted.stderr.contains("192.0.2.4"), "{permitted:#?}");
    let refused = run(&["--strict"]);
    let text = refused.text();
    for line in [
        "sendto failed",
        "sendmsg failed",
        "question failed",
        "loopback done",
        "sorting done",
        "raw failed",
    ] {
        assert!(text.contains(line), "{line}: {refused:#?}");
    }
    for part in [
        "may not send UDP to 192.0.2.1:9",
        "may not send UDP to 192.0.2.2:9",
        "may not send a DNS question to 192.0.2.3:53",
        "may not send UDP to 192.0.2.5:9",
        "may not open a raw socket",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {refused:#?}");
    }
    assert!(!refused.stderr.contains("192.0.2.4"), "{refused:#?}");
}

#[test]
fn k20_direct_networks_and_loopback_are_reached_without_the_server() {
    if !is_installed("curl", "curl") {
        return;
    }
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), SITE);
    let url = site.url();
    let curl = ["--", "curl", "-q", "--silent", "--noproxy", "*", &url];
    // No server listens on port 9.
    for (options, is_direct) in [
        (&[][..], true),
        (&["--loopback"], false),
        (&["--loopback", "--direct", "127.0.0.0/8"], true),
        (&["--loopback", "--direct", "10.0.0.0/8"], false),
    ] {
        let server = ["--socks5", "127.0.0.1:9"];
        let output = start(&[&server, options, &curl].concat());
        assert_eq!(
            output.status.success(),
            is_direct,
            "{options:?} {output:#?}"
        );
    }
}

#[test]
fn k23_user_and_password_come_from_variables() {
    if !is_installed("curl", "curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, users_file_line("alice", b"secret").unwrap()).unwrap();
    let options = ["--users", users.to_str().unwrap()];
    let proxy = Proxy::start("permit c - - - - user=alice auth\n", &options);
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), SITE);
    let curl = |password: Option<&str>| {
        let mut command = run(("SOCKS5_SERVER", proxy.address()));
        command.args(["curl", "-q", "--silent", "--noproxy", "*", &site.url()]);
        if let Some(password) = password {
            command.env("SOCKS_USERNAME", "alice");
            command.env("SOCKS_PASSWORD", password);
        }
        RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT)
    };
    let output = curl(Some("secret"));
    assert_eq!(output.text(), SITE[0].2, "{output:#?}");
    let denied = curl(Some("guess"));
    assert!(!denied.status.success(), "{denied:#?}");
    let reason = "the server denied the login";
    assert!(denied.stderr.contains(reason), "{denied:#?}");
    // The rule requires a login.
    assert!(!curl(None).status.success());
    let served = format!("{} CONNECT Accept", site.address());
    let granted = sessions(&proxy, 1);
    let granted = granted.iter().filter(|it| it.ends_with("Accept"));
    assert_eq!(granted.collect::<Vec<_>>(), [&served]);
    proxy.finish();
}

#[test]
fn k21_a_supervisor_within_another_says_why_it_cannot_start() {
    let proxy = Proxy::open();
    let inner = run_binary().to_str().unwrap();
    let output = output_of("SOCKS5_SERVER", &proxy, &[inner, "true"]);
    assert_eq!(output.status.code(), Some(126), "{output:#?}");
    let reason = "another supervisor has the system calls";
    assert!(output.stderr.contains(reason), "{output:#?}");
    proxy.finish();
}
