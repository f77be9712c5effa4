//! Programs that do not outlive the test that started them.

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

/// A browser that starts from a cold disk, beside other tests, needs more than
/// a socket does.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(90);

/// For the end of a program that has been asked to end.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// A running program.
pub(crate) struct RunningChild {
    child: Child,
    stdout: File,
    stderr: File,
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct ChildOutput {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl RunningChild {
    /// Starts it with this on its stdin. What it says goes to files, so that it
    /// never waits for the test to read, nor the test for the end of a pipe
    /// that some helper of the program still holds.
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
            .expect("the program starts");
        RunningChild {
            child,
            stdout,
            stderr,
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_for_exit(mut self, timeout: Duration) -> ChildOutput {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.output(status);
            }
            if start.elapsed() > timeout {
                let status = self.kill();
                panic!(
                    "{:#?} after {timeout:?} without an end",
                    self.output(status)
                );
            }
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Fails the test if it has ended already.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("ended too early: {:#?}", self.output(status));
        }
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        signal::kill(self.pid(), Signal::SIGTERM).expect("it runs");
    }

    /// Asks it to end and gives it a moment, for programs that tidy up then.
    pub(crate) fn stop(&mut self) {
        let _ = signal::kill(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE_PERIOD {
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What it has written to stdout by now.
    pub(crate) fn stdout_so_far(&self) -> String {
        read_so_far(&self.stdout)
    }

    /// What it has written to stderr by now.
    pub(crate) fn stderr_so_far(&self) -> String {
        read_so_far(&self.stderr)
    }

    /// The number of its process.
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

    /// Ends the whole process group: a server's sessions, a browser's helpers.
    fn kill(&mut self) -> ExitStatus {
        let _ = signal::killpg(self.pid(), Signal::SIGKILL);
        self.child.wait().unwrap()
    }
}

/// The largest resident set, in kB, that a process has had so far; nothing if it
/// has ended. It is named by its folder in /proc.
pub(crate) fn peak_memory(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The whole file, from a position of our own: the program writes wherever the
/// one that it shares with us happens to be.
fn read_so_far(file: &File) -> String {
    let length = file.metadata().unwrap().len();
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for RunningChild {
    /// Also after its own end: helpers may have stayed behind.
    fn drop(&mut self) {
        self.kill();
    }
}

impl ChildOutput {
    /// Its stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
