//! One session with a shell, from the connection to EOF, on its own thread with blocking I/O.
//!
//! The session never closes the connection before it has sent `exit`, and it never
//! half-closes: some shell servers terminate at an early EOF. Only the exit of
//! the process closes it earlier: at the time limit, after a stop, or after the browser has left.
//!
//! What ends each wait: the dial and the SOCKS reply have a deadline. A read from the
//! shell ends with output, EOF or a reset, and a send to the event channel ends when
//! the channel has space or is disconnected. The process exit ends all of them.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::batch::{EXIT_COMMAND, is_exit_command};
use crate::connect::connect;
use crate::failure::Failure;
use crate::prompt::{self, PromptFinder};
use crate::row::SessionPlan;
use crate::telnet::Telnet;

/// Time without output after `exit`, after which the session is done. The shell has closed
/// its connection by then, but some SOCKS servers do not pass on the end of a connection.
const EXIT_TIMEOUT: Duration = Duration::from_secs(15);

/// Size of the read buffer in bytes. It bounds one [`SessionEvent::Output`].
const READ_BUFFER_SIZE: usize = 16 * 1024;

/// An event that the thread of a session sends to the thread that owns the page.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The session connects to the SOCKS server, or directly. The first event.
    Connecting,
    /// The connection to the shell exists.
    Granted,
    /// Output of the shell without Telnet commands, about [`READ_BUFFER_SIZE`] bytes
    /// at most.
    Output(Vec<u8>),
    /// A line of the batch file was sent.
    Command(Vec<u8>),
    /// `exit` was sent, because the batch file does not contain it.
    AddedExit,
    /// The session has ended. The last event.
    Ended(SessionEnd),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// All lines and `exit` were sent, and then the shell closed the connection.
    Done,
    /// All lines and `exit` were sent, and then [`EXIT_TIMEOUT`] passed without output. The
    /// other end of the connection, which has left it open, is the shell if the
    /// connection is direct, and otherwise the SOCKS server.
    LeftOpen { is_direct: bool },
    /// The shell closed the connection before `exit` was sent.
    ClosedEarly,
    /// The time limit of the page has passed.
    TimedOut,
    /// The user has stopped the run, or left the page.
    Stopped,
    /// The session could not start or could not go on.
    Failed(Failure),
}

/// The receiver of the events is gone: the page has ended.
#[derive(Debug)]
pub(crate) struct DisconnectedError;

impl fmt::Display for DisconnectedError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the page receives no more events")
    }
}

impl std::error::Error for DisconnectedError {}

/// The receiver of the events of one session.
pub(crate) trait EventSink {
    /// Sends one event. Blocks while the channel is full (backpressure).
    ///
    /// # Errors
    ///
    /// The receiver is gone. The session must then end.
    fn send(&self, event: SessionEvent) -> Result<(), DisconnectedError>;
}

/// Runs one session and reports it as events, of which the last is
/// [`SessionEvent::Ended`].
///
/// # Errors
///
/// The receiver of the events is gone.
pub(crate) fn run_session(
    plan: &SessionPlan,
    events: &impl EventSink,
) -> Result<(), DisconnectedError> {
    events.send(SessionEvent::Connecting)?;
    let end = match connect(plan) {
        Ok(stream) => {
            events.send(SessionEvent::Granted)?;
            let dialogue = Dialogue {
                stream: &stream,
                lines: plan.batch.lines(),
                exit_sent: false,
                is_direct: plan.socks.is_none(),
                events,
            };
            dialogue.run()?
        }
        Err(failure) => SessionEnd::Failed(failure),
    };
    events.send(SessionEvent::Ended(end))
}

/// The dialogue with the shell: one line of the batch file for each prompt.
struct Dialogue<'a, Lines, L> {
    stream: &'a TcpStream,
    /// The lines that were not sent yet.
    lines: Lines,
    /// Whether the last line sent was `exit`.
    exit_sent: bool,
    is_direct: bool,
    events: &'a L,
}

/// The result of one wait for the shell.
enum ReadResult {
    /// Output, this many bytes of the buffer.
    Bytes(usize),
    /// No output for [`prompt::PROMPT_IDLE_TIME`] after a possible prompt, or for
    /// [`EXIT_TIMEOUT`] after `exit`.
    Idle,
    /// The shell has closed or reset the connection.
    Eof,
}

impl<'a, Lines: Iterator<Item = &'a [u8]>, L: EventSink> Dialogue<'a, Lines, L> {
    /// Reads output and sends lines until the shell closes the connection.
    fn run(mut self) -> Result<SessionEnd, DisconnectedError> {
        let mut buffer = [0; READ_BUFFER_SIZE];
        let mut telnet = Telnet::default();
        let mut prompts = PromptFinder::default();
        loop {
            match self.read_next(&mut buffer, prompts.may_be_prompt()) {
                ReadResult::Bytes(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.process(&telnet.text(bytes), &mut prompts)?;
                }
                ReadResult::Idle if self.exit_sent => {
                    let is_direct = self.is_direct;
                    return Ok(SessionEnd::LeftOpen { is_direct });
                }
                ReadResult::Idle => {
                    prompts.confirm_prompt();
                    self.send_next_line()?;
                }
                ReadResult::Eof => break,
            }
        }
        Ok(match self.exit_sent {
            true => SessionEnd::Done,
            false => SessionEnd::ClosedEarly,
        })
    }

    /// Blocks until the shell sends bytes, closes the connection, or stays idle after a
    /// possible prompt or after `exit`.
    fn read_next(&mut self, buffer: &mut [u8], may_be_prompt: bool) -> ReadResult {
        // Without a possible prompt and before `exit`, the read blocks: a command may
        // take long, and the page has a time limit. If the timeout cannot be set, no
        // prompt is assumed.
        let timeout = match self.exit_sent {
            true => Some(EXIT_TIMEOUT),
            false => may_be_prompt.then_some(prompt::PROMPT_IDLE_TIME),
        };
        let _ = self.stream.set_read_timeout(timeout);
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return ReadResult::Eof,
                Ok(count) => return ReadResult::Bytes(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return ReadResult::Idle,
                    // Some servers end a session with a reset instead of a FIN.
                    _ => return ReadResult::Eof,
                },
            }
        }
    }

    /// Reports output, and sends one line per prompt. The line is reported directly
    /// after its prompt, even if the shell had already sent more output.
    fn process(
        &mut self,
        mut output: &[u8],
        prompts: &mut PromptFinder,
    ) -> Result<(), DisconnectedError> {
        while let Some(length) = prompts.find(output) {
            let (up_to_prompt, rest) = output.split_at(length);
            self.report_output(up_to_prompt)?;
            self.send_next_line()?;
            output = rest;
        }
        self.report_output(output)
    }

    /// Sends the next line of the batch file, then `exit`, then nothing more.
    fn send_next_line(&mut self) -> Result<(), DisconnectedError> {
        let (line, event) = match self.lines.next() {
            Some(line) => (line, SessionEvent::Command(line.to_vec())),
            None if self.exit_sent => return Ok(()),
            None => (EXIT_COMMAND.as_bytes(), SessionEvent::AddedExit),
        };
        // One write(2) for the line and its end. An error means that the shell has
        // closed: the next read reports it, and this line does not count as sent.
        let mut stream = self.stream;
        if stream.write_all(&[line, b"\n"].concat()).is_err() {
            return Ok(());
        }
        self.exit_sent = is_exit_command(line);
        self.events.send(event)
    }

    /// Sends an output event, unless the output is empty.
    fn report_output(&self, output: &[u8]) -> Result<(), DisconnectedError> {
        match output.is_empty() {
            true => Ok(()),
            false => self.events.send(SessionEvent::Output(output.to_vec())),
        }
    }
}
