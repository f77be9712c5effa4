//! Quotes a part of the rules file in a message.

/// Longest part in bytes of an invalid word that a message quotes: a message is one line.
const MAX_QUOTE: usize = 60;

/// A word of the file as a message quotes it: escaped, and truncated to [`MAX_QUOTE`] bytes.
pub(super) fn quote(word: &str) -> String {
    quote_bytes(word.as_bytes())
}

/// The same for bytes that may not be text.
pub(super) fn quote_bytes(bytes: &[u8]) -> String {
    match bytes.get(..MAX_QUOTE) {
        Some(beginning) if bytes.len() > MAX_QUOTE => {
            format!("\"{}...\"", beginning.escape_ascii())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
