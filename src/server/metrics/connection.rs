//! One connection for the metrics: a request, and its reply.

use std::io::{self, BufRead};
use std::net::TcpStream;
use std::time::Duration;

use crate::metrics::{MAX_HEAD, Reply, is_complete};
use crate::net::{self, Deadline, PeekReader};

/// The time for a connection, from accept to close.
const TIME: Duration = Duration::from_secs(5);

/// Reads the request and replies to it. `page` makes the metrics; `None` if they have ended.
pub(super) fn serve(client: &TcpStream, page: impl FnOnce() -> Option<String>) {
    let deadline = Deadline::after(TIME);
    // A client that is too slow, or leaves, gets no reply.
    let Ok(reply) = read_request(client, deadline) else {
        return;
    };
    let page = match reply {
        Reply::Page { .. } => page(),
        _ => Some(String::new()),
    };
    let Some(page) = page else {
        return;
    };
    if net::send_all(client, &reply.encode(|| page), deadline).is_ok() {
        // The rest of a request that was not read would make the close send RST.
        net::lingering_close(client, deadline);
    }
}

/// Reads the head of the request, and returns the reply to it.
fn read_request(client: &TcpStream, deadline: Deadline) -> io::Result<Reply> {
    let mut reader = PeekReader::new(client, deadline);
    let mut head = Vec::new();
    while !is_complete(&head) {
        if head.len() > MAX_HEAD {
            return Ok(Reply::HeadTooLarge);
        }
        let more = reader.fill_buf()?;
        if more.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(more);
        let count = more.len();
        reader.consume(count);
        // The reader looks at the deadline only while it waits, and each byte ends its wait.
        if deadline.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(Reply::to(&head))
}
