//! A child process that listens on a port and prints the port on stderr.

use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use crate::lab::root;

/// Time limit of each read: a server that has not answered until then does not answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it prints on stderr, after the line with its address.
    pub(crate) lines: Lines<BufReader<ChildStderr>>,
}

impl Server {
    /// Starts it and waits until it listens. `cargo run` is replaced by the program that it
    /// runs, so the process is the server itself.
    pub(crate) fn start(mut command: Command) -> Result<Server, String> {
        command
            .current_dir(root())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut printed = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            let address = line
                .split_once("listening on ")
                .map(|(_, address)| address.parse());
            if let Some(Ok(address)) = address {
                return Ok(Server {
                    child,
                    address,
                    lines,
                });
            }
            printed.push(line);
        }
        let _ = child.wait();
        Err(format!("the server did not start:\n{}", printed.join("\n")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A client, whose reads end after [`TIMEOUT`].
    pub(crate) fn connect(&self) -> Result<TcpStream, String> {
        let connect = || {
            let client = TcpStream::connect(self.address)?;
            client.set_read_timeout(Some(TIMEOUT))?;
            Ok(client)
        };
        connect().map_err(|error: std::io::Error| format!("{}: {error}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
