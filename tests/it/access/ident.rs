//! IDENT (RFC 1413): rules that require the client's identd to confirm the user.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command as Program, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use threadsocks::client::{self, ClientError};
use threadsocks::protocol::{Command, Destination, socks4};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{
    CLOSED, Origin, by_address, by_name, dial, dial_from, read_all, read_exactly, request, reset,
    reset_on_close, with_timeout, write,
};
use crate::support::ident_server::Identd;
use crate::support::netns::in_own_network;
use crate::support::proxy::Proxy;
use crate::support::tools::is_installed;
use crate::support::wait::{TIMEOUT, until};

/// Permits every request whose user identd confirms.
const REQUIRE_IDENT: &str = "permit - - ident\n";

/// Sends a SOCKS4 CONNECT as this user over `client`; returns the code of the reply.
fn request_connect(client: &TcpStream, destination: &Destination, user: &str) -> u8 {
    let bytes = request(Command::Connect, destination, user.as_bytes());
    write(client, &bytes);
    read_exactly(client, 8)[1]
}

/// The same over a new connection to the proxy.
fn connect_as(proxy: &Proxy, destination: &Destination, user: &str) -> u8 {
    request_connect(&dial(proxy.address()), destination, user)
}

/// A server whose only rule requires identd, and an origin to connect to.
fn start_requiring_ident(options: &[&str]) -> (Proxy, Origin) {
    (Proxy::start(REQUIRE_IDENT, options), Origin::echo())
}

#[test]
fn a_confirmed_user_is_served() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let proxy = Proxy::start(REQUIRE_IDENT, &["-v"]);
        let origin = Origin::echo();
        let client = dial(proxy.address());
        assert_eq!(request_connect(&client, &origin.destination(), "alice"), 90);
        write(&client, b"x");
        assert_eq!(read_exactly(&client, 1), b"x");
        let own = client.local_addr().unwrap();
        assert_eq!(proxy.screen_message_for(own).reply, "Accept");
        drop(client);
        proxy.stderr_line("user=\"alice\" ident=confirmed rule=1");
        let query = format!("{} , {}", own.port(), proxy.port());
        assert_eq!(identd.queries()[0].query, query);
        assert_eq!(identd.queries().len(), 1);
        proxy.finish();
    });
}

#[test]
fn i01_without_an_identd_the_reply_is_92_at_once() {
    in_own_network(|_| {
        let (proxy, origin) = start_requiring_ident(&[]);
        let client = dial(proxy.address());
        assert_eq!(request_connect(&client, &origin.destination(), "alice"), 92);
        assert_eq!(read_all(&client), b"", "the server closes after its reply");
        let message = proxy.screen_message_for(client.local_addr().unwrap());
        assert_eq!(message.reply, "Reject");
        proxy.stderr_line("no usable reply from the client's identd: Connection refused");
        proxy.finish();
    });
}

#[test]
fn i02_i03_a_silent_and_a_slow_identd_meet_the_same_timeout() {
    in_own_network(|_| {
        let _identd = Identd::start(|stream, query| {
            // The client's port selects the behaviour: no byte at all for port 9000, a byte
            // every 100 ms until the server closes for port 2000.
            let answer = format!("{query} : USERID : UNIX : alice");
            let count = if query.starts_with('9') {
                0
            } else {
                answer.len()
            };
            for byte in &answer.as_bytes()[..count] {
                if (&stream).write_all(&[*byte]).is_err() {
                    return;
                }
                thread::park_timeout(Duration::from_millis(100));
            }
            assert_eq!((&stream).read(&mut [0]).unwrap_or(0), 0);
        });
        let (proxy, origin) = start_requiring_ident(&["--ident-timeout", "500ms"]);
        for port in [9000, 2000] {
            let began = Instant::now();
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let client = dial_from(from, proxy.address());
            assert_eq!(request_connect(&client, &origin.destination(), "alice"), 92);
            assert!(began.elapsed() >= Duration::from_millis(500));
            // All bytes of the slow reply would take four seconds.
            assert!(began.elapsed() < Duration::from_secs(3));
        }
        proxy.stderr_line("timed out");
        proxy.finish();
    });
}

#[test]
fn i04_an_endless_reply_line_is_refused_after_1000_bytes() {
    in_own_network(|_| {
        let identd = Identd::start(|mut stream, query| {
            let _ = write!(stream, "{query} : USERID : UNIX : ");
            let mebibyte = vec![b'a'; 1 << 20];
            // 100 MiB are far more than the socket buffers hold, so all writes succeed
            // only if the server reads on.
            for _ in 0..100 {
                if stream.write_all(&mebibyte).is_err() {
                    return;
                }
            }
            panic!("the server read 100 MiB of one line");
        });
        let (proxy, origin) = start_requiring_ident(&["--ident-timeout", "10s"]);
        let began = Instant::now();
        let kib_before = proxy.status("VmRSS");
        for _ in 0..5 {
            assert_eq!(connect_as(&proxy, &origin.destination(), "alice"), 92);
        }
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "no query waits for its timeout"
        );
        assert!(proxy.status("VmRSS") < kib_before + 2000);
        proxy.stderr_line("does not end within 1000 bytes");
        proxy.finish();
        assert_eq!(identd.queries().len(), 5);
    });
}

#[test]
fn i05_i06_i07_i08_i09_i10_each_identd_reply_leads_to_its_reply_code() {
    in_own_network(|_| {
        let longest = "u".repeat(512);
        // What identd sends after the ports, the user of the request, the reply code.
        let table: &[(&str, &str, u8)] = &[
            (" : USERID : UNIX : alice\r\n", "alice", 90),
            (":USERID:UNIX:alice\n", "alice", 90),
            (" : userid : OTHER,UTF-8 :  alice \r\n", "alice", 90),
            (" : USERID : UNIX : a b:c\r\n", "a b:c", 90),
            (" : USERID : UNIX : \u{e9}\r\n", "\u{e9}", 90),
            (" : USERID : UNIX : alice\r\nbob\r\n\u{7}", "alice", 90),
            (" : USERID : UNIX : bob\r\n", "alice", 93),
            (" : USERID : UNIX : Alice\r\n", "alice", 93),
            (" : USERID : UNIX : alice2\r\n", "alice", 93),
            (" : ERROR : NO-USER\r\n", "alice", 93),
            (" : ERROR : HIDDEN-USER\r\n", "alice", 93),
            (" : ERROR : INVALID-PORT\r\n", "alice", 93),
            (" : ERROR : UNKNOWN-ERROR\r\n", "alice", 93),
            (" : ERROR : XALICE\r\n", "alice", 93),
            // Not a reply to this query, or not a complete reply line.
            ("1 : USERID : UNIX : alice\r\n", "alice", 92),
            (" : USERID : UNIX : alice", "alice", 92),
            (" : USERID : alice\r\n", "alice", 92),
            (" : USERID : UNIX : \r\n", "alice", 92),
            ("\r\n", "alice", 92),
            ("", "alice", 92),
        ];
        let replies: Vec<String> = table.iter().map(|row| row.0.to_owned()).collect();
        // The test sends one request at a time, so the counter needs no ordering with
        // other memory.
        let next_reply = AtomicUsize::new(0);
        let long = longest.clone();
        let _identd = Identd::start(move |mut stream, query| {
            let index = next_reply.fetch_add(1, Ordering::SeqCst);
            let _ = match replies.get(index) {
                Some(reply) => write!(stream, "{query}{reply}"),
                None => write!(stream, "{query}:USERID:UNIX:{long}\r\n"),
            };
        });
        let (proxy, origin) = start_requiring_ident(&[]);
        for (reply, user, code) in table {
            assert_eq!(
                connect_as(&proxy, &origin.destination(), user),
                *code,
                "{reply:?}"
            );
        }
        assert_eq!(connect_as(&proxy, &origin.destination(), &longest), 90);
        proxy.finish();
    });
}

#[test]
fn i09_a_reset_from_identd_is_refused_with_92() {
    in_own_network(|_| {
        let _identd = Identd::start(|stream, query| {
            write(&stream, query.as_bytes());
            reset(stream);
        });
        let (proxy, origin) = start_requiring_ident(&[]);
        assert_eq!(connect_as(&proxy, &origin.destination(), "alice"), 92);
        proxy.finish();
    });
}

#[test]
fn i11_identd_is_queried_from_the_address_that_the_client_connected_to() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let origin = Origin::echo();
        // One of the server's several addresses, and not the first one.
        let seventh = |port| SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), port));
        for (listen, count) in [("0.0.0.0", 1), ("::", 2)] {
            let proxy = Proxy::start(REQUIRE_IDENT, &["--bind", listen]);
            let client = dial(seventh(proxy.port()));
            assert_eq!(request_connect(&client, &origin.destination(), "alice"), 90);
            let queries = identd.queries();
            assert_eq!(queries.len(), count);
            assert_eq!(queries[count - 1].from.ip(), seventh(0).ip());
            drop(client);
            proxy.finish();
        }
    });
}

#[test]
fn i12_a_request_without_a_user_cannot_be_confirmed() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : root");
        let (proxy, origin) = start_requiring_ident(&[]);
        assert_eq!(connect_as(&proxy, &origin.destination(), ""), 93);
        assert_eq!(identd.queries(), [], "without a user there is no query");
        proxy.stderr_line("the user is not confirmed: the request has no user");
        proxy.finish();
    });
}

#[test]
fn i13_the_reply_of_identd_is_printed_escaped() {
    in_own_network(|_| {
        let _identd = Identd::replying(" : USERID : UNIX : \u{1b}[2J\u{9b}x\u{8}\"");
        let (proxy, origin) = start_requiring_ident(&["-v"]);
        assert_eq!(
            connect_as(&proxy, &origin.destination(), "\u{1b}]0;x\u{7}"),
            93
        );
        let line = proxy.stderr_line("not confirmed");
        assert!(
            line.is_ascii() && !line.contains(|char: char| char.is_control()),
            "{line:?}"
        );
        assert!(line.contains("user=\"\\x1b]0;x\\x07\""), "{line}");
        assert!(line.contains("\\x1b[2J\\xc2\\x9bx\\x08"), "{line}");
        proxy.finish();
    });
}

#[test]
fn i14_identd_is_queried_only_if_a_rule_requires_it_and_once_per_request() {
    in_own_network(|network| {
        network.ip("addr add 10.9.0.1/24 dev lo");
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let three_addresses = |_: &_| addresses(&["127.0.0.1", "127.0.0.2", "10.9.0.1"]);
        let _server = NameServer::start(three_addresses);
        let origin = Origin::echo();
        let rules = "permit c 127.0.0.9 - - -\n\
                     deny c - - - - user=mallory\n\
                     permit c - ident\n";
        let proxy = Proxy::start(rules, &["--bind", "0.0.0.0"]);
        let loopback = |host| SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        let proxy_address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        for (from, user, code, query_count) in [
            (9, "alice", 90, 0),
            (5, "mallory", 91, 0),
            // The name has three addresses, and the request causes one query.
            (5, "alice", 90, 1),
        ] {
            let client = dial_from(loopback(from), proxy_address);
            let destination = by_name("three.test", origin.port());
            assert_eq!(request_connect(&client, &destination, user), code);
            assert_eq!(identd.queries().len(), query_count);
        }
        // The query goes to the client's own address, from the address that the client
        // connected to.
        assert_eq!(identd.queries()[0].at, loopback(5).ip());
        assert_eq!(identd.queries()[0].from.ip(), Ipv4Addr::LOCALHOST);
        proxy.finish();
    });
}

#[test]
fn i14_an_ident_query_that_is_forwarded_to_the_server_starts_no_loop() {
    in_own_network(|_| {
        // The listener on port 113 forwards each query to the server as if it were a client.
        let proxy = Proxy::start(REQUIRE_IDENT, &["-v", "--ident-timeout", "5s"]);
        let origin = Origin::echo();
        let forward = Identd::start({
            let proxy = proxy.address();
            move |stream, query| {
                let client = dial(proxy);
                write(&client, query.as_bytes());
                assert_eq!(read_all(&client), b"");
                drop(stream);
            }
        });
        assert_eq!(connect_as(&proxy, &origin.destination(), "alice"), 92);
        assert_eq!(forward.queries().len(), 1);
        proxy.stderr_line("invalid version");
        proxy.finish();
    });
}

#[test]
fn a_failed_ident_check_ends_the_search_among_the_rules() {
    in_own_network(|_| {
        let rules = "permit c - user=bob\n\
                     permit c - user=alice ident\n\
                     permit c -\n";
        let proxy = Proxy::start(rules, &[]);
        let origin = Origin::echo();
        assert_eq!(connect_as(&proxy, &origin.destination(), "alice"), 92);
        assert_eq!(connect_as(&proxy, &origin.destination(), "bob"), 90);
        assert_eq!(connect_as(&proxy, &origin.destination(), ""), 90);
        let _identd = Identd::replying(" : USERID : UNIX : bob");
        assert_eq!(connect_as(&proxy, &origin.destination(), "alice"), 93);
        proxy.finish();
    });
}

#[test]
fn a_name_is_looked_up_only_for_a_confirmed_user() {
    in_own_network(|_| {
        let server = NameServer::start(|_| addresses(&["127.0.0.1"]));
        let (proxy, origin) = start_requiring_ident(&[]);
        let destination = by_name("a.test", origin.port());
        assert_eq!(connect_as(&proxy, &destination, "alice"), 92);
        assert_eq!(server.queries(), []);
        let identd = Identd::replying(" : USERID : UNIX : alice");
        assert_eq!(connect_as(&proxy, &destination, "bob"), 93);
        assert_eq!(server.queries(), []);
        assert_eq!(connect_as(&proxy, &destination, "alice"), 90);
        assert_ne!(server.queries(), []);
        assert_eq!(identd.queries().len(), 2, "one query for each request");
        proxy.finish();
    });
}

#[test]
fn an_address_permitted_without_ident_is_used_when_ident_fails() {
    in_own_network(|_| {
        let _server = NameServer::start(|_| addresses(&["127.0.0.2", "127.0.0.1"]));
        let proxy = Proxy::start("permit c 127.0.0.2 ident\npermit c 127.0.0.1\n", &[]);
        let origin = Origin::echo();
        let client = dial(proxy.address());
        let destination = by_name("two.test", origin.port());
        assert_eq!(request_connect(&client, &destination, "alice"), 90);
        let message = proxy.screen_message_for(client.local_addr().unwrap());
        assert_eq!(message.destination, "127.0.0.1");
        drop(client);
        proxy.finish();
    });
}

#[test]
fn bind_queries_identd_if_the_rule_for_its_peer_requires_it() {
    in_own_network(|_| {
        let proxy = Proxy::start("permit b 127.0.0.1\npermit b - ident\n", &[]);
        let any_peer = by_address(([0, 0, 0, 0], 0).into());
        let second_address = by_address(([127, 0, 0, 2], 0).into());
        let bind = |destination: &Destination, user: &str| {
            client::socks4::bind(dial(proxy.address()), destination, user.as_bytes())
        };
        // A peer at 127.0.0.1 needs no identd, so the first reply does not wait for a query.
        let binding = bind(&any_peer, "alice").expect("listening");
        let port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let peer = dial(port(binding.address.port()));
        let (mut client, _) = binding.wait().expect("granted");
        (&peer).write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop((peer, client));
        // A peer at 127.0.0.2 needs identd, and no identd runs yet.
        let binding = bind(&any_peer, "alice").expect("listening");
        let peer = dial_from(([127, 0, 0, 2], 0).into(), port(binding.address.port()));
        assert_eq!(refusal_code(binding.wait()), 92);
        assert_eq!(read_all(&peer), b"");
        assert_eq!(refusal_code(bind(&second_address, "alice")), 92);
        let identd = Identd::replying(" : USERID : UNIX : alice");
        assert_eq!(refusal_code(bind(&second_address, "bob")), 93);
        let binding = bind(&second_address, "alice").expect("listening");
        let peer = dial_from(([127, 0, 0, 2], 0).into(), port(binding.address.port()));
        let granted = binding.wait().expect("granted");
        drop((peer, granted));
        assert_eq!(identd.queries().len(), 2, "one query for each request");
        proxy.finish();
    });
}

#[test]
fn bind_for_any_peer_queries_identd_first_if_every_rule_requires_it() {
    in_own_network(|_| {
        let proxy = Proxy::start("permit b 127. ident\n", &[]);
        let any_peer = by_address(([0, 0, 0, 0], 0).into());
        let bind =
            |user: &str| client::socks4::bind(dial(proxy.address()), &any_peer, user.as_bytes());
        assert_eq!(refusal_code(bind("alice")), 92);
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let binding = bind("alice").expect("listening");
        let peer = dial((Ipv4Addr::LOCALHOST, binding.address.port()).into());
        let granted = binding.wait().expect("granted");
        drop((peer, granted));
        assert_eq!(
            identd.queries().len(),
            1,
            "no second query when the peer connects"
        );
        proxy.finish();
    });
}

/// The SOCKS4 reply code of a refused request.
fn refusal_code<T>(result: Result<T, ClientError>) -> u8 {
    match result {
        Err(ClientError::Refused(error)) => socks4::code(error),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("granted"),
    }
}

#[test]
fn a_client_reset_ends_the_wait_for_identd() {
    in_own_network(|_| {
        let identd = Identd::start(|mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        });
        let (proxy, origin) = start_requiring_ident(&["-v", "--ident-timeout", "10m"]);
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &origin.destination(), b"alice"),
        );
        until("an ident query", || {
            (!identd.queries().is_empty()).then_some(())
        });
        reset_on_close(&client);
        drop(client);
        proxy.stderr_line("ending=\"refused: the client disconnected before the reply\"");
        proxy.finish();
    });
}

#[test]
fn a_shutdown_does_not_wait_for_identd() {
    in_own_network(|_| {
        let identd = Identd::start(|mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        });
        let proxy = Proxy::start(
            REQUIRE_IDENT,
            &["--ident-timeout", "10m", "--grace", "100ms"],
        );
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &Origin::echo().destination(), b"alice"),
        );
        until("an ident query", || {
            (!identd.queries().is_empty()).then_some(())
        });
        let began = Instant::now();
        let mut proxy = proxy;
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
        assert!(began.elapsed() < TIMEOUT / 2);
        assert_eq!(proxy.screen_messages(1)[0].reply, "Reject");
    });
}

/// oidentd as a child process; the drop ends it.
struct Oidentd(std::process::Child);

impl Oidentd {
    fn start() -> Oidentd {
        let child = Program::new("oidentd")
            .args(["--foreground", "--nosyslog", "--address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("oidentd starts");
        until("oidentd listens", || {
            TcpStream::connect(("127.0.0.1", 113))
                .map(with_timeout)
                .ok()
        });
        Oidentd(child)
    }
}

impl Drop for Oidentd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fetches a page through the proxy with this SOCKS4 user and returns the stdout and stderr
/// of curl. The process runs as the Unix account `nobody`.
fn curl(proxy: &Proxy, origin: &Origin, user: &str) -> String {
    let output = Program::new("setpriv")
        .args([
            "--reuid=nobody",
            "--clear-groups",
            "curl",
            "-sS",
            "--max-time",
            "20",
        ])
        .args(["--socks4a", &proxy.address().to_string()])
        .args(["--proxy-user", &format!("{user}:")])
        .arg(format!("http://{}/", origin.address()))
        .output()
        .expect("curl starts");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn a_real_identd_confirms_curl_only_under_its_own_account() {
    if !is_installed("oidentd", "oidentd") || !is_installed("curl", "curl") {
        return;
    }
    in_own_network(|_| {
        let proxy = Proxy::start(REQUIRE_IDENT, &["-v"]);
        let origin = Origin::start(|mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            write(
                &stream,
                b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n",
            );
        });
        let output = curl(&proxy, &origin, "nobody");
        assert!(output.contains("(92)"), "{output}");
        let _identd = Oidentd::start();
        assert_eq!(curl(&proxy, &origin, "nobody"), "hello\n");
        let output = curl(&proxy, &origin, "root");
        assert!(output.contains("(93)"), "{output}");
        proxy.stderr_line("the user is not confirmed: identd reports 'nobody'");
        proxy.finish();
    });
}

#[test]
fn i01_a_lack_of_local_ports_is_refused_with_91_and_not_92() {
    in_own_network(|network| {
        let (proxy, origin) = start_requiring_ident(&[]);
        // The listeners take all ephemeral ports, so the server cannot connect to identd.
        network.limit_to_four_ports();
        let taken: Vec<TcpListener> = (40_000..40_004)
            .map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a free port"))
            .collect();
        let client = dial_from(([127, 0, 0, 1], 50_000).into(), proxy.address());
        let code = request_connect(&client, &origin.destination(), "alice");
        assert_eq!(code, 91);
        proxy.stderr_line("this machine has no resources to query identd left");
        drop(taken);
        proxy.finish();
    });
}

/// The server closes its connection to identd with a reset. A connection in TIME_WAIT would
/// occupy an ephemeral port for a minute, and 200 queries have 50 ports here.
#[test]
fn two_hundred_ident_queries_to_one_host_need_only_fifty_ports() {
    in_own_network(|network| {
        let identd = Identd::start(|mut stream, query| {
            write(
                &stream,
                format!("{query} : USERID : UNIX : alice\r\n").as_bytes(),
            );
            // Waits until the server closes first: the side that closes first would keep
            // the port in TIME_WAIT.
            let _ = stream.read(&mut [0]);
        });
        let (proxy, _) = start_requiring_ident(&[]);
        network.set("tcp_tw_reuse", "0");
        network.set("ip_local_port_range", "40000 40049");
        for port in 10_000..10_200 {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let client = dial_from(from, proxy.address());
            // 91 and not 92: identd has confirmed the user, and the destination port is
            // closed.
            let closed = by_address(CLOSED.into());
            assert_eq!(request_connect(&client, &closed, "alice"), 91);
        }
        assert!(
            !proxy
                .stderr_lines()
                .iter()
                .any(|line| line.contains("no resources") || line.contains("identd:"))
        );
        proxy.finish();
        assert_eq!(identd.queries().len(), 200);
    });
}

#[test]
fn the_connect_timeout_includes_the_ident_query() {
    in_own_network(|_| {
        let _identd = Identd::start(|mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        });
        let (proxy, origin) =
            start_requiring_ident(&["--connect-timeout", "300ms", "--ident-timeout", "10m"]);
        assert_eq!(connect_as(&proxy, &origin.destination(), "alice"), 92);
        proxy.finish();
    });
}
