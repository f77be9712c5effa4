//! Splits a line into words and a comment: in double quotes, a blank or `#` belongs to the word.

use super::quote::quote_bytes;
use crate::config::QuoteError;

/// The line without its comment, which begins with the first `#` outside quotes: at the
/// beginning of the line or after a blank.
///
/// # Errors
///
/// A sentence: a `#` is within a word. If it began a comment, `user=alice#auth` would permit
/// more than the line seems to say.
pub(super) fn without_comment(line: &[u8]) -> Result<&[u8], String> {
    let mut quotes = Quotes::Outside;
    let mut word_begins = 0;
    for (index, byte) in line.iter().enumerate() {
        match (byte, quotes) {
            (b'#', Quotes::Outside) if index == word_begins => {
                return Ok(line.get(..index).unwrap_or_default());
            }
            (b'#', Quotes::Outside) => {
                let words = line.get(word_begins..).unwrap_or_default();
                let mut words = words.split(u8::is_ascii_whitespace);
                return Err(format!(
                    "{} has a # within a word; write a blank before a comment, and a name with # \
                     in double quotes",
                    quote_bytes(words.next().unwrap_or_default())
                ));
            }
            (_, Quotes::Outside) if byte.is_ascii_whitespace() => word_begins = index + 1,
            _ => {}
        }
        quotes = quotes.after(*byte);
    }
    Ok(line)
}

/// The words of a line, which ASCII whitespace outside quotes separates. The words keep their
/// quotes.
///
/// # Errors
///
/// [`QuoteError::Unclosed`].
pub fn split_words(line: &str) -> Result<Vec<&str>, QuoteError> {
    let mut quotes = Quotes::Outside;
    let mut is_separator = |character: char| {
        // Each quote and backslash is one byte in UTF-8.
        let byte = u8::try_from(character).unwrap_or_default();
        let was_outside = quotes == Quotes::Outside;
        quotes = quotes.after(byte);
        was_outside && character.is_ascii_whitespace()
    };
    let words = line.split(&mut is_separator);
    let words = words.filter(|word| !word.is_empty()).collect();
    match quotes {
        Quotes::Outside => Ok(words),
        Quotes::Inside | Quotes::AfterBackslash => Err(QuoteError::Unclosed),
    }
}

/// Where a byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Outside,
    Inside,
    /// Inside, after a backslash that is not escaped itself.
    AfterBackslash,
}

impl Quotes {
    /// Where the byte after this one is.
    fn after(self, byte: u8) -> Quotes {
        match (self, byte) {
            (Quotes::Outside, b'"') => Quotes::Inside,
            (Quotes::Outside, _) | (Quotes::Inside, b'"') => Quotes::Outside,
            (Quotes::Inside, b'\\') => Quotes::AfterBackslash,
            (Quotes::Inside | Quotes::AfterBackslash, _) => Quotes::Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f19_blanks_and_number_signs_in_quotes_belong_to_the_word() {
        for (line, words) in [
            ("", &[][..]),
            (" a\t b ", &["a", "b"]),
            ("u=\"a b\" c", &["u=\"a b\"", "c"]),
            ("u=\"a\tb\",\"c d\",e", &["u=\"a\tb\",\"c d\",e"]),
            (r#"u="a\" b" c"#, &[r#"u="a\" b""#, "c"]),
            (r#"u="a\\" b"#, &[r#"u="a\\""#, "b"]),
            (r"u=a\ b", &[r"u=a\", "b"]),
            ("u=\"\u{fc} \u{fc}\"", &["u=\"\u{fc} \u{fc}\""]),
            ("a\u{a0}b", &["a\u{a0}b"]),
        ] {
            assert_eq!(split_words(line).as_deref(), Ok(words), "{line}");
        }
        for (line, code) in [
            ("a # b", "a "),
            ("u=\"a # b\" # \"c", "u=\"a # b\" "),
            ("u=\"\\\"#\" # c", "u=\"\\\"#\" "),
            ("# don\"t", ""),
        ] {
            assert_eq!(
                without_comment(line.as_bytes()),
                Ok(code.as_bytes()),
                "{line}"
            );
        }
    }

    #[test]
    fn f31_a_comment_begins_at_the_beginning_of_a_word() {
        for (line, code) in [
            ("#", ""),
            ("##a#b", ""),
            (" \t#", " \t"),
            ("a #b", "a "),
            ("a\t# b#c", "a\t"),
            ("u=\"a b\" #", "u=\"a b\" "),
        ] {
            let found = without_comment(line.as_bytes());
            assert_eq!(found, Ok(code.as_bytes()), "{line}");
        }
        for (line, word) in [
            ("a b#c d", "\"b#c\""),
            ("a#", "\"a#\""),
            ("a \u{a0}# b", "\"\\xc2\\xa0#\""),
            ("u=\"a\"#b c", "\"u=\\\"a\\\"#b\""),
            ("u=\"#\",a#b", "\"u=\\\"#\\\",a#b\""),
            (r"u=\#", "\"u=\\\\#\""),
        ] {
            let error = without_comment(line.as_bytes()).expect_err(line);
            let expected = format!("{word} has a # within a word; write a blank");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn f21_an_unclosed_quote_is_an_error() {
        for line in ["\"", "a \"b c", r#"a "b\" c"#, "a\" b\" \"c"] {
            assert_eq!(split_words(line), Err(QuoteError::Unclosed), "{line}");
        }
    }
}
