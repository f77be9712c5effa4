//! The files of a folder beside the console: which names are valid, and how a file is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Maximum length of a file name in bytes (NAME_MAX on Linux).
const MAX_NAME_LENGTH: usize = 255;

const KIB: usize = 1024;

/// Reports whether a name can only mean a file in the folder itself: it has no `/`,
/// and it does not begin with `.`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let length = 1..=MAX_NAME_LENGTH;
    length.contains(&name.len()) && !name.starts_with('.') && name.bytes().all(ordinary)
}

/// Lists the names of the regular files with a valid name, in alphabetical order. The
/// list is empty if the folder cannot be read.
pub(crate) fn list(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let regular = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = regular.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_valid_name(name)).collect();
    names.sort();
    names
}

/// Reads a regular file with a valid name.
///
/// # Errors
///
/// The file does not exist, is larger than `max_size` bytes, or cannot be read.
pub(crate) fn read(folder: &str, name: &str, max_size: usize) -> io::Result<Vec<u8>> {
    let text = read_start(folder, name, max_size)?;
    if text.len() > max_size {
        let reason = match max_size / KIB {
            size if size % KIB == 0 => format!("it is over {} MiB", size / KIB),
            size => format!("it is over {size} KiB"),
        };
        return Err(io::Error::other(reason));
    }
    Ok(text)
}

/// Reads the first `size` bytes of a regular file, and one byte more if the file is longer.
/// The size in the metadata does not suffice, because the file may grow.
///
/// # Errors
///
/// The file does not exist or cannot be read.
pub(crate) fn read_start(folder: &str, name: &str, size: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(size).unwrap_or(u64::MAX).saturating_add(1);
    let file = open_regular_file(&Path::new(folder).join(name))?;
    file.take(limit).read_to_end(&mut text)?;
    Ok(text)
}

/// Opens a regular file. `O_NOFOLLOW` refuses a symbolic link. `O_NONBLOCK` keeps
/// open(2) from waiting for the writer of a FIFO.
pub(crate) fn open_regular_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w05_file_names_outside_the_folder_are_refused() {
        for name in [
            "../x",
            "/etc/passwd",
            "a/b",
            "..",
            ".",
            "",
            ".hidden",
            "a\0",
            "a b",
            "%2e",
            "ä",
        ] {
            assert!(!is_valid_name(name), "{name:?}");
        }
        for name in ["t1.txt", "a", "-", "A_b-c.9..x"] {
            assert!(is_valid_name(name), "{name:?}");
        }
    }
}
