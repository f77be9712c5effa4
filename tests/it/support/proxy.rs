//! The server under test, as a child process.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use threadsocks::protocol::{Command, Destination};

use crate::support::endpoints::{dial, read_all, request, write};
use crate::support::process::{self, Resources};
use crate::support::server_output::{Lines, ScreenMessage, parse_screen};
use crate::support::wait::{TIMEOUT, until};

/// Rules that permit every request of every client. The server binds to loopback.
pub(crate) const PERMIT_ALL: &str = "permit - - - - -\n";

/// How a test starts the server.
pub(crate) struct Setup<'a> {
    pub(crate) rules: &'a str,
    pub(crate) options: &'a [&'a str],
    /// A program with its arguments that runs the server, such as `strace -o ...`.
    /// Empty: the test runs the server itself.
    pub(crate) wrapper: &'a [&'a str],
    /// The server's stdout; `None`: the test collects its lines.
    pub(crate) stdout: Option<Stdio>,
    /// The server's stdin; `None`: EOF.
    pub(crate) stdin: Option<Stdio>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup {
            rules: PERMIT_ALL,
            options: &[],
            wrapper: &[],
            stdout: None,
            stdin: None,
        }
    }
}

/// A running server with its stdout and stderr.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    at_start: Resources,
    /// The exit status has been collected; set by [`Proxy::wait`].
    finished: bool,
}

/// A command for the server binary, without arguments.
pub(crate) fn binary() -> std::process::Command {
    std::process::Command::new(env!("CARGO_BIN_EXE_threadsocks"))
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

    /// Starts a server and waits until it has reported its address on stderr.
    pub(crate) fn with(setup: Setup<'_>) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("socks.conf");
        fs::write(&config, setup.rules).expect("the rules file is written");
        let mut wrapper = setup.wrapper.iter();
        let mut command = match wrapper.next() {
            Some(program) => {
                let mut command = std::process::Command::new(program);
                command.args(wrapper).arg(env!("CARGO_BIN_EXE_threadsocks"));
                command
            }
            None => binary(),
        };
        let collects = setup.stdout.is_none();
        let mut child = command
            .args(["--bind", "127.0.0.1", "--config"])
            .arg(&config)
            // Of two equal options the server uses the last.
            .args(setup.options)
            .arg("0")
            .stdin(setup.stdin.unwrap_or_else(Stdio::null))
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

    /// The address that the server listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The path of its rules file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("socks.conf")
    }

    /// Makes the rules file look unchanged for a minute and lets the server check it.
    /// From then on the server trusts the file's time stamp and does not open the
    /// file for a request.
    pub(crate) fn wait_for_rules_mtime(&self) {
        let file = OpenOptions::new().append(true).open(self.config());
        let minute_ago = SystemTime::now() - Duration::from_secs(60);
        file.and_then(|file| file.set_modified(minute_ago)).unwrap();
        let checked = "checked, nothing has changed";
        let lines = self.stderr_lines();
        let before = lines.iter().filter(|line| line.contains(checked)).count();
        self.signal(Signal::SIGHUP);
        self.wait_for_stderr(checked, before + 1);
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The ID of the server process; under a wrapper that is the wrapper's child.
    pub(crate) fn pid(&self) -> u32 {
        let id = self.child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        match children.split_whitespace().next() {
            Some(child) => child.parse().unwrap(),
            None => id,
        }
    }

    /// The resources that the server holds now.
    pub(crate) fn resources(&self) -> Resources {
        Resources::of(self.pid())
    }

    /// The names of all threads, sorted.
    pub(crate) fn threads(&self) -> Vec<String> {
        process::threads(self.pid())
    }

    /// A number from /proc/PID/status, such as `VmRSS` in kB.
    pub(crate) fn status(&self, key: &str) -> u64 {
        process::status(self.pid(), key)
    }

    /// Waits until a thread has this name. A session's second thread takes its name
    /// after the client has received the reply.
    pub(crate) fn wait_for_thread(&self, name: &str) {
        until(name, || {
            self.threads()
                .iter()
                .any(|thread| thread == name)
                .then_some(())
        });
    }

    /// Whether the server process listens on this TCP port. A test connection is no
    /// proof: another test may have received the same port since.
    pub(crate) fn listens_on(&self, port: u16) -> bool {
        const LISTENING: &str = "0A";
        process::has_socket(self.pid(), ["tcp", "tcp6"], port, |state| {
            state == LISTENING
        })
    }

    /// Whether the server process has a UDP socket on this port.
    pub(crate) fn takes_datagrams_on(&self, port: u16) -> bool {
        process::has_socket(self.pid(), ["udp", "udp6"], port, |_| true)
    }

    /// Waits for at least this many screen messages and returns all of them.
    pub(crate) fn screen_messages(&self, count: usize) -> Vec<ScreenMessage> {
        let lines = self.stdout.wait_for("screen messages", |lines| {
            (lines.len() >= 7 * count).then(|| lines.to_vec())
        });
        parse_screen(&lines)
    }

    /// Waits for the message of the request that came from this client address.
    pub(crate) fn screen_message_for(&self, client: SocketAddr) -> ScreenMessage {
        self.stdout.wait_for("a message", |lines| {
            let mut messages = parse_screen(lines).into_iter();
            messages.find(|message| message.source == client)
        })
    }

    /// Sends a CONNECT request, checks that the reply is 91 and repeats the port, and
    /// returns the summary of the screen message.
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

    /// All lines on stdout so far.
    pub(crate) fn stdout_lines(&self) -> Vec<String> {
        self.stdout.snapshot()
    }

    /// Waits for a line on stdout of which `find` returns a value, and returns that.
    pub(crate) fn stdout_line<T: Debug>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        self.stdout
            .wait_for(what, |lines| lines.iter().find_map(|line| find(line)))
    }

    /// All lines on stderr so far.
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

    /// Sends a signal to the server process.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap());
        kill(pid, signal).expect("a running server");
    }

    /// Waits until the process has exited, and returns its exit status.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.finished = true;
        until("the server to exit", || self.child.try_wait().unwrap())
    }

    /// Waits until the server holds no more resources than at its start. Fails after
    /// [`TIMEOUT`].
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

    /// Ends a test. Waits until all resources are released, stops the server with
    /// SIGTERM, and checks the exit status and the format of the messages on stdout.
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
