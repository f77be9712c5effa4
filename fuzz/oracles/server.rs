//! A server for our clients to ask, which says what the input has.

use std::io::{self, Read, Write};

use super::pieces::Stream;

/// A server that has said all it will say, and hears the request.
pub(super) struct Server<'a> {
    pub(super) says: Stream<'a>,
    pub(super) heard: Vec<u8>,
}

impl Read for Server<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.says.read(buffer)
    }
}

impl Write for Server<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Server<'a> {
    pub(super) fn new(pieces: Vec<&'a [u8]>) -> Server<'a> {
        let (says, heard) = (Stream::new(pieces), Vec::new());
        Server { says, heard }
    }
}
