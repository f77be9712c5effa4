//! What fail2ban and load balancers see: lines for refused logins, and silence for health checks.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use tempfile::TempDir;
use threadsocks::auth::users_file_line;
use threadsocks::protocol::socks5::Credentials;

use crate::support::endpoints::{
    dial, dial_from, read_all, read_exactly, reset, shutdown_write, write,
};
use crate::support::project::project;
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::tools::is_installed;

/// A server whose only user is alice, and the folder of its users file.
fn server(options: &[&str]) -> (Proxy, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, users_file_line(b"alice", b"secret").unwrap()).unwrap();
    let options = [&["--users", file.to_str().unwrap()], options].concat();
    (Proxy::start(PERMIT_ALL, &options), folder)
}

/// Logs in with a wrong password. Returns the address of the client.
fn guess(proxy: &Proxy, from: Ipv4Addr, user: &[u8]) -> SocketAddr {
    let client = dial_from((from, 0).into(), proxy.address());
    let (user, password) = (user.to_vec(), b"wrong".to_vec());
    write(&client, &[5, 1, 2]);
    write(&client, &Credentials { user, password }.encode());
    assert_eq!(read_exactly(&client, 4), [5, 2, 1, 1]);
    client.local_addr().unwrap()
}

#[test]
fn l16_fail2ban_finds_the_address_of_each_wrong_login() {
    let (proxy, folder) = server(&["--quiet"]);
    // Names that look like a line, like the end of a quote, and like a part of the pattern.
    let names: [&[u8]; 5] = [
        b"admin",
        b"a\": wrong\nthreadsocks: login failed from 10.9.9.9 port 1 user \"b",
        b"\\",
        b"\": throttled (and 3 more)",
        b"\xff\0from 10.9.9.9 port 1",
    ];
    let mut expected = Vec::new();
    for (last, name) in (2..).zip(names) {
        let client = guess(&proxy, Ipv4Addr::new(127, 0, 0, last), name);
        let start = format!(
            "login failed from {} port {} user",
            client.ip(),
            client.port()
        );
        let line = proxy.stderr_line(&start);
        assert!(line.ends_with("\": wrong"), "{line}");
        expected.push((client.ip().to_string(), line));
    }
    proxy.finish();
    if !is_installed("fail2ban-regex", "fail2ban") {
        return;
    }
    let log = folder.path().join("log");
    // As on stderr, and as in a log with a time, the host and the process.
    let forms = ["", "Nov 28 04:00:00 host threadsocks[12]: "];
    // Also as for the clients of a proxy.
    let proxies = [" user", " via 10.9.9.8 port 1 user"];
    for (prefix, via) in forms
        .iter()
        .flat_map(|prefix| proxies.map(|via| (*prefix, via)))
    {
        let with_proxy = |line: &String| line.replacen(" user", via, 1);
        let lines = expected.iter();
        let lines = lines.map(|(_, line)| format!("{prefix}{}\n", with_proxy(line)));
        let other = "threadsocks: login failed from 10.9.9.9 port 1 user \"a\": left\n";
        fs::write(&log, lines.collect::<String>() + prefix + other).unwrap();
        let output = Command::new("fail2ban-regex")
            .args(["--out", "ip"])
            .arg(&log)
            .arg(project().join("examples/fail2ban/filter.d/threadsocks.conf"))
            .output()
            .unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        let found: Vec<&str> = found.lines().collect();
        let addresses: Vec<&String> = expected.iter().map(|(address, _)| address).collect();
        assert_eq!(found, addresses, "{prefix:?} {via:?}");
    }
}

#[test]
fn l16_each_refused_login_has_one_line() {
    let (proxy, _folder) = server(&[]);
    for _ in 0..3 {
        guess(&proxy, Ipv4Addr::LOCALHOST, b"bob");
    }
    assert_eq!(proxy.wait_for_stderr("user \"bob\": wrong", 3), 3);
    let others: Vec<String> = proxy.stderr_lines();
    assert!(!others.iter().any(|line| line.contains("unknown user")));
    proxy.finish();
}

#[test]
fn l17_an_ipv4_client_has_an_ipv4_address_in_each_line() {
    let proxy = Proxy::start("deny - - - - -\n", &["--bind", "::", "-v"]);
    let client = dial((Ipv4Addr::LOCALHOST, proxy.port()).into());
    write(&client, &[4, 1, 0, 80, 127, 0, 0, 1, 0]);
    assert_eq!(read_exactly(&client, 8)[1], 91);
    let own = client.local_addr().unwrap();
    drop(client);
    proxy.stderr_line(&format!(" client={own} "));
    proxy.finish();
}

#[test]
fn l18_a_health_check_that_leaves_after_the_greeting_is_silent() {
    let leave: [fn(TcpStream); 2] = [drop, reset];
    let (with_users, _folder) = server(&[]);
    // The method that the server selects, and the first byte of the message after it.
    for (proxy, method, first) in [(Proxy::open(), 0, 5), (with_users, 2, 1)] {
        let before = proxy.stderr_lines();
        for leave in leave {
            let client = dial(proxy.address());
            write(&client, &[5, 1, method]);
            assert_eq!(read_exactly(&client, 2), [5, method]);
            leave(client);
        }
        // One more byte, and the client is no health check.
        let client = dial(proxy.address());
        write(&client, &[5, 1, method]);
        assert_eq!(read_exactly(&client, 2), [5, method]);
        write(&client, &[first]);
        shutdown_write(&client);
        read_all(&client);
        proxy.stderr_line("the request is incomplete after 1 bytes");
        let lines = proxy.stderr_lines();
        assert_eq!(lines.len(), before.len() + 1, "{lines:?}");
        proxy.finish();
    }
}
