//! What an operator configures: settings, and files that are followed while they change.

mod watched_file;

pub use watched_file::{Content, LoadError, MAX_ERRORS, ReloadEvent, SyntaxError, WatchedFile};
