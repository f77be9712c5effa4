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

use crate::batch::{EXIT, is_exit};
use crate::prompt::{self, PromptFinder};
use crate::row::{Server, Visit};
use crate::telnet::Telnet;

/// How long the SOCKS server may take from the first packet to its reply. It
/// may have to wait for the shell server itself.
const SOCKS_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes read in one go.
const READ: usize = 16 * 1024;

/// What a thread tells the owner of the page.
#[derive(Debug)]
pub(crate) enum News {
    /// On the way to the SOCKS server.
    Connecting,
    /// The SOCKS server has connected us.
    Granted,
    /// The shell said this; not much more than [`READ`] bytes.
    Output(Vec<u8>),
    /// This line was sent.
    Command(Vec<u8>),
    /// `exit` was sent, which the file does not have.
    AddedExit,
    /// The last news.
    Ended(End),
}

/// How a visit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was sent, and the shell closed the connection.
    Done,
    /// The shell left before everything was sent.
    ClosedEarly,
    /// The page's time was over.
    TimedOut,
    /// It did not come about; the words for the page.
    Failed(String),
}

/// Nobody reads what we tell any more.
#[derive(Debug)]
pub(crate) struct Unheard;

/// Where the news go.
pub(crate) trait Listener {
    /// Waits until there is room for it.
    fn tell(&self, news: News) -> Result<(), Unheard>;
}

/// Visits the shell, and tells everything on the way.
pub(crate) fn visit(visit: &Visit, listener: &impl Listener) -> Result<(), Unheard> {
    listener.tell(News::Connecting)?;
    let end = match connect(visit) {
        Ok(stream) => {
            listener.tell(News::Granted)?;
            let conversation = Conversation {
                stream: &stream,
                unsent: visit.batch.lines(),
                exit_sent: false,
                listener,
            };
            conversation.hold()?
        }
        Err(why) => End::Failed(why),
    };
    listener.tell(News::Ended(end))
}

/// A connection to the shell, through the SOCKS server.
fn connect(visit: &Visit) -> Result<TcpStream, String> {
    let deadline = Deadline::after(SOCKS_PATIENCE);
    let stream = dial(&visit.socks, deadline)
        .map_err(|error| format!("cannot reach the SOCKS server {}: {error}", visit.socks))?;
    // One small message at a time, each waiting for the answer to the last.
    let _ = stream.set_nodelay(true);
    let handshake = Handshake {
        reply: PeekReader::new(&stream, deadline),
        request: &stream,
    };
    match client::socks4::connect(handshake, &visit.target, b"") {
        Ok(_) => Ok(stream),
        Err(ClientError::Refused(refusal)) => {
            Err(format!("refused: {} {refusal}", socks4::code(refusal)))
        }
        Err(ClientError::NoReply(ReadError::Incomplete(received, error)))
            if error.kind() == ErrorKind::TimedOut =>
        {
            let seconds = SOCKS_PATIENCE.as_secs();
            Err(format!(
                "the SOCKS server {} was silent: {received} of 8 bytes in {seconds} s",
                visit.socks
            ))
        }
        Err(why) => Err(format!("the SOCKS server {}: {why}", visit.socks)),
    }
}

/// Tries each address of the SOCKS server, all before one deadline, of which
/// each gets its share. Only the lookup of its name takes as long as the
/// system's resolver likes.
fn dial(server: &Server, deadline: Deadline) -> io::Result<TcpStream> {
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
struct Handshake<'a> {
    reply: PeekReader<'a>,
    request: &'a TcpStream,
}

impl Read for Handshake<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reply.read(buffer)
    }
}

impl Write for Handshake<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.request.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.request.flush()
    }
}

/// The shell speaks, and gets one line for each prompt.
struct Conversation<'a, Lines, L> {
    stream: &'a TcpStream,
    unsent: Lines,
    exit_sent: bool,
    listener: &'a L,
}

/// What came next from the shell.
enum BindWait {
    Bytes(usize),
    /// Nothing, for so long that the last thing was a prompt.
    Quiet,
    TheEnd,
}

impl<'a, Lines: Iterator<Item = &'a [u8]>, L: Listener> Conversation<'a, Lines, L> {
    /// Until the shell closes the connection.
    fn hold(mut self) -> Result<End, Unheard> {
        let mut buffer = [0; READ];
        let mut telnet = Telnet::default();
        let mut prompts = PromptFinder::default();
        loop {
            match self.listen(&mut buffer, prompts.perhaps()) {
                BindWait::Bytes(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.answer(&telnet.text(bytes), &mut prompts)?;
                }
                BindWait::Quiet => {
                    prompts.it_was();
                    self.send_next()?;
                }
                BindWait::TheEnd => break,
            }
        }
        Ok(match self.exit_sent {
            true => End::Done,
            false => End::ClosedEarly,
        })
    }

    fn listen(&mut self, buffer: &mut [u8], perhaps_prompt: bool) -> BindWait {
        // Without a limit of its own: a command may take long, and the page has
        // its limit. If it cannot be set, the prompt is never guessed.
        let limit = perhaps_prompt.then_some(prompt::QUIET);
        let _ = self.stream.set_read_timeout(limit);
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return BindWait::TheEnd,
                Ok(count) => return BindWait::Bytes(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return BindWait::Quiet,
                    // A reset, which some servers send instead of an end.
                    _ => return BindWait::TheEnd,
                },
            }
        }
    }

    /// Shows what came, with each line right behind the prompt it was sent at,
    /// even if the shell had already said more.
    fn answer(&mut self, mut output: &[u8], prompts: &mut PromptFinder) -> Result<(), Unheard> {
        while let Some(length) = prompts.find(output) {
            let (asked, rest) = output.split_at(length);
            self.show(asked)?;
            self.send_next()?;
            output = rest;
        }
        self.show(output)
    }

    /// One line, for one prompt.
    fn send_next(&mut self) -> Result<(), Unheard> {
        let (line, news) = match self.unsent.next() {
            Some(line) => (line, News::Command(line.to_vec())),
            None if self.exit_sent => return Ok(()),
            None => (EXIT.as_bytes(), News::AddedExit),
        };
        // In one piece. If the shell has left, reading shows it; then this line
        // has not been sent.
        let mut stream = self.stream;
        if stream.write_all(&[line, b"\n"].concat()).is_err() {
            return Ok(());
        }
        self.exit_sent = is_exit(line);
        self.listener.tell(news)
    }

    fn show(&self, output: &[u8]) -> Result<(), Unheard> {
        match output.is_empty() {
            true => Ok(()),
            false => self.listener.tell(News::Output(output.to_vec())),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            End::Done => "done",
            End::ClosedEarly => "closed early",
            End::TimedOut => "timed out",
            End::Failed(why) => why,
        })
    }
}
