//! Tests of console.cgi, with and without a web server.

mod in_browser;
mod long_runs;
mod requests;
mod shell_dialogue;
