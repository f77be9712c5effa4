//! A server for the client library, whose output is the input of the oracle.

use std::io::{self, Read, Write};

use super::chunks::ChunkedStream;

/// A server that has sent its whole output before it reads the request.
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
