//! The same bytes in different pieces, as a network would deliver them.

use std::io::{self, BufRead, ErrorKind, Read};

/// Up to this length every cut into two is tried.
const SHORT: usize = 40;

/// The bytes in one piece, byte by byte, in equal pieces, in uneven ones, and
/// if they are few in every two.
pub(super) fn cuttings(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut cuttings = vec![vec![bytes]];
    for size in [1, 2, 3, 7, 64] {
        cuttings.push(bytes.chunks(size).collect());
    }
    cuttings.push(uneven(bytes));
    if bytes.len() <= SHORT {
        for at in 1..bytes.len() {
            let (front, back) = bytes.split_at(at);
            cuttings.push(vec![front, back]);
        }
    }
    cuttings
}

/// Pieces as long as the bytes themselves say, so that a fuzzer can choose.
pub(super) fn uneven(bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let length = usize::from(first % 16 + 1).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// A stream that gives one piece at a time, is interrupted before each, and
/// counts what is taken.
pub(super) struct Stream<'a> {
    pieces: Vec<&'a [u8]>,
    interrupted: bool,
    /// Bytes taken so far.
    pub(super) taken: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(mut pieces: Vec<&'a [u8]>) -> Stream<'a> {
        // The next piece is the last.
        pieces.reverse();
        Stream {
            pieces,
            interrupted: false,
            taken: 0,
        }
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.pieces.last().is_some_and(|piece| piece.is_empty()) {
            self.pieces.pop();
            self.interrupted = false;
        }
        if !std::mem::replace(&mut self.interrupted, true) {
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(self.pieces.last().copied().unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
        match self.pieces.last_mut() {
            Some(piece) => *piece = &piece[count..],
            None => assert_eq!(count, 0, "taken behind the end"),
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        self.consume(count);
        Ok(count)
    }
}
