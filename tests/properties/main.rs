//! What must hold for any bytes, tried with kept finds and with random input.
//!
//! The oracles and the finds are those of the fuzzer (`make fuzz`), which goes on
//! for as long as one lets it. A failure names its input; put that into the corpus
//! of its target. The unit tests of the console's files come with the files, and run
//! here once more.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

/// What must hold.
#[path = "../../fuzz/oracles/mod.rs"]
mod oracles;

/// What the fuzzer keeps, and everything close to it.
mod corpus;

/// Random input that looks like the real thing.
mod random;

/// Input for each oracle.
mod strategies;

// The console's files call each other by these names.
use oracles::console::*;
