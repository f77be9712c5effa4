//! The folder of the project and its files.

use std::fs;
use std::path::Path;

pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of this file.
pub(crate) fn project_file(name: &str) -> String {
    fs::read_to_string(project().join(name)).expect(name)
}
