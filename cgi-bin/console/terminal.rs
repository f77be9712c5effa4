//! Conversion of the terminal output of a shell into text with styles.
//!
//! Reads may split a UTF-8 character; invalid UTF-8 becomes U+FFFD. Colours, bold and
//! underline become a style, and all other escape sequences are removed. An escape
//! sequence ends at the latest with its line.
//!
//! Other control characters become their pictures (U+2400 and up), so no control
//! character reaches the terminal of a user who reads the page as text. NUL, which is
//! padding, is removed.

use std::fmt::Write;

use vte::{Params, Parser, Perform};

/// The style of a piece of text ("select graphic rendition", SGR, of ECMA-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// The colour of the text, 0 to 15.
    pub(crate) colour: Option<u8>,
    /// The colour of the background, 0 to 15.
    pub(crate) background: Option<u8>,
    pub(crate) bold: bool,
    pub(crate) underlined: bool,
}

/// Text of one style. Every line end is `\n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) style: Style,
    pub(crate) text: String,
}

/// CAN, which ends any escape sequence (ECMA-48).
const CANCEL: u8 = 0x18;

/// Converts the output of one shell. Keeps its state between reads.
#[derive(Default)]
pub(crate) struct Terminal {
    parser: Parser,
    collector: PieceCollector,
    /// The start of a split UTF-8 character, at most three bytes. The parser would
    /// accept it, but vte 0.15 then loses bytes of the next read.
    incomplete: Vec<u8>,
}

impl Terminal {
    /// Converts the next bytes of the output.
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

    /// Ends an open escape sequence. A control string, such as a window title, has no
    /// maximum length: binary output that starts one by chance would hide all later text.
    fn cancel(&mut self) {
        self.collector.is_cancelling = true;
        self.parser.advance(&mut self.collector, &[CANCEL]);
        self.collector.is_cancelling = false;
    }

    /// Ends a split character, an escape sequence and a style, so that they do not affect
    /// later output. Returns the remaining text.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        // ESC ends a split character. The new parser discards the open sequence.
        let last = self.show(b"\x1b");
        *self = Terminal::default();
        last
    }
}

/// Number of bytes before an incomplete UTF-8 character at the end.
fn complete_utf8_length(bytes: &[u8]) -> usize {
    // A character has at most four bytes, so an incomplete one has at most three.
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

/// The visible picture of a control character (Unicode block "Control Pictures").
fn control_picture(control: char) -> char {
    match control {
        '\u{7f}' => '\u{2421}',
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(control)).unwrap_or('\u{fffd}'),
        _ => '\u{fffd}',
    }
}

/// Maximum length in characters of a value in a heading or a message, so that it leaves
/// space for other text.
const MAX_SHOWN_CHARS: usize = 60;

/// The start of a value or a command, for a heading or a message.
pub(crate) fn shorten(bytes: &[u8]) -> String {
    let mut text = plain(bytes);
    if let Some((end, _)) = text.char_indices().nth(MAX_SHOWN_CHARS) {
        text.truncate(end);
        text.push('\u{2026}');
    }
    text
}

/// Converts a line that is not terminal output, without styles or escape sequences.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let show = |char: char| match char {
        '\t' => char,
        _ if char.is_control() => control_picture(char),
        _ => char,
    };
    String::from_utf8_lossy(bytes).chars().map(show).collect()
}

/// Receives the parser's actions and collects styled text.
#[derive(Debug, Default)]
struct PieceCollector {
    style: Style,
    pieces: Vec<Piece>,
    /// The last character was a carriage return, which may belong to CRLF.
    has_pending_return: bool,
    /// The next CAN comes from [`Terminal::cancel`] and is not part of the output.
    is_cancelling: bool,
}

impl PieceCollector {
    /// Appends a character in the current style.
    fn push_char(&mut self, char: char) {
        match self.pieces.last_mut() {
            Some(piece) if piece.style == self.style => piece.text.push(char),
            _ => self.pieces.push(Piece {
                style: self.style,
                text: char.to_string(),
            }),
        }
    }

    /// Replaces a carriage return without newline by a newline. Progress counters use
    /// it to overwrite their line; on the page each state becomes a line.
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
    /// Applies the parameters of one SGR sequence.
    fn apply_sgr(&mut self, params: &Params) {
        let mut params = params.iter();
        let mut next = || params.next().and_then(|param| param.split_first());
        while let Some((&number, details)) = next() {
            match number {
                0 => *self = Style::default(),
                1 => self.bold = true,
                // The subparameter selects the kind of line; 0 means no line.
                4 => self.underlined = details.first() != Some(&0),
                22 => self.bold = false,
                24 => self.underlined = false,
                30..=37 => self.colour = colour(number - 30),
                39 => self.colour = None,
                40..=47 => self.background = colour(number - 40),
                49 => self.background = None,
                90..=97 => self.colour = colour(number - 90 + 8),
                100..=107 => self.background = colour(number - 100 + 8),
                // 256 colours (5;N) and RGB colours (2;R;G;B) are ignored. Their
                // arguments must be skipped, because they are not SGR codes.
                38 | 48 if details.is_empty() => {
                    let argument_count = match next() {
                        Some((5, _)) => 1,
                        Some((2, _)) => 3,
                        _ => 0,
                    };
                    for _ in 0..argument_count {
                        next();
                    }
                }
                _ => {}
            }
        }
    }

    /// The CSS classes of the style, separated by blanks.
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

/// Converts a colour number.
fn colour(number: u16) -> Option<u8> {
    u8::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts the bytes in two pieces, and returns the text without styles.
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
