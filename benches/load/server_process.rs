//! The server of a contender: a child process that listens on loopback.

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
    /// Its configuration and its stderr.
    folder: TempDir,
}

impl ServerProcess {
    pub(crate) fn start(
        contender: Contender,
        port: u16,
        other_build: Option<&Path>,
    ) -> Result<ServerProcess, String> {
        let folder =
            tempfile::tempdir().map_err(|error| format!("cannot create a folder: {error}"))?;
        let stderr = File::create(folder.path().join("stderr"));
        let stderr = stderr.map_err(|error| format!("cannot create a file: {error}"))?;
        let own_build = Path::new(env!("CARGO_BIN_EXE_threadsocks"));
        let command = match contender {
            Contender::Direct => return Err("the direct connection has no server".to_owned()),
            Contender::Threadsocks => threadsocks(own_build, port, folder.path()),
            Contender::OtherBuild => {
                threadsocks(other_build.unwrap_or(own_build), port, folder.path())
            }
            Contender::Plain => plain_relay(port),
            Contender::Microsocks => Ok(microsocks(port)),
            Contender::Dante => dante(port, folder.path()),
        };
        let child = command.and_then(|mut command| {
            // Dropping `folder` removes the temporary files of the server.
            command.env("TMPDIR", folder.path());
            // The baseline reads EOF from this pipe when the load generator exits, and
            // then exits too.
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            // Microsocks logs every connection to stderr, threadsocks to stdout: both
            // go to /dev/null, so that no disk is measured.
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

    /// `None` while the server runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Everything that the server has written to stderr.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for ServerProcess {
    /// Kills the whole process tree. The children of Dante do not end with their
    /// parent, so all pids are collected before the first one is killed.
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

/// This program in another process, so that its CPU time is counted separately.
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
    // As root, Dante requires the accounts to run as; otherwise it keeps its own.
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
    // Debian names it `danted` and installs it outside the PATH of most users.
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

/// A port that is free now. It is below the ephemeral ports (32768 and up), so that
/// the system does not assign it to another socket before the server binds it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 10_000) as u16;
    let ports = std::iter::repeat_with(|| start + NEXT.fetch_add(1, Ordering::Relaxed) % 2000);
    let mut free = ports.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
    free.next().expect("find a free port")
}
