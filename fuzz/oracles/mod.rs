//! The oracles: checks that hold for any input bytes, shared by the fuzzer and the property tests.
//!
//! An oracle takes bytes and panics if the program breaks its specification for these bytes.
//! Each oracle states the documented behaviour independently of the code under test:
//! it compares text where the code uses bits, and reads all lines where the code stops early.

#![allow(unreachable_pub, reason = "the fuzz targets import it")]

/// The source files of the console.
pub(crate) mod console;

/// The same bytes, split into chunks in many ways.
mod chunks;
/// User names in quotes.
mod quotes;
/// A server with a fixed output, for the client library.
mod scripted_server;

/// Replies of an ident server (RFC 1413).
pub mod ident;
/// The console's page, as HTML and as plain text.
pub mod page;
/// Prompts and telnet commands in the output of a shell.
pub mod prompt;
/// Headers of the PROXY protocol.
pub mod proxy_header;
/// The query string of the console's URL.
pub mod query;
/// SOCKS4 replies, and the client library that reads them.
pub mod reply;
/// SOCKS4 requests, and the host names in them.
pub mod request;
/// `socks.conf`, and the verdicts of its rules.
pub mod rules;
/// SOCKS5 messages (RFC 1928, RFC 1929).
pub mod socks5;
/// The output of a shell as styled text.
pub mod terminal;
/// The users file.
pub mod users;

/// An oracle. The name is also the name of its fuzz target and of its corpus folder.
pub type Oracle = (&'static str, fn(&[u8]));

/// All oracles.
pub const ALL: [Oracle; 11] = [
    ("request", request::check),
    ("reply", reply::check),
    ("ident", ident::check),
    ("proxy_header", proxy_header::check),
    ("socks5", socks5::check),
    ("rules", rules::check),
    ("users", users::check),
    ("query", query::check),
    ("prompt", prompt::check),
    ("terminal", terminal::check),
    ("page", page::check),
];
