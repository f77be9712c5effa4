//! What an operator configures: settings, and files that take effect when they change.

mod settings;
mod watched_file;

pub use settings::Settings;
pub use watched_file::{Content, LoadError, MAX_ERRORS, ReloadEvent, SyntaxError, WatchedFile};
