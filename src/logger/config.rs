//! Where the output goes, and how much of it there is.

use std::io::Write;

/// How much is written to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only rejected clients, and faults of files and outputs.
    Errors,
    /// Also start and stop, and why requests are refused (at most one line a second for
    /// each topic).
    #[default]
    Normal,
    /// Also a line for every session that has ended.
    Sessions,
}

/// Where the output goes.
pub struct OutputConfig {
    /// Gets the screen messages, as [`Stdout`](super::Stdout) does; `None`: there are none.
    pub screen: Option<Box<dyn Write + Send>>,
    /// Gets everything else.
    pub diagnostics: Box<dyn Write + Send>,
    /// How much `diagnostics` gets.
    pub verbosity: Verbosity,
}
