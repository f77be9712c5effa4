//! System calls of a running server fail as the test wishes.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::proxy::Proxy;
use crate::support::tools::{is_installed, skip};

/// strace, attached to the server; it lets go when dropped.
pub(crate) struct SyscallFaults {
    strace: Child,
    /// Kept open, so that strace does not receive SIGPIPE.
    _stderr: BufReader<ChildStderr>,
}

impl SyscallFaults {
    /// Injects this (see `inject=` in strace(1)) into all threads from now on.
    /// `None`, and the test is to be skipped, where strace is missing or the
    /// system does not let it attach.
    pub(crate) fn with(proxy: &Proxy, injection: &str) -> Option<SyscallFaults> {
        if !is_installed("strace", "strace") {
            return None;
        }
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e"])
            .arg(format!("inject={injection}"))
            .args(["-p", &proxy.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        let mut stderr = BufReader::new(strace.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line from strace");
        if !line.contains("attached") {
            let _ = strace.wait();
            skip(&format!(
                "strace cannot attach to a process: {}",
                line.trim()
            ));
            return None;
        }
        Some(SyscallFaults {
            strace,
            _stderr: stderr,
        })
    }
}

impl Drop for SyscallFaults {
    fn drop(&mut self) {
        // At an interrupt it detaches and leaves the server as it was.
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let _ = self.strace.wait();
    }
}
