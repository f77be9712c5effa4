//! The other side of the same language: how to ask a SOCKS server.
//!
//! You bring the stream, already connected to the server, with whatever
//! timeouts you want; anything that reads and writes will do.

pub mod socks4;

use std::fmt;
use std::io;

use crate::wire::{Refusal, Unread};

/// Why there is no connection through the server.
#[derive(Debug)]
pub enum NotGranted {
    /// The request cannot be expressed in the server's language, or could not be sent.
    NotSent(io::Error),
    /// No reply came, or something else than a reply.
    NoReply(Unread),
    /// The server refused.
    Refused(Refusal),
}

impl fmt::Display for NotGranted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotGranted::NotSent(error) => write!(out, "the request was not sent: {error}"),
            NotGranted::NoReply(unread) => write!(out, "the server gave no reply: {unread}"),
            NotGranted::Refused(refusal) => refusal.fmt(out),
        }
    }
}

impl std::error::Error for NotGranted {}
