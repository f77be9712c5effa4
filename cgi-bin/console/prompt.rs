//! Where in a shell's output it asks for the next line.
//!
//! The prompt is `% `. At the start of a line, or right behind another prompt,
//! it counts at once, whatever follows it: an error message of an earlier
//! command may come late, behind the prompt, in the same segment. In the
//! middle of a line it may be the prompt behind output without a final newline,
//! or just text like `50% off`: it counts if nothing more comes for a while.

use std::time::Duration;

/// How long nothing more must come behind a `% ` in the middle of a line.
pub(crate) const PROMPT_IDLE_TIME: Duration = Duration::from_millis(200);

/// Follows the output byte by byte, across any split.
#[derive(Debug, Default)]
pub(crate) struct PromptFinder {
    line: LineState,
    escape: EscapeState,
}

/// Inside an escape sequence, which is no part of the text: prompts may have a
/// colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EscapeState {
    #[default]
    Outside,
    /// Behind the escape character.
    Started,
    /// Behind `ESC [`, up to a letter or the like.
    ControlSequence,
    /// Behind `ESC ]` and its like: a text for the terminal, up to BEL or `ESC \`.
    ControlString,
}

/// The end of what has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineState {
    /// Nothing of this line yet.
    #[default]
    LineStart,
    /// `%` and nothing else of this line.
    PercentAtLineStart,
    /// Any other text.
    Text,
    /// `%` behind other text.
    Percent,
    /// `% ` behind other text.
    PossiblePrompt,
}

impl PromptFinder {
    /// Looks at what came next. If there is a prompt in it: how many bytes up
    /// to the prompt's end; the bytes behind that are to be looked at next.
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

    /// Escape sequences, and control characters that take no room, as the NUL
    /// that C programs send along with a string. No sequence outlasts its line.
    fn advance_escape(&mut self, byte: u8) -> bool {
        let was_inside = self.escape != EscapeState::Outside;
        self.escape = match (self.escape, byte) {
            (_, b'\x1b') => EscapeState::Started,
            (EscapeState::Started, b'[') => EscapeState::ControlSequence,
            (EscapeState::Started, b']' | b'P' | b'X' | b'^' | b'_') => EscapeState::ControlString,
            // As in `ESC ( B`, which chooses an alphabet.
            (EscapeState::Started, b' '..=b'/') => EscapeState::Started,
            (EscapeState::ControlString, b'\x07' | b'\n') => EscapeState::Outside,
            (EscapeState::ControlString, _) => EscapeState::ControlString,
            (EscapeState::ControlSequence, b' '..=b'?') => EscapeState::ControlSequence,
            _ => EscapeState::Outside,
        };
        let is_inside = self.escape != EscapeState::Outside;
        let takes_no_room = byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r' | b'\t');
        takes_no_room || is_inside || (was_inside && byte != b'\n')
    }

    /// Does the output end with what is a prompt if nothing more comes?
    pub(crate) fn may_be_prompt(&self) -> bool {
        self.line == LineState::PossiblePrompt
    }

    /// Nothing more came: it was a prompt.
    pub(crate) fn confirm_prompt(&mut self) {
        self.line = LineState::LineStart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output up to each prompt, and what is left, when it comes in these
    /// pieces.
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
