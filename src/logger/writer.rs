//! Writing whole messages to an output that may fail for a while.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::trace::{self, Wait};

/// Writes messages one after the other. A message of which a part was written is completed
/// before the next one.
pub(super) struct MessageWriter {
    output: Box<dyn Write + Send>,
    /// Called for each message that is lost.
    count_lost: Box<dyn Fn() + Send>,
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
    pub(super) fn new(
        output: Box<dyn Write + Send>,
        count_lost: impl Fn() + Send + 'static,
    ) -> MessageWriter {
        MessageWriter {
            output,
            count_lost: Box::new(count_lost),
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
        if has_begun {
            return WriteResult::Partial(first);
        }
        (self.count_lost)();
        WriteResult::Lost(first)
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

/// Pause before the next attempt, if poll(2) has reported room and write(2) has found none: a
/// terminal with one free byte takes no line end, and another process can take the room.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// stdout without the buffer of the standard library: after a failure the logger must
/// know how many bytes of a message were written.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

/// stderr, which waits like [`Stdout`] if it does not block.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_when_ready(&io::stdout(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_when_ready(&io::stderr(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// write(2) that waits for room, whether the output blocks or not. O_NONBLOCK belongs to the
/// open file description: any process that shares it can set the flag at any time.
///
/// # Errors
///
/// As write(2), except EAGAIN and EINTR.
fn write_when_ready(output: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let _wait = trace::wait(|| Wait::Output);
    let mut has_waited = false;
    loop {
        match unistd::write(output, bytes) {
            Err(Errno::EAGAIN) if has_waited => thread::sleep(RETRY_PAUSE),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return Ok(result?),
        }
        // An error of poll(2), such as EINTR, needs no treatment: write(2) follows.
        let room = PollFd::new(output.as_fd(), PollFlags::POLLOUT);
        let _ = poll(&mut [room], PollTimeout::NONE);
        has_waited = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, PipeWriter, Read};
    use std::os::unix::net::UnixStream;

    use crossbeam_channel::RecvTimeoutError;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    struct Output<T>(T);

    impl<T: AsFd> Write for Output<T> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            write_when_ready(&self.0, bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pipe that is full, and how many bytes it holds.
    fn full_pipe() -> (PipeReader, PipeWriter, usize) {
        let (reader, writer) = io::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        let mut held = 0;
        while let Ok(count) = unistd::write(&writer, b"x") {
            held += count;
        }
        (reader, writer, held)
    }

    /// Writes these messages from another thread, and then lets `read` read them: only when
    /// the writer waits, since a writer that does not wait ends at once.
    fn write_while_reading(
        output: impl AsFd + Send + 'static,
        messages: &[String],
        read: impl FnOnce(),
    ) {
        let (ended, has_ended) = crossbeam_channel::bounded::<()>(1);
        thread::scope(|scope| {
            let mut output = MessageWriter::new(Box::new(Output(output)), || {});
            scope.spawn(move || {
                let _ended = ended;
                for message in messages {
                    let result = output.write(message);
                    assert!(matches!(result, WriteResult::Written(0)), "{result:?}");
                }
            });
            let result = has_ended.recv_timeout(Duration::from_millis(50));
            assert_eq!(result, Err(RecvTimeoutError::Timeout), "the writer waits");
            read();
        });
    }

    #[test]
    fn l11_a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer, held) = full_pipe();
        let messages: Vec<String> = (0..200).map(|it| format!("message {it}\n")).collect();
        let mut text = String::new();
        write_while_reading(writer, &messages, || {
            let mut read = vec![0; held];
            reader.read_exact(&mut read).expect("the first bytes");
            reader.read_to_string(&mut text).expect("the messages");
        });
        assert_eq!(text, messages.concat());
    }

    /// A socket takes parts of a message, a pipe takes short messages as a whole.
    #[test]
    fn l11_partial_writes_to_a_socket_that_does_not_block_are_continued() {
        let (mut reader, writer) = UnixStream::pair().expect("a pair");
        writer.set_nonblocking(true).expect("set");
        let message = "0123456789".repeat(100_000);
        let mut text = String::new();
        write_while_reading(writer, std::slice::from_ref(&message), || {
            reader.read_to_string(&mut text).expect("the message");
        });
        assert!(text == message, "{} bytes", text.len());
    }

    #[test]
    fn l11_a_reader_that_closes_ends_the_wait() {
        let (reader, writer, _) = full_pipe();
        thread::scope(|scope| {
            let writing = scope.spawn(move || Output(writer).write(b"lost"));
            drop(reader);
            let error = writing.join().expect("no panic").expect_err("no reader");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
