//! Where the rules file is, if the operator does not say it.

use std::io;
use std::path::{Path, PathBuf};

/// The rules file of a directory in which the server is started by hand.
pub const LOCAL_RULES: &str = "socks.conf";

/// The rules file of an installed server.
pub const SYSTEM_RULES: &str = "/etc/threadsocks/socks.conf";

/// [`LOCAL_RULES`], or [`SYSTEM_RULES`] if only that one exists. A local file that cannot be read
/// counts as well: otherwise other rules would be in force than the operator sees.
pub fn find_rules_file() -> PathBuf {
    let is_missing = |path: &str| {
        let entry = Path::new(path).symlink_metadata();
        entry.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let path = match is_missing(LOCAL_RULES) && !is_missing(SYSTEM_RULES) {
        true => SYSTEM_RULES,
        false => LOCAL_RULES,
    };
    PathBuf::from(path)
}
