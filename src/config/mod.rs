//! Configuration by the operator: settings, and files that are reloaded when they change.

mod content;
mod error;
mod file_thread;
mod hidden_text;
mod memory;
mod quoting;
mod rules_path;
mod settings;
mod snapshot;
mod watched_file;

pub use content::Content;
pub use error::{LoadError, MAX_ERRORS, SyntaxError};
pub use hidden_text::{check_line, check_words, is_shown};
pub use memory::MemoryCheck;
pub use quoting::{QuoteError, QuotedName, Unquoted, unquote};
pub use rules_path::{LOCAL_RULES, SYSTEM_RULES, find_rules_file};
pub use settings::{ClientKinds, Settings};
pub use snapshot::MAX_FILE_SIZE;
pub use watched_file::{ReloadEvent, WatchedFile};
