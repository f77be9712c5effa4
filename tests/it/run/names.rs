//! Names: the server resolves them, whatever resolver the program has.

use std::net::{IpAddr, Ipv4Addr};

use crate::support::dns_server::{DnsAnswer, NameServer, addresses};
use crate::support::netns::{Network, in_own_network};
use crate::support::project::run_binary;
use crate::support::proxy::Proxy;
use crate::support::run::{VERSIONS, sessions};
use crate::support::tools::{is_found, is_installed};
use crate::support::web_site::{Page, WebSite};

use super::programs::go_program;

const GREETING: &str = "a page of this site\n";
const SITE: &[Page] = &[("/", "text/plain", GREETING)];
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// Asserts that a program fetches a page by a name, for which only the server asks.
fn assert_asks_server(network: &Network, words: &[&str]) {
    network.ip(&format!("addr replace {REMOTE}/32 dev lo"));
    for version in VERSIONS {
        let site = WebSite::start_at(REMOTE, SITE);
        let proxy = Proxy::open();
        let url = format!("http://site.test:{}/", site.port());
        let words = words
            .iter()
            .map(|word| if *word == "URL" { &url } else { *word });
        let mut command = std::process::Command::new(run_binary());
        command.env_remove("SOCKS5_SERVER");
        command.env(version, proxy.address().to_string()).arg("--");
        let output = command.args(words).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            GREETING,
            "{output:?}"
        );
        let expected = format!("{} CONNECT Accept", site.address());
        assert_eq!(sessions(&proxy, 1), [expected]);
        proxy.finish();
    }
}

/// Answers the server, which asks once per request: for IPv4 and IPv6. A program that asked
/// too would get an address that refuses it, and would be noticed.
fn name_server() -> NameServer {
    NameServer::start(|query| match (&*query.name, query.v6) {
        ("site.test", false) => addresses(&[&REMOTE.to_string()]),
        ("site.test", true) => addresses(&[]),
        _ => DnsAnswer::Fails(simple_dns::RCODE::NameError),
    })
}

/// Asserts that the name server got the questions of the server only: one of each session.
fn assert_asked(server: &NameServer, sessions: usize) {
    assert_eq!(server.query_count("site.test", false), sessions);
}

#[test]
fn k09_programs_with_glibc_leave_names_to_the_server() {
    if !is_installed("curl", "curl") || !is_installed("python3", "python3") {
        return;
    }
    in_own_network(|network| {
        let server = name_server();
        assert_asks_server(network, &["curl", "-q", "-sS", "--noproxy", "*", "URL"]);
        const SCRIPT: &str = "
import socket, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
# Looked up by a child, used by this process.
import multiprocessing
def look_up(name):
    return socket.gethostbyname(name)
with multiprocessing.get_context('fork').Pool(1) as pool:
    address = pool.apply(look_up, (url.hostname,))
assert address.startswith('198.18.'), address
assert socket.gethostbyaddr(address)[0] == url.hostname
stream = socket.create_connection((address, url.port))
stream.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
print(stream.makefile().read().split('\\n\\n')[1], end='')
";
        assert_asks_server(network, &["python3", "-c", SCRIPT, "URL"]);
        assert_asked(&server, 4);
    });
}

#[test]
fn k10_a_static_program_with_its_own_resolver_leaves_names_to_the_server() {
    // Only Go has such a resolver among the programs here, and it is large.
    if !is_found("go") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = go_program(&folder);
    in_own_network(|network| {
        let server = name_server();
        assert_asks_server(network, &[&program, "URL"]);
        assert_asked(&server, 2);
    });
}

#[test]
fn k10_a_datagram_to_a_name_server_is_answered_without_asking_it() {
    if !is_installed("python3", "python3") {
        return;
    }
    // The questions of a resolver: for an address, and for the name of that address.
    const SCRIPT: &str = "
import socket
def ask(labels, kind):
    question = b''.join(bytes([len(it)]) + it for it in labels) + b'\\0' + bytes([0, kind, 0, 1])
    stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream.settimeout(5)
    stream.connect(('127.0.0.1', 53))
    assert stream.getpeername() == ('127.0.0.1', 53)
    stream.send(b'ab\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + question)
    return stream.recv(512)
answer = ask([b'site', b'test'], 1)
address = answer[-4:]
print(list(answer[:8]), list(address[:2]))
reverse = [b'%d' % it for it in reversed(address)] + [b'in-addr', b'arpa']
print(ask(reverse, 12)[-11:])
print(list(ask([b'site', b'test'], 28)[:8]))
";
    in_own_network(|_| {
        let server = name_server();
        let mut command = std::process::Command::new(run_binary());
        command.args(["--socks5", "127.0.0.1:9", "--", "python3", "-c", SCRIPT]);
        let output = command.output().unwrap();
        let expected = "[97, 98, 129, 128, 0, 1, 0, 1] [198, 18]\n\
                        b'\\x04site\\x04test\\x00'\n\
                        [97, 98, 129, 128, 0, 1, 0, 0]\n";
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{output:?}"
        );
        assert_asked(&server, 0);
    });
}
