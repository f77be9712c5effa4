//! Finds whole lines in bulk, which the page shows as a block.
//!
//! Without blocks, all output of a column is one paragraph, and a browser lays out all of
//! its lines again for each piece. A block is laid out once, and only when it is visible.

use std::ops::Range;

use crate::terminal::Piece;

/// Minimum size of a block in bytes. Smaller blocks cost more than they save.
const MIN_LENGTH: usize = 2048;

/// Output with a block in the middle. A line ends before the block and at its end; these
/// two line ends are in none of the three parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SplitOutput {
    /// The rest of the line that has begun, and the first lines.
    pub(crate) head: Vec<Piece>,
    pub(crate) block: Vec<Piece>,
    /// The last lines, of which the last may be incomplete.
    pub(crate) tail: Vec<Piece>,
}

/// Splits output with whole lines in bulk; `None` for other output.
pub(crate) fn split(pieces: &[Piece]) -> Option<SplitOutput> {
    if pieces.iter().map(|piece| piece.text.len()).sum::<usize>() < MIN_LENGTH {
        return None;
    }
    let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    // A browser shows no empty line at the end of a block or before one. So a line with
    // text ends there.
    let ends = || {
        text.match_indices('\n')
            .map(|(at, _)| at)
            .filter(|&at| at > 0 && text.as_bytes().get(at - 1) != Some(&b'\n'))
    };
    let (first, last) = (ends().next()?, ends().next_back()?);
    (last - first > MIN_LENGTH).then(|| SplitOutput {
        head: slice(pieces, 0..first),
        block: slice(pieces, first + 1..last),
        tail: slice(pieces, last + 1..text.len()),
    })
}

/// Splits output after its first line end.
pub(crate) fn split_first_line(pieces: &[Piece]) -> (Vec<Piece>, Vec<Piece>) {
    let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let end = text.find('\n').map_or(text.len(), |at| at + 1);
    (slice(pieces, 0..end), slice(pieces, end..text.len()))
}

/// The pieces with this range of their joined text.
fn slice(pieces: &[Piece], range: Range<usize>) -> Vec<Piece> {
    let mut start = 0;
    let mut selected = Vec::new();
    for Piece { style, text } in pieces {
        let from = range.start.clamp(start, start + text.len()) - start;
        let to = range.end.clamp(start, start + text.len()) - start;
        start += text.len();
        match text.get(from..to) {
            Some(part) if !part.is_empty() => selected.push(Piece {
                style: *style,
                text: part.to_owned(),
            }),
            _ => {}
        }
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Style;

    fn piece(bold: bool, text: &str) -> Piece {
        Piece {
            style: Style {
                bold,
                ..Style::default()
            },
            text: text.to_owned(),
        }
    }

    fn text(pieces: &[Piece]) -> String {
        pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    #[test]
    fn the_parts_are_the_output_without_two_line_ends() {
        let lines = "line\n".repeat(500);
        for (first, last) in [
            ("end of a line\n", "begin"),
            ("\n\nsecond\n", "begin"),
            ("first\n\n\n", "\n\n\n"),
            ("", ""),
        ] {
            let output = format!("{first}{lines}{last}");
            let split = split(&[piece(false, &output)]).unwrap();
            let parts = [&split.head, &split.block, &split.tail].map(|part| text(part));
            assert_eq!(parts.join("\n"), output);
            let [head, block, _] = parts;
            for before_end in [head, block] {
                assert!(!before_end.is_empty() && !before_end.ends_with('\n'));
            }
        }
    }

    #[test]
    fn styles_stay_with_their_text() {
        let lines = "x\n".repeat(1000);
        let pieces = [
            piece(true, "bold\nbo"),
            piece(false, &lines),
            piece(true, &lines),
        ];
        let split = split(&pieces).unwrap();
        assert_eq!(split.head, [piece(true, "bold")]);
        let block = [
            piece(true, "bo"),
            piece(false, &lines),
            piece(true, &lines[..lines.len() - 1]),
        ];
        assert_eq!(split.block, block);
        assert_eq!(split.tail, []);
    }

    #[test]
    fn short_output_and_long_lines_are_no_bulk() {
        let long = "x".repeat(5000);
        for output in [
            "a\nb\nc\n",
            &long,
            &format!("a\n{long}"),
            &format!("{long}\nb\n"),
            &"\n".repeat(5000),
        ] {
            assert_eq!(split(&[piece(false, output)]), None);
        }
    }
}
