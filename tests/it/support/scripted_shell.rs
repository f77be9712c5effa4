//! A shell that says and hears exactly what a test wants.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::endpoints::{Origin, write};
use crate::support::wait::TIMEOUT;

/// A shell that says and hears exactly what a test wants.
pub(crate) struct ScriptedShell {
    origin: Origin,
    /// What each session received, when it is over.
    received: Receiver<String>,
}

/// One session of it.
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

    /// Prompts, and says nothing else, until it hears `exit`.
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
            .expect("a session's end")
    }
}

impl ShellSession {
    pub(crate) fn write(&mut self, text: &str) {
        write(&self.stream, text.as_bytes());
    }

    /// Byte by byte.
    pub(crate) fn write_bytewise(&self, text: &str) {
        for byte in text.bytes() {
            write(&self.stream, &[byte]);
        }
    }

    /// The next line.
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        self.received.push_str(&line);
        line
    }

    /// Nothing must come for longer than the console waits at the end of an
    /// unfinished line.
    pub(crate) fn assert_no_input(&mut self) {
        let quiet_time = Duration::from_millis(400);
        self.stream.set_read_timeout(Some(quiet_time)).unwrap();
        let input = self.lines.fill_buf().map(<[u8]>::to_vec);
        let kind = input.expect_err("no input").kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    /// Everything up to `exit`, one line for each prompt, with no other output.
    pub(crate) fn prompt_until_exit(&mut self) {
        while self.read_line() != "exit\n" {
            self.write("% ");
        }
    }
}
