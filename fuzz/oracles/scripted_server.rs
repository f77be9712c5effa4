//! A server for our clients to ask, which output what the input has.

use std::io::{self, Read, Write};

use super::chunks::ChunkedStream;

/// A server that has said all it will say, and hears the request.
pub(super) struct ScriptedServer<'a> {
    pub(super) output: ChunkedStream<'a>,
    pub(super) received: Vec<u8>,
}

impl Read for ScriptedServer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Write for ScriptedServer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.received.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> ScriptedServer<'a> {
    pub(super) fn new(chunks: Vec<&'a [u8]>) -> ScriptedServer<'a> {
        let (output, received) = (ChunkedStream::new(chunks), Vec::new());
        ScriptedServer { output, received }
    }
}
