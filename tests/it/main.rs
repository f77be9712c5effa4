//! Tests of the server binary from outside, with real sockets and real programs.
//!
//! # One server for each test
//!
//! A test starts its own server as a child process, on a port that the system
//! chooses and with rules of its own: [`Proxy::open`](support::proxy::Proxy::open)
//! permits everything, `Proxy::start` takes rules and options, and `Proxy::with`
//! takes a whole `Setup`. All three return once the server has reported that it
//! listens.
//!
//! A test ends with [`Proxy::finish`](support::proxy::Proxy::finish). It waits until
//! the server has no more busy threads, descriptors, sockets and memory mappings
//! than at its start. Then it sends SIGTERM, requires exit status 0, and checks the
//! format of the messages on stdout. A test that stops the server itself ends with
//! `Proxy::wait`, which returns the exit status. A `Proxy` that is dropped without
//! either fails the test; the child process is killed in any case.
//!
//! Tests of the command line, and of a server without stdout and stderr, run
//! [`support::proxy::binary`] directly and check its exit status. Tests of the
//! console run `threadsocks-console` and web servers as child processes.
//!
//! Tests wait for facts with [`support::wait::until`], which fails after a time
//! limit. A test sleeps only where time is part of the case: a slow peer, a pause
//! between messages, a timeout.
//!
//! # Test IDs
//!
//! A letter and a two-digit number in front of a test's name stand for one row of
//! `docs/reliability.md`: `h04_...` checks row H4. A test of several rows has
//! several IDs: `r05_s10_...`. Unit tests in `src/` and `cgi-bin/`, `tests/model`
//! and `tests/properties` use the same IDs. A test without an ID checks a feature
//! rather than a fault.
//!
//! | letter | faults |
//! |---|---|
//! | `h` | Handshake: requests that are split, cut short, malformed, too long or slow |
//! | `d` | DNS: host names, lookups and their answers |
//! | `c` | CONNECT: destinations that refuse, do not answer, or cannot be reached |
//! | `b` | BIND: its two replies, the expected peer, its listening port |
//! | `r` | Relay: half-close, reset, timeouts, slow readers, bulk data |
//! | `s` | System resources: descriptors, threads, memory, limits, panics |
//! | `k` | `threadsocks run`: calls of unmodified programs |
//! | `o` | Operation: start, signals, shutdown |
//! | `f` | Rules file: missing, replaced while the server runs, with syntax errors |
//! | `x` | Ways around the rules |
//! | `i` | IDENT: identd that does not answer, or answers with errors |
//! | `l` | Log output: screen messages on stdout, lines on stderr |
//! | `v` | SOCKS5: method negotiation, login, reply codes, IPv6 |
//! | `u` | UDP ASSOCIATE |
//! | `g` | GSSAPI: reserved, this version has no GSSAPI and no such test |
//! | `p` | Installation and packages |
//! | `w` | Web console (`cgi-bin/`) |
//!
//! # Folders
//!
//! - `protocol/`: bytes of requests and replies, dialogues in hexadecimal
//! - `commands/`: CONNECT, BIND and UDP ASSOCIATE, with names and routes; the client library
//! - `access/`: rules, users, IDENT, login
//! - `relay/`: both directions of a session, to EOF, reset or termination
//! - `operation/`: start, shutdown, output, real client programs
//! - `run/`: `threadsocks run`: unmodified programs through the server
//! - `packages/`: `make install`, Debian packages, the image, packages of cargo
//! - `stress/`: faulty networks, random clients, long runs
//! - `console/`: the console with and without a web server
//! - `support/`: helpers; no tests
//! - `documents.rs`: links, examples of rules, the length of the README, lists in CONTRIBUTING
//! - `labs.rs`: the bugs of the labs apply, and the judge finds them
//! - `lessons.rs`: the programs in `lessons/` print what their headers say
//! - `source_rules.rs`: rules for the source code, and statements of documents about it
//! - `tour.rs`: the pages in `docs/tour/` quote the source, and their links lead somewhere
//!
//! Tests that are slow, or write into `docs/`, are marked `#[ignore]`. `make soak`,
//! `make big`, `make labs`, `make packages` and `make pictures` select them by words in their names.

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
mod packages;
mod protocol;
mod relay;
mod run;
mod stress;

mod documents;
mod labs;
mod lessons;
mod source_rules;
mod tour;
