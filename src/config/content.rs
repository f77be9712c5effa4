//! What the content of a file that the server reads again must be able to do.

use std::fmt;

use super::error::SyntaxError;

/// The parsed content of a file. Its `Display` states the number of entries: "5 rules".
pub trait Content: fmt::Display + Sized + Send + 'static {
    /// The plural noun for the entries, for messages: "rules".
    const NAME: &'static str;

    /// How many entries there are.
    fn entries(&self) -> usize;

    /// The most memory in bytes of an entry, which is a line, without the text (measured).
    const MEMORY_PER_ENTRY: u64;

    /// The same for each further item of a list in an entry, after a comma.
    const MEMORY_PER_ITEM: u64;

    /// Parses the bytes of a file.
    ///
    /// # Errors
    ///
    /// The first [`MAX_ERRORS`](super::MAX_ERRORS) invalid lines; then no line of the file counts.
    fn parse(text: &[u8]) -> Result<Self, Vec<SyntaxError>>;
}
