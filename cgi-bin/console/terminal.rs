//! A shell's bytes become text in colours.
//!
//! UTF-8 may be split between reads; what is no UTF-8 becomes U+FFFD. Colours
//! and bold are kept as a style, all other escape sequences are swallowed; one
//! that does not end ends with its line.
//! Other control characters are shown by their pictures (U+2400 and up), so
//! that none reaches anybody's terminal; but NUL, which is padding, is dropped.

use std::fmt::Write;

use vte::{Params, Parser, Perform};

/// How a piece of text looks, as a terminal was told (ECMA-48, SGR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// One of sixteen, for the text.
    pub(crate) colour: Option<u8>,
    /// One of sixteen, behind it.
    pub(crate) background: Option<u8>,
    pub(crate) bold: bool,
    pub(crate) underlined: bool,
}

/// Text of one style, with `\n` for every line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) style: Style,
    pub(crate) text: String,
}

/// Ends any escape sequence (ECMA-48, CAN).
const CANCEL: u8 = 0x18;

/// Follows what one shell says.
#[derive(Default)]
pub(crate) struct Terminal {
    parser: Parser,
    collector: PieceCollector,
    /// The beginning of a character, at most three bytes. (The parser would
    /// take it, but version 0.15 loses what follows in the next piece.)
    incomplete: Vec<u8>,
}

impl Terminal {
    /// What these bytes, which follow those before, add to the page.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut text = std::mem::take(&mut self.incomplete);
        text.extend_from_slice(bytes);
        self.incomplete = text.split_off(complete_utf8_length(&text));
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if line.ends_with(b"\n") {
                let (line, end) = line.split_at(line.len() - 1);
                self.parser.advance(&mut self.collector, line);
                self.cancel();
                self.parser.advance(&mut self.collector, end);
            } else {
                self.parser.advance(&mut self.collector, line);
            }
        }
        std::mem::take(&mut self.collector.pieces)
    }

    /// Ends an escape sequence. Those with text in them, as for a window's
    /// title, would go on for ever if a binary file began one by chance.
    fn cancel(&mut self) {
        self.collector.is_cancelling = true;
        self.parser.advance(&mut self.collector, &[CANCEL]);
        self.collector.is_cancelling = false;
    }

    /// Ends whatever has begun: a split character, an escape sequence, a
    /// colour. Output that leaves such a thing open spoils nothing behind it.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        // An escape ends a split character, and the new parser forgets it.
        let last = self.show(b"\x1b");
        *self = Terminal::default();
        last
    }
}

/// How many of these bytes come before a character that is not complete yet.
fn complete_utf8_length(bytes: &[u8]) -> usize {
    // A character has up to four bytes, so at most three can be too few.
    for length in 1..=bytes.len().min(3) {
        let start = bytes.len() - length;
        let end = bytes.get(start..).unwrap_or_default();
        let starts_character = end.first().is_some_and(|&byte| byte >= 0xc0);
        if starts_character {
            let is_incomplete =
                std::str::from_utf8(end).is_err_and(|error| error.error_len().is_none());
            return if is_incomplete { start } else { bytes.len() };
        }
    }
    bytes.len()
}

/// The visible form of a control character.
fn control_picture(control: char) -> char {
    match control {
        '\u{7f}' => '\u{2421}',
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(control)).unwrap_or('\u{fffd}'),
        _ => '\u{fffd}',
    }
}

/// A line that is no output, as it can be shown.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let show = |char: char| match char {
        '\t' => char,
        _ if char.is_control() => control_picture(char),
        _ => char,
    };
    String::from_utf8_lossy(bytes).chars().map(show).collect()
}

/// What the parser writes on.
#[derive(Debug, Default)]
struct PieceCollector {
    style: Style,
    pieces: Vec<Piece>,
    /// A carriage return that may belong to a newline.
    has_pending_return: bool,
    /// The next control character is ours, and not to be seen.
    is_cancelling: bool,
}

impl PieceCollector {
    fn push_char(&mut self, char: char) {
        match self.pieces.last_mut() {
            Some(piece) if piece.style == self.style => piece.text.push(char),
            _ => self.pieces.push(Piece {
                style: self.style,
                text: char.to_string(),
            }),
        }
    }

    /// A carriage return without newline goes back to overwrite the line, as
    /// progress counters do. Here each state of it gets its own line.
    fn flush_carriage_return(&mut self) {
        if std::mem::take(&mut self.has_pending_return) {
            self.push_char('\n');
        }
    }
}

impl Perform for PieceCollector {
    fn print(&mut self, char: char) {
        self.flush_carriage_return();
        match char {
            '\u{7f}' => self.push_char(control_picture(char)),
            _ => self.push_char(char),
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.has_pending_return = false;
                self.push_char('\n');
            }
            b'\r' => self.has_pending_return = true,
            b'\t' => self.print('\t'),
            CANCEL if self.is_cancelling => {}
            b'\0' => {}
            _ => {
                self.flush_carriage_return();
                self.push_char(control_picture(char::from(byte)));
            }
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if action == 'm' && intermediates.is_empty() && !ignore {
            self.style.apply_sgr(params);
        }
    }
}

impl Style {
    /// Applies the numbers of one "select graphic rendition".
    fn apply_sgr(&mut self, params: &Params) {
        let mut params = params.iter();
        let mut next = || params.next().and_then(|param| param.split_first());
        while let Some((&number, details)) = next() {
            match number {
                0 => *self = Style::default(),
                1 => self.bold = true,
                // Its kinds of lines are all one here; 0 is none.
                4 => self.underlined = details.first() != Some(&0),
                22 => self.bold = false,
                24 => self.underlined = false,
                30..=37 => self.colour = colour(number - 30),
                39 => self.colour = None,
                40..=47 => self.background = colour(number - 40),
                49 => self.background = None,
                90..=97 => self.colour = colour(number - 90 + 8),
                100..=107 => self.background = colour(number - 100 + 8),
                // Colours out of thousands: what follows in the same sequence,
                // if it is no part of this number, means nothing else.
                38 | 48 if details.is_empty() => {
                    let further = match next() {
                        Some((5, _)) => 1,
                        Some((2, _)) => 3,
                        _ => 0,
                    };
                    for _ in 0..further {
                        next();
                    }
                }
                _ => {}
            }
        }
    }

    /// Its classes in the page's style sheet.
    pub(crate) fn classes(&self) -> String {
        let mut classes = String::new();
        if let Some(colour) = self.colour {
            let _ = write!(classes, "c{colour} ");
        }
        if let Some(background) = self.background {
            let _ = write!(classes, "b{background} ");
        }
        if self.bold {
            classes.push_str("strong ");
        }
        if self.underlined {
            classes.push_str("under ");
        }
        classes.truncate(classes.trim_end().len());
        classes
    }
}

fn colour(number: u16) -> Option<u8> {
    u8::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text, whatever its style, when it comes in two pieces.
    fn text(bytes: &[u8], split: usize) -> String {
        let mut terminal = Terminal::default();
        let mut pieces = terminal.show(&bytes[..split]);
        pieces.extend(terminal.show(&bytes[split..]));
        pieces.extend(terminal.finish());
        pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn w08_text_is_the_same_across_any_split() {
        for (bytes, shown) in [
            (&b"plain\n"[..], "plain\n"),
            (
                "caf\u{e9} \u{4f60}\u{1f600}".as_bytes(),
                "caf\u{e9} \u{4f60}\u{1f600}",
            ),
            (b"a\xffb", "a\u{fffd}b"),
            (b"end\xe4\xbd", "end\u{fffd}"),
            (b"a\r\nb", "a\nb"),
            (b"10%\r20%\r\n", "10%\n20%\n"),
            (b"a\r\r\nb", "a\nb"),
            (b"\0\x07\x7f\0", "\u{2407}\u{2421}"),
            (b"a\r\0\nb", "a\nb"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07x", "x"),
            (b"\x1b[2J\x1b[10;10Hx", "x"),
            (b"\x1bPdevice\x1b\\x", "x"),
            (b"\x1b]0;not ended\nnext", "\nnext"),
            (b"\x1bPnot ended\r\nnext", "\nnext"),
            (b"\x1b_not ended\nnext", "\nnext"),
            (b"\x1b[31\nnext", "\nnext"),
            (b"\x18", "\u{2418}"),
            (b"end\xe4\n", "end\u{fffd}\n"),
            (b"<b>&amp;\\</script>\t'\"", "<b>&amp;\\</script>\t'\""),
            ("\u{2028}\u{2029}".as_bytes(), "\u{2028}\u{2029}"),
        ] {
            for split in 0..=bytes.len() {
                assert_eq!(text(bytes, split), shown, "{bytes:?} at {split}");
            }
        }
    }

    #[test]
    fn colours_become_css_classes() {
        for (bytes, classes) in [
            (&b"\x1b[31mx"[..], "c1"),
            (b"\x1b[1;4;97;100mx", "c15 b8 strong under"),
            (b"\x1b[38;5;196mx", ""),
            (b"\x1b[48;2;1;2;3;32mx", "c2"),
            (b"\x1b[31m\x1b[mx", ""),
            (b"\x1b[38:5:196;1mx", "strong"),
            (b"\x1b[4;4:0;1mx", "strong"),
            (b"\x1b[4:3mx", "under"),
            (b"\x1b[1m\x1b[22m\x1b[39mx", ""),
            (b"\x1b[999;31mx", "c1"),
        ] {
            let pieces = Terminal::default().show(bytes);
            assert_eq!(pieces[0].style.classes(), classes, "{bytes:?}");
        }
    }

    #[test]
    fn finish_resets_sequences_colours_and_split_characters() {
        for open in [
            &b"\x1b[31"[..],
            b"\x1b]0;title",
            b"\xe4\xbd",
            b"\x1b[31m",
            b"\x1bP",
        ] {
            let mut terminal = Terminal::default();
            terminal.show(open);
            terminal.finish();
            let style = Style::default();
            let text = "after".to_owned();
            assert_eq!(terminal.show(b"after"), [Piece { style, text }]);
        }
    }

    #[test]
    fn w11_endless_escape_sequences_take_no_memory() {
        let mut terminal = Terminal::default();
        terminal.show(b"\x1b]0;");
        for _ in 0..1000 {
            assert!(terminal.show(&[b'x'; 1000]).is_empty());
        }
        assert_eq!(plain(b"a\x1b\t\xff"), "a\u{241b}\t\u{fffd}");
    }
}
