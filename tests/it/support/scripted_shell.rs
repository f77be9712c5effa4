//! A shell that says and hears exactly what a test wants.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::endpoints::{Origin, write};
use crate::support::wait::PATIENCE;

/// A shell that says and hears exactly what a test wants.
pub(crate) struct Shell {
    origin: Origin,
    /// What each visit heard, when it is over.
    heard: Receiver<String>,
}

/// One visit of it.
pub(crate) struct Visit {
    pub(crate) stream: TcpStream,
    pub(crate) lines: BufReader<TcpStream>,
    heard: String,
}

impl Shell {
    pub(crate) fn saying(script: impl Fn(&mut Visit) + Send + Sync + Clone + 'static) -> Shell {
        let (tell, heard) = channel();
        let origin = Origin::serving(move |stream| {
            let lines = BufReader::new(stream.try_clone().unwrap());
            let mut visit = Visit {
                stream,
                lines,
                heard: String::new(),
            };
            script(&mut visit);
            let _ = tell.send(visit.heard);
        });
        Shell { origin, heard }
    }

    /// Prompts, and says nothing else, until it hears `exit`.
    pub(crate) fn with_prompts_only() -> Shell {
        Shell::saying(|visit| {
            visit.say("% ");
            visit.hear_all();
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    pub(crate) fn heard(&self) -> String {
        self.heard.recv_timeout(PATIENCE).expect("a visit's end")
    }
}

impl Visit {
    pub(crate) fn say(&mut self, text: &str) {
        write(&self.stream, text.as_bytes());
    }

    /// Byte by byte.
    pub(crate) fn dribble(&self, text: &str) {
        for byte in text.bytes() {
            write(&self.stream, &[byte]);
        }
    }

    /// The next line.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        self.heard.push_str(&line);
        line
    }

    /// Nothing must come for longer than the console waits at the end of an
    /// unfinished line.
    pub(crate) fn hears_nothing(&mut self) {
        let a_while = Duration::from_millis(400);
        self.stream.set_read_timeout(Some(a_while)).unwrap();
        let nothing = self.lines.fill_buf().map(<[u8]>::to_vec);
        let kind = nothing.expect_err("nothing").kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// Everything up to `exit`, one line for each prompt, with no other output.
    pub(crate) fn hear_all(&mut self) {
        while self.hear() != "exit\n" {
            self.say("% ");
        }
    }
}
