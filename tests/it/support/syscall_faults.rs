//! Fault injection into system calls of the running server, by strace.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use threadsocks::net::Deadline;

use crate::support::proxy::Proxy;
use crate::support::tools::{is_installed, skip};

/// strace detaches after the delay of a call that it holds, which is 5 s at most.
const DETACH_TIMEOUT: Duration = Duration::from_secs(10);

/// strace, attached to the server process; it detaches when this is dropped.
pub(crate) struct SyscallFaults {
    strace: Child,
    /// Kept open, so that strace does not receive SIGPIPE.
    _stderr: BufReader<ChildStderr>,
}

impl SyscallFaults {
    /// Injects faults into all threads from now on; for the syntax see `inject=` in
    /// strace(1). Returns `None` where strace is missing or may not attach; the test
    /// is skipped then.
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
        // On SIGINT strace detaches, and the server runs on without faults. If the server ends
        // at this moment, strace can wait for it without end; the system detaches a strace
        // that is killed.
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let deadline = Deadline::after(DETACH_TIMEOUT);
        while !deadline.is_over() {
            if !matches!(self.strace.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(Duration::from_millis(2));
        }
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
