//! The server from outside: the real binary, real sockets, real programs.
//!
//! Every test starts its own server on a free port with its own rules, and ends
//! with [`proxy::Proxy::finish`], which waits until the server has no thread and
//! no descriptor more than at the start, then stops it and looks at its exit
//! status. Tests wait for facts; no test sleeps and hopes.
//!
//! A letter and a number in front of a test's name stand for a kind of fault:
//! `h` in the handshake, `d` of names, `c` in CONNECT, `b` in BIND, `r` in the
//! relay, `s` of the system's resources, `o` in operation (start, signals,
//! stop), `f` in the rules file, `x` of rules walked around, `l` in the output, `i` of
//! identd, `v` in SOCKS5.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod support;

mod access;
mod commands;
mod console;
mod operation;
mod protocol;
mod relay;
mod stress;

mod source_rules;
