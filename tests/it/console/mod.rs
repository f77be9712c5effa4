//! The console (`cgi-bin/`), run directly and by a web server.

mod form;
mod in_browser;
mod long_runs;
mod requests;
mod shell_dialogue;
mod unasked_runs;
