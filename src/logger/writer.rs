//! A place for whole messages, which may be full for a while.

use std::io::{self, Write};

/// Where messages go, one after the other, in one piece or not at all.
pub(super) struct MessageWriter {
    to: Box<dyn Write + Send>,
    /// What is missing of a message of which a part was written. It comes before
    /// the next, so that nobody ever sees half a message.
    rest: Vec<u8>,
    /// While it fails: how many messages were lost by that.
    lost: Option<u64>,
}

/// What became of a message. A reason is told where it fails for the first time.
#[derive(Debug)]
pub(super) enum WriteResult {
    /// It is written, and so many before it were lost since it failed first.
    Written(u64),
    /// It has begun, and will be ended before the next.
    Partial(Option<io::Error>),
    /// It is lost.
    DroppedCounts(Option<io::Error>),
}

impl MessageWriter {
    pub(super) fn new(to: Box<dyn Write + Send>) -> MessageWriter {
        MessageWriter {
            to,
            rest: Vec::new(),
            lost: None,
        }
    }

    /// How many messages are lost of which nobody has been told.
    pub(super) fn lost(&self) -> u64 {
        self.lost.unwrap_or(0)
    }

    /// So many are lost, and still to be told of.
    pub(super) fn set_lost(&mut self, count: u64) {
        self.lost = Some(count);
    }

    /// Writes a message, with what is missing of the last one in front. One that
    /// has begun will be ended; one that has not is lost, and counted.
    pub(super) fn put(&mut self, message: &str) -> WriteResult {
        let begun = self.rest.len();
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend(message.as_bytes());
        let (written, result) = self.write_as_far(&bytes);
        let has_begun = written > begun;
        let kept = if has_begun { bytes.len() } else { begun };
        self.rest = bytes.get(written..kept).unwrap_or_default().to_vec();
        let before = self.lost.take();
        let Err(error) = result else {
            return WriteResult::Written(before.unwrap_or(0));
        };
        let first = before.is_none().then_some(error);
        self.lost = Some(before.unwrap_or(0) + u64::from(!has_begun));
        match has_begun {
            true => WriteResult::Partial(first),
            false => WriteResult::DroppedCounts(first),
        }
    }

    /// Ends the message of which a part was written, or counts it as lost; how
    /// many are lost in all.
    pub(super) fn close(mut self) -> u64 {
        let rest = std::mem::take(&mut self.rest);
        let (written, _) = self.write_as_far(&rest);
        let is_ended = written == rest.len();
        self.lost.map_or(0, |lost| lost + u64::from(!is_ended))
    }

    /// Writes as much of this as can be written, and says how much that was.
    fn write_as_far(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match self.to.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, self.to.flush())
    }
}
