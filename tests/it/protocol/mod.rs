//! Bytes on the wire: requests, replies, dialogues.

mod dialogues;
mod handshake;
mod proxy_header;
mod socks5_replies;
