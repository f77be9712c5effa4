//! Writing whole messages to an output that may fail for a while.

use std::io::{self, Write};

use nix::unistd;

/// Writes messages one after the other. A message of which a part was written is completed
/// before the next one.
pub(super) struct MessageWriter {
    output: Box<dyn Write + Send>,
    /// The rest of a message of which a part was written. Only the end of the program can
    /// leave it unwritten.
    rest: Vec<u8>,
    /// While the output fails: how many messages were lost.
    lost: Option<u64>,
}

/// What became of a message. The first failure comes with its error.
#[derive(Debug)]
pub(super) enum WriteResult {
    /// It is written. This many messages before it were lost since the first failure.
    Written(u64),
    /// A part of it is written, and the rest will be before the next message.
    Partial(Option<io::Error>),
    /// It is lost.
    Lost(Option<io::Error>),
}

impl MessageWriter {
    pub(super) fn new(output: Box<dyn Write + Send>) -> MessageWriter {
        MessageWriter {
            output,
            rest: Vec::new(),
            lost: None,
        }
    }

    /// How many messages were lost and not reported yet.
    pub(super) fn lost(&self) -> u64 {
        self.lost.unwrap_or(0)
    }

    /// Sets how many messages were lost and not reported yet.
    pub(super) fn set_lost(&mut self, count: u64) {
        self.lost = Some(count);
    }

    /// Writes the rest of the last message, if there is one, and then this message.
    pub(super) fn write(&mut self, message: &str) -> WriteResult {
        let rest = self.rest.len();
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend(message.as_bytes());
        let (written, result) = self.write_bytes(&bytes);
        let has_begun = written > rest;
        let kept = if has_begun { bytes.len() } else { rest };
        self.rest = bytes.get(written..kept).unwrap_or_default().to_vec();
        let before = self.lost.take();
        let Err(error) = result else {
            return WriteResult::Written(before.unwrap_or(0));
        };
        let first = before.is_none().then_some(error);
        self.lost = Some(before.unwrap_or(0) + u64::from(!has_begun));
        match has_begun {
            true => WriteResult::Partial(first),
            false => WriteResult::Lost(first),
        }
    }

    /// Writes the rest of the last message, or counts that message as lost. Returns how
    /// many were lost in all.
    pub(super) fn close(mut self) -> u64 {
        let rest = std::mem::take(&mut self.rest);
        let (written, _) = self.write_bytes(&rest);
        let is_complete = written == rest.len();
        self.lost.map_or(0, |lost| lost + u64::from(!is_complete))
    }

    /// Writes as many of these bytes as possible, and returns how many.
    fn write_bytes(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match self.output.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, self.output.flush())
    }
}

/// stdout without the buffer of the standard library: after a failure the logger must
/// know how many bytes of a message were written.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(unistd::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
