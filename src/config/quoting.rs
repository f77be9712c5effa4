//! User names in double quotes: the same form in both files, in `--explain` and in the log.
//!
//! In quotes `\"` and `\\` stand for the second character, and `\xHH` for the byte with this
//! hexadecimal number; every other character stands for itself: `"Jane \"JD\" Doe"`.

use std::fmt;

/// What is wrong with text in quotes; a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteError {
    /// There is no second quote.
    Unclosed,
    /// The character after a backslash is not `"`, `\` or `x` with two digits. This is an
    /// error: if `"CORP\tom"` were valid, `"CORP\xadam"` would silently be another name.
    Escape,
}

impl fmt::Display for QuoteError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            QuoteError::Unclosed => "a quote is not closed; write \\\" for a quote in quotes",
            QuoteError::Escape => {
                "in quotes a backslash is written as \\\\, a quote as \\\", any byte as \\xHH"
            }
        })
    }
}

impl std::error::Error for QuoteError {}

/// Text that begins with a quote, split at the second quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unquoted<'a> {
    /// The bytes that the text in quotes stands for.
    pub bytes: Vec<u8>,
    /// The text after the second quote.
    pub rest: &'a [u8],
}

/// Parses text in quotes; `None` if the text does not begin with a quote.
///
/// # Errors
///
/// [`QuoteError`].
pub fn unquote(text: &[u8]) -> Result<Option<Unquoted<'_>>, QuoteError> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    loop {
        let (byte, after) = match rest {
            [] => return Err(QuoteError::Unclosed),
            [b'"', after @ ..] => {
                let rest = after;
                return Ok(Some(Unquoted { bytes, rest }));
            }
            [b'\\', escaped @ ..] => parse_escape(escaped)?,
            [byte, after @ ..] => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
}

/// Parses what follows a backslash: the byte that it stands for, and the text after it.
fn parse_escape(text: &[u8]) -> Result<(u8, &[u8]), QuoteError> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    match text {
        [] => Err(QuoteError::Unclosed),
        [byte @ (b'"' | b'\\'), after @ ..] => Ok((*byte, after)),
        [b'x', high, low, after @ ..] => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => Ok((high << 4 | low, after)),
            _ => Err(QuoteError::Escape),
        },
        _ => Err(QuoteError::Escape),
    }
}

/// Displays bytes in quotes, in printable ASCII. [`unquote`] reads the same bytes again.
pub struct QuotedName<'a>(pub &'a [u8]);

impl fmt::Display for QuotedName<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for byte in self.0 {
            match byte {
                b'"' | b'\\' => write!(out, "\\{}", char::from(*byte))?,
                b' '..=b'~' => write!(out, "{}", char::from(*byte))?,
                _ => write!(out, "\\x{byte:02x}")?,
            }
        }
        out.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f19_every_byte_can_be_quoted_and_is_read_again() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for bytes in [
            &all[..],
            b"",
            b"\\",
            b"\"",
            b"\\\"",
            b"CORP\\tom",
            b"o'neil",
        ] {
            let quoted = QuotedName(bytes).to_string();
            assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let text = format!("{quoted}:rest");
            let unquoted = unquote(text.as_bytes()).expect(&text).expect(&text);
            assert_eq!((&unquoted.bytes[..], unquoted.rest), (bytes, &b":rest"[..]));
        }
        assert_eq!(
            QuotedName(b"a \"b\" \\ \xFF").to_string(),
            r#""a \"b\" \\ \xff""#
        );
    }

    #[test]
    fn f19_f21_text_in_quotes_is_parsed() {
        for (text, expected, rest) in [
            ("\"\"", &b""[..], &b""[..]),
            ("\"bob smith\"", b"bob smith", b""),
            ("\"a,b#c\",d", b"a,b#c", b",d"),
            ("\"\u{fc}\"", b"\xc3\xbc", b""),
            (r#""\xFC\xfc""#, b"\xfc\xfc", b""),
            (r#""a\"""#, b"a\"", b""),
            (r#""a\\""#, b"a\\", b""),
        ] {
            let bytes = expected.to_vec();
            let expected = Ok(Some(Unquoted { bytes, rest }));
            assert_eq!(unquote(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(unquote(b"bob\""), Ok(None));
        for text in ["\"", "\"bob", r#""bob\""#, r#""bob\"#] {
            assert_eq!(
                unquote(text.as_bytes()),
                Err(QuoteError::Unclosed),
                "{text}"
            );
        }
        for text in [r#""CORP\tom""#, r#""\xg0""#, r#""\x1"#, r#""\n""#] {
            assert_eq!(unquote(text.as_bytes()), Err(QuoteError::Escape), "{text}");
        }
    }
}
