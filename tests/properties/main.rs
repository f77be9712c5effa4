//! Property tests: the fuzzer's oracles on its corpus and on random input.
//!
//! `make fuzz` runs the same oracles for longer. A failure prints its input; add that input
//! to the corpus of the target. The unit tests in the console's files are compiled with the
//! files and therefore run here too.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

/// Checks that hold for any input bytes.
#[path = "../../fuzz/oracles/mod.rs"]
mod oracles;

/// The corpus of the fuzzer, and variants of its files.
mod corpus;

/// Random input that is mostly valid.
mod random;

/// Strategies that generate input for each oracle.
mod strategies;

// The console's files import each other as `crate::NAME`.
use oracles::console::*;
