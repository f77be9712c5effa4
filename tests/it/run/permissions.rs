//! Containers that forbid a call: another way where there is one, and otherwise the reason.

use std::net::Ipv4Addr;

use nix::libc;

use crate::support::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use crate::support::project::run_binary;
use crate::support::proxy::Proxy;
use crate::support::run::sessions;
use crate::support::tools::is_installed;
use crate::support::web_site::{Page, WebSite};

const SITE: &[Page] = &[("/", "text/plain", "a page of this site\n")];

/// Executes a program to which one system call is forbidden, as a container does it: by a filter.
/// Its arguments are the number of the call and the program.
const FORBID: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# Load the number of the call; EPERM if it is this one; allow the others.
program = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *it) for it in program))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(program), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
";

/// Runs a program through the proxy, without this system call.
fn run_without(call: i64, proxy: &Proxy, words: &[&str]) -> ChildOutput {
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", FORBID, &call.to_string()])
        .arg(run_binary())
        .args(["--loopback", "--"])
        .args(words)
        .env("SOCKS5_SERVER", proxy.address().to_string());
    RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT)
}

#[test]
fn k22_without_pidfd_getfd_the_supervisor_makes_the_sockets() {
    if !is_installed("python3", "python3") || !is_installed("curl", "curl") {
        return;
    }
    let proxy = Proxy::open();
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), SITE);
    // A socket that does not block, in a set of epoll.
    let curl = ["curl", "-q", "--silent", "--noproxy", "*", &site.url()];
    let output = run_without(libc::SYS_pidfd_getfd, &proxy, &curl);
    assert_eq!(output.text(), SITE[0].2, "{output:#?}");
    // One that blocks; its name is asked for at the cache; then it is closed, and its end must
    // reach the site.
    const SCRIPT: &str = "
import socket, sys
port = int(sys.argv[1])
assert socket.gethostbyname('site.test').startswith('198.18.')
stream = socket.create_connection(('127.0.0.1', port))
assert stream.getpeername() == ('127.0.0.1', port)
stream.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
print(stream.makefile().read().split('\\n\\n')[1], end='')
try:
    socket.create_connection(('127.0.0.1', 1))
except ConnectionRefusedError:
    print('refused')
";
    let python = ["python3", "-c", SCRIPT, &site.port().to_string()];
    let output = run_without(libc::SYS_pidfd_getfd, &proxy, &python);
    assert_eq!(
        output.text(),
        format!("{}refused\n", SITE[0].2),
        "{output:#?}"
    );
    let accepted = format!("{} CONNECT Accept", site.address());
    let expected = [
        accepted.clone(),
        accepted,
        "127.0.0.1:1 CONNECT Reject".into(),
    ];
    assert_eq!(sessions(&proxy, 3), expected);
    proxy.finish();
}

#[test]
fn k22_without_seccomp_the_message_names_the_permission() {
    if !is_installed("python3", "python3") {
        return;
    }
    let proxy = Proxy::open();
    let output = run_without(libc::SYS_seccomp, &proxy, &["true"]);
    assert_eq!(output.status.code(), Some(126), "{output:#?}");
    assert!(output.stderr.contains("forbids seccomp(2)"), "{output:#?}");
    proxy.finish();
}
