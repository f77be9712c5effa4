//! Replaces the content of a file in one step: a reader sees either the old or the new content.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::config::MAX_FILE_SIZE;
use crate::net::Deadline;

/// How long to wait for the lock of a directory, and how often to try. Another call holds it for
/// some milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Only the owner may read a new file: it has the hashes of passwords.
const MODE: u32 = 0o600;
/// The permissions of the owner and of the group. A file that is replaced keeps them: the server
/// may read it as a member of the group.
const OWNER_AND_GROUP: u32 = 0o770;

/// Replaces the content of the file at `path` by what `edit` makes of it. A file that does not
/// exist is empty; it is created with mode 0600. An existing file keeps its owner, its group and
/// the permissions of both, and its access control list; other accounts have none afterwards.
///
/// Waits for at most 5 s while another process edits a file of the same directory in this way.
///
/// # Errors
///
/// The sentence of `edit`, or one that says why the file cannot be read or written. The file has
/// not changed then.
pub fn edit_file(
    path: &Path,
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    let describe = |error: io::Error| format!("{}: {error}", path.display());
    // A symbolic link stays: the file that it leads to is replaced.
    let target = match path.symlink_metadata() {
        Ok(entry) if entry.is_symlink() => fs::canonicalize(path).map_err(describe)?,
        _ => path.to_owned(),
    };
    // Held until the end. The file itself cannot be locked, since another one replaces it.
    let directory = directory_of(&target);
    let lock = File::open(directory).map_err(describe)?;
    wait_for_lock(&lock).map_err(|error| format!("{}: {error}", directory.display()))?;
    let (text, before) = read(&target).map_err(describe)?;
    let text = edit(&text)?;
    check_size(&text).map_err(describe)?;
    replace(&target, before.as_ref(), &text)
        .map_err(|error| format!("{}: {error}; nothing was written", path.display()))
}

/// The bytes of the file; none if it does not exist.
///
/// # Errors
///
/// A sentence: the file cannot be read, or is no regular file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    match read(path) {
        Ok((text, _)) => Ok(text),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The bytes and the metadata of the file; none if it does not exist.
fn read(path: &Path) -> io::Result<(Vec<u8>, Option<Metadata>)> {
    let metadata = match fs::metadata(path) {
        // To open a pipe would wait for a writer.
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    let mut file = File::open(path)?.take(MAX_FILE_SIZE + 1);
    file.read_to_end(&mut text)?;
    check_size(&text)?;
    Ok((text, Some(metadata)))
}

/// Refuses what a server would not read.
fn check_size(text: &[u8]) -> io::Result<()> {
    match text.len() as u64 <= MAX_FILE_SIZE {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "the file would be larger than {MAX_FILE_SIZE} bytes, the most that the server reads"
        ))),
    }
}

/// Locks the directory. An account that may only read it can hold such a lock too, so the wait has
/// a limit.
fn wait_for_lock(directory: &File) -> io::Result<()> {
    let deadline = Deadline::after(LOCK_WAIT);
    loop {
        match directory.try_lock() {
            Err(TryLockError::WouldBlock) if !deadline.is_over() => thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(
                    "another process holds a lock of this folder",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Gives the new file the access control list of the old one, or none: with the one that a
/// directory gives to new files, other accounts could read it.
#[cfg(target_os = "linux")]
fn keep_acl(old: &Path, new: &File) -> io::Result<()> {
    use nix::errno::Errno;
    use xattr::FileExt;

    const ACL: &str = "system.posix_acl_access";
    let of_new = match new.get_xattr(ACL) {
        // This file system has no such lists.
        Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => return Ok(()),
        list => list?,
    };
    // An error: there is no old file.
    match (xattr::get(old, ACL).unwrap_or_default(), of_new) {
        (Some(list), _) => new.set_xattr(ACL, &list),
        (None, Some(_)) => new.remove_xattr(ACL),
        (None, None) => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn keep_acl(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}

/// Writes a new file beside the one at `path`, and renames it to `path`.
fn replace(path: &Path, before: Option<&Metadata>, text: &[u8]) -> io::Result<()> {
    let unfinished = Unfinished(path_of_new(path)?);
    // This process holds the lock of the directory, so the file is that of a process that was killed.
    let _ = fs::remove_file(&unfinished.0);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let mut file = options.open(&unfinished.0)?;
    if let Some(before) = before {
        fchown(&file, Some(before.uid()), Some(before.gid()))?;
        let mode = before.mode() & OWNER_AND_GROUP;
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    keep_acl(path, &file)?;
    file.write_all(text)?;
    // Before the name leads to the file: after a power failure it would be empty.
    file.sync_all()?;
    fs::rename(&unfinished.0, path)
}

/// The file beside the one at `path` that will replace it.
fn path_of_new(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name();
    let name = name.ok_or_else(|| io::Error::other("the path has no name of a file"))?;
    let mut new = OsString::from(".");
    new.push(name);
    new.push(".new");
    Ok(path.with_file_name(new))
}

/// The directory that has the file.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes the file on drop, unless it was renamed before.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is no file with this name.
        let _ = fs::remove_file(&self.0);
    }
}
