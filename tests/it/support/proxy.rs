//! The server under test, as a child process.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::wait::{TIMEOUT, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use threadsocks::protocol::{Command, Destination};
use threadsocks::server::STACK_SIZE;

use crate::support::endpoints::{dial, read_all, request, write};

/// Permits everything to everybody, on loopback.
pub(crate) const PERMIT_ALL: &str = "permit - - - - -\n";

/// Lines that a child writes, as they come.
#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    /// Notified after each new line.
    added: Condvar,
}

impl Lines {
    /// Collects the lines of `stream` on a thread, until EOF.
    fn collect(stream: impl Read + Send + 'static) -> Arc<Lines> {
        let collected = Arc::new(Lines::default());
        thread::spawn({
            let collected = Arc::clone(&collected);
            move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    collected.lines.lock().unwrap().push(line);
                    collected.added.notify_all();
                }
            }
        });
        collected
    }

    fn snapshot(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until `find` returns a value, and returns that. Fails after [`TIMEOUT`].
    fn wait_for<T: Debug>(&self, what: &str, mut find: impl FnMut(&[String]) -> Option<T>) -> T {
        let lines = self.lines.lock().unwrap();
        let mut found = None;
        let (lines, _) = self
            .added
            .wait_timeout_while(lines, TIMEOUT, |lines| {
                found = find(lines);
                found.is_none()
            })
            .unwrap();
        found.unwrap_or_else(|| panic!("timed out waiting for {what} in {lines:#?}"))
    }
}

/// One screen message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScreenMessage {
    pub(crate) source: SocketAddr,
    pub(crate) destination: String,
    pub(crate) port: u16,
    pub(crate) command: String,
    pub(crate) reply: String,
}

impl ScreenMessage {
    /// `127.0.0.1:80 CONNECT Accept`.
    pub(crate) fn summary(&self) -> String {
        let ScreenMessage {
            destination,
            port,
            command,
            reply,
            ..
        } = self;
        format!("{destination}:{port} {command} {reply}")
    }
}

/// Understands the whole screen strictly: nothing but complete messages.
pub(crate) fn parse_screen(lines: &[String]) -> Vec<ScreenMessage> {
    let field = |line: &str, name: &str| {
        let value = line.strip_prefix(&format!("<{name}>: "));
        value
            .unwrap_or_else(|| panic!("{line:?} is not <{name}>: ..."))
            .to_owned()
    };
    let messages = lines.chunks_exact(7);
    let parsed = messages.map(|message| {
        assert_eq!(message[6], "", "an empty line ends a message");
        let ip = field(&message[0], "S_IP");
        let port = field(&message[1], "S_PORT");
        ScreenMessage {
            source: SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap()),
            destination: field(&message[2], "D_IP"),
            port: field(&message[3], "D_PORT").parse().unwrap(),
            command: field(&message[4], "Command"),
            reply: field(&message[5], "Reply"),
        }
    });
    parsed.collect()
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resources {
    /// Threads that do something.
    pub(crate) threads: usize,
    /// Threads that wait for a session.
    idle: usize,
    pub(crate) descriptors: usize,
    /// Those of the descriptors that are sockets.
    sockets: usize,
    /// Areas of memory.
    mappings: usize,
}

impl Resources {
    /// Whether nothing was added since the start, but for idle threads and what the C
    /// library keeps.
    fn is_within(&self, start: &Resources) -> bool {
        self.threads <= start.threads
            && self.descriptors <= start.descriptors
            && self.sockets <= start.sockets
            && self.mappings <= start.mappings + self.spare_mappings()
    }

    /// Areas of memory that may be there without being lost: four for each
    /// thread that waits (its stack, its signal stack, and a guard below each),
    /// two for each stack that the C library keeps for later, up to 40 MiB of
    /// them, two for each of its arenas, eight a core, and some for what it
    /// loads to look names up.
    fn spare_mappings(&self) -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        4 * self.idle + 2 * ((40 << 20) / STACK_SIZE) + 2 * 8 * cores + 40
    }
}

/// How a test starts the server.
pub(crate) struct Setup<'a> {
    pub(crate) rules: &'a str,
    pub(crate) options: &'a [&'a str],
    /// Words in front of the server's own command line, as `strace -o ...`.
    pub(crate) wrapper: &'a [&'a str],
    /// Where its stdout goes; `None`: the test collects it.
    pub(crate) stdout: Option<Stdio>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup {
            rules: PERMIT_ALL,
            options: &[],
            wrapper: &[],
            stdout: None,
        }
    }
}

/// A running server, and what it says.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    at_start: Resources,
    finished: bool,
}

/// The server's own binary.
pub(crate) fn binary() -> process::Command {
    process::Command::new(env!("CARGO_BIN_EXE_threadsocks"))
}

impl Proxy {
    /// Starts a server that permits everything.
    pub(crate) fn open() -> Proxy {
        Proxy::with(Setup::default())
    }

    /// Starts a server with these rules and options.
    pub(crate) fn start(rules: &str, options: &[&str]) -> Proxy {
        Proxy::with(Setup {
            rules,
            options,
            ..Setup::default()
        })
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn with(setup: Setup<'_>) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("socks.conf");
        fs::write(&config, setup.rules).expect("the rules file is written");
        let mut wrapper = setup.wrapper.iter();
        let mut command = match wrapper.next() {
            Some(program) => {
                let mut command = process::Command::new(program);
                command.args(wrapper).arg(env!("CARGO_BIN_EXE_threadsocks"));
                command
            }
            None => binary(),
        };
        let collects = setup.stdout.is_none();
        let mut child = command
            .args(["--bind", "127.0.0.1", "--config"])
            .arg(&config)
            // The last of two options of a kind counts.
            .args(setup.options)
            .arg("0")
            .stdin(Stdio::null())
            .stdout(setup.stdout.unwrap_or_else(Stdio::piped))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stderr = Lines::collect(child.stderr.take().unwrap());
        let stdout = match child.stdout.take() {
            Some(stdout) if collects => Lines::collect(stdout),
            _ => Arc::default(),
        };
        let address = stderr.wait_for("listening on ...", |lines| {
            let address = |line: &String| {
                line.strip_prefix("threadsocks: listening on ")?
                    .parse()
                    .ok()
            };
            lines.iter().find_map(address)
        });
        let mut proxy = Proxy {
            child,
            address,
            folder,
            stdout,
            stderr,
            at_start: Resources::default(),
            finished: false,
        };
        proxy.at_start = proxy.resources();
        proxy
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The file of its rules.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("socks.conf")
    }

    /// Lets the server trust the time stamp of its rules, so that it reads them
    /// no more: they look as if nobody had touched them for a while, and have
    /// been looked at since.
    pub(crate) fn wait_for_rules_mtime(&self) {
        let file = OpenOptions::new().append(true).open(self.config());
        let minute_ago = SystemTime::now() - Duration::from_secs(60);
        file.and_then(|file| file.set_modified(minute_ago)).unwrap();
        self.signal(Signal::SIGHUP);
        self.stderr_line("read again, nothing has changed");
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process that serves; under a wrapper it is the wrapper's child.
    pub(crate) fn pid(&self) -> u32 {
        let id = self.child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        match children.split_whitespace().next() {
            Some(child) => child.parse().unwrap(),
            None => id,
        }
    }

    /// What it holds now.
    pub(crate) fn resources(&self) -> Resources {
        let names = self.threads();
        let idle = names.iter().filter(|name| *name == "idle").count();
        let descriptors = self.descriptors();
        let is_socket = |link: &&PathBuf| link.to_string_lossy().starts_with("socket:");
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid()));
        Resources {
            threads: names.len() - idle,
            idle,
            descriptors: descriptors.len(),
            sockets: descriptors.iter().filter(is_socket).count(),
            mappings: maps.expect("a running server").lines().count(),
        }
    }

    /// What its descriptors stand for, as `socket:[4711]`.
    fn descriptors(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let links = folder.expect("a running server").flatten();
        // A descriptor can be closed between the two calls.
        links
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect()
    }

    /// Waits until one of its threads is called this. (A session's second thread
    /// begins its work after the client has heard that its request is granted.)
    pub(crate) fn wait_for_thread(&self, name: &str) {
        until(name, || {
            self.threads()
                .iter()
                .any(|thread| thread == name)
                .then_some(())
        });
    }

    /// The names of all threads now, in alphabetical order.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()));
        let tasks = tasks.expect("a running server").flatten();
        // A thread can exit between the two calls.
        let names = tasks.flat_map(|task| fs::read_to_string(task.path().join("comm")));
        let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        names.sort();
        names
    }

    /// Does this very process listen on this port? (Asking by connecting would
    /// also find the listener of another test that got the port since.)
    pub(crate) fn listens_on(&self, port: u16) -> bool {
        const LISTENING: &str = "0A";
        self.has_socket(["tcp", "tcp6"], port, |state| state == LISTENING)
    }

    /// Does this very process take datagrams on this port?
    pub(crate) fn takes_datagrams_on(&self, port: u16) -> bool {
        self.has_socket(["udp", "udp6"], port, |_| true)
    }

    /// Searches these tables of /proc/PID/net for a socket of the server process with
    /// this local port and a matching state.
    fn has_socket(&self, tables: [&str; 2], port: u16, is_state: impl Fn(&str) -> bool) -> bool {
        let ours = self.descriptors();
        let matches = |row: &str| {
            // proc(5): sl, local_address, rem_address, st, ...; the tenth field is the inode.
            let fields: Vec<&str> = row.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = *fields.as_slice() else {
                return false;
            };
            let socket = PathBuf::from(format!("socket:[{inode}]"));
            is_state(state) && local.ends_with(&format!(":{port:04X}")) && ours.contains(&socket)
        };
        tables.iter().any(|table| {
            let rows = fs::read_to_string(format!("/proc/{}/net/{table}", self.pid()));
            let rows = rows.unwrap_or_default();
            rows.lines().any(&matches)
        })
    }

    /// A number from /proc/PID/status, as `VmRSS` in kB.
    pub(crate) fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let value = line.and_then(|line| line.strip_prefix(':')).unwrap();
        value.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for this many screen messages and gives all there are.
    pub(crate) fn screen_messages(&self, count: usize) -> Vec<ScreenMessage> {
        let lines = self.stdout.wait_for("screen messages", |lines| {
            (lines.len() >= 7 * count).then(|| lines.to_vec())
        });
        parse_screen(&lines)
    }

    /// Waits for the message to this client, a socket of the test's own.
    pub(crate) fn screen_message_for(&self, client: SocketAddr) -> ScreenMessage {
        self.stdout.wait_for("a message", |lines| {
            let mut messages = parse_screen(lines).into_iter();
            messages.find(|message| message.source == client)
        })
    }

    /// Asks for a connection there, is refused, and gives the screen's summary.
    pub(crate) fn refusal_of(&self, target: &Destination) -> String {
        let client = dial(self.address);
        let own = client.local_addr().unwrap();
        write(&client, &request(Command::Connect, target, b""));
        let [p1, p0] = target.port.to_be_bytes();
        let reply = read_all(&client);
        assert_eq!(reply[..4], [0, 91, p1, p0], "the reply repeats the port");
        assert_eq!(reply.len(), 8);
        self.screen_message_for(own).summary()
    }

    /// What stderr has said so far.
    pub(crate) fn stderr_lines(&self) -> Vec<String> {
        self.stderr.snapshot()
    }

    /// Waits for a line on stderr that contains `text`, and returns the first one.
    pub(crate) fn stderr_line(&self, text: &str) -> String {
        self.stderr.wait_for(text, |lines| {
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until at least `count` lines on stderr contain `text`, and returns how
    /// many do.
    pub(crate) fn wait_for_stderr(&self, text: &str, count: usize) -> usize {
        self.stderr.wait_for(text, |lines| {
            let found = lines.iter().filter(|line| line.contains(text)).count();
            (found >= count).then_some(found)
        })
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap());
        kill(pid, signal).expect("a running server");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.finished = true;
        until("the server to exit", || self.child.try_wait().unwrap())
    }

    /// Waits until it holds no more than at the start.
    pub(crate) fn assert_resources_released(&self) {
        let mut now = self.resources();
        let began = Instant::now();
        while !now.is_within(&self.at_start) {
            assert!(
                began.elapsed() < TIMEOUT,
                "{now:?} now, {:?} at the start; stderr: {:#?}",
                self.at_start,
                self.stderr_lines()
            );
            thread::park_timeout(Duration::from_millis(5));
            now = self.resources();
        }
    }

    /// Ends the test: no leak, a clean stop, a strict screen.
    pub(crate) fn finish(mut self) {
        self.assert_resources_released();
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
        parse_screen(&self.stdout.snapshot());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.finished {
            // Under a wrapper, kills the server before the wrapper.
            let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGKILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !thread::panicking() {
            assert!(self.finished, "a test must end with finish() or wait()");
        }
    }
}
