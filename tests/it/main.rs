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

/// The server under test, as a child process.
mod proxy;

/// Ends of connections: origins that answer, clients that ask.
mod ends;

/// Chance that can be repeated.
mod dice;

/// An end that follows a script.
mod peer;

/// A network that misbehaves, to put between two ends.
mod faults;

/// Programs that a test needs and a machine may lack.
mod tools;

/// System calls of a running server fail as the test wishes.
mod tampering;

/// A network of the test's own, with routes, limits and names that nobody else has.
mod network;

/// A name server that says what the test wishes.
mod dns;

/// An identd that says what the test wishes.
mod identd;

/// What a visitor of the project sees first still holds.
mod house_rules;

/// Dialogues in hexadecimal, also against another server.
mod conversations;

/// Requests in all states of wholeness.
mod handshake;

/// CONNECT: addresses, and everything that can fail.
mod connecting;

/// Names: what they resolve to, and what becomes of that.
mod names;

/// Routes that lead nowhere, ports that run out, wires that are cut.
mod routes;

/// BIND: two replies, and who may come.
mod binding;

/// SOCKS5: what a client hears, code by code, and addresses of both families.
mod socks5;

/// UDP ASSOCIATE: whose datagrams pass, where to, and for how long.
mod datagrams;

/// Both directions to their very end.
mod relaying;

/// Sessions that are cut off: an end where all was said, a reset where more was to come.
mod cuts;

/// Many bytes between ends that behave badly.
mod volume;

/// Both commands through networks that misbehave.
mod chaos;

/// Clients that talk nonsense.
mod noise;

/// Everything at once, for long.
mod soak;

/// Curves over time.
mod plot;

/// `socks.conf` changes under a running server.
mod firewall;

/// Rules about people and hours, and the share of each client.
mod people;

/// Sessions that the rules no longer permit.
mod enforcing;

/// IDENT: who the client is, by the word of its own host.
mod identity;

/// SOCKS5 with user and password, and rules that want a proof.
mod login;

/// What appears on the screen, and that nobody waits for it.
mod output;

/// Start, signals, limits, exit statuses.
mod running;

/// curl, nc, socat, Chromium, FTP clients and servers.
mod programs;

/// Our SOCKS5 client asks our server, and those of other people.
mod servers;

/// The console as a web server starts it, without one.
mod cgi;

/// The console under a real Apache, in a real browser.
mod console;
