//! Two servers after HAProxy, with the shipped configuration: `docs/scale-out.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;
use threadsocks::client;

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::endpoints::{Origin, dial_from, read_all, read_exactly, shutdown_write, write};
use crate::support::ftp_server::{self, FtpServer};
use crate::support::netns::in_own_network;
use crate::support::project::project_file;
use crate::support::proxy::Proxy;
use crate::support::tools::is_installed;
use crate::support::wait::until;

/// Where HAProxy listens for clients.
const ENTRY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1080);

/// The client that the rules deny.
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 99);

/// HAProxy itself may do nothing.
const RULES: &str = "deny - 127.1.0.99 - - -\npermit - 127.1.0.0/16 - - -\n";

/// Two nodes, and HAProxy with `examples/haproxy.cfg`, in which only the addresses, the path
/// of the socket and the limit of HAProxy are changed.
struct Balanced {
    nodes: Vec<Proxy>,
    haproxy: RunningChild,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Balanced {
    fn start(rules: &str, options: &[&str]) -> Balanced {
        let mut all = vec!["--proxy-from", "127.0.0.1", "--log", "json"];
        all.extend(options);
        let nodes: Vec<Proxy> = (0..2).map(|_| Proxy::start(rules, &all)).collect();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("haproxy.sock");
        let text = project_file("examples/haproxy.cfg");
        let mut text = text.replace("/run/haproxy/threadsocks.sock", socket.to_str().unwrap());
        // The machine of the test may permit fewer descriptors.
        text = text.replace("maxconn 16000", "maxconn 1000");
        for (node, address) in nodes.iter().zip(["10.0.0.11:1080", "10.0.0.12:1080"]) {
            assert!(text.contains(address));
            text = text.replace(address, &node.address().to_string());
        }
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let mut haproxy = Command::new("haproxy");
        let haproxy = RunningChild::start(haproxy.arg("-db").arg("-f").arg(&file), b"");
        let balanced = Balanced {
            nodes,
            haproxy,
            socket,
            _folder: folder,
        };
        for node in ["node1", "node2"] {
            balanced.wait_for_state(node, "UP");
        }
        balanced
    }

    /// Sends a command to HAProxy, and returns the reply.
    fn command(&self, command: &str) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(&self.socket)?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut reply = String::new();
        socket.read_to_string(&mut reply)?;
        Ok(reply)
    }

    /// Waits until HAProxy says that the state of the node begins with this word, and that it has
    /// checked the node.
    fn wait_for_state(&self, node: &str, state: &str) {
        until(state, || {
            let table = self.command("show stat").ok()?;
            let mut lines = table
                .lines()
                .map(|line| line.split(',').collect::<Vec<_>>());
            let names = lines.next()?;
            let column = |name| {
                names
                    .iter()
                    .position(|it| it.trim_start_matches("# ") == name)
            };
            let row = lines.find(|row| row.get(1) == Some(&node))?;
            let is_checked = row.get(column("check_status")?)?.starts_with("L7OK");
            let is_there = row.get(column("status")?)?.starts_with(state);
            (is_there && (is_checked || state != "UP")).then_some(())
        });
    }

    /// The objects of this event that a node has printed.
    fn objects(&self, node: usize, event: &str) -> Vec<Value> {
        let lines = self.nodes[node].stdout_lines();
        let objects = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        objects.filter(|object| object["event"] == event).collect()
    }

    /// The node that has granted the request of this client.
    fn node_of(&self, client: SocketAddr) -> usize {
        until("the request in a log", || {
            (0..self.nodes.len()).find(|&node| {
                self.objects(node, "answered").iter().any(|object| {
                    object["client"] == client.ip().to_string()
                        && object["client_port"] == client.port()
                        && object["via"] == "127.0.0.1"
                        && object["granted"] == true
                })
            })
        })
    }

    /// Ends everything. The nodes have written nothing on stderr about the checks.
    fn finish(mut self, stopped: Option<usize>) {
        self.haproxy.stop();
        for (number, mut node) in self.nodes.into_iter().enumerate() {
            let lines = node.stderr_lines();
            let after_start = lines.iter().skip_while(|it| !it.contains("listening on"));
            let others: Vec<&String> = after_start
                .skip(1)
                .filter(|line| !line.contains("stopping: ") && !line.contains("refused: "))
                .collect();
            assert_eq!(others, [""; 0]);
            if Some(number) != stopped {
                node.signal(Signal::SIGTERM);
                assert!(node.wait().success());
            }
        }
    }
}

/// The address of a client of HAProxy.
fn source(number: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 1, 0, number), 0).into()
}

/// A session of the client with this address.
fn connect(from: SocketAddr, origin: &Origin) -> Result<TcpStream, client::ClientError> {
    let granted = client::socks5::connect(dial_from(from, ENTRY), None, &origin.destination());
    granted.map(|(stream, _)| stream)
}

fn is_alive(session: &TcpStream) -> bool {
    write(session, b"alive");
    read_exactly(session, 5) == b"alive"
}

#[test]
fn x37_each_client_stays_at_its_node_which_knows_its_address() {
    if !is_installed("haproxy", "haproxy") {
        return;
    }
    in_own_network(|_| {
        let balanced = Balanced::start(RULES, &[]);
        let origin = Origin::echo();
        let mut nodes = BTreeSet::new();
        for number in 1..=20 {
            let of_client: BTreeSet<usize> = (0..3)
                .map(|_| {
                    let session = connect(source(number), &origin).expect("granted");
                    assert!(is_alive(&session));
                    balanced.node_of(session.local_addr().unwrap())
                })
                .collect();
            assert_eq!(of_client.len(), 1, "client {number} has one node");
            nodes.extend(of_client);
        }
        assert_eq!(nodes.len(), 2, "both nodes have clients");
        connect((DENIED, 0).into(), &origin).expect_err("denied by its own address");
        // Half-close: the answer comes after the end of the request.
        let session = connect(source(1), &origin).expect("granted");
        write(&session, b"request");
        shutdown_write(&session);
        assert_eq!(read_all(&session), b"request");
        balanced.finish(None);
    });
}

#[test]
fn x38_a_drained_node_keeps_its_sessions_and_gets_no_new_ones() {
    if !is_installed("haproxy", "haproxy") {
        return;
    }
    in_own_network(|_| {
        let balanced = Balanced::start(RULES, &[]);
        let origin = Origin::echo();
        let live: Vec<TcpStream> = (1..=12)
            .map(|number| connect(source(number), &origin).expect("granted"))
            .collect();
        let node_of = |session: &TcpStream| balanced.node_of(session.local_addr().unwrap());
        let at_first: Vec<_> = live.iter().filter(|it| node_of(it) == 0).collect();
        assert!(!at_first.is_empty());
        balanced
            .command("set server nodes/node1 state drain")
            .unwrap();
        balanced.wait_for_state("node1", "DRAIN");
        for number in 1..=12 {
            let session = connect(source(number), &origin).expect("granted");
            assert_eq!(node_of(&session), 1);
        }
        assert!(live.iter().all(is_alive));
        balanced
            .command("set server nodes/node1 state ready")
            .unwrap();
        balanced.wait_for_state("node1", "UP");
        drop(live);
        balanced.finish(None);
    });
}

/// Clients make requests without a pause, while one node stops. Returns how many failed, and how
/// many of the others came after the stop.
fn requests_during(stop: impl FnOnce()) -> (usize, usize) {
    let origin = Origin::echo();
    let [failed, before, after]: [AtomicUsize; 3] = Default::default();
    let (has_stopped, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 1..=16 {
            let (origin, failed, before, after) = (&origin, &failed, &before, &after);
            let (has_stopped, is_over) = (&has_stopped, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let is_after = has_stopped.load(Ordering::SeqCst);
                    match connect(source(number), origin) {
                        Ok(session) if is_alive(&session) => {
                            let count = if is_after { after } else { before };
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => {
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
        let enough = |count: &AtomicUsize| (count.load(Ordering::SeqCst) >= 64).then_some(());
        until("requests before the stop", || enough(&before));
        stop();
        has_stopped.store(true, Ordering::SeqCst);
        until("requests after the stop", || enough(&after));
        is_over.store(true, Ordering::SeqCst);
    });
    (failed.into_inner(), after.into_inner())
}

#[test]
fn x39_no_request_fails_while_a_node_stops() {
    if !is_installed("haproxy", "haproxy") {
        return;
    }
    in_own_network(|_| {
        let mut balanced = Balanced::start(RULES, &["--grace", "20s"]);
        let origin = Origin::echo();
        let live: Vec<TcpStream> = (1..=12)
            .map(|number| connect(source(number), &origin).expect("granted"))
            .collect();
        let (failed, after) = requests_during(|| {
            balanced.nodes[0].signal(Signal::SIGTERM);
            balanced.nodes[0].stderr_line("stopping: ");
        });
        assert_eq!((failed, after >= 64), (0, true));
        balanced.wait_for_state("node1", "DOWN");
        // Its live sessions have the grace period.
        assert!(live.iter().all(is_alive));
        drop(live);
        assert_eq!(balanced.nodes[0].wait().code(), Some(0));
        balanced.finish(Some(0));
    });
}

#[test]
fn x40_a_killed_node_takes_only_its_own_sessions_with_it() {
    if !is_installed("haproxy", "haproxy") {
        return;
    }
    in_own_network(|_| {
        let mut balanced = Balanced::start(RULES, &[]);
        let origin = Origin::echo();
        let live: Vec<TcpStream> = (1..=12)
            .map(|number| connect(source(number), &origin).expect("granted"))
            .collect();
        let mut of_nodes: BTreeMap<usize, Vec<TcpStream>> = BTreeMap::new();
        for session in live {
            let node = balanced.node_of(session.local_addr().unwrap());
            of_nodes.entry(node).or_default().push(session);
        }
        balanced.nodes[0].signal(Signal::SIGKILL);
        balanced.nodes[0].wait();
        for mut session in of_nodes.remove(&0).unwrap() {
            // HAProxy closes it; whether by FIN or RST is its choice.
            let _ = session.read_to_end(&mut Vec::new());
        }
        assert!(of_nodes[&1].iter().all(is_alive));
        for number in 1..=12 {
            let session = connect(source(number), &origin).expect("granted");
            assert!(is_alive(&session));
            assert_eq!(balanced.node_of(session.local_addr().unwrap()), 1);
        }
        drop(of_nodes);
        balanced.finish(Some(0));
    });
}

#[test]
fn x37_ftp_in_active_mode_goes_through_one_node() {
    if !is_installed("haproxy", "haproxy")
        || !is_installed("socksify", "dante-client")
        || !is_installed("tnftp", "tnftp")
        || !is_installed(ftp_server::VSFTPD, "vsftpd")
    {
        return;
    }
    in_own_network(|_| {
        let balanced = Balanced::start("permit - 127.0.0.0/8 - - -\n", &[]);
        let folder = tempfile::tempdir().unwrap();
        let (home, root) = (folder.path().join("home"), folder.path().join("root"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&root).unwrap();
        let original = ftp_server::write_random_file(&home.join("original"), 1);
        let server = FtpServer::start(&root, &folder.path().join("vsftpd.conf"));
        let script =
            "user anonymous guest\nbinary\nput original stored\nget stored fetched\nquit\n";
        let entry = ("SOCKS5_SERVER", ENTRY);
        let output = ftp_server::run_session(entry, &server, &home, script, LONG_TIMEOUT);
        let text = output.text();
        assert_eq!(text.matches("226 ").count(), 2, "{text}");
        assert!(ftp_server::sha256(&home.join("fetched")) == original);
        let commands = |node| {
            let answered = balanced.objects(node, "answered");
            let command = |object: &Value| object["command"].as_str().unwrap().to_owned();
            answered.iter().map(command).collect::<Vec<_>>()
        };
        let of_nodes = [commands(0), commands(1)];
        let used: Vec<_> = of_nodes.iter().filter(|it| !it.is_empty()).collect();
        assert_eq!(used, [&["connect", "bind", "bind"]], "{of_nodes:?}");
        balanced.finish(None);
    });
}
