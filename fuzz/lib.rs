//! The oracles as a library, for the fuzz targets.

/// What must hold for any bytes.
#[path = "oracles/mod.rs"]
pub mod oracles;

// The console's files call each other by these names.
use oracles::console::*;
