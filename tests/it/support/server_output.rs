//! The lines that the server has written, and the screen messages among them.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::support::wait::TIMEOUT;

/// The lines that a child process has written so far to one stream.
#[derive(Default)]
pub(crate) struct Lines {
    /// Locked for single appends and look-ups; no other lock is taken meanwhile.
    lines: Mutex<Vec<String>>,
    /// Notified after each new line.
    added: Condvar,
}

impl Lines {
    /// Collects the lines of `stream` on a thread, until EOF.
    pub(crate) fn collect(stream: impl Read + Send + 'static) -> Arc<Lines> {
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

    pub(crate) fn snapshot(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until `find` returns a value, and returns that. Fails after [`TIMEOUT`].
    pub(crate) fn wait_for<T: Debug>(
        &self,
        what: &str,
        mut find: impl FnMut(&[String]) -> Option<T>,
    ) -> T {
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

/// One message on stdout: a request and its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScreenMessage {
    pub(crate) source: SocketAddr,
    pub(crate) destination: String,
    pub(crate) port: u16,
    pub(crate) command: String,
    pub(crate) reply: String,
}

impl ScreenMessage {
    /// Destination, command and reply, as in `127.0.0.1:80 CONNECT Accept`.
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

/// Parses the messages on stdout. Fails at a line that does not belong to a message;
/// leaves out a last message that is still incomplete.
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
