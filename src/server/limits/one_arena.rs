//! One arena of glibc's allocator for all threads, where address space is limited.
//!
//! By default each of the first threads gets an arena, which reserves 64 MiB of address space. If a
//! limit leaves no room for it, the allocator maps a page or more for each small block of such a
//! thread, until the address space is used up and the process aborts.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::execve;

use super::arenas;

/// The allocator reads it before `main`, so a change of it needs a new start of the program.
const MAX_ARENAS: &str = "MALLOC_ARENA_MAX";

/// Executes this program again with one arena, if its address space is limited (RLIMIT_AS) and
/// the environment does not say how many arenas there are. Returns if there is nothing to do, and
/// also if this fails: then the limit on sessions counts all arenas.
///
/// The process keeps its number, descriptors, arguments and signal mask. Call it before anything
/// else that such a start would do twice.
pub fn use_one_arena() {
    let is_limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    // After the new start the variable is set, so there is no second one.
    if is_limited && env::var_os(MAX_ARENAS).is_none() && arenas::environment_counts() {
        let _ = execute_again();
    }
}

/// Returns only if it fails.
fn execute_again() -> io::Result<Infallible> {
    // The real path, and not /proc/self/exe: the last part becomes the name of the process.
    let program = c_string(env::current_exe()?.into_os_string())?;
    let arguments = env::args_os().map(c_string);
    let arguments: Vec<CString> = arguments.collect::<io::Result<_>>()?;
    let environment = env::vars_os().chain([(MAX_ARENAS.into(), "1".into())]);
    let environment = environment.map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        c_string(variable)
    });
    let environment: Vec<CString> = environment.collect::<io::Result<_>>()?;
    // std's Command would unblock all signals, and USR1 would end the process at its start.
    Ok(execve(&program, &arguments, &environment)?)
}

fn c_string(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}
