//! Reading one message from a stream that delivers it in any number of parts.

use std::io::{self, BufRead};

use super::error::{ProtocolError, ReadError};

/// Reads one message and not a byte more: data that follow it stay in the stream for the
/// relay.
///
/// `decode` gets the bytes received so far and returns the message and its length, or
/// `None` while more must come.
pub(super) fn read_message<T>(
    stream: &mut impl BufRead,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, ProtocolError>,
) -> Result<T, ReadError> {
    let mut received = Vec::new();
    loop {
        let part = match stream.fill_buf() {
            Ok([]) => return Err(ReadError::eof(received.len())),
            Ok(part) => part,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReadError::Incomplete(received.len(), error)),
        };
        let before = received.len();
        received.extend_from_slice(part);
        if let Some((message, length)) = decode(&received)? {
            stream.consume(length - before);
            return Ok(message);
        }
        // All bytes of an incomplete message belong to it.
        stream.consume(received.len() - before);
    }
}
