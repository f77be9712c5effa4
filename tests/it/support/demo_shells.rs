//! Remote shells for the console: the example `shell_server` as a child process.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::child::RunningChild;
use crate::support::wait::until;

/// A shell server that terminates when a client disconnects without `exit`.
pub(crate) struct DemoShell {
    running: RunningChild,
    port: u16,
}

impl DemoShell {
    /// Starts a shell server on a free port with these options of the example.
    pub(crate) fn start(options: &[&str]) -> DemoShell {
        let mut command = Command::new(binary());
        command.arg("--die-on-half-close").args(options).arg("0");
        let mut running = RunningChild::start(&mut command, b"");
        let port = until("a shell server", || {
            running.assert_running();
            let stderr = running.stderr_so_far();
            let (_, port) = stderr.strip_suffix('\n')?.rsplit_once(':')?;
            port.parse().ok()
        });
        DemoShell { running, port }
    }

    /// The server's port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Fails the test if a client has disconnected without `exit`. First waits until all session
    /// threads have ended, since such a session ends with the whole server.
    pub(crate) fn assert_alive(mut self) {
        let threads = format!("/proc/{}/task", self.running.id());
        until("the end of all sessions", || {
            self.running.assert_running();
            (fs::read_dir(&threads).ok()?.count() == 1).then_some(())
        });
        self.running.assert_running();
    }
}

/// The path of the example's binary, built once per test run. `cargo test` builds only the unit
/// tests of an example that has unit tests, so cargo must be run for the program itself.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--quiet", "--example", "shell_server"])
            .args(["--message-format", "json", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let output = command.output().expect("cargo");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cargo cannot build the shell server: {stderr}"
        );
        let messages = output.stdout.split(|&byte| byte == b'\n');
        let mut programs = messages.filter_map(|message| {
            let message: Value = serde_json::from_slice(message).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        });
        programs
            .next()
            .expect("the path of the binary in the output of cargo")
    })
}
