//! The oracles as a library for the fuzz targets.

/// Checks that hold for any input bytes.
#[path = "oracles/mod.rs"]
pub mod oracles;

// The console's files import each other as `crate::NAME`.
use oracles::console::*;
