//! Calls in unusual orders, and their cost.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::endpoints::{CLOSED, Origin};
use crate::support::project::{project, run_binary};
use crate::support::proxy::Proxy;
use crate::support::run::{VERSIONS, output_of, run, sessions};
use crate::support::tools::{is_installed, skip};

/// The program that makes calls in unusual orders, without any library at run time. A C compiler
/// is installed: Rust links with it.
pub(super) fn odd_orders() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("odd_orders");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-static", "-O1", "-Wall", "-Werror", "-pthread", "-o"])
            .arg(&program)
            .arg(project().join("tests/it/run/odd_orders.c"));
        let output = RunningChild::start(&mut compiler, b"").wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:#?}");
        program.to_str().unwrap().to_owned()
    });
    &PROGRAM
}

/// Its requests; and those of them that the server grants, each for one connection: none may go
/// around the server.
const REQUESTS: usize = 217;
const GRANTED_CONNECTS: usize = 212;

fn assert_all_requested(proxy: &Proxy) {
    let sessions = sessions(proxy, REQUESTS);
    let granted = sessions.iter().filter(|it| it.ends_with("CONNECT Accept"));
    assert_eq!(granted.count(), GRANTED_CONNECTS, "{sessions:#?}");
}

#[test]
fn k04_calls_in_any_order_return_what_they_return_without_the_server() {
    let origin = Origin::echo();
    let [port, closed] = [origin.port(), CLOSED.port()].map(|port| port.to_string());
    let words = [odd_orders(), &port, &closed];
    let mut bare = Command::new(words[0]);
    let bare = RunningChild::start(bare.args(&words[1..]), b"").wait_for_exit(LONG_TIMEOUT);
    assert!(bare.text().ends_with("threads: 200 of 200\n"), "{bare:#?}");
    for version in VERSIONS {
        let proxy = Proxy::open();
        let output = output_of(version, &proxy, &words);
        assert_eq!(output.text(), bare.text(), "{version} {}", output.stderr);
        assert_all_requested(&proxy);
        proxy.finish();
    }
}

#[test]
fn k05_no_privilege_is_needed() {
    if !is_installed("setpriv", "util-linux") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become another user");
    }
    // The folder of the build may be closed to other users.
    let folder = tempfile::tempdir().unwrap();
    let copied = |path: &str, name: &str| {
        let copy = folder.path().join(name);
        std::fs::copy(path, &copy).unwrap();
        copy.to_str().unwrap().to_owned()
    };
    let program = copied(odd_orders(), "odd_orders");
    let runner = copied(run_binary().to_str().unwrap(), "threadsocks-run");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let origin = Origin::echo();
    let proxy = Proxy::open();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps=-all", "--bounding-set=-all"])
        .args([&runner, "--loopback", "--", &program])
        .args([origin.port(), CLOSED.port()].map(|port| port.to_string()))
        .env("SOCKS5_SERVER", proxy.address().to_string())
        .current_dir("/");
    let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
    let text = output.text();
    assert!(text.ends_with("threads: 200 of 200\n"), "{output:#?}");
    assert_all_requested(&proxy);
    proxy.finish();
}

#[test]
fn k06_a_handler_of_a_signal_runs_while_the_server_is_asked() {
    if !is_installed("python3", "python3") {
        return;
    }
    const SCRIPT: &str = "
import signal, socket, sys, time
address = ('127.0.0.1', int(sys.argv[1]))
began = time.monotonic()
def on_alarm(*_):
    # The server answers after three seconds.
    print('handler', time.monotonic() - began < 2)
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.3)
stream = socket.create_connection(address)
print('connected', time.monotonic() - began > 2, stream.getpeername() == address)
stream.sendall(b'x')
print(stream.recv(1))
def on_alarm(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.3)
began = time.monotonic()
try:
    socket.create_connection(address)
except TimeoutError:
    print('ended', time.monotonic() - began < 2)
";
    let slow = slow_server();
    let origin = Origin::echo();
    let mut command = run(("SOCKS5_SERVER", slow.address()));
    command.args(["python3", "-c", SCRIPT, &origin.port().to_string()]);
    let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
    let expected = "handler True\nconnected True True\nb'x'\nended True\n";
    assert_eq!(output.text(), expected, "{output:#?}");
}

#[test]
fn k07_a_program_that_does_not_wait_has_its_own_timeout() {
    if !is_installed("curl", "curl") {
        return;
    }
    let slow = slow_server();
    let mut command = run(("SOCKS5_SERVER", slow.address()));
    command.args([
        "curl",
        "-q",
        "--silent",
        "--noproxy",
        "*",
        "--connect-timeout",
        "1",
    ]);
    command.args(["--write-out", "%{time_total}"]);
    command.arg(format!("http://127.0.0.1:{}/", Origin::echo().port()));
    let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.status.code(), Some(28), "{output:#?}");
    let seconds: f64 = output.text().parse().unwrap();
    assert!((0.9..2.5).contains(&seconds), "{seconds}");
}

#[test]
fn k07_a_socket_that_blocks_has_the_timeout_of_its_option() {
    if !is_installed("python3", "python3") {
        return;
    }
    const SCRIPT: &str = "
import select, socket, struct, sys, time
stream = socket.socket()
stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 0, 500000))
began = time.monotonic()
try:
    stream.connect(('127.0.0.1', int(sys.argv[1])))
except BlockingIOError:
    print('in progress', 0.4 < time.monotonic() - began < 2)
select.select([], [stream], [], 10)
stream.sendall(b'x')
print(stream.recv(1))
";
    let (slow, origin) = (slow_server(), Origin::echo());
    let mut command = run(("SOCKS5_SERVER", slow.address()));
    command.args(["python3", "-c", SCRIPT, &origin.port().to_string()]);
    let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.text(), "in progress True\nb'x'\n", "{output:#?}");
}

/// A SOCKS5 server that connects after three seconds.
fn slow_server() -> Origin {
    use crate::support::endpoints::{read_exactly, write};
    use std::io::copy;
    use std::net::TcpStream;
    Origin::start(|client: TcpStream| {
        read_exactly(&client, 3);
        write(&client, b"\x05\x00");
        let request = read_exactly(&client, 10);
        std::thread::sleep(std::time::Duration::from_secs(3));
        let port = u16::from_be_bytes([request[8], request[9]]);
        let remote = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // The client may have left.
        let reply = std::io::Write::write_all(&mut &client, b"\x05\0\0\x01\0\0\0\0\0\0");
        if reply.is_err() {
            return;
        }
        let up = (client.try_clone().unwrap(), remote.try_clone().unwrap());
        std::thread::spawn(move || copy(&mut &up.0, &mut &up.1));
        let _ = copy(&mut &remote, &mut &client);
    })
}
