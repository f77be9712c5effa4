//! `threadsocks run`: the program threadsocks-run takes the place of this one.

use std::env;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::program_error::{EXIT_CANNOT_RUN, ProgramError};

/// A program of its own, since it needs unsafe code, and the server has none.
const PROGRAM: &str = "threadsocks-run";

/// Executes threadsocks-run with these arguments. Returns only if that fails.
pub(crate) fn run_program(arguments: Vec<OsString>) -> ProgramError {
    let program = beside_this_one().unwrap_or_else(|| PROGRAM.into());
    let error = Command::new(&program).args(arguments).exec();
    let program = program.display();
    let line = match error.kind() {
        ErrorKind::NotFound => format!(
            "{program} is missing: it is neither in the folder of threadsocks nor in PATH; make \
             install installs both"
        ),
        _ => format!("cannot execute {program}: {error}"),
    };
    ProgramError::new(EXIT_CANNOT_RUN, line)
}

/// The path of threadsocks-run in the folder of this program, if it is there. `None`: PATH is
/// searched.
fn beside_this_one() -> Option<PathBuf> {
    let path = env::current_exe().ok()?.with_file_name(PROGRAM);
    path.is_file().then_some(path)
}
