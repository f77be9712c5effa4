//! Bytes on the wire: requests, replies, dialogues.

mod dialogues;
mod handshake;
mod socks5_replies;
