//! The servers of the contenders, each a child process.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::contender::Contender;
use crate::process_tree;

pub(crate) struct ServerProcess {
    child: Child,
    /// Its configuration, and what it says on stderr.
    folder: TempDir,
}

impl ServerProcess {
    pub(crate) fn start(
        contender: Contender,
        port: u16,
        other_build: Option<&Path>,
    ) -> Result<ServerProcess, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let stderr = File::create(folder.path().join("stderr"));
        let stderr = stderr.map_err(|error| format!("no file: {error}"))?;
        let own_build = Path::new(env!("CARGO_BIN_EXE_threadsocks"));
        let command = match contender {
            Contender::Direct => return Err("it has no server".to_owned()),
            Contender::Threadsocks => threadsocks(own_build, port, folder.path()),
            Contender::OtherBuild => {
                threadsocks(other_build.unwrap_or(own_build), port, folder.path())
            }
            Contender::Plain => plain_relay(port),
            Contender::Microsocks => Ok(microsocks(port)),
            Contender::Dante => dante(port, folder.path()),
        };
        let child = command.and_then(|mut command| {
            // A server with temporary files puts them where they are removed.
            command.env("TMPDIR", folder.path());
            // The plain relay leaves when this pipe ends, so when we do.
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            // Microsocks tells of every connection on stderr, as we do on stdout:
            // neither shall pay for a disk.
            command.stderr(match contender {
                Contender::Microsocks => Stdio::null(),
                _ => Stdio::from(stderr),
            });
            command.spawn()
        });
        match child {
            Ok(child) => Ok(ServerProcess { child, folder }),
            Err(error) => Err(format!("does not start: {error}")),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for ServerProcess {
    /// Dante's children outlive it, so all of them are listed first.
    fn drop(&mut self) {
        for pid in process_tree::members(self.child.id()) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn threadsocks(binary: &Path, port: u16, folder: &Path) -> io::Result<Command> {
    let rules = folder.join("socks.conf");
    fs::write(&rules, "permit - - - - -\n")?;
    let mut command = Command::new(binary);
    command.args(["--bind", "127.0.0.1", "--config"]).arg(rules);
    command.arg(port.to_string());
    Ok(command)
}

/// This very program, in another process lest its CPU time be ours.
fn plain_relay(port: u16) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--plain-relay", &port.to_string()]);
    Ok(command)
}

fn microsocks(port: u16) -> Command {
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    command
}

fn dante(port: u16, folder: &Path) -> io::Result<Command> {
    // Root must say as whom it serves; others serve as themselves.
    let users = match fs::metadata("/proc/self")?.uid() {
        0 => "user.privileged: root\nuser.unprivileged: nobody\n",
        _ => "",
    };
    let config = format!(
        "logoutput: stderr\n\
         internal: 127.0.0.1 port = {port}\n\
         external: 127.0.0.1\n\
         clientmethod: none\n\
         socksmethod: none\n\
         {users}\
         client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n"
    );
    let file = folder.join("danted.conf");
    fs::write(&file, config)?;
    // Debian calls it so and keeps it out of the path of most users.
    let paths = [
        "/usr/sbin/danted",
        "/usr/sbin/sockd",
        "/usr/local/sbin/sockd",
    ];
    let installed = paths.into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(installed.unwrap_or("danted"));
    command.arg("-f").arg(file);
    command.arg("-p").arg(folder.join("pid"));
    Ok(command)
}

/// A port on which nobody listens now. Below those that the system gives out,
/// lest it give this one to somebody meanwhile.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 10_000) as u16;
    let ports = std::iter::repeat_with(|| start + NEXT.fetch_add(1, Ordering::Relaxed) % 2000);
    let mut free = ports.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
    free.next().expect("a free port")
}
