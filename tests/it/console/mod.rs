//! The console (`cgi-bin/`), run directly and by a web server.

mod failures;
mod form;
mod in_browser;
mod kept_runs;
mod long_runs;
mod requests;
mod shell_dialogue;
mod unasked_runs;
