//! `--probe`: asks a server whether it answers SOCKS5 clients.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::net::{Deadline, PeekReader};

/// For the connection and the answer together: longer than the 3 s after which TCP has repeated
/// a lost SYN once, and shorter than the limit that programs for health checks have.
const TIME: Duration = Duration::from_secs(5);

/// The greeting of RFC 1928, section 3: version 5, and the methods none (0), password (2) and none
/// again. With three methods, the echo of the greeting is no answer: method 3 was not offered. The
/// server writes nothing about a client that leaves after its answer.
const GREETING: [u8; 5] = [5, 3, 0, 2, 0];

/// Greets the server at this address as a SOCKS5 client, and leaves after its answer. That the
/// server accepts no method (0xFF) is the answer of a working server too.
///
/// # Errors
///
/// A sentence: there is no answer within 5 s, or it has another version.
pub fn probe(server: SocketAddr) -> Result<String, String> {
    match answer_of(server) {
        Ok([5, 0 | 2 | 0xFF]) => Ok(format!("{server}: a SOCKS5 server answers\n")),
        Ok([first, second]) => Err(format!(
            "{server}: the answer {first:#04x} {second:#04x} is not that of a SOCKS5 server"
        )),
        Err(error) => Err(format!("{server}: {error}")),
    }
}

fn answer_of(server: SocketAddr) -> io::Result<[u8; 2]> {
    let deadline = Deadline::after(TIME);
    let mut stream = TcpStream::connect_timeout(&server, TIME)?;
    // Without a listener, a socket may connect to itself: the system has chosen this port for it.
    if stream.local_addr()? == server {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    // Five bytes fit into any send buffer, so this does not wait.
    stream.write_all(&GREETING)?;
    let mut answer = [0; 2];
    let mut reader = PeekReader::new(&stream, deadline);
    match reader.read_exact(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::other(
            "the server has closed the connection without an answer",
        )),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(io::Error::other(format!(
            "no answer within {}",
            humantime::format_duration(TIME)
        ))),
        result => result.map(|()| answer),
    }
}
