//! What must hold for any bytes whatever, said once for the fuzzer and for the property tests.
//!
//! An oracle takes bytes and panics if a promise about them is broken. Each is
//! written against the documented behaviour, by other means than the code it
//! watches: text where that has bits, a look at all lines where that stops early.

#![allow(unreachable_pub, reason = "the fuzz targets reach it")]

/// The console's own files, since a program has no library.
pub(crate) mod console;

/// One stream, cut in many ways.
mod chunks;
/// What our clients talk to.
mod scripted_server;

/// What identd answers.
pub mod ident;
/// The page as HTML and as text, whatever shells say.
pub mod page;
/// Where a shell asks for the next line.
pub mod prompt;
/// The query of the console's address.
pub mod query;
/// What a server answers, and what our client makes of it.
pub mod reply;
/// What a client asks, and the hosts it may name.
pub mod request;
/// `socks.conf`, and the verdicts that follow from it.
pub mod rules;
/// The messages of SOCKS5.
pub mod socks5;
/// What a reader sees of a shell's output.
pub mod terminal;
/// Who may log in.
pub mod users;

/// An oracle, with the name of its fuzz target and of its corpus.
pub type Oracle = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Oracle; 10] = [
    ("request", request::check),
    ("reply", reply::check),
    ("ident", ident::check),
    ("socks5", socks5::check),
    ("rules", rules::check),
    ("users", users::check),
    ("query", query::check),
    ("prompt", prompt::check),
    ("terminal", terminal::check),
    ("page", page::check),
];
