//! Child processes that are killed at the end of the test at the latest.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Timeout for slow programs: a browser may start from a cold disk cache while other tests run.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a program may run after SIGTERM before it is killed.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// A running program. On drop its whole process group is killed.
pub(crate) struct RunningChild {
    child: Child,
    stdout: File,
    stderr: File,
}

/// The exit status and the output of a program.
#[derive(Debug)]
pub(crate) struct ChildOutput {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl RunningChild {
    /// Starts the program with this input on its stdin.
    ///
    /// Its output goes to files instead of pipes. A program therefore never blocks until the
    /// test reads, and the test never waits for EOF while a helper process holds the pipe open.
    pub(crate) fn start(command: &mut Command, input: &[u8]) -> RunningChild {
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(input).unwrap();
        stdin.rewind().unwrap();
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        let child = command
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .expect("a program that can be started");
        RunningChild {
            child,
            stdout,
            stderr,
        }
    }

    /// Waits until the program exits, and fails the test after the timeout.
    pub(crate) fn wait_for_exit(mut self, timeout: Duration) -> ChildOutput {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.output(status);
            }
            if start.elapsed() > timeout {
                let status = self.kill();
                panic!(
                    "the program did not exit within {timeout:?}: {:#?}",
                    self.output(status)
                );
            }
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Fails the test if the program has exited.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the program exited too early: {:#?}", self.output(status));
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        signal::kill(self.pid(), Signal::SIGTERM).expect("a running program");
    }

    /// Sends SIGTERM and waits for [`GRACE_PERIOD`], for programs that clean up on exit.
    pub(crate) fn stop(&mut self) {
        let _ = signal::kill(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE_PERIOD {
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The output on stdout so far.
    pub(crate) fn stdout_so_far(&self) -> String {
        read_so_far(&self.stdout)
    }

    /// The output on stderr so far.
    pub(crate) fn stderr_so_far(&self) -> String {
        read_so_far(&self.stderr)
    }

    /// The process ID, which is also the process group ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn output(&mut self, status: ExitStatus) -> ChildOutput {
        let mut stdout = Vec::new();
        self.stdout.rewind().unwrap();
        self.stdout.read_to_end(&mut stdout).unwrap();
        let mut stderr = Vec::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_end(&mut stderr).unwrap();
        ChildOutput {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Kills the whole process group: a server's sessions, a browser's helper processes.
    fn kill(&mut self) -> ExitStatus {
        let _ = signal::killpg(self.pid(), Signal::SIGKILL);
        self.child.wait().unwrap()
    }
}

/// The peak resident set size of a process in kB, or `None` if the process has exited. The
/// argument is the process's folder in /proc.
pub(crate) fn peak_memory(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The whole file. Reads at an explicit offset (pread), because the child process shares the
/// file offset and would write at the wrong place after a seek.
fn read_so_far(file: &File) -> String {
    let length = file.metadata().unwrap().len();
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for RunningChild {
    /// Kills the process group even after the program has exited, since helper processes may
    /// still run.
    fn drop(&mut self) {
        self.kill();
    }
}

impl ChildOutput {
    /// The output on stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
