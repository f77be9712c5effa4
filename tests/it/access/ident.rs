//! IDENT: who the client is, by the word of its own host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command as Program, Stdio};
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
use crate::support::wait::TIMEOUT;
use crate::support::wait::until;

/// Everybody, if identd confirms who they say they are.
const IDENT: &str = "permit - - ident\n";

/// Asks for this as this user; the code of the last reply.
fn asks(client: &TcpStream, command: Command, target: &Destination, user: &str) -> u8 {
    write(client, &request(command, target, user.as_bytes()));
    read_exactly(client, 8)[1]
}

/// A CONNECT as this user; the code of the reply.
fn connects(proxy: &Proxy, target: &Destination, user: &str) -> u8 {
    asks(&dial(proxy.address()), Command::Connect, target, user)
}

/// A server whose rules all want identd's word, and an origin to connect to.
fn scene(options: &[&str]) -> (Proxy, Origin) {
    (Proxy::start(IDENT, options), Origin::echo())
}

#[test]
fn a_confirmed_user_is_served() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let proxy = Proxy::start(IDENT, &["-v"]);
        let origin = Origin::echo();
        let client = dial(proxy.address());
        assert_eq!(
            asks(&client, Command::Connect, &origin.destination(), "alice"),
            90
        );
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
fn i01_nobody_listens() {
    in_own_network(|_| {
        let (proxy, origin) = scene(&[]);
        let client = dial(proxy.address());
        assert_eq!(
            asks(&client, Command::Connect, &origin.destination(), "alice"),
            92
        );
        assert_eq!(read_all(&client), b"", "it is closed");
        let block = proxy.screen_message_for(client.local_addr().unwrap());
        assert_eq!(block.reply, "Reject");
        proxy.stderr_line("no word from the client's identd: Connection refused");
        proxy.finish();
    });
}

#[test]
fn i02_i03_silent_or_slow_there_is_one_limit() {
    in_own_network(|_| {
        let _identd = Identd::start(|stream, query| {
            // Either nothing, or a byte now and then until the server hangs up.
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
        let (proxy, origin) = scene(&["--ident-timeout", "500ms"]);
        for first_digit in ['9', '2'] {
            let began = Instant::now();
            let from = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let port = if first_digit == '9' { 9000 } else { 2000 };
            let client = dial_from(from(port), proxy.address());
            assert_eq!(
                asks(&client, Command::Connect, &origin.destination(), "alice"),
                92
            );
            assert!(began.elapsed() >= Duration::from_millis(500));
            // The drip alone would take four seconds.
            assert!(began.elapsed() < Duration::from_secs(3));
        }
        proxy.stderr_line("timed out");
        proxy.finish();
    });
}

#[test]
fn i04_a_line_without_an_end() {
    in_own_network(|_| {
        let identd = Identd::start(|mut stream, query| {
            let _ = write!(stream, "{query} : USERID : UNIX : ");
            let much = vec![b'a'; 1 << 20];
            // 100 MB, if the server would take them.
            for _ in 0..100 {
                if stream.write_all(&much).is_err() {
                    return;
                }
            }
            panic!("it took all of it");
        });
        let (proxy, origin) = scene(&["--ident-timeout", "10s"]);
        let began = Instant::now();
        let before = proxy.status("VmRSS");
        for _ in 0..5 {
            assert_eq!(connects(&proxy, &origin.destination(), "alice"), 92);
        }
        assert!(began.elapsed() < Duration::from_secs(8), "it does not wait");
        assert!(proxy.status("VmRSS") < before + 2000);
        proxy.stderr_line("does not end within 1000 bytes");
        proxy.finish();
        assert_eq!(identd.queries().len(), 5);
    });
}

#[test]
fn i05_i06_i07_i08_i09_i10_what_identd_may_say() {
    in_own_network(|_| {
        let longest = "u".repeat(512);
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
            // No answer to the question.
            ("1 : USERID : UNIX : alice\r\n", "alice", 92),
            (" : USERID : UNIX : alice", "alice", 92),
            (" : USERID : alice\r\n", "alice", 92),
            (" : USERID : UNIX : \r\n", "alice", 92),
            ("\r\n", "alice", 92),
            ("", "alice", 92),
        ];
        let answers: Vec<String> = table.iter().map(|(says, ..)| (*says).to_owned()).collect();
        let place = std::sync::atomic::AtomicUsize::new(0);
        let long = longest.clone();
        let _identd = Identd::start(move |mut stream, query| {
            let place = place.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = match answers.get(place) {
                Some(says) => write!(stream, "{query}{says}"),
                None => write!(stream, "{query}:USERID:UNIX:{long}\r\n"),
            };
        });
        let (proxy, origin) = scene(&[]);
        for (says, user, code) in table {
            assert_eq!(
                connects(&proxy, &origin.destination(), user),
                *code,
                "{says:?}"
            );
        }
        assert_eq!(connects(&proxy, &origin.destination(), &longest), 90);
        proxy.finish();
    });
}

#[test]
fn i09_a_reset_is_no_answer() {
    in_own_network(|_| {
        let _identd = Identd::start(|stream, query| {
            write(&stream, query.as_bytes());
            reset(stream);
        });
        let (proxy, origin) = scene(&[]);
        assert_eq!(connects(&proxy, &origin.destination(), "alice"), 92);
        proxy.finish();
    });
}

#[test]
fn i11_identd_is_asked_from_the_address_the_client_used() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let origin = Origin::echo();
        // The client knows the server by its seventh address.
        let seventh = |port| SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), port));
        for (listen, count) in [("0.0.0.0", 1), ("::", 2)] {
            let proxy = Proxy::start(IDENT, &["--bind", listen]);
            let client = dial(seventh(proxy.port()));
            assert_eq!(
                asks(&client, Command::Connect, &origin.destination(), "alice"),
                90
            );
            let asked = identd.queries();
            assert_eq!(asked.len(), count);
            assert_eq!(asked[count - 1].from.ip(), seventh(0).ip());
            drop(client);
            proxy.finish();
        }
    });
}

#[test]
fn i12_a_request_without_a_user_cannot_be_confirmed() {
    in_own_network(|_| {
        let identd = Identd::replying(" : USERID : UNIX : root");
        let (proxy, origin) = scene(&[]);
        assert_eq!(connects(&proxy, &origin.destination(), ""), 93);
        assert_eq!(identd.queries(), [], "there is nothing to ask");
        proxy.stderr_line("the user is not confirmed: the request names none");
        proxy.finish();
    });
}

#[test]
fn i13_what_identd_says_is_escaped() {
    in_own_network(|_| {
        let _identd = Identd::replying(" : USERID : UNIX : \u{1b}[2J\u{9b}x\u{8}\"");
        let (proxy, origin) = scene(&["-v"]);
        assert_eq!(
            connects(&proxy, &origin.destination(), "\u{1b}]0;x\u{7}"),
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
fn i14_nobody_is_asked_unless_a_rule_wants_it_and_then_once() {
    in_own_network(|network| {
        network.ip("addr add 10.9.0.1/24 dev lo");
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let names = |_: &_| addresses(&["127.0.0.1", "127.0.0.2", "10.9.0.1"]);
        let _server = NameServer::start(names);
        let origin = Origin::echo();
        let rules = "permit c 127.0.0.9 - - -\n\
                     deny c - - - - user=mallory\n\
                     permit c - ident\n";
        let proxy = Proxy::start(rules, &["--bind", "0.0.0.0"]);
        let loopback = |host| SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        let proxy_address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        for (from, user, code, asked) in [
            (9, "alice", 90, 0),
            (5, "mallory", 91, 0),
            // Three addresses, one question.
            (5, "alice", 90, 1),
        ] {
            let client = dial_from(loopback(from), proxy_address);
            let target = by_name("three.test", origin.port());
            assert_eq!(asks(&client, Command::Connect, &target, user), code);
            assert_eq!(identd.queries().len(), asked);
        }
        // The client's own address, from the one that it used.
        assert_eq!(identd.queries()[0].at, loopback(5).ip());
        assert_eq!(identd.queries()[0].from.ip(), Ipv4Addr::LOCALHOST);
        proxy.finish();
    });
}

#[test]
fn i14_a_query_that_comes_back_to_the_server_makes_no_circle() {
    in_own_network(|_| {
        // What listens where identd would hands the query on to the server.
        let proxy = Proxy::start(IDENT, &["-v", "--ident-timeout", "5s"]);
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
        assert_eq!(connects(&proxy, &origin.destination(), "alice"), 92);
        assert_eq!(forward.queries().len(), 1);
        proxy.stderr_line("bad version");
        proxy.finish();
    });
}

#[test]
fn a_failed_identd_ends_the_search_among_the_rules() {
    in_own_network(|_| {
        let rules = "permit c - user=bob\n\
                     permit c - user=alice ident\n\
                     permit c -\n";
        let proxy = Proxy::start(rules, &[]);
        let origin = Origin::echo();
        assert_eq!(connects(&proxy, &origin.destination(), "alice"), 92);
        assert_eq!(connects(&proxy, &origin.destination(), "bob"), 90);
        assert_eq!(connects(&proxy, &origin.destination(), ""), 90);
        let _identd = Identd::replying(" : USERID : UNIX : bob");
        assert_eq!(connects(&proxy, &origin.destination(), "alice"), 93);
        proxy.finish();
    });
}

#[test]
fn a_name_is_looked_up_only_for_a_confirmed_user() {
    in_own_network(|_| {
        let server = NameServer::start(|_| addresses(&["127.0.0.1"]));
        let (proxy, origin) = scene(&[]);
        let target = by_name("a.test", origin.port());
        assert_eq!(connects(&proxy, &target, "alice"), 92);
        assert_eq!(server.queries(), []);
        let identd = Identd::replying(" : USERID : UNIX : alice");
        assert_eq!(connects(&proxy, &target, "bob"), 93);
        assert_eq!(server.queries(), []);
        assert_eq!(connects(&proxy, &target, "alice"), 90);
        assert_ne!(server.queries(), []);
        assert_eq!(identd.queries().len(), 2, "once for each request");
        proxy.finish();
    });
}

#[test]
fn an_address_that_needs_no_identd_is_used_without() {
    in_own_network(|_| {
        let _server = NameServer::start(|_| addresses(&["127.0.0.2", "127.0.0.1"]));
        let proxy = Proxy::start("permit c 127.0.0.2 ident\npermit c 127.0.0.1\n", &[]);
        let origin = Origin::echo();
        let client = dial(proxy.address());
        let target = by_name("two.test", origin.port());
        assert_eq!(asks(&client, Command::Connect, &target, "alice"), 90);
        let block = proxy.screen_message_for(client.local_addr().unwrap());
        assert_eq!(block.destination, "127.0.0.1");
        drop(client);
        proxy.finish();
    });
}

#[test]
fn bind_asks_too() {
    in_own_network(|_| {
        let proxy = Proxy::start("permit b 127.0.0.1\npermit b - ident\n", &[]);
        let anybody = by_address(([0, 0, 0, 0], 0).into());
        let someone = by_address(([127, 0, 0, 2], 0).into());
        let bind = |target: &Destination, user: &str| {
            client::socks4::bind(dial(proxy.address()), target, user.as_bytes())
        };
        // Some peer needs no identd: the first reply does not wait for it.
        let binding = bind(&anybody, "alice").expect("listening");
        let port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let peer = dial(port(binding.address.port()));
        let (mut client, _) = binding.wait().expect("granted");
        (&peer).write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop((peer, client));
        // This one does, and nobody confirms.
        let binding = bind(&anybody, "alice").expect("listening");
        let peer = dial_from(([127, 0, 0, 2], 0).into(), port(binding.address.port()));
        assert_eq!(code(binding.wait()), 92);
        assert_eq!(read_all(&peer), b"");
        assert_eq!(code(bind(&someone, "alice")), 92);
        let identd = Identd::replying(" : USERID : UNIX : alice");
        assert_eq!(code(bind(&someone, "bob")), 93);
        let binding = bind(&someone, "alice").expect("listening");
        let peer = dial_from(([127, 0, 0, 2], 0).into(), port(binding.address.port()));
        let granted = binding.wait().expect("granted");
        drop((peer, granted));
        assert_eq!(identd.queries().len(), 2, "once for each request");
        proxy.finish();
    });
}

#[test]
fn bind_for_anybody_asks_first_if_all_peers_need_it() {
    in_own_network(|_| {
        let proxy = Proxy::start("permit b 127. ident\n", &[]);
        let anybody = by_address(([0, 0, 0, 0], 0).into());
        let bind =
            |user: &str| client::socks4::bind(dial(proxy.address()), &anybody, user.as_bytes());
        assert_eq!(code(bind("alice")), 92);
        let identd = Identd::replying(" : USERID : UNIX : alice");
        let binding = bind("alice").expect("listening");
        let peer = dial((Ipv4Addr::LOCALHOST, binding.address.port()).into());
        let granted = binding.wait().expect("granted");
        drop((peer, granted));
        assert_eq!(identd.queries().len(), 1, "not again when the peer comes");
        proxy.finish();
    });
}

/// The code of a refusal.
fn code<T>(result: Result<T, ClientError>) -> u8 {
    match result {
        Err(ClientError::Refused(refusal)) => socks4::code(refusal),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("granted"),
    }
}

#[test]
fn a_client_that_breaks_off_is_not_waited_for() {
    in_own_network(|_| {
        let identd = Identd::start(|mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        });
        let (proxy, origin) = scene(&["-v", "--ident-timeout", "10m"]);
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &origin.destination(), b"alice"),
        );
        until("the query", || (!identd.queries().is_empty()).then_some(()));
        reset_on_close(&client);
        drop(client);
        proxy.stderr_line("ending=\"refused: the client left before the answer\"");
        proxy.finish();
    });
}

#[test]
fn a_stop_does_not_wait_for_identd() {
    in_own_network(|_| {
        let identd = Identd::start(|mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        });
        let proxy = Proxy::start(IDENT, &["--ident-timeout", "10m", "--grace", "100ms"]);
        let client = dial(proxy.address());
        write(
            &client,
            &request(Command::Connect, &Origin::echo().destination(), b"alice"),
        );
        until("the query", || (!identd.queries().is_empty()).then_some(()));
        let began = Instant::now();
        let mut proxy = proxy;
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
        assert!(began.elapsed() < TIMEOUT / 2);
        assert_eq!(proxy.screen_messages(1)[0].reply, "Reject");
    });
}

/// A real identd.
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
        until("oidentd", || {
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

/// What curl says of a page fetched through the proxy as this user; curl itself
/// runs as `nobody`.
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
fn a_real_identd_through_curl() {
    if !is_installed("oidentd", "oidentd") || !is_installed("curl", "curl") {
        return;
    }
    in_own_network(|_| {
        let proxy = Proxy::start(IDENT, &["-v"]);
        let origin = Origin::start(|mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            write(
                &stream,
                b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n",
            );
        });
        let told = curl(&proxy, &origin, "nobody");
        assert!(told.contains("(92)"), "{told}");
        let _identd = Oidentd::start();
        assert_eq!(curl(&proxy, &origin, "nobody"), "hello\n");
        let told = curl(&proxy, &origin, "root");
        assert!(told.contains("(93)"), "{told}");
        proxy.stderr_line("the user is not confirmed: identd says 'nobody'");
        proxy.finish();
    });
}

#[test]
fn i01_what_the_server_lacks_is_not_blamed_on_identd() {
    in_own_network(|network| {
        let (proxy, origin) = scene(&[]);
        // No port left for a connection of the server's own.
        network.limit_to_four_ports();
        let taken: Vec<TcpListener> = (40_000..40_004)
            .map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a free port"))
            .collect();
        let client = dial_from(([127, 0, 0, 1], 50_000).into(), proxy.address());
        let code = asks(&client, Command::Connect, &origin.destination(), "alice");
        assert_eq!(code, 91);
        proxy.stderr_line("this machine has no room to ask identd left");
        drop(taken);
        proxy.finish();
    });
}

/// However many it is asked for: the connections to identd take up no port when
/// they are over.
#[test]
fn two_hundred_users_of_one_host() {
    in_own_network(|network| {
        let identd = Identd::start(|mut stream, query| {
            write(
                &stream,
                format!("{query} : USERID : UNIX : alice\r\n").as_bytes(),
            );
            // It waits for the other end, which keeps the port there.
            let _ = stream.read(&mut [0]);
        });
        let (proxy, _) = scene(&[]);
        network.set("tcp_tw_reuse", "0");
        network.set("ip_local_port_range", "40000 40049");
        for port in 10_000..10_200 {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let client = dial_from(from, proxy.address());
            // Confirmed; that nobody listens there is another matter.
            let closed = by_address(CLOSED.into());
            assert_eq!(asks(&client, Command::Connect, &closed, "alice"), 91);
        }
        assert!(
            !proxy
                .stderr_lines()
                .iter()
                .any(|it| it.contains("no room") || it.contains("identd:"))
        );
        proxy.finish();
        assert_eq!(identd.queries().len(), 200);
    });
}

#[test]
fn the_limit_of_a_connect_holds_for_identd_too() {
    in_own_network(|_| {
        let _identd = Identd::start(|mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        });
        let (proxy, origin) = scene(&["--connect-timeout", "300ms", "--ident-timeout", "10m"]);
        assert_eq!(connects(&proxy, &origin.destination(), "alice"), 92);
        proxy.finish();
    });
}
