//! A shell that says and hears exactly what a test wants.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::endpoints::{Origin, write};
use crate::support::wait::TIMEOUT;

/// A shell that says and hears exactly what a test wants.
pub(crate) struct Shell {
    origin: Origin,
    /// What each session heard, when it is over.
    heard: Receiver<String>,
}

/// One session of it.
pub(crate) struct ShellSession {
    pub(crate) stream: TcpStream,
    pub(crate) lines: BufReader<TcpStream>,
    heard: String,
}

impl Shell {
    pub(crate) fn start(
        script: impl Fn(&mut ShellSession) + Send + Sync + Clone + 'static,
    ) -> Shell {
        let (tell, heard) = channel();
        let origin = Origin::start(move |stream| {
            let lines = BufReader::new(stream.try_clone().unwrap());
            let mut session = ShellSession {
                stream,
                lines,
                heard: String::new(),
            };
            script(&mut session);
            let _ = tell.send(session.heard);
        });
        Shell { origin, heard }
    }

    /// Prompts, and says nothing else, until it hears `exit`.
    pub(crate) fn with_prompts_only() -> Shell {
        Shell::start(|session| {
            session.write("% ");
            session.read_to_end();
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    pub(crate) fn received(&self) -> String {
        self.heard.recv_timeout(TIMEOUT).expect("a session's end")
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
        self.heard.push_str(&line);
        line
    }

    /// Nothing must come for longer than the console waits at the end of an
    /// unfinished line.
    pub(crate) fn expect_nothing(&mut self) {
        let a_while = Duration::from_millis(400);
        self.stream.set_read_timeout(Some(a_while)).unwrap();
        let nothing = self.lines.fill_buf().map(<[u8]>::to_vec);
        let kind = nothing.expect_err("nothing").kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    /// Everything up to `exit`, one line for each prompt, with no other output.
    pub(crate) fn read_to_end(&mut self) {
        while self.read_line() != "exit\n" {
            self.write("% ");
        }
    }
}
