//! A file that is read again after each change; its last valid content stays in force.
//!
//! Every request checks the file, and the request that notices a change already uses
//! the new content. A file that cannot be read, has errors, or is being written changes
//! nothing.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use crate::sync::{OrderedMutex, Rank, thread};

/// Largest file in bytes: some 100,000 rules. A larger file is a mistake, and reading it
/// would delay all requests.
const MAX_FILE_SIZE: u64 = 4 << 20;

/// New content counts only if it and the file's stamp are the same this much later. An
/// editor that truncates a file and writes it again has finished by then.
const SETTLE_TIME: Duration = Duration::from_millis(10);

/// The same for content that is empty or ends in the middle of a line: a slow writer may
/// have written only the first part.
const SETTLE_TIME_PARTIAL: Duration = Duration::from_millis(100);

/// A file that changed less than this before it was read may change again without a new
/// time stamp: file systems count time in steps of a few milliseconds.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(100);

/// Errors that are reported for one file: more than an operator corrects at once. The bound
/// keeps the work for a file with millions of invalid lines small.
pub const MAX_ERRORS: usize = 20;

/// The parsed content of a file. Its `Display` states the number of entries: "5 rules".
pub trait Content: fmt::Display + Sized {
    /// The plural noun for the entries, for messages: "rules".
    const NAME: &'static str;

    /// Parses the bytes of a file.
    ///
    /// # Errors
    ///
    /// The first [`MAX_ERRORS`] invalid lines; then no line of the file counts.
    fn parse(text: &[u8]) -> Result<Self, Vec<SyntaxError>>;
}

/// One invalid line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// A sentence that states the error and the correct form.
    pub reason: String,
}

impl fmt::Display for SyntaxError {
    /// Writes `LINE: reason`; the caller writes the file's name and a colon before it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.reason)
    }
}

impl std::error::Error for SyntaxError {}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file could not be read; the reason as a sentence.
    Unreadable(String),
    /// The file was read and has these errors, at least one.
    Syntax(Vec<SyntaxError>),
}

impl LoadError {
    /// One line per reason. Each begins with the file's name and, for an invalid line, its
    /// number.
    pub fn describe(&self, path: &Path) -> Vec<String> {
        let path = path.display();
        match self {
            LoadError::Unreadable(reason) => vec![format!("{path}: {reason}")],
            LoadError::Syntax(errors) => {
                let line = |error: &SyntaxError| format!("{path}:{error}");
                let mut lines: Vec<String> = errors.iter().map(line).collect();
                if errors.len() == MAX_ERRORS {
                    lines.push(format!("{path}: there may be more errors after these"));
                }
                lines
            }
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Unreadable(reason) => out.write_str(reason),
            LoadError::Syntax(errors) => match errors.first() {
                Some(first) => write!(out, "line {first}"),
                None => out.write_str("it has errors"),
            },
        }
    }
}

impl std::error::Error for LoadError {}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> LoadError {
        LoadError::Unreadable(error.to_string())
    }
}

/// What happened to a file, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadEvent {
    /// The file has changed, and its content is in force now: "5 rules".
    Reloaded(String),
    /// The file cannot be used; its last valid content stays in force.
    Kept(LoadError),
    /// The file is being written; its last valid content stays in force until the writer
    /// has finished. Reported only when the operator requests a reload.
    BeingWritten,
}

/// A further check of valid content, which depends on more than the file.
type Check<T> = Box<dyn Fn(&T) -> Result<(), SyntaxError> + Send + Sync>;

/// A file, and its content that is in force.
pub struct WatchedFile<T> {
    path: PathBuf,
    check: Check<T>,
    /// Guards the state of the last read; a leaf in the lock order. It is held while the
    /// file is read again, for 10 to 100 ms: requests that wait for it must not use content
    /// that is out of date.
    state: OrderedMutex<FileState<T>>,
}

/// The state after the last read.
#[derive(Debug)]
struct FileState<T> {
    /// The last valid content, which is in force.
    content: Arc<T>,
    /// The last text that was parsed, valid or not.
    text: Vec<u8>,
    /// The file need not be read again while it has this stamp.
    settled: Option<Stamp>,
    /// Why the file's content is not in force; reported once.
    error: Option<LoadError>,
}

impl<T: Content> WatchedFile<T> {
    /// Reads the file for the first time.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has errors.
    pub fn open(path: &Path) -> Result<WatchedFile<T>, LoadError> {
        WatchedFile::open_with(path, |_| Ok(()))
    }

    /// The same, with a further check of the content, now and after each change of the file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has errors, or the check fails.
    pub fn open_with(
        path: &Path,
        check: impl Fn(&T) -> Result<(), SyntaxError> + Send + Sync + 'static,
    ) -> Result<WatchedFile<T>, LoadError> {
        let check: Check<T> = Box::new(check);
        let snapshot = Snapshot::read(path)?;
        let content = parse(&snapshot.text, &check).map_err(LoadError::Syntax)?;
        let state = FileState {
            content: Arc::new(content),
            settled: snapshot.settled_stamp(),
            text: snapshot.text,
            error: None,
        };
        Ok(WatchedFile {
            path: path.to_owned(),
            check,
            state: OrderedMutex::new(Rank::Leaf, state),
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content in force now, and the event if the file has changed.
    ///
    /// Costs one stat(2) while the file does not change. The request that notices a change
    /// takes 10 to 100 ms longer, and so do the requests that arrive in this time.
    pub fn current(&self) -> (Arc<T>, Option<ReloadEvent>) {
        // Before the lock is taken: requests must not wait for the disk access of others.
        let seen = Stamp::of_file(&self.path);
        let mut state = self.state.lock();
        if state.is_settled(seen) {
            return (Arc::clone(&state.content), None);
        }
        let event = state.check_file(&self.path, &self.check);
        let event = event.filter(|event| *event != ReloadEvent::BeingWritten);
        (Arc::clone(&state.content), event)
    }

    /// Checks the file at the operator's request. An error is returned even if it was
    /// reported before; `None` if the file's content is in force already.
    pub fn reload(&self) -> Option<ReloadEvent> {
        let mut state = self.state.lock();
        let event = state.check_file(&self.path, &self.check);
        event.or_else(|| state.error.clone().map(ReloadEvent::Kept))
    }
}

impl<T: fmt::Debug> fmt::Debug for WatchedFile<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WatchedFile")
            .field("path", &self.path)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Parses the text, and checks its content.
fn parse<T: Content>(text: &[u8], check: &Check<T>) -> Result<T, Vec<SyntaxError>> {
    let content = T::parse(text)?;
    check(&content).map_err(|error| vec![error])?;
    Ok(content)
}

impl<T: Content> FileState<T> {
    /// Reads the file if it has changed, and puts valid content in force.
    fn check_file(&mut self, path: &Path, check: &Check<T>) -> Option<ReloadEvent> {
        if self.is_settled(Stamp::of_file(path)) {
            return None;
        }
        let snapshot = match Snapshot::read(path) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.settled = None;
                return self.keep_content(error);
            }
        };
        let is_same = snapshot.text == self.text;
        if is_same && !matches!(self.error, Some(LoadError::Unreadable(_))) {
            self.settled = snapshot.settled_stamp();
            return None;
        }
        thread::sleep(match snapshot.text.ends_with(b"\n") {
            true => SETTLE_TIME,
            false => SETTLE_TIME_PARTIAL,
        });
        let again = Snapshot::read(path);
        if !again.is_ok_and(|again| again.is_unchanged_from(&snapshot)) {
            // `settled` is unchanged, so the next request checks the file again.
            return Some(ReloadEvent::BeingWritten);
        }
        self.settled = snapshot.settled_stamp();
        self.text = snapshot.text;
        match parse(&self.text, check) {
            Ok(content) => {
                self.error = None;
                self.content = Arc::new(content);
                Some(ReloadEvent::Reloaded(self.content.to_string()))
            }
            Err(errors) => self.keep_content(LoadError::Syntax(errors)),
        }
    }

    /// Is a file with this stamp known, so that it need not be read?
    fn is_settled(&self, seen: Option<Stamp>) -> bool {
        seen.is_some() && seen == self.settled
    }

    /// Keeps the content in force, and records why. The same error is reported only once.
    fn keep_content(&mut self, error: LoadError) -> Option<ReloadEvent> {
        if self.error.as_ref() == Some(&error) {
            return None;
        }
        self.error = Some(error.clone());
        Some(ReloadEvent::Kept(error))
    }
}

/// The text and the metadata of the file at one moment.
struct Snapshot {
    text: Vec<u8>,
    stamp: Stamp,
    /// Time since the last change; `None` if the time stamp is in the future.
    age: Option<Duration>,
}

impl Snapshot {
    fn read(path: &Path) -> Result<Snapshot, LoadError> {
        let now = SystemTime::now();
        let file = open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(LoadError::Unreadable("it is not a regular file".to_owned()));
        }
        let mut text = Vec::new();
        file.take(MAX_FILE_SIZE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE_SIZE {
            return Err(LoadError::Unreadable(format!(
                "it is larger than {MAX_FILE_SIZE} bytes"
            )));
        }
        let modified = metadata.modified().ok();
        Ok(Snapshot {
            text,
            stamp: Stamp::of(&metadata),
            age: modified.and_then(|modified| now.duration_since(modified).ok()),
        })
    }

    /// The stamp, if it is old enough that an equal stamp means equal content.
    fn settled_stamp(&self) -> Option<Stamp> {
        let is_old_enough = self.age.is_some_and(|age| age > TIMESTAMP_GRANULARITY);
        is_old_enough.then_some(self.stamp)
    }

    fn is_unchanged_from(&self, before: &Snapshot) -> bool {
        self.stamp == before.stamp && self.text == before.text
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
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file now; `None` if there is no such file.
    fn of_file(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
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
