//! A real HAProxy before the server: its clients, and its health checks.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use threadsocks::client;

use crate::support::child::RunningChild;
use crate::support::endpoints::{Origin, dial_from, with_timeout};
use crate::support::netns::in_own_network;
use crate::support::proxy::Proxy;
use crate::support::tools::is_installed;
use crate::support::wait::until;

/// Clients of HAProxy, and the address of HAProxy for them.
const CLIENTS: [(&str, &str); 2] = [("192.0.2.7", "127.0.0.1"), ("2001:db8::7", "::1")];

/// One way from HAProxy to the server: its port, the options of the server line, and the
/// address of the server.
const WAYS: [(u16, &str, &str); 4] = [
    (2001, "send-proxy", "127.0.0.1"),
    (2002, "send-proxy", "[::1]"),
    (2003, "send-proxy-v2", "127.0.0.1"),
    (2004, "send-proxy-v2", "[::1]"),
];

/// HAProxy with a listener for each way to this port. It checks the server as SOCKS5.
fn configuration(port: u16) -> String {
    let mut text = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  \
                    timeout server 1m\n"
        .to_owned();
    for (listen, options, address) in WAYS {
        text += &format!(
            "listen way{listen}\n  bind 127.0.0.1:{listen}\n  bind [::1]:{listen}\n  \
             option tcp-check\n  tcp-check send-binary 050100\n  tcp-check expect binary 0500\n  \
             server node {address}:{port} {options} check inter 100ms\n"
        );
    }
    text
}

/// The objects of this event on the server's stdout.
fn objects(proxy: &Proxy, event: &str) -> Vec<Value> {
    let lines = proxy.stdout_lines();
    let objects = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect(line));
    objects
        .filter(|object: &Value| object["event"] == event)
        .collect()
}

#[test]
fn x35_haproxy_announces_its_clients_and_its_checks_are_silent() {
    if !is_installed("haproxy", "haproxy") {
        return;
    }
    in_own_network(|network| {
        network.ip("addr add 192.0.2.7/32 dev lo");
        network.ip("-6 addr add 2001:db8::7/128 dev lo");
        let rules = "permit c 192.0.2.7 - - -\npermit c 2001:db8::7 - - -\n";
        let options = [
            "--bind",
            "::",
            "--proxy-from",
            "127.0.0.1,::1",
            "--log",
            "json",
        ];
        let proxy = Proxy::start(rules, &options);
        let file = proxy.folder().join("haproxy.cfg");
        fs::write(&file, configuration(proxy.port())).unwrap();
        let mut haproxy = Command::new("haproxy");
        let mut haproxy = RunningChild::start(haproxy.arg("-db").arg("-f").arg(&file), b"");
        let origin = Origin::echo();
        for (port, ..) in WAYS {
            for (own, entry) in CLIENTS {
                let (own, entry): (IpAddr, IpAddr) = (own.parse().unwrap(), entry.parse().unwrap());
                let entry = SocketAddr::from((entry, port));
                until("HAProxy", || TcpStream::connect(entry).ok());
                // A denied client: the address of HAProxy has no permit of its own.
                let denied = with_timeout(TcpStream::connect(entry).unwrap());
                client::socks4::connect(denied, &origin.destination(), b"").expect_err("denied");
                let permitted = dial_from((own, 0).into(), entry);
                let client_port = permitted.local_addr().unwrap().port();
                let permitted = client::socks4::connect(permitted, &origin.destination(), b"");
                drop(permitted.expect("granted"));
                until("the request in the log", || {
                    let answered = objects(&proxy, "answered");
                    answered.into_iter().find(|object| {
                        object["granted"] == true
                            && object["client"] == own.to_string()
                            && object["client_port"] == client_port
                            && object["via"] != Value::Null
                    })
                });
            }
        }
        // Each way is checked several times.
        until("checks", || {
            haproxy.assert_running();
            let closed = objects(&proxy, "closed");
            let is_check = |object: &&Value| object["cause"] == "left_after_greeting";
            let count = |own: &str, via: bool| {
                let checks = closed.iter().filter(is_check);
                let checks = checks.filter(|object| object["client"] == own);
                checks
                    .filter(|object| object.get("via").is_some() == via)
                    .count()
            };
            let counts = [
                ("127.0.0.1", true),
                ("::1", true),
                ("127.0.0.1", false),
                ("::1", false),
            ];
            counts
                .iter()
                .all(|(own, via)| count(own, *via) >= 3)
                .then_some(())
        });
        haproxy.stop();
        proxy.assert_resources_released();
        let lines = proxy.stderr_lines();
        let mut after_start = lines
            .iter()
            .skip_while(|line| !line.contains("listening on"));
        after_start.next();
        let others: Vec<_> = after_start
            .filter(|line| !line.contains("refused: "))
            .collect();
        assert_eq!(others, [""; 0]);
        let mut proxy = proxy;
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    });
}
