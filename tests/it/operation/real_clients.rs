//! Clients of other projects through the proxy: curl, socat, drill, aioquic, Chromium, ...

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use threadsocks::auth::users_file_line;

use crate::support::child::{ChildOutput, LONG_TIMEOUT, RunningChild};
use crate::support::dns_server::{self, NameServer};
use crate::support::endpoints::{self, Origin, random_bytes, read_all, write};
use crate::support::ftp_server::{self, FtpServer};
use crate::support::netns::in_own_network;
use crate::support::proxy::{self, Proxy};
use crate::support::server_output::{ScreenMessage, parse_screen};
use crate::support::socksify::socksify;
use crate::support::tools::{is_installed, skip};
use crate::support::wait::{TIMEOUT, until};
use crate::support::web_site::{Page, WebSite};

const GREETING: &str = "a page of this site\n";
const GREETING_SITE: &[Page] = &[("/", "text/plain", GREETING)];

/// Rules that permit loopback only.
const LOOPBACK_ONLY: &str =
    "permit c 127. - 127. -\npermit b 127. - 127. -\npermit c 127. - ::1 -\n";

#[test]
fn curl_connects_by_address_and_by_name() {
    if !is_installed("curl", "curl") {
        return;
    }
    let proxy = Proxy::open();
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), GREETING_SITE);
    for (version, host) in [
        ("--socks4", "127.0.0.1"),
        ("--socks4a", "localhost"),
        ("--socks5", "127.0.0.1"),
        ("--socks5-hostname", "localhost"),
    ] {
        let url = format!("http://{host}:{}/", site.port());
        let output = curl(version, proxy.address(), &url);
        assert_eq!(output.text(), GREETING, "{output:#?}");
        assert!(output.status.success(), "{output:#?}");
    }
    let accepted = accepted(site.address());
    assert_eq!(summaries(&proxy.screen_messages(4)), [accepted.as_str(); 4]);
    assert_eq!(site.paths(), ["/"; 4]);
    proxy.finish();
}

#[test]
fn curl_logs_in_with_a_password() {
    if !is_installed("curl", "curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, users_file_line("alice", b"s:cret").unwrap()).unwrap();
    let options = ["--users", users.to_str().unwrap()];
    let proxy = Proxy::start("permit c 127. - - - user=alice auth\n", &options);
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), GREETING_SITE);
    for (version, login, served) in [
        ("--socks5", "alice:s%3Acret", true),
        ("--socks5-hostname", "alice:s%3Acret", true),
        ("--socks5-hostname", "alice:wrong", false),
        ("--socks5-hostname", "alice", false),
        ("--socks4a", "alice", false),
    ] {
        let url = format!("http://localhost:{}/", site.port());
        let server = format!("{login}@{}", proxy.address());
        let mut command = Command::new("curl");
        command
            .args(["-q", "--silent", "--show-error", "-4", "--noproxy", ""])
            .args([version, &server, &url]);
        let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
        assert_eq!(output.status.success(), served, "{output:#?}");
        if served {
            assert_eq!(output.text(), GREETING);
        } else {
            assert_eq!(output.status.code(), Some(EXIT_PROXY_ERROR), "{output:#?}");
        }
    }
    proxy.finish();
}

/// The site has only an IPv6 address, and the proxy listens on IPv6.
#[test]
fn curl_connects_over_ipv6() {
    if !is_installed("curl", "curl") {
        return;
    }
    let proxy = Proxy::start("permit c ::1 - ::1 -\n", &["--bind", "::"]);
    let site = WebSite::start_at(Ipv6Addr::LOCALHOST.into(), GREETING_SITE);
    let url = format!("http://{}/", site.address());
    let proxy_address = SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.port()));
    for version in ["--socks5", "--socks5-hostname"] {
        let output = curl(version, proxy_address, &url);
        assert_eq!(output.text(), GREETING, "{output:#?}");
    }
    let block = proxy.screen_messages(2).pop().unwrap();
    assert_eq!(block.source.ip(), Ipv6Addr::LOCALHOST);
    assert_eq!(
        (block.destination.as_str(), block.reply.as_str()),
        ("::1", "Accept")
    );
    proxy.finish();
}

#[test]
fn curl_is_refused_when_the_port_is_closed() {
    if !is_installed("curl", "curl") {
        return;
    }
    let proxy = Proxy::open();
    let url = format!("http://{}/", endpoints::CLOSED);
    for version in ["--socks4", "--socks4a", "--socks5", "--socks5-hostname"] {
        let output = curl(version, proxy.address(), &url);
        assert_eq!(output.status.code(), Some(EXIT_PROXY_ERROR), "{output:#?}");
    }
    let rejected = rejected(endpoints::CLOSED.into());
    assert_eq!(summaries(&proxy.screen_messages(4)), [rejected.as_str(); 4]);
    proxy.finish();
}

#[test]
fn netcat_receives_the_reply_after_its_half_close() {
    if !is_installed("nc.openbsd", "netcat-openbsd") {
        return;
    }
    let proxy = Proxy::open();
    // The origin replies only after EOF, so the half-close must have been relayed.
    let answer = |stream: TcpStream| {
        let received = read_all(&stream);
        write(&stream, format!("{} bytes: ", received.len()).as_bytes());
        write(&stream, &received);
    };
    let data = random_bytes(4, 300_000);
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let mut expected = Vec::new();
    for (version, ip) in [("4", v4), ("5", v4), ("5", v6)] {
        let origin = Origin::start_at(ip, answer);
        expected.push(accepted(origin.address()));
        let mut command = Command::new("nc.openbsd");
        command
            .args(["-N", "-X", version, "-x", &proxy.address().to_string()])
            .args([ip.to_string(), origin.port().to_string()]);
        let output = RunningChild::start(&mut command, &data).wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{}", output.stderr);
        assert!(output.stdout == [b"300000 bytes: ", &data[..]].concat());
    }
    assert_eq!(summaries(&proxy.screen_messages(3)), expected);
    proxy.finish();
}

#[test]
fn socat_connects_by_name_and_receives_its_data_back() {
    if !is_installed("socat", "socat") {
        return;
    }
    let proxy = Proxy::start(proxy::PERMIT_ALL, &["-v"]);
    let origin = Origin::echo();
    let data = random_bytes(5, 1_000_003);
    let address = format!(
        "SOCKS4A:127.0.0.1:localhost:{},socksport={},socksuser=me",
        origin.port(),
        proxy.port()
    );
    // After EOF on its input, socat waits for the reply only for half a second by default.
    let timeout = TIMEOUT.as_secs().to_string();
    let mut command = Command::new("socat");
    command.args(["-t", &timeout, "-", &address]);
    let output = RunningChild::start(&mut command, &data).wait_for_exit(LONG_TIMEOUT);
    assert!(output.status.success(), "{}", output.stderr);
    assert!(output.stdout == data);
    assert_eq!(
        summaries(&proxy.screen_messages(1)),
        [accepted(origin.address())]
    );
    let line = proxy.stderr_line("command=CONNECT");
    assert!(line.contains(r#"user="me""#), "{line}");
    proxy.finish();
}

#[test]
fn netcat_exchanges_datagrams_through_udp_associate() {
    if !is_installed("socksify", "dante-client") || !is_installed("nc.openbsd", "netcat-openbsd") {
        return;
    }
    let proxy = Proxy::start("permit u 127. - 127. -\n", &["-v"]);
    let origin = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    origin.set_read_timeout(Some(TIMEOUT)).unwrap();
    let port = origin.local_addr().unwrap().port().to_string();
    let mut command = socksify(("SOCKS5_SERVER", proxy.address()));
    // netcat exits after the first datagram it receives (-W 1).
    command.args(["nc.openbsd", "-u", "-W", "1", "127.0.0.1", &port]);
    let program = RunningChild::start(&mut command, b"there");
    let mut buffer = [0; 100];
    let (count, peer) = origin.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..count], b"there");
    origin.send_to(b"back", peer).unwrap();
    let output = program.wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.text(), "back", "{output:#?}");
    let block = proxy.screen_messages(1).remove(0);
    let summary = (block.command.as_str(), block.reply.as_str());
    assert_eq!(summary, ("UDP ASSOCIATE", "Accept"));
    let line = proxy.stderr_line("command=UDP ASSOCIATE");
    assert!(line.contains("up=15 down=14 denied=0 dropped=0 "), "{line}");
    proxy.finish();
}

#[test]
fn drill_resolves_a_name_through_udp_associate() {
    if !is_installed("socksify", "dante-client") || !is_installed("drill", "ldnsutils") {
        return;
    }
    in_own_network(|_| {
        let names = NameServer::start(|_| dns_server::addresses(&["10.1.2.3"]));
        let proxy = Proxy::start("permit u 127. - 127.0.0.1 53\n", &["-v"]);
        let mut command = socksify(("SOCKS5_SERVER", proxy.address()));
        command.args(["drill", "-o", "rd", "somewhere.test", "@127.0.0.1"]);
        let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
        assert!(output.text().contains("10.1.2.3"), "{output:#?}");
        assert_eq!(names.query_count("somewhere.test", false), 1);
        proxy.stderr_line("command=UDP ASSOCIATE");
        proxy.finish();
    });
}

/// The time for which a name is cached, in seconds, and some more.
const LIFE_OF_A_NAME: &str = "33";

/// A QUIC connection lasts longer than its name is cached, and DNS returns the addresses in
/// another order each time. Waits for the real time, which no option changes.
#[test]
fn u23_a_quic_connection_outlives_the_addresses_of_its_name() {
    if !has_aioquic() {
        return;
    }
    in_own_network(|_| {
        let hosts = ["127.0.0.9", "127.0.0.10"];
        let _names = NameServer::start(move |query| {
            let mut order = hosts;
            order.rotate_left(query.before % hosts.len());
            dns_server::addresses(&order)
        });
        let proxy = Proxy::start(proxy::PERMIT_ALL, &["-v"]);
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/operation/quic_echo.py"
        );
        let mut command = Command::new("python3");
        let port = proxy.address().port().to_string();
        command
            .args([script, &port, "quic.test", LIFE_OF_A_NAME])
            .args(hosts);
        let output = RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:#?}");
        // One of the two, from the first stream to the last.
        assert!(hosts.contains(&output.text().trim()), "{output:#?}");
        let line = proxy.stderr_line("command=UDP ASSOCIATE");
        assert!(line.contains("denied=0 dropped=0 "), "{line}");
        proxy.finish();
    });
}

/// Whether Python has the QUIC library that the client needs; otherwise skips the test.
fn has_aioquic() -> bool {
    let mut command = Command::new("python3");
    let imported = command.args(["-c", "import aioquic"]).output();
    let has_it = imported.is_ok_and(|output| output.status.success());
    if !has_it {
        skip("Python's aioquic is missing; install python3-aioquic or use pip (.ci/run)");
    }
    has_it
}

/// A page whose script shows the sizes of its subresources, so it proves that all were loaded.
const PAGE_WITH_SUBRESOURCES: &[Page] = &[
    (
        "/",
        "text/html",
        r#"<!DOCTYPE html><title>A page with subresources</title><link rel="stylesheet" href="/style.css">
<p id="styled">Styled</p><img id="left" src="/left.svg"><img id="right" src="/right.svg">
<p id="sizes">No sizes</p><script src="/sizes.js"></script>"#,
    ),
    ("/style.css", "text/css", "#styled { width: 123px }"),
    (
        "/sizes.js",
        "text/javascript",
        "addEventListener('load', () => {
  const of = id => document.getElementById(id);
  of('sizes').textContent = ['Sizes', of('styled').offsetWidth,
    of('left').naturalWidth, of('right').naturalWidth].join('+');
});",
    ),
    (
        "/left.svg",
        "image/svg+xml",
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="45" height="9"/>"#,
    ),
    (
        "/right.svg",
        "image/svg+xml",
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="67" height="9"/>"#,
    ),
];

#[test]
fn chromium_loads_a_page_with_subresources_by_socks4() {
    check_page_with_subresources("socks4", Ipv4Addr::LOCALHOST.into());
}

#[test]
fn chromium_loads_a_page_with_subresources_by_socks5() {
    check_page_with_subresources("socks5", Ipv4Addr::LOCALHOST.into());
}

#[test]
fn chromium_loads_a_page_with_subresources_over_ipv6() {
    check_page_with_subresources("socks5", Ipv6Addr::LOCALHOST.into());
}

fn check_page_with_subresources(scheme: &str, ip: IpAddr) {
    if !is_installed("chromium", "chromium") {
        return;
    }
    let proxy = Proxy::start(LOOPBACK_ONLY, &[]);
    let site = WebSite::start_at(ip, PAGE_WITH_SUBRESOURCES);
    let output = chromium(&proxy, scheme, &site.url());
    let page = output.text();
    let stderr = proxy.stderr_lines();
    assert!(page.contains("Sizes+123+45+67"), "{output:#?} {stderr:#?}");
    let paths = site.paths();
    for (path, ..) in PAGE_WITH_SUBRESOURCES {
        assert!(
            paths.iter().any(|requested| requested == path),
            "{path} of {paths:?}"
        );
    }
    // Browsers also open connections that they never use. The number of screen messages is
    // therefore compared with the number of accepted connections.
    proxy.assert_resources_released();
    let accepted = accepted(site.address());
    until("a message for every connection", || {
        let blocks = proxy.screen_messages(1);
        let count = blocks.iter().filter(|block| block.summary() == accepted);
        (count.count() == site.connections()).then_some(())
    });
    proxy.finish();
}

#[test]
fn chromium_cannot_load_a_denied_page() {
    if !is_installed("chromium", "chromium") {
        return;
    }
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), PAGE_WITH_SUBRESOURCES);
    let rules = format!("deny c 127.0.0.1 {}\n{LOOPBACK_ONLY}", site.port());
    let proxy = Proxy::start(&rules, &[]);
    let output = chromium(&proxy, "socks4", &site.url());
    let page = output.text();
    assert!(
        !page.contains("A page with subresources") && !page.contains("Sizes"),
        "{output:#?}"
    );
    let messages = summaries(&proxy.screen_messages(1));
    assert!(
        messages.contains(&rejected(site.address())),
        "{messages:#?}"
    );
    assert!(
        messages.iter().all(|summary| summary.ends_with("Reject")),
        "{messages:#?}"
    );
    assert_eq!(site.connections(), 0);
    proxy.finish();
}

#[test]
fn overwritten_rules_apply_to_the_next_request_of_curl() {
    if !is_installed("curl", "curl") {
        return;
    }
    // Two loopback addresses instead of the networks 140.113.0.0/16 and 140.114.0.0/16.
    let denied_site = WebSite::start_at(Ipv4Addr::new(127, 113, 0, 1).into(), GREETING_SITE);
    let permitted_site = WebSite::start_at(Ipv4Addr::new(127, 114, 0, 1).into(), GREETING_SITE);
    let proxy = Proxy::start("permit c - - 127.114. -\n", &[]);
    let fetch = |site: &WebSite| curl("--socks4", proxy.address(), &site.url());

    assert_eq!(fetch(&denied_site).status.code(), Some(EXIT_PROXY_ERROR));
    assert_eq!(fetch(&permitted_site).text(), GREETING);
    fs::write(proxy.config(), "permit c *.*.*.*\npermit b *.*.*.*\n").unwrap();
    assert_eq!(fetch(&denied_site).text(), GREETING);

    let expected = [
        rejected(denied_site.address()),
        accepted(permitted_site.address()),
        accepted(denied_site.address()),
    ];
    assert_eq!(summaries(&proxy.screen_messages(3)), expected);
    assert_eq!(denied_site.connections(), 1);
    proxy.finish();
}

#[test]
fn curl_fails_without_the_server_and_works_after_its_restart() {
    if !is_installed("curl", "curl") {
        return;
    }
    let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), GREETING_SITE);
    // An address that no other test uses: no test can take the port before the restart. The
    // helper gives `--bind` too; the last occurrence of an option counts.
    let first = Proxy::start(LOOPBACK_ONLY, &["--bind", "127.115.0.1"]);
    let address = first.address();
    let fetch = || curl("--socks4", address, &site.url());
    assert_eq!(fetch().text(), GREETING);
    first.finish();

    let output = fetch();
    assert_eq!(
        output.status.code(),
        Some(EXIT_CANNOT_CONNECT),
        "{output:#?}"
    );

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    fs::write(&config, LOOPBACK_ONLY).unwrap();
    let mut command = proxy::binary();
    command.args(["--bind", "127.115.0.1", "--config"]);
    command.arg(&config).arg(address.port().to_string());
    let mut second = RunningChild::start(&mut command, b"");
    until("the second server", || {
        second.assert_running();
        TcpStream::connect(address).ok()
    });
    assert_eq!(fetch().text(), GREETING);

    second.terminate();
    let output = second.wait_for_exit(LONG_TIMEOUT);
    assert!(output.status.success(), "{output:#?}");
    let screen: Vec<String> = output.text().lines().map(str::to_owned).collect();
    let blocks = parse_screen(&screen);
    assert_eq!(summaries(&blocks), [accepted(site.address())]);
}

#[test]
fn ftp_with_50_megabytes() {
    ftp_through_bind(50, "SOCKS4_SERVER", LONG_TIMEOUT);
}

#[test]
fn ftp_through_socks5() {
    ftp_through_bind(5, "SOCKS5_SERVER", LONG_TIMEOUT);
}

#[test]
#[ignore = "three copies need 4 GB of disk"]
fn ftp_with_1200_megabytes() {
    ftp_through_bind(1200, "SOCKS4_SERVER", Duration::from_secs(1200));
}

/// A listing, an upload and a download in active mode. For each of them the client requests
/// BIND, and the FTP server connects to the port that the proxy has bound.
fn ftp_through_bind(megabytes: u64, version_variable: &str, timeout: Duration) {
    if !is_installed("socksify", "dante-client")
        || !is_installed("tnftp", "tnftp")
        || !is_installed(ftp_server::VSFTPD, "vsftpd")
    {
        return;
    }
    let proxy = Proxy::start(LOOPBACK_ONLY, &[]);
    let (home, root) = (proxy.folder().join("home"), proxy.folder().join("root"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("existing-file"), "").unwrap();
    let original = ftp_server::write_random_file(&home.join("original"), megabytes);
    let server = FtpServer::start(&root, &proxy.folder().join("vsftpd.conf"));
    let script = "user anonymous guest\nbinary\nls\nput original stored\n\
                  get stored fetched\nquit\n";
    let proxy_address = (version_variable, proxy.address());
    let output = ftp_server::run_session(proxy_address, &server, &home, script, timeout);
    let text = output.text();
    assert!(text.contains("existing-file"), "{output:#?}");
    assert_eq!(text.matches("226 ").count(), 3, "{text}");
    assert!(
        ftp_server::sha256(&root.join("stored")) == original,
        "{text}"
    );
    assert!(
        ftp_server::sha256(&home.join("fetched")) == original,
        "{text}"
    );

    let blocks = proxy.screen_messages(4);
    let [control, data @ ..] = blocks.as_slice() else {
        panic!("no screen message");
    };
    let address = SocketAddr::from((ftp_server::ADDRESS, server.port()));
    assert_eq!(control.summary(), accepted(address));
    assert_eq!(data.len(), 3, "{data:#?}");
    for block in data {
        // The port is not compared: the client may send the control connection's port, or 0.
        let ScreenMessage {
            destination,
            command,
            reply,
            ..
        } = block;
        assert_eq!(
            [destination.as_str(), command, reply],
            [&ftp_server::ADDRESS.to_string(), "BIND", "Accept"]
        );
    }
    proxy.finish();
}

/// curl's exit status if it cannot connect to the proxy (CURLE_COULDNT_CONNECT).
const EXIT_CANNOT_CONNECT: i32 = 7;

/// curl's exit status if the proxy rejects the request (CURLE_PROXY).
const EXIT_PROXY_ERROR: i32 = 97;

/// Fetches one page with curl through the proxy. The user's curl configuration is ignored, and
/// loopback is no exception from the proxy.
fn curl(version: &str, proxy: SocketAddr, url: &str) -> ChildOutput {
    let mut command = Command::new("curl");
    command
        .args(["-q", "--silent", "--show-error", "--noproxy", ""])
        .args([version, &proxy.to_string(), url]);
    RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT)
}

/// The page's DOM after its scripts have run, as Chromium prints it.
fn chromium(proxy: &Proxy, scheme: &str, url: &str) -> ChildOutput {
    let home = proxy.folder().join("browser");
    fs::create_dir(&home).unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--dump-dom", "--disable-gpu"])
        .arg(format!("--proxy-server={scheme}://{}", proxy.address()))
        // Otherwise Chromium connects to loopback directly, without the proxy.
        .arg("--proxy-bypass-list=<-loopback>")
        // Chromium's sandbox does not work for root. The only page is the test's own.
        .arg("--no-sandbox")
        // Prevents connections to the browser's vendor, also through the proxy.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .args(["--disable-background-networking", "--disable-sync"])
        .args(["--disable-component-update", "--no-first-run"])
        .args(["--disable-quic", "--disable-breakpad"])
        .arg(user_data(&home))
        .env("HOME", &home)
        // Temporary files that Chromium leaves are removed with the test's folder.
        .env("TMPDIR", &home)
        .arg(url);
    RunningChild::start(&mut command, b"").wait_for_exit(LONG_TIMEOUT)
}

/// The option for a new profile, without cache and cookies.
fn user_data(home: &Path) -> String {
    format!("--user-data-dir={}", home.join("profile").display())
}

fn accepted(address: SocketAddr) -> String {
    format!("{}:{} CONNECT Accept", address.ip(), address.port())
}

fn rejected(address: SocketAddr) -> String {
    format!("{address} CONNECT Reject")
}

fn summaries(blocks: &[ScreenMessage]) -> Vec<String> {
    blocks.iter().map(ScreenMessage::summary).collect()
}
