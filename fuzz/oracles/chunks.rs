//! Splits input into chunks, as a network may deliver it.

use std::io::{self, BufRead, ErrorKind, Read};

/// Longest input, in bytes, that is split in two at every position: the number of splits
/// grows with the length.
const MAX_LENGTH_OF_ALL_SPLITS: usize = 40;

/// Several ways to split the bytes: one chunk, equal chunks of several sizes, and uneven
/// chunks. Short input is also split in two at every position.
pub(super) fn chunkings(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut chunkings = vec![vec![bytes]];
    for size in [1, 2, 3, 7, 64] {
        chunkings.push(bytes.chunks(size).collect());
    }
    chunkings.push(uneven_chunks(bytes));
    if bytes.len() <= MAX_LENGTH_OF_ALL_SPLITS {
        for at in 1..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            chunkings.push(vec![head, tail]);
        }
    }
    chunkings
}

/// Chunks of 1 to 16 bytes. The first byte of each chunk determines its length, so the
/// fuzzer can choose the lengths.
pub(super) fn uneven_chunks(bytes: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let length = usize::from(first % 16 + 1).min(rest.len());
        let (chunk, tail) = rest.split_at(length);
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

/// A stream that returns one chunk per read and counts the consumed bytes.
///
/// Before each chunk it returns `ErrorKind::Interrupted`, which a reader must retry.
pub(super) struct ChunkedStream<'a> {
    chunks: Vec<&'a [u8]>,
    interrupted: bool,
    /// Bytes consumed so far.
    pub(super) consumed: usize,
}

impl<'a> ChunkedStream<'a> {
    pub(super) fn new(mut chunks: Vec<&'a [u8]>) -> ChunkedStream<'a> {
        // In reverse order, so that the next chunk can be popped from the end.
        chunks.reverse();
        ChunkedStream {
            chunks,
            interrupted: false,
            consumed: 0,
        }
    }
}

impl BufRead for ChunkedStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunks.last().is_some_and(|chunk| chunk.is_empty()) {
            self.chunks.pop();
            self.interrupted = false;
        }
        if !std::mem::replace(&mut self.interrupted, true) {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(self.chunks.last().copied().unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count;
        match self.chunks.last_mut() {
            Some(chunk) => *chunk = &chunk[count..],
            None => assert_eq!(count, 0, "consumed more than the stream has"),
        }
    }
}

impl Read for ChunkedStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}
