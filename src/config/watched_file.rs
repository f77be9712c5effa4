//! A watched_file keeps what is in force equal to a file that may be edited at any time.
//!
//! Every request looks at the file; the one that notices a change already uses
//! what it says now. A file that cannot be read or understood, or that somebody is
//! still writing, changes nothing: its last good content stays in force.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use crate::sync::{Mutex, lock, thread};

/// Largest file in bytes: some 100,000 rules. Whatever is larger is not meant
/// for us, and reading it would hold up every request.
const MAX_FILE_SIZE: u64 = 4 << 20;

/// New content counts only if it and the file's stamp are the same this much
/// later; an editor that empties a file and fills it again is done by then.
const SETTLE_TIME: Duration = Duration::from_millis(10);

/// The same for content that ends in the middle of a line, or is empty: it may
/// well be the first part of something, by a writer that has been held up.
const SETTLE_TIME_PARTIAL: Duration = Duration::from_millis(100);

/// A file changed less than this before it was read may be changed again
/// without a new time stamp, whose grain is a few milliseconds.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(100);

/// What a file may be about. Its `Display` says how much of that there is, such
/// as "5 rules".
pub trait Content: fmt::Display + Sized {
    /// What it is called: "rules".
    const NAME: &'static str;

    /// Understands the bytes of a file.
    ///
    /// # Errors
    ///
    /// The first [`MAX_ERRORS`] lines that make no sense; then nothing of the
    /// file may be used.
    fn parse(text: &[u8]) -> Result<Self, Vec<SyntaxError>>;
}

/// One line of a file that makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// A sentence that says what to write instead.
    pub reason: String,
}

impl fmt::Display for SyntaxError {
    /// Writes `LINE: reason`; put the file's name and a colon in front.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.reason)
    }
}

/// Mistakes that are looked for before a file is given up: more than anybody
/// mends in one go. A file of millions of bad lines costs no more than one of
/// twenty.
pub const MAX_ERRORS: usize = 20;

/// What is in force, and the file it comes from.
#[derive(Debug)]
pub struct WatchedFile<T> {
    path: PathBuf,
    state: Mutex<FileState<T>>,
}

/// What was read last.
#[derive(Debug)]
struct FileState<T> {
    /// The last good content: what is in force.
    content: Arc<T>,
    /// The last content that was looked into, good or bad.
    text: Vec<u8>,
    /// The stamp of the file that needs no further reading.
    settled: Option<Stamp>,
    /// Why the file is not in force, already told once.
    complaint: Option<LoadError>,
}

/// Something the operator should hear about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadEvent {
    /// The file has changed, and this is in force from now on: "5 rules".
    Reloaded(String),
    /// The file is error, and its last good content stays in force.
    Kept(LoadError),
    /// Somebody is still writing the file, and its last good content stays in
    /// force until that is done. Told only to who asks.
    BeingWritten,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It could not be read; the reason as a sentence.
    Unreadable(String),
    /// It was read and has these errors, at least one.
    Syntax(Vec<SyntaxError>),
}

impl LoadError {
    /// A line per reason, each with the file's name and, for a mistake, its line
    /// in front.
    pub fn describe(&self, path: &Path) -> Vec<String> {
        let path = path.display();
        match self {
            LoadError::Unreadable(reason) => vec![format!("{path}: {reason}")],
            LoadError::Syntax(errors) => {
                let mut lines: Vec<String> =
                    errors.iter().map(|it| format!("{path}:{it}")).collect();
                if errors.len() == MAX_ERRORS {
                    lines.push(format!("{path}: there may be more errors after these"));
                }
                lines
            }
        }
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> LoadError {
        LoadError::Unreadable(error.to_string())
    }
}

impl<T: Content> WatchedFile<T> {
    /// Opens the watched_file at this file.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file cannot be read or has errors.
    pub fn open(path: &Path) -> Result<WatchedFile<T>, LoadError> {
        let copy = Snapshot::read(path)?;
        let content = T::parse(&copy.text).map_err(LoadError::Syntax)?;
        Ok(WatchedFile {
            path: path.to_owned(),
            state: Mutex::new(FileState {
                content: Arc::new(content),
                settled: copy.settled(),
                text: copy.text,
                complaint: None,
            }),
        })
    }

    /// The file this watched_file follows.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in force now, and event if looking at the file brought some.
    ///
    /// Costs one `stat` while nothing changes. The request that notices a
    /// change waits some 10 ms longer, as does every request meanwhile:
    /// none of them may use what is out of date.
    pub fn current(&self) -> (Arc<T>, Option<ReloadEvent>) {
        // Looked at before the lock is taken, so that requests need not queue
        // for the disk.
        let seen = Stamp::of_file(&self.path);
        let mut state = lock(&self.state);
        if state.is_settled(seen) {
            return (Arc::clone(&state.content), None);
        }
        let event = state.turn(&self.path);
        let event = event.filter(|event| *event != ReloadEvent::BeingWritten);
        (Arc::clone(&state.content), event)
    }

    /// Looks at the file because somebody asks: what they should know of it,
    /// even if it has been told before. `None` if it is in force as it stands.
    pub fn reload(&self) -> Option<ReloadEvent> {
        let mut state = lock(&self.state);
        let event = state.turn(&self.path);
        event.or_else(|| state.complaint.clone().map(ReloadEvent::Kept))
    }
}

impl<T: Content> FileState<T> {
    /// Looks at the file, and adopts it if it has changed and is good.
    fn turn(&mut self, path: &Path) -> Option<ReloadEvent> {
        if self.is_settled(Stamp::of_file(path)) {
            return None;
        }
        let copy = match Snapshot::read(path) {
            Ok(copy) => copy,
            Err(error) => {
                self.settled = None;
                return self.complain(error);
            }
        };
        let same = copy.text == self.text;
        if same && !matches!(self.complaint, Some(LoadError::Unreadable(_))) {
            self.settled = copy.settled();
            return None;
        }
        thread::sleep(match copy.text.ends_with(b"\n") {
            true => SETTLE_TIME,
            false => SETTLE_TIME_PARTIAL,
        });
        let again = Snapshot::read(path);
        if !again.is_ok_and(|again| again.is_unchanged_from(&copy)) {
            // The next request looks again.
            return Some(ReloadEvent::BeingWritten);
        }
        self.settled = copy.settled();
        self.text = copy.text;
        match T::parse(&self.text) {
            Ok(content) => {
                self.complaint = None;
                self.content = Arc::new(content);
                Some(ReloadEvent::Reloaded(self.content.to_string()))
            }
            Err(errors) => self.complain(LoadError::Syntax(errors)),
        }
    }

    /// Does a file with this stamp need no reading?
    fn is_settled(&self, seen: Option<Stamp>) -> bool {
        seen.is_some() && seen == self.settled
    }

    /// The same complaint is event only once.
    fn complain(&mut self, error: LoadError) -> Option<ReloadEvent> {
        if self.complaint.as_ref() == Some(&error) {
            return None;
        }
        self.complaint = Some(error.clone());
        Some(ReloadEvent::Kept(error))
    }
}

/// The file as it was at one moment.
struct Snapshot {
    text: Vec<u8>,
    stamp: Stamp,
    /// How long the file had been left alone; none if the clock cannot tell.
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

    /// The stamp, if from now on an equal stamp means equal content.
    fn settled(&self) -> Option<Stamp> {
        let old_enough = self.age.is_some_and(|age| age > TIMESTAMP_GRANULARITY);
        old_enough.then_some(self.stamp)
    }

    fn is_unchanged_from(&self, before: &Snapshot) -> bool {
        self.stamp == before.stamp && self.text == before.text
    }
}

/// Opens without waiting: a FIFO with no writer would hold us up for ever.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of the file now; none if there is no such file.
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
