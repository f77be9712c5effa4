//! The connection to a shell, through its SOCKS server or directly.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use threadsocks::client::{self, ClientError};
use threadsocks::net::resolve;
use threadsocks::net::{Deadline, PeekReader};
use threadsocks::protocol::{Destination, Host, ProtocolError, ReadError, ReplyError, socks4};

use crate::failure::Failure;
use crate::row::{ServerAddress, SessionPlan, SocksServer};

/// Time from the first packet to the reply of the SOCKS server, or to a direct connection.
/// It is long, because the SOCKS server itself may have to wait for the shell server.
const SOCKS_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the shell.
///
/// # Errors
///
/// The failure, with a next step for each of its causes.
pub(crate) fn connect(plan: &SessionPlan) -> Result<TcpStream, Failure> {
    let deadline = Deadline::after(SOCKS_TIMEOUT);
    let Destination { host, port } = &plan.destination;
    let (server, kind) = match &plan.socks {
        Some(socks) => (socks.address.clone(), "SOCKS server"),
        None => {
            let (host, port) = (host.clone(), *port);
            (ServerAddress { host, port }, "shell")
        }
    };
    let stream = dial(&server, deadline).map_err(|error| {
        let reason = format!("cannot reach the {kind} {server}: {error}");
        Failure::new(reason, after_dial(kind, &error))
    })?;
    // Small messages, each of which waits for the answer to the previous one: Nagle's
    // algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    if let Some(socks) = &plan.socks {
        request_connection(&stream, &plan.destination, socks, deadline)?;
    }
    Ok(stream)
}

/// The next step after a server could not be reached.
fn after_dial(kind: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("No program listens there. Start the {kind}, or correct its host and port.")
        }
        ErrorKind::TimedOut => format!(
            "Check the address of the {kind}. A firewall may drop the packets, or the host is down."
        ),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("Check the address of the {kind}, and the network of the web server's machine.")
        }
        _ => format!(
            "Check the spelling of the host, or enter its address. The machine of the web server \
             resolves the name of the {kind}."
        ),
    }
}

/// Asks the SOCKS server for the connection to the shell: SOCKS5 with a login if the
/// administrator has given one for this server, otherwise SOCKS4 or SOCKS4A.
///
/// # Errors
///
/// The failure, with a next step for each of its causes.
fn request_connection(
    stream: &TcpStream,
    destination: &Destination,
    socks: &SocksServer,
    deadline: Deadline,
) -> Result<(), Failure> {
    let handshake = HandshakeStream {
        reply: PeekReader::new(stream, deadline),
        request: stream,
    };
    let result = match &socks.login {
        Some(login) => client::socks5::connect(handshake, Some(login), destination).map(drop),
        None => client::socks4::connect(handshake, destination, b"").map(drop),
    };
    result.map_err(|error| Failure {
        reason: reason(&error, socks),
        next_step: next_step(&error, destination, stream),
    })
}

/// The reason for a status line.
fn reason(error: &ClientError, socks: &SocksServer) -> String {
    let address = &socks.address;
    match error {
        ClientError::Refused(error) if socks.login.is_none() => {
            format!("refused: {} {error}", socks4::code(*error))
        }
        ClientError::Refused(error) => format!("refused: {error}"),
        ClientError::NoReply(ReadError::Incomplete(received, error))
            if error.kind() == ErrorKind::TimedOut =>
        {
            let seconds = SOCKS_TIMEOUT.as_secs();
            format!(
                "the SOCKS server {address} was silent: {received} bytes of its reply in {seconds} s"
            )
        }
        error => format!("the SOCKS server {address}: {error}"),
    }
}

/// The next step after the SOCKS server has not granted the request.
fn next_step(error: &ClientError, destination: &Destination, stream: &TcpStream) -> String {
    match error {
        ClientError::Refused(ReplyError::IdentFailed | ReplyError::UserMismatch) => {
            "The SOCKS server asks identd on the machine of the web server for the user of the \
             connection. Start identd there, or ask the administrator of the SOCKS server for a \
             rule without identd."
                .to_owned()
        }
        ClientError::Refused(_) => after_refusal(destination, stream),
        ClientError::LoginDenied | ClientError::NoMethod => {
            "Ask the administrator of this console to correct the login for this SOCKS server in \
             the file that CONSOLE_SOCKS_LOGINS names."
                .to_owned()
        }
        ClientError::NoReply(ReadError::Protocol(ProtocolError::Version(_))) => {
            "This port speaks no SOCKS. Is it the port of the shell server, or of a web server? \
             Enter the port of the SOCKS server."
                .to_owned()
        }
        ClientError::NoReply(ReadError::Incomplete(_, error))
            if error.kind() == ErrorKind::TimedOut =>
        {
            "This port may not belong to a SOCKS server, or the SOCKS server still waits for the \
             shell server. Check both ports, and run this row again."
                .to_owned()
        }
        ClientError::NoReply(ReadError::Incomplete(..)) => {
            "The SOCKS server has closed the connection without a complete reply. Its limit of \
             clients may be reached, or it may accept only SOCKS5. See its log."
                .to_owned()
        }
        _ => "Check that this port is that of a SOCKS server, and run this row again.".to_owned(),
    }
}

/// The next step after the SOCKS server has refused this destination. SOCKS4 has one code
/// for all causes, so the text names a test for each.
fn after_refusal(destination: &Destination, stream: &TcpStream) -> String {
    let Destination { host, port } = destination;
    let client = stream
        .local_addr()
        .map_or_else(|_| "CLIENT".to_owned(), |own| own.ip().to_string());
    format!(
        "The rules of the SOCKS server deny {host}:{port}, or it cannot connect to it. On its \
         machine, threadsocks --explain \"c {client} {host} {port}\" prints the rule that decides. \
         If the rule permits it, test the connection there: nc -v {host} {port}"
    )
}

/// Tries the addresses of the server one after the other. Each gets an equal
/// share of the remaining time. The lookup of the name has no deadline, because
/// getaddrinfo(3) has no timeout.
///
/// # Errors
///
/// Of the lookup, or of the last address tried.
fn dial(server: &ServerAddress, deadline: Deadline) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match &server.host {
        Host::Address(address) => vec![SocketAddr::new(*address, server.port)],
        Host::Name(name) => resolve::lookup(name, server.port)?,
        Host::Invalid(invalid) => return Err(io::Error::other(invalid.to_string())),
    };
    let mut outcome = Err(ErrorKind::NotFound.into());
    for (address, shares) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = deadline.remaining() / u32::try_from(shares).unwrap_or(u32::MAX);
        // `connect_timeout` refuses a timeout of zero.
        let share = share.max(Duration::from_millis(1));
        outcome = TcpStream::connect_timeout(address, share);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// The connection during the SOCKS handshake. `reply` reads exactly the reply, before
/// the deadline, and leaves later bytes in the socket. `request` needs no deadline: the
/// request fits into the empty send buffer, so sending it cannot block.
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
