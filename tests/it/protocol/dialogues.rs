//! Runs the dialogues in `tests/dialogues` against threadsocks or another server.
//!
//! Each file there is one dialogue. A line names an end of the connection and
//! what that end sends or receives:
//!
//! ```text
//! # a comment
//! rules   permit c -            the rules of the server [permit everything]
//! options --bind-timeout 500ms  the options of the server
//! user    alice secret          adds a user with this password to the users file
//! ours                          skip the dialogue for other servers: they may differ
//! client> 04 01 {remote} "me" 00    the client sends these bytes
//! server> 00 5a .. ..               the client receives exactly these; .. is any byte
//! server> end                       the client reads EOF
//! client announces 192.0.2.1:5      in a header of the PROXY protocol, for the screen
//! client> end | reset               the client sends FIN, or RST
//! remote accepts                    the remote end accepts the connection of the proxy
//! remote connects [127.0.0.2]       the remote end connects to the port of the last reply
//! remote> "x" | end | reset         the remote end sends bytes, FIN or RST
//! remote< "x" | end                 the remote end receives bytes or EOF
//! client>> 00 00 .. | remote>> "x"  a datagram to the port of the last reply, or back
//! client<< .. | remote<< "x"        exactly this datagram arrives
//! screen  {remote.ip}:{remote.port} CONNECT Accept    the message on stdout about this client
//! screen  nothing                   no message on stdout
//! ```
//!
//! `{remote}` is the port and the address of the remote end in the order of a
//! SOCKS4 request, `{port}` the port alone. To test another server:
//! `THREADSOCKS_PEER=127.0.0.1:1080 cargo test --test it dialogues -- --nocapture`;
//! that server must permit loopback.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use threadsocks::auth::users_file_line;

use crate::support::endpoints::{
    accept, dial, dial_from, read_all, read_exactly, reset, shutdown_write, write,
};
use crate::support::proxy::{PERMIT_ALL, Proxy};
use crate::support::wait::{TIMEOUT, until};

#[test]
fn every_dialogue_runs_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 15, "{files:?}");
    let other_server = std::env::var("THREADSOCKS_PEER").ok();
    let other_server =
        other_server.map(|address| address.parse::<SocketAddr>().expect("ADDRESS:PORT"));
    let mut differing = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let script = Script::parse(&name, &text);
        match other_server {
            Some(_) if script.threadsocks_only => {
                print_result(&format!("{name}: skipped, for threadsocks only"))
            }
            // One difference must not end the run: the test reports all of them.
            Some(address) => {
                let outcome = std::panic::catch_unwind(|| {
                    DialogueRunner::new(&name, address, None).run(&script);
                });
                let result = if outcome.is_ok() {
                    "as written"
                } else {
                    "DIFFERS"
                };
                print_result(&format!("{name}: {result}"));
                differing.extend(outcome.is_err().then_some(name));
            }
            None => {
                let rules = script.rules.as_deref().unwrap_or(PERMIT_ALL);
                let folder = tempfile::tempdir().expect("a temporary folder");
                let users = script.write_users_file(folder.path());
                let options = script.options.split_whitespace();
                let options: Vec<&str> = options.chain(users.iter().map(String::as_str)).collect();
                let proxy = Proxy::start(rules, &options);
                DialogueRunner::new(&name, proxy.address(), Some(&proxy)).run(&script);
                proxy.finish();
            }
        }
    }
    assert_eq!(
        differing, [""; 0],
        "dialogues in which the other server differs"
    );
}

/// Writes a line to the real stderr, which the test runner does not capture.
fn print_result(result: &str) {
    let _ = writeln!(std::io::stderr(), "{result}");
}

/// A parsed dialogue: the configuration of the server, and the steps.
struct Script {
    rules: Option<String>,
    options: String,
    /// Lines of the users file; empty: the server gets no users file.
    users: String,
    /// The dialogue is not run against another server.
    threadsocks_only: bool,
    /// Line number (from 1, for failure messages) and text of each step.
    steps: Vec<(usize, String)>,
}

impl Script {
    fn parse(name: &str, text: &str) -> Script {
        let mut script = Script {
            rules: None,
            options: String::new(),
            users: String::new(),
            threadsocks_only: false,
            steps: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let code = line.split('#').next().unwrap().trim();
            let (word, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
            match word {
                "" => {}
                "rules" => {
                    let rules = script.rules.get_or_insert_default();
                    rules.push_str(rest.trim());
                    rules.push('\n');
                    // The test cannot configure another server.
                    script.threadsocks_only = true;
                }
                "options" => {
                    script.options = rest.trim().to_owned();
                    script.threadsocks_only = true;
                }
                "user" => {
                    let (user, password) = rest.trim().split_once(' ').expect(name);
                    let line = users_file_line(user, password.as_bytes()).expect("a valid user");
                    script.users.push_str(&line);
                    script.threadsocks_only = true;
                }
                "ours" => script.threadsocks_only = true,
                _ => script.steps.push((index + 1, code.to_owned())),
            }
        }
        assert!(!script.steps.is_empty(), "{name} has no steps");
        script
    }

    /// Writes the users file into `folder` and returns the option that names it.
    fn write_users_file(&self, folder: &Path) -> Vec<String> {
        if self.users.is_empty() {
            return Vec::new();
        }
        let file = folder.join("users");
        std::fs::write(&file, &self.users).expect("the users file is written");
        vec!["--users".to_owned(), file.display().to_string()]
    }
}

/// Indices of [`DialogueRunner::udp_sockets`].
const CLIENT: usize = 0;
const REMOTE: usize = 1;

/// Runs the steps of one dialogue against one server.
struct DialogueRunner<'a> {
    name: &'a str,
    /// `None`: another server, whose stdout the test cannot read.
    proxy: Option<&'a Proxy>,
    client: Option<TcpStream>,
    client_address: SocketAddr,
    server: SocketAddr,
    listener: TcpListener,
    remote: Option<TcpStream>,
    /// Port in the last reply: BIND listens there, UDP ASSOCIATE receives there.
    reply_port: u16,
    /// UDP sockets of the client (any port) and of the remote end (the port of
    /// `listener`).
    udp_sockets: [UdpSocket; 2],
    /// Source of the last datagram that the remote end received.
    last_sender: Option<SocketAddr>,
}

/// Binds TCP and UDP to one port, so that `{port}` is valid for both.
fn bind_tcp_and_udp() -> (TcpListener, UdpSocket) {
    until("a port that is free for TCP and UDP", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok()?;
        Some((listener, socket))
    })
}

impl<'a> DialogueRunner<'a> {
    fn new(name: &'a str, server: SocketAddr, proxy: Option<&'a Proxy>) -> DialogueRunner<'a> {
        let client = dial(server);
        let (listener, remote_socket) = bind_tcp_and_udp();
        let client_socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for socket in [&client_socket, &remote_socket] {
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        }
        DialogueRunner {
            name,
            proxy,
            client_address: client.local_addr().unwrap(),
            client: Some(client),
            server,
            listener,
            remote: None,
            reply_port: 0,
            udp_sockets: [client_socket, remote_socket],
            last_sender: None,
        }
    }

    fn run(&mut self, script: &Script) {
        for (line, step) in &script.steps {
            self.step(&format!("{}:{line}: {step}", self.name), step);
        }
    }

    fn step(&mut self, location: &str, step: &str) {
        let (actor, action) = step.split_once(char::is_whitespace).expect(location);
        let action = action.trim();
        match (actor, action) {
            ("client>", "end") => shutdown_write(self.client()),
            ("client>", "reset") => reset(self.client.take().expect(location)),
            ("client>", bytes) => write(self.client(), &self.parse_bytes(location, bytes)),
            ("server>", "end") => assert_eq!(read_all(self.client()), b"", "{location}"),
            ("server>", bytes) => {
                let reply = self.expect_bytes(location, self.client(), bytes);
                // The port precedes the address in SOCKS4 and follows it in SOCKS5.
                if let [0, _, p1, p0, ..] | [5, _, _, _, .., p1, p0] = *reply {
                    self.reply_port = u16::from_be_bytes([p1, p0]);
                }
            }
            ("client", announces) => {
                let client = announces.strip_prefix("announces").expect(location);
                self.client_address = client.trim().parse().expect(location);
            }
            ("remote", "accepts") => self.remote = Some(accept(&self.listener)),
            ("remote", connects) => {
                let from = connects.strip_prefix("connects").expect(location).trim();
                let from = from.parse().unwrap_or(Ipv4Addr::LOCALHOST);
                let to = SocketAddr::new(self.server.ip(), self.reply_port);
                self.remote = Some(dial_from((from, 0).into(), to));
            }
            ("remote>", "end") => shutdown_write(self.remote()),
            ("remote>", "reset") => reset(self.remote.take().expect(location)),
            ("remote>", bytes) => write(self.remote(), &self.parse_bytes(location, bytes)),
            ("remote<", "end") => assert_eq!(read_all(self.remote()), b"", "{location}"),
            ("remote<", bytes) => drop(self.expect_bytes(location, self.remote(), bytes)),
            ("client>>", bytes) => {
                let to = SocketAddr::new(self.server.ip(), self.reply_port);
                self.send(CLIENT, location, bytes, to);
            }
            ("remote>>", bytes) => {
                self.send(REMOTE, location, bytes, self.last_sender.expect(location))
            }
            ("client<<", bytes) => drop(self.receive(CLIENT, location, bytes)),
            ("remote<<", bytes) => self.last_sender = Some(self.receive(REMOTE, location, bytes)),
            ("screen", summary) => self.check_screen(location, summary),
            _ => panic!("{location}: unknown step"),
        }
    }

    fn send(&self, end: usize, location: &str, bytes: &str, to: SocketAddr) {
        let sent = self.udp_sockets[end].send_to(&self.parse_bytes(location, bytes), to);
        sent.expect(location);
    }

    /// Compares the next datagram and returns its source.
    fn receive(&self, end: usize, location: &str, expected: &str) -> SocketAddr {
        let mut buffer = [0; 1024];
        let (count, from) = self.udp_sockets[end]
            .recv_from(&mut buffer)
            .expect(location);
        self.assert_bytes(location, expected, &buffer[..count]);
        from
    }

    fn client(&self) -> &TcpStream {
        self.client.as_ref().expect("the client is connected")
    }

    fn remote(&self) -> &TcpStream {
        self.remote.as_ref().expect("the remote end is connected")
    }

    /// Compares the message that the server prints about this client.
    fn check_screen(&self, location: &str, summary: &str) {
        let Some(proxy) = self.proxy else { return };
        let address = self.listener.local_addr().unwrap();
        let expected = summary
            .replace("{remote.ip}", &address.ip().to_string())
            .replace("{remote.port}", &address.port().to_string());
        let shown = match summary {
            "nothing" => {
                proxy.assert_resources_released();
                assert_eq!(proxy.screen_messages(0), [], "{location}");
                return;
            }
            _ => proxy.screen_message_for(self.client_address).summary(),
        };
        assert_eq!(shown, expected, "{location}");
    }

    /// Reads as many bytes as the pattern has and compares them.
    fn expect_bytes(&self, location: &str, stream: &TcpStream, expected: &str) -> Vec<u8> {
        let count = self.parse_pattern(location, expected).len();
        let received = read_exactly(stream, count);
        self.assert_bytes(location, expected, &received);
        received
    }

    fn assert_bytes(&self, location: &str, expected: &str, received: &[u8]) {
        let expected = self.parse_pattern(location, expected);
        let mut pairs = expected.iter().zip(received);
        let matches =
            pairs.all(|(expected, received)| expected.is_none_or(|expected| expected == *received));
        let matches = matches && expected.len() == received.len();
        assert!(matches, "{location}: received {received:02x?}");
    }

    fn parse_bytes(&self, location: &str, text: &str) -> Vec<u8> {
        let pattern = self.parse_pattern(location, text);
        pattern
            .into_iter()
            .map(|byte| byte.expect(location))
            .collect()
    }

    /// Parses hexadecimal bytes, "text" and {names}; `..` (any byte) becomes `None`.
    fn parse_pattern(&self, location: &str, text: &str) -> Vec<Option<u8>> {
        let port = self.listener.local_addr().unwrap().port().to_be_bytes();
        let mut pattern = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (piece, after) = if let Some(quoted) = rest.strip_prefix('"') {
                let (piece, after) = quoted.split_once('"').expect(location);
                (piece.bytes().map(Some).collect(), after)
            } else {
                let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let piece = match word {
                    ".." => vec![None],
                    "{port}" => port.map(Some).to_vec(),
                    "{remote}" => [&port[..], &[127, 0, 0, 1]]
                        .concat()
                        .into_iter()
                        .map(Some)
                        .collect(),
                    hex => vec![Some(u8::from_str_radix(hex, 16).expect(location))],
                };
                (piece, after)
            };
            pattern.extend::<Vec<Option<u8>>>(piece);
            rest = after.trim_start();
        }
        pattern
    }
}
