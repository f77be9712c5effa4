//! A file at one moment: its text, and the metadata that show a later change.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::error::LoadError;

/// Largest file in bytes: some 100,000 rules. A larger file is a mistake, and reading it
/// would delay all requests.
pub const MAX_FILE_SIZE: u64 = 4 << 20;

/// A file that changed less than this before it was read may change again without a new
/// time stamp: most file systems count time in steps of a few milliseconds.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(100);

/// The same for a time stamp of whole seconds: it may come from a file system that counts time
/// in seconds (ext3, some of NFS) or in two seconds (FAT).
const WHOLE_SECONDS_GRANULARITY: Duration = Duration::from_millis(2100);

/// The text and the metadata of the file at one moment.
pub(super) struct Snapshot {
    pub(super) text: Vec<u8>,
    /// The open file. The path may lead to another one later.
    file: File,
    stamp: Stamp,
    /// Time since the last change; `None` if the time stamp is in the future.
    age: Option<Duration>,
}

impl Snapshot {
    pub(super) fn read(path: &Path) -> Result<Snapshot, LoadError> {
        let mut snapshot = Snapshot::begin(path)?;
        // Reallocations while it grows would leave unused memory.
        let size = snapshot.stamp.size.min(MAX_FILE_SIZE) as usize;
        snapshot.text.reserve_exact(size + 1);
        let file = &mut snapshot.file;
        file.take(MAX_FILE_SIZE + 1)
            .read_to_end(&mut snapshot.text)?;
        if snapshot.text.len() as u64 > MAX_FILE_SIZE {
            return Err(LoadError::Unreadable(format!(
                "it is larger than {MAX_FILE_SIZE} bytes"
            )));
        }
        Ok(snapshot)
    }

    /// If the file has this text, its settled stamp. Needs no memory for another copy.
    pub(super) fn settled_with(
        path: &Path,
        text: &[u8],
    ) -> Result<Option<Option<Stamp>>, LoadError> {
        let mut snapshot = Snapshot::begin(path)?;
        let is_same = has_text(&mut snapshot.file, text)?;
        Ok(is_same.then(|| snapshot.settled_stamp()))
    }

    /// Has nothing been written to the file since it was opened? Another file may have replaced
    /// it by rename(2), which changes only the time stamp of its metadata. Needs no memory for
    /// another copy either.
    pub(super) fn is_unchanged(&mut self) -> bool {
        let is_same = |file: &mut File| {
            let now = Stamp::of(&file.metadata()?);
            file.rewind()?;
            let is_same = now.is_written_as(self.stamp);
            Ok::<bool, io::Error>(is_same && has_text(file, &self.text)?)
        };
        is_same(&mut self.file).unwrap_or(false)
    }

    /// Opens the file; the text is not read yet.
    fn begin(path: &Path) -> Result<Snapshot, LoadError> {
        let now = SystemTime::now();
        let file = open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(LoadError::Unreadable("it is not a regular file".to_owned()));
        }
        let modified = metadata.modified().ok();
        Ok(Snapshot {
            text: Vec::new(),
            file,
            stamp: Stamp::of(&metadata),
            age: modified.and_then(|modified| now.duration_since(modified).ok()),
        })
    }

    /// The stamp, if it is old enough that an equal stamp means equal content.
    pub(super) fn settled_stamp(&self) -> Option<Stamp> {
        let (_, nanoseconds) = self.stamp.modified;
        let granularity = match nanoseconds {
            0 => WHOLE_SECONDS_GRANULARITY,
            _ => TIMESTAMP_GRANULARITY,
        };
        let is_old_enough = self.age.is_some_and(|age| age > granularity);
        is_old_enough.then_some(self.stamp)
    }
}

/// Does the rest of the file consist of these bytes?
fn has_text(file: &mut File, text: &[u8]) -> io::Result<bool> {
    let mut chunk = [0; 16 << 10];
    let mut rest = text;
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => return Ok(rest.is_empty()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match rest.strip_prefix(chunk.get(..count).unwrap_or_default()) {
            Some(after) => rest = after,
            None => return Ok(false),
        }
    }
}

/// Opens the file without waiting: open(2) of a FIFO without a writer blocks for ever.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

/// Metadata that differ after a change of the file; stat(2) returns them without a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file now; `None` if there is no such file.
    pub(super) fn of_file(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// Are the size and the time of the last write the same?
    fn is_written_as(self, other: Stamp) -> bool {
        (self.size, self.modified) == (other.size, other.modified)
    }

    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn f36_a_time_stamp_of_whole_seconds_settles_after_two() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
        let whole = Duration::from_secs(now.as_secs());
        let ago = |seconds| whole - Duration::from_secs(seconds);
        for (modified, is_settled) in [
            (ago(1), false),
            (ago(1) - Duration::from_nanos(1), true),
            (ago(4), true),
        ] {
            let modified = UNIX_EPOCH + modified;
            file.as_file().set_modified(modified).expect("set");
            let snapshot = Snapshot::begin(file.path()).expect("a snapshot");
            let settled = snapshot.settled_stamp().is_some();
            assert_eq!(settled, is_settled, "{modified:?}");
        }
    }
}
