//! Replaces the content of a file in one step: a reader sees either the old or the new content.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Only the owner may read a new file: it has the hashes of passwords.
const MODE: u32 = 0o600;
/// The permissions of the owner and of the group. A file that is replaced keeps them: the server
/// may read it as a member of the group.
const OWNER_AND_GROUP: u32 = 0o770;

/// Replaces the content of the file at `path` by what `edit` makes of it. A file that does not
/// exist is empty; it is created with mode 0600. An existing file keeps its owner, its group and
/// the permissions of both; other accounts have none afterwards.
///
/// Waits as long as another process edits a file of the same directory in this way.
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
    // Behind a symbolic link, the file that it leads to is replaced, and not the link.
    let target = match path.symlink_metadata() {
        Ok(entry) if entry.is_symlink() => fs::canonicalize(path).map_err(describe)?,
        _ => path.to_owned(),
    };
    // Held until the end. The file itself cannot be locked, since another one replaces it.
    let directory = File::open(directory_of(&target)).map_err(describe)?;
    directory.lock().map_err(describe)?;
    let (text, before) = read(&target).map_err(describe)?;
    let text = edit(&text)?;
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
    File::open(path)?.read_to_end(&mut text)?;
    Ok((text, Some(metadata)))
}

/// Writes a new file beside the one at `path`, and renames it to `path`.
fn replace(path: &Path, before: Option<&Metadata>, text: &[u8]) -> io::Result<()> {
    let unfinished = Unfinished(path_of_new(path)?);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let mut file = options.open(&unfinished.0)?;
    if let Some(before) = before {
        fchown(&file, Some(before.uid()), Some(before.gid()))?;
        let mode = before.mode() & OWNER_AND_GROUP;
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(text)?;
    // Before the name leads to the file: after a power failure it would be empty.
    file.sync_all()?;
    fs::rename(&unfinished.0, path)
}

/// A file beside the one at `path`, for this process alone.
fn path_of_new(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name();
    let name = name.ok_or_else(|| io::Error::other("the path has no name of a file"))?;
    let mut new = OsString::from(".");
    new.push(name);
    new.push(format!(".new-{}", std::process::id()));
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
