//! The server as a service of systemd: its unit, its messages, and sockets that are passed to it.

use std::fs::{self, File};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, sockopt};

use crate::support::child::RunningChild;
use crate::support::endpoints::{Origin, connect_through, dial, read_exactly, write};
use crate::support::netns::in_own_network;
use crate::support::project::project_file;
use crate::support::proxy::{PERMIT_ALL, Proxy, Setup, binary};
use crate::support::tools::is_installed;
use crate::support::wait::{TIMEOUT, until};

/// A shell script that passes its stdin on as a socket of sd_listen_fds(3).
const PASS_STDIN: &str = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";

const UNIT: &str = "docs/threadsocks.service";

/// The values of this key in the systemd unit, with this program and these rules in place of the
/// installed ones, and with the port 0.
fn unit_commands(key: &str, rules: &str) -> Vec<Vec<String>> {
    let unit = project_file(UNIT);
    let commands = unit.lines().filter_map(|line| {
        let command = line.strip_prefix(key)?.strip_prefix('=')?;
        let command = command.replace("/usr/local/bin/threadsocks", binary_path());
        let command = command.replace("/etc/threadsocks/socks.conf", rules);
        let command = command.replace("$OPTIONS", "--bind 127.0.0.1");
        let command = command.replace("$PORT", "0");
        Some(command.split(' ').map(str::to_owned).collect())
    });
    commands.collect()
}

fn binary_path() -> &'static str {
    env!("CARGO_BIN_EXE_threadsocks")
}

/// The socket of a service manager.
struct Notifications(UnixDatagram);

impl Notifications {
    fn bind(address: &UnixAddress) -> Notifications {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Notifications(socket)
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).expect("a message");
        let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// The number after this key in a message.
fn number(message: &[String], key: &str) -> u64 {
    let value = message.iter().find_map(|line| line.strip_prefix(key));
    value.expect(key).parse().unwrap()
}

#[test]
fn o26_the_service_manager_learns_when_the_server_is_ready_reloads_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let name = format!("threadsocks-test-{}", std::process::id());
    for (variable, address) in [
        (
            format!("NOTIFY_SOCKET={}", path.display()),
            UnixAddress::from_pathname(&path).unwrap(),
        ),
        (
            format!("NOTIFY_SOCKET=@{name}"),
            UnixAddress::from_abstract_name(&name).unwrap(),
        ),
    ] {
        let notifications = Notifications::bind(&address);
        let mut proxy = Proxy::with(Setup {
            wrapper: &["env", &variable],
            options: &["--grace", "50s", "--max-sessions", "7"],
            ..Setup::default()
        });
        assert_eq!(notifications.next(), ["READY=1", "STATUS=0 of 7 sessions"]);
        proxy.signal(Signal::SIGHUP);
        let reloading = notifications.next();
        assert_eq!(reloading[0], "RELOADING=1");
        assert!(number(&reloading, "MONOTONIC_USEC=") > 0);
        assert_eq!(notifications.next(), ["READY=1"]);
        proxy.signal(Signal::SIGTERM);
        let stopping = notifications.next();
        assert_eq!(stopping[0], "STOPPING=1");
        assert!(number(&stopping, "EXTEND_TIMEOUT_USEC=") > 53_000_000);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

/// systemd is busy: its queue of messages is full, or its socket is gone.
#[test]
fn o26_a_service_manager_that_does_not_read_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    for is_there in [true, false] {
        let _ = fs::remove_file(&path);
        let socket = is_there.then(|| {
            let socket = UnixDatagram::bind(&path).unwrap();
            let filler = UnixDatagram::unbound().unwrap();
            filler.set_nonblocking(true).unwrap();
            while filler.send_to(b"full", &path).is_ok() {}
            socket
        });
        let proxy = Proxy::with(Setup {
            wrapper: &["env", &variable],
            ..Setup::default()
        });
        drop(connect_through(
            proxy.address(),
            &Origin::echo().destination(),
        ));
        proxy.wait_for_rules_mtime();
        proxy.finish();
        drop(socket);
    }
}

/// A server whose listener this test holds as well.
fn activated(listener: &TcpListener, options: &[&str]) -> Proxy {
    let passed = listener.try_clone().unwrap();
    Proxy::with(Setup {
        wrapper: &["sh", "-c", PASS_STDIN],
        stdin: Some(Stdio::from(OwnedFd::from(passed))),
        options,
        ..Setup::default()
    })
}

#[test]
fn o27_a_restart_with_a_passed_listener_refuses_no_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let origin = Origin::echo();
    let mut proxy = activated(&listener, &[]);
    assert_eq!(proxy.address(), address);
    let line = proxy.stderr_line("LISTEN_FDS");
    assert!(line.contains("PORT and --bind are ignored"), "{line}");
    drop(connect_through(address, &origin.destination()));
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    // No server runs: the client waits in the backlog of the socket that the test holds.
    let client = dial(address);
    let proxy = activated(&listener, &[]);
    drop(connect_through(address, &origin.destination()));
    write(&client, b"\x05\x01\x00");
    assert_eq!(read_exactly(&client, 2), [5, 0]);
    drop(client);
    proxy.finish();
    // The socket is not shut down: after the end, another process accepts on it.
    let _client = TcpStream::connect(address).unwrap();
    until("a client to accept", || listener.accept().ok());
}

/// systemd listens on the address before the machine has it, with FreeBind= in the unit.
#[test]
fn o33_the_socket_unit_listens_on_an_address_that_comes_later() {
    let unit = project_file("docs/threadsocks.socket");
    assert!(unit.lines().any(|line| line == "FreeBind=yes"));
    in_own_network(|network| {
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let socket = socket::socket(family, SockType::Stream, flags, None).unwrap();
        socket::setsockopt(&socket, sockopt::IpFreebind, &true).unwrap();
        let address = SockaddrIn::new(10, 9, 0, 1, 0);
        socket::bind(socket.as_raw_fd(), &address).unwrap();
        socket::listen(&socket, Backlog::MAXCONN).unwrap();
        let proxy = activated(&TcpListener::from(socket), &[]);
        assert_eq!(proxy.address().ip(), IpAddr::from([10, 9, 0, 1]));
        network.ip("addr add 10.9.0.1/24 dev lo");
        let origin = Origin::echo();
        drop(connect_through(proxy.address(), &origin.destination()));
        proxy.finish();
    });
}

#[test]
fn o27_a_stop_leaves_the_clients_in_the_backlog_of_a_passed_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut proxy = activated(&listener, &["--grace", "30s"]);
    let session = connect_through(proxy.address(), &Origin::echo().destination());
    proxy.signal(Signal::SIGTERM);
    proxy.stderr_line("stopping");
    let _client = dial(proxy.address());
    until("the client that waits", || listener.accept().ok());
    // The session goes on meanwhile.
    write(&session, b"still here");
    assert_eq!(read_exactly(&session, 10), b"still here");
    drop(session);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn o27_systemd_socket_activate_passes_several_listeners() {
    if !is_installed("systemd-socket-activate", "systemd") {
        return;
    }
    let free_port = |address: &str| {
        let listener = TcpListener::bind((address, 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let addresses = [free_port("127.0.0.1"), free_port("::1")];
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("socks.conf");
    fs::write(&rules, PERMIT_ALL).unwrap();
    let mut command = Command::new("systemd-socket-activate");
    for address in addresses {
        command.arg(format!("--listen={address}"));
    }
    command.args([binary_path(), "--config"]).arg(&rules);
    // It becomes the server by execve(2), with the same process ID.
    let server = RunningChild::start(&mut command, b"");
    let origin = Origin::echo();
    for address in addresses {
        // The first client starts the server.
        until("the listener", || TcpStream::connect(address).ok());
        let client = connect_through(address, &origin.destination());
        write(&client, b"up");
        assert_eq!(read_exactly(&client, 2), b"up");
    }
    server.terminate();
    let output = server.wait_for_exit(TIMEOUT);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn o28_what_is_passed_and_is_no_tcp_listener_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("socks.conf");
    fs::write(&rules, PERMIT_ALL).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for (passed, reason) in [
        (OwnedFd::from(File::open(&rules).unwrap()), "not a socket"),
        (
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            "not a valid tcp socket",
        ),
        (
            UnixDatagram::unbound().unwrap().into(),
            "not a valid tcp socket",
        ),
        (connected.into(), "it does not listen"),
    ] {
        let output = Command::new("sh")
            .args(["-c", PASS_STDIN, binary_path(), "--config"])
            .arg(&rules)
            .stdin(Stdio::from(passed))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let expected =
            "threadsocks: socket 1 that the service manager has passed (LISTEN_FDS) is no";
        assert!(stderr.starts_with(expected), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
        assert!(stderr.contains("ListenStream="), "{stderr}");
    }
}

/// Starts a server whose stderr is a file, with this value of JOURNAL_STREAM, and returns the
/// first lines.
fn lines_with(journal_stream: impl Fn(&File) -> String, rules: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socks.conf");
    fs::write(&path, rules).unwrap();
    let stderr_path = folder.path().join("stderr");
    let stderr = File::create(&stderr_path).unwrap();
    let mut child = binary()
        .args(["--bind", "127.0.0.1", "--config"])
        .arg(&path)
        .arg("0")
        .env("JOURNAL_STREAM", journal_stream(&stderr))
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let text = || fs::read_to_string(&stderr_path).unwrap();
    until("the start", || {
        let has_ended = child.try_wait().unwrap().is_some();
        (has_ended || text().contains("listening on ")).then_some(())
    });
    let _ = child.kill();
    child.wait().unwrap();
    text().lines().map(str::to_owned).collect()
}

#[test]
fn o29_lines_for_the_journal_begin_with_their_priority() {
    let of_file = |file: &File| {
        let status = file.metadata().unwrap();
        format!("{}:{}", status.dev(), status.ino())
    };
    // Without a newline at the end: a warning.
    let lines = lines_with(of_file, "permit - - - - -");
    let begins = |prefix: &str, part: &str| {
        let is_one = |line: &String| line.starts_with(prefix) && line.contains(part);
        assert!(lines.iter().any(is_one), "{prefix} {part}: {lines:#?}");
    };
    begins("<6>threadsocks: ", "1 rule in force");
    begins("<4>threadsocks: ", "warning: ");
    begins("<6>threadsocks: ", "listening on 127.0.0.1");
    let lines = lines_with(of_file, "permit everything\n");
    assert!(lines[0].starts_with("<3>threadsocks: "), "{lines:#?}");
    // The service has written its stderr to a file of its own.
    for other in [|_: &File| "1:1".to_owned(), |_: &File| "nothing".to_owned()] {
        let lines = lines_with(other, PERMIT_ALL);
        assert!(
            lines.iter().all(|it| it.starts_with("threadsocks: ")),
            "{lines:#?}"
        );
    }
}

#[test]
fn o30_the_unit_is_valid_and_has_few_privileges() {
    if !is_installed("systemd-analyze", "systemd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["threadsocks.service", "threadsocks.socket"] {
        let text = project_file(&format!("docs/{name}"));
        let text = text.replace("/usr/local/bin/threadsocks", binary_path());
        fs::write(folder.path().join(name), text).unwrap();
    }
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let Output { stdout, stderr, .. } = &output;
        let text = [&stdout[..], stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    let said = analyze(&[
        "verify",
        "--man=no",
        "./threadsocks.service",
        "./threadsocks.socket",
    ]);
    assert_eq!(said, "");
    analyze(&[
        "security",
        "--offline=true",
        "--threshold=15",
        "./threadsocks.service",
    ]);
}

/// Runs the commands of the unit as systemd does.
#[test]
fn o30_the_commands_of_the_unit_start_the_server_and_refuse_a_bad_reload() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("socks.conf");
    fs::write(&rules, PERMIT_ALL).unwrap();
    let socket = folder.path().join("notify");
    let notifications = Notifications::bind(&UnixAddress::from_pathname(&socket).unwrap());
    let run = |command: &[String]| {
        let mut run = Command::new(&command[0]);
        run.args(&command[1..]).env("NOTIFY_SOCKET", &socket);
        run
    };
    let rules_path = rules.to_str().unwrap();
    let [start] = &unit_commands("ExecStart", rules_path)[..] else {
        panic!("one command starts the server");
    };
    let server = RunningChild::start(&mut run(start), b"");
    assert_eq!(notifications.next()[0], "READY=1");
    let [check, reload] = &unit_commands("ExecReload", rules_path)[..] else {
        panic!("two commands reload");
    };
    assert_eq!(run(check).output().unwrap().status.code(), Some(0));
    fs::write(&rules, "permit everything\n").unwrap();
    // systemd runs no further command after one that fails.
    let refused = run(check).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert_eq!(reload.join(" "), "/bin/kill -HUP $MAINPID");
    server.terminate();
    assert_eq!(notifications.next()[0], "STOPPING=1");
    let output = server.wait_for_exit(TIMEOUT);
    assert!(output.status.success(), "{output:?}");
    let log = output.text();
    assert!(log.contains(r#""event":"listening""#), "{log}");
}
