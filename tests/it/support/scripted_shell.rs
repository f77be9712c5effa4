//! A shell server whose sessions run a script of the test.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::endpoints::{Origin, write};
use crate::support::wait::TIMEOUT;

/// A shell server on loopback. Each session runs the script of the test in its own thread.
pub(crate) struct ScriptedShell {
    origin: Origin,
    /// Sends the received lines of each session when the session ends.
    received: Receiver<String>,
}

/// One session of a [`ScriptedShell`].
pub(crate) struct ShellSession {
    pub(crate) stream: TcpStream,
    pub(crate) lines: BufReader<TcpStream>,
    received: String,
}

impl ScriptedShell {
    pub(crate) fn start(
        script: impl Fn(&mut ShellSession) + Send + Sync + Clone + 'static,
    ) -> ScriptedShell {
        let (sender, received) = channel();
        let origin = Origin::start(move |stream| {
            let lines = BufReader::new(stream.try_clone().unwrap());
            let mut session = ShellSession {
                stream,
                lines,
                received: String::new(),
            };
            script(&mut session);
            let _ = sender.send(session.received);
        });
        ScriptedShell { origin, received }
    }

    /// Starts a shell that sends prompts and no other output until it receives `exit`.
    pub(crate) fn with_prompts_only() -> ScriptedShell {
        ScriptedShell::start(|session| {
            session.write("% ");
            session.prompt_until_exit();
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    pub(crate) fn received(&self) -> String {
        self.received
            .recv_timeout(TIMEOUT)
            .expect("the end of a session")
    }
}

impl ShellSession {
    pub(crate) fn write(&mut self, text: &str) {
        write(&self.stream, text.as_bytes());
    }

    /// Sends the text in segments of one byte.
    pub(crate) fn write_bytewise(&self, text: &str) {
        for byte in text.bytes() {
            write(&self.stream, &[byte]);
        }
    }

    /// Waits for the next line, which must arrive before the read timeout.
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        self.received.push_str(&line);
        line
    }

    /// Asserts that no input arrives for 400 ms. This is longer than the console waits (200 ms)
    /// before it takes a `% ` within a line for a prompt.
    pub(crate) fn assert_no_input(&mut self) {
        let quiet_time = Duration::from_millis(400);
        self.stream.set_read_timeout(Some(quiet_time)).unwrap();
        let input = self.lines.fill_buf().map(<[u8]>::to_vec);
        let kind = input.expect_err("no input").kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    /// Reads lines until `exit`, and sends one prompt after each other line.
    pub(crate) fn prompt_until_exit(&mut self) {
        while self.read_line() != "exit\n" {
            self.write("% ");
        }
    }
}
