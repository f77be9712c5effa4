//! Detection of the prompt `% `, after which a shell waits for the next line.
//!
//! At the start of a line, or directly after another prompt, `% ` is a prompt whatever
//! follows it. An error message of an earlier command may follow the prompt in the same
//! segment. In the middle of a line, `% ` may be a prompt after output without a final
//! newline, or text such as `50% off`. There it is a prompt only if the shell sends
//! nothing more for `PROMPT_IDLE_TIME`.

use std::time::Duration;

/// Time without output after which `% ` in the middle of a line is a prompt. Longer
/// than the usual gap between two segments, and short enough for each line of a batch.
pub(crate) const PROMPT_IDLE_TIME: Duration = Duration::from_millis(200);

/// A state machine that reads the output byte by byte. The segments into which the
/// network splits the output do not change the result.
#[derive(Debug, Default)]
pub(crate) struct PromptFinder {
    line: LineState,
    escape: EscapeState,
}

/// The position in an escape sequence (ECMA-48). Escape sequences do not count as text
/// of the line, because a prompt may have a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EscapeState {
    #[default]
    Outside,
    /// After the escape character.
    Started,
    /// After `ESC [`, up to the final byte, for example a letter.
    ControlSequence,
    /// After `ESC ]` and other openers of a control string, up to BEL or `ESC \`.
    ControlString,
}

/// The end of the current line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineState {
    /// The line is empty, or a prompt has just ended.
    #[default]
    LineStart,
    /// The line is `%`.
    PercentAtLineStart,
    /// The line ends with other text.
    Text,
    /// The line ends with `%` after other text.
    Percent,
    /// The line ends with `% ` after other text.
    PossiblePrompt,
}

impl PromptFinder {
    /// Reads the next bytes up to the first prompt, and returns the number of bytes up to
    /// its end. The caller passes the bytes after it to the next call. `None` means that
    /// all bytes were read and contain no certain prompt.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            if self.advance_escape(*byte) {
                continue;
            }
            self.line = match (self.line, byte) {
                (LineState::PercentAtLineStart, b' ') => {
                    self.line = LineState::LineStart;
                    return Some(index + 1);
                }
                (_, b'\n') => LineState::LineStart,
                (LineState::LineStart, b'\r') => LineState::LineStart,
                (LineState::LineStart, b'%') => LineState::PercentAtLineStart,
                (_, b'%') => LineState::Percent,
                (LineState::Percent, b' ') => LineState::PossiblePrompt,
                _ => LineState::Text,
            };
        }
        None
    }

    /// Advances the escape state. Returns true if the byte is no text of the line: a byte
    /// of an escape sequence, or a control character without width, such as the NUL that
    /// C programs send after a string. Every sequence ends at the latest with its line.
    fn advance_escape(&mut self, byte: u8) -> bool {
        let was_inside = self.escape != EscapeState::Outside;
        self.escape = match (self.escape, byte) {
            (_, b'\x1b') => EscapeState::Started,
            (EscapeState::Started, b'[') => EscapeState::ControlSequence,
            (EscapeState::Started, b']' | b'P' | b'X' | b'^' | b'_') => EscapeState::ControlString,
            // An intermediate byte, as in `ESC ( B`, which selects a character set.
            (EscapeState::Started, b' '..=b'/') => EscapeState::Started,
            (EscapeState::ControlString, b'\x07' | b'\n') => EscapeState::Outside,
            (EscapeState::ControlString, _) => EscapeState::ControlString,
            (EscapeState::ControlSequence, b' '..=b'?') => EscapeState::ControlSequence,
            _ => EscapeState::Outside,
        };
        let is_inside = self.escape != EscapeState::Outside;
        let has_no_width = byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r' | b'\t');
        has_no_width || is_inside || (was_inside && byte != b'\n')
    }

    /// Reports whether the output ends with `% ` in the middle of a line.
    pub(crate) fn may_be_prompt(&self) -> bool {
        self.line == LineState::PossiblePrompt
    }

    /// The shell has sent nothing more: `% ` in the middle of the line was a prompt.
    pub(crate) fn confirm_prompt(&mut self) {
        self.line = LineState::LineStart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the pieces to a finder. Returns the output cut after each prompt, and
    /// whether the rest may end with a prompt.
    fn cut(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut finder = PromptFinder::default();
        let mut cuts = vec![Vec::new()];
        for mut piece in pieces.iter().copied() {
            while let Some(length) = finder.find(piece) {
                cuts.last_mut().unwrap().extend(&piece[..length]);
                cuts.push(Vec::new());
                piece = &piece[length..];
            }
            cuts.last_mut().unwrap().extend(piece);
        }
        (cuts, finder.may_be_prompt())
    }

    #[test]
    fn w09_prompts_are_found_across_any_split() {
        for (output, cuts, may_be_prompt) in [
            ("% ", &["% ", ""][..], false),
            ("**\n% ", &["**\n% ", ""], false),
            ("% % % ", &["% ", "% ", "% ", ""], false),
            (
                "% Unknown command: [x].\n% ",
                &["% ", "Unknown command: [x].\n% ", ""],
                false,
            ),
            ("a\r\n% b", &["a\r\n% ", "b"], false),
            ("no newline% ", &["no newline% "], true),
            ("50% off\n% ", &["50% off\n% ", ""], false),
            ("100% ", &["100% "], true),
            ("100%% ", &["100%% "], true),
            ("%% ", &["%% "], true),
            ("%", &["%"], false),
            ("%\n% ", &["%\n% ", ""], false),
            ("%x % y", &["%x % y"], false),
            ("% \0% \0", &["% ", "\0% ", "\0"], false),
            ("text% \0", &["text% \0"], true),
            (
                "\x1b[1;32m% \x1b[0mls",
                &["\x1b[1;32m% ", "\x1b[0mls"],
                false,
            ),
            ("\x1b[1m%\x1b[0m ", &["\x1b[1m%\x1b[0m ", ""], false),
            ("a\x1b[1m\n% ", &["a\x1b[1m\n% ", ""], false),
            ("\x1b[\n% ", &["\x1b[\n% ", ""], false),
            ("\x1b(B\x1b[m% ", &["\x1b(B\x1b[m% ", ""], false),
            ("\x1b]0;title\x07% ", &["\x1b]0;title\x07% ", ""], false),
            ("\x1b]0;a % b\x1b\\% ", &["\x1b]0;a % b\x1b\\% ", ""], false),
            ("\x1b]0;title\n% ", &["\x1b]0;title\n% ", ""], false),
            ("\x07% ", &["\x07% ", ""], false),
            ("\t% ", &["\t% "], true),
            ("text\x1b[1m% \x1b[0m", &["text\x1b[1m% \x1b[0m"], true),
            ("", &[""], false),
        ] {
            let bytes = output.as_bytes();
            let wanted: Vec<Vec<u8>> = cuts.iter().map(|cut| cut.as_bytes().to_vec()).collect();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(cut(&pieces), (wanted.clone(), may_be_prompt), "{pieces:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_begins_after_a_confirmed_prompt() {
        let mut finder = PromptFinder::default();
        assert_eq!(finder.find(b"text% "), None);
        assert!(finder.may_be_prompt());
        finder.confirm_prompt();
        assert_eq!(finder.find(b"% "), Some(2));
    }
}
