//! Configuration by the operator: settings, and files that are reloaded when they change.

mod quoting;
mod settings;
mod watched_file;

pub use quoting::{QuoteError, QuotedName, Unquoted, unquote};
pub use settings::{ClientKinds, Settings};
pub use watched_file::{Content, LoadError, MAX_ERRORS, ReloadEvent, SyntaxError, WatchedFile};
