//! One shell's visit, from top to bottom: its thread's whole life.
//!
//! The connection is never closed before `exit` has been sent, nor half-closed
//! at all: there are shell servers that do not survive either. (Only the end of
//! the whole program, at its limit or without a reader, may come earlier.)

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use threadsocks::client::{self, ClientError};
use threadsocks::net::resolve;
use threadsocks::net::{Deadline, PeekReader};
use threadsocks::protocol::{Host, ReadError, socks4};

use crate::batch::{EXIT_COMMAND, is_exit_command};
use crate::prompt::{self, PromptFinder};
use crate::row::{SessionPlan, SocksServer};
use crate::telnet::Telnet;

/// How long the SOCKS server may take from the first packet to its reply. It
/// may have to wait for the shell server itself.
const SOCKS_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes read in one go.
const READ_BUFFER_SIZE: usize = 16 * 1024;

/// What a thread tells the owner of the page.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// On the way to the SOCKS server.
    Connecting,
    /// The SOCKS server has connected us.
    Granted,
    /// The shell said this; not much more than [`READ_BUFFER_SIZE`] bytes.
    Output(Vec<u8>),
    /// This line was sent.
    Command(Vec<u8>),
    /// `exit` was sent, which the file does not have.
    AddedExit,
    /// The last event.
    Ended(SessionEnd),
}

/// How a visit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// Everything was sent, and the shell closed the connection.
    Done,
    /// The shell left before everything was sent.
    ClosedEarly,
    /// The page's time was over.
    TimedOut,
    /// It did not come about; the words for the page.
    Failed(String),
}

/// Nobody reads what we send any more.
#[derive(Debug)]
pub(crate) struct DisconnectedError;

impl fmt::Display for DisconnectedError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the page receives no more events")
    }
}

impl std::error::Error for DisconnectedError {}

/// Where the event go.
pub(crate) trait EventSink {
    /// Waits until there is room for it.
    fn send(&self, event: SessionEvent) -> Result<(), DisconnectedError>;
}

/// Visits the shell, and tells everything on the way.
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
                events,
            };
            dialogue.run()?
        }
        Err(why) => SessionEnd::Failed(why),
    };
    events.send(SessionEvent::Ended(end))
}

/// A connection to the shell, through the SOCKS server.
fn connect(plan: &SessionPlan) -> Result<TcpStream, String> {
    let deadline = Deadline::after(SOCKS_TIMEOUT);
    let stream = dial(&plan.socks, deadline)
        .map_err(|error| format!("cannot reach the SOCKS server {}: {error}", plan.socks))?;
    // One small message at a time, each waiting for the answer to the last.
    let _ = stream.set_nodelay(true);
    let handshake = HandshakeStream {
        reply: PeekReader::new(&stream, deadline),
        request: &stream,
    };
    match client::socks4::connect(handshake, &plan.destination, b"") {
        Ok(_) => Ok(stream),
        Err(ClientError::Refused(refusal)) => {
            Err(format!("refused: {} {refusal}", socks4::code(refusal)))
        }
        Err(ClientError::NoReply(ReadError::Incomplete(received, error)))
            if error.kind() == ErrorKind::TimedOut =>
        {
            let seconds = SOCKS_TIMEOUT.as_secs();
            Err(format!(
                "the SOCKS server {} was silent: {received} of 8 bytes in {seconds} s",
                plan.socks
            ))
        }
        Err(why) => Err(format!("the SOCKS server {}: {why}", plan.socks)),
    }
}

/// Tries each address of the SOCKS server, all before one deadline, of which
/// each gets its share. Only the lookup of its name takes as long as the
/// system's resolver likes.
fn dial(server: &SocksServer, deadline: Deadline) -> io::Result<TcpStream> {
    let addresses: Vec<IpAddr> = match &server.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => resolve::lookup(name)?,
        Host::Invalid(bad) => return Err(io::Error::other(bad.to_string())),
    };
    let mut outcome = Err(ErrorKind::NotFound.into());
    for (address, shares) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = deadline.remaining() / u32::try_from(shares).unwrap_or(u32::MAX);
        // A timeout of zero would be an error of the caller.
        let share = share.max(Duration::from_millis(1));
        outcome = TcpStream::connect_timeout(&SocketAddr::new(*address, server.port), share);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// The stream while the SOCKS server is asked. Of what comes, only the reply is
/// taken, before the deadline; the request is so short that sending it cannot
/// block.
struct HandshakeStream<'a> {
    reply: PeekReader<'a>,
    request: &'a TcpStream,
}

impl Read for HandshakeStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reply.read(buffer)
    }
}

impl Write for HandshakeStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.request.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.request.flush()
    }
}

/// The shell speaks, and gets one line for each prompt.
struct Dialogue<'a, Lines, L> {
    stream: &'a TcpStream,
    lines: Lines,
    exit_sent: bool,
    events: &'a L,
}

/// What came next from the shell.
enum ReadResult {
    Bytes(usize),
    /// Nothing, for so long that the last thing was a prompt.
    Idle,
    Eof,
}

impl<'a, Lines: Iterator<Item = &'a [u8]>, L: EventSink> Dialogue<'a, Lines, L> {
    /// Until the shell closes the connection.
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

    fn read_next(&mut self, buffer: &mut [u8], may_be_prompt: bool) -> ReadResult {
        // Without a limit of its own: a command may take long, and the page has
        // its limit. If it cannot be set, the prompt is never guessed.
        let limit = may_be_prompt.then_some(prompt::PROMPT_IDLE_TIME);
        let _ = self.stream.set_read_timeout(limit);
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return ReadResult::Eof,
                Ok(count) => return ReadResult::Bytes(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return ReadResult::Idle,
                    // A reset, which some servers send instead of an end.
                    _ => return ReadResult::Eof,
                },
            }
        }
    }

    /// Shows what came, with each line right behind the prompt it was sent at,
    /// even if the shell had already said more.
    fn process(
        &mut self,
        mut output: &[u8],
        prompts: &mut PromptFinder,
    ) -> Result<(), DisconnectedError> {
        while let Some(length) = prompts.find(output) {
            let (asked, rest) = output.split_at(length);
            self.report_output(asked)?;
            self.send_next_line()?;
            output = rest;
        }
        self.report_output(output)
    }

    /// One line, for one prompt.
    fn send_next_line(&mut self) -> Result<(), DisconnectedError> {
        let (line, event) = match self.lines.next() {
            Some(line) => (line, SessionEvent::Command(line.to_vec())),
            None if self.exit_sent => return Ok(()),
            None => (EXIT_COMMAND.as_bytes(), SessionEvent::AddedExit),
        };
        // In one piece. If the shell has left, reading shows it; then this line
        // has not been sent.
        let mut stream = self.stream;
        if stream.write_all(&[line, b"\n"].concat()).is_err() {
            return Ok(());
        }
        self.exit_sent = is_exit_command(line);
        self.events.send(event)
    }

    fn report_output(&self, output: &[u8]) -> Result<(), DisconnectedError> {
        match output.is_empty() {
            true => Ok(()),
            false => self.events.send(SessionEvent::Output(output.to_vec())),
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            SessionEnd::Done => "done",
            SessionEnd::ClosedEarly => "closed early",
            SessionEnd::TimedOut => "timed out",
            SessionEnd::Failed(why) => why,
        })
    }
}
