//! A book keeps what is in force equal to a file that may be edited at any time.
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

use crate::sync::{Mutex, lock};

/// Largest file in bytes: some 100,000 rules. Whatever is larger is not meant
/// for us, and reading it would hold up every request.
const MAX_FILE: u64 = 4 << 20;

/// New content counts only if it and the file's stamp are the same this much
/// later; an editor that empties a file and fills it again is done by then.
const WRITTEN_OUT: Duration = Duration::from_millis(10);

/// The same for content that ends in the middle of a line, or is empty: it may
/// well be the first part of something, by a writer that has been held up.
const SURELY_WRITTEN_OUT: Duration = Duration::from_millis(100);

/// A file changed less than this before it was read may be changed again
/// without a new time stamp, whose grain is a few milliseconds.
const STAMP_GRAIN: Duration = Duration::from_millis(100);

/// What a file may be about. Its `Display` says how much of that there is, such
/// as "5 rules".
pub trait Content: fmt::Display + Sized {
    /// What it is called: "rules".
    const NAME: &'static str;

    /// Understands the bytes of a file.
    ///
    /// # Errors
    ///
    /// The first [`MOST_MISTAKES`] lines that make no sense; then nothing of the
    /// file may be used.
    fn parse(text: &[u8]) -> Result<Self, Vec<Mistake>>;
}

/// One line of a file that makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// A sentence that says what to write instead.
    pub reason: String,
}

impl fmt::Display for Mistake {
    /// Writes `LINE: reason`; put the file's name and a colon in front.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.reason)
    }
}

/// Mistakes that are looked for before a file is given up: more than anybody
/// mends in one go. A file of millions of bad lines costs no more than one of
/// twenty.
pub const MOST_MISTAKES: usize = 20;

/// What is in force, and the file it comes from.
#[derive(Debug)]
pub struct Book<T> {
    path: PathBuf,
    page: Mutex<Page<T>>,
}

/// What was read last.
#[derive(Debug)]
struct Page<T> {
    /// The last good content: what is in force.
    content: Arc<T>,
    /// The last content that was looked into, good or bad.
    text: Vec<u8>,
    /// The stamp of the file that needs no further reading.
    settled: Option<Stamp>,
    /// Why the file is not in force, already told once.
    complaint: Option<Unusable>,
}

/// Something the operator should hear about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The file has changed, and this is in force from now on: "5 rules".
    Reloaded(String),
    /// The file is unusable, and its last good content stays in force.
    Kept(Unusable),
    /// Somebody is still writing the file, and its last good content stays in
    /// force until that is done. Told only to who asks.
    BeingWritten,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It could not be read; the reason as a sentence.
    Unreadable(String),
    /// It was read and has these mistakes, at least one.
    Mistakes(Vec<Mistake>),
}

impl Unusable {
    /// A line per reason, each with the file's name and, for a mistake, its line
    /// in front.
    pub fn describe(&self, path: &Path) -> Vec<String> {
        let path = path.display();
        match self {
            Unusable::Unreadable(reason) => vec![format!("{path}: {reason}")],
            Unusable::Mistakes(mistakes) => {
                let mut lines: Vec<String> =
                    mistakes.iter().map(|it| format!("{path}:{it}")).collect();
                if mistakes.len() == MOST_MISTAKES {
                    lines.push(format!("{path}: there may be more mistakes after these"));
                }
                lines
            }
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Unusable {
        Unusable::Unreadable(error.to_string())
    }
}

impl<T: Content> Book<T> {
    /// Opens the book at this file.
    ///
    /// # Errors
    ///
    /// [`Unusable`] if the file cannot be read or has mistakes.
    pub fn open(path: &Path) -> Result<Book<T>, Unusable> {
        let copy = Copy::read(path)?;
        let content = T::parse(&copy.text).map_err(Unusable::Mistakes)?;
        Ok(Book {
            path: path.to_owned(),
            page: Mutex::new(Page {
                content: Arc::new(content),
                settled: copy.settled(),
                text: copy.text,
                complaint: None,
            }),
        })
    }

    /// The file this book follows.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in force now, and news if looking at the file brought some.
    ///
    /// Costs one `stat` while nothing changes. The request that notices a
    /// change waits some 10 ms longer, as does every request meanwhile:
    /// none of them may use what is out of date.
    pub fn current(&self) -> (Arc<T>, Option<News>) {
        // Looked at before the lock is taken, so that requests need not queue
        // for the disk.
        let seen = Stamp::of_file(&self.path);
        let mut page = lock(&self.page);
        if page.is_settled(seen) {
            return (Arc::clone(&page.content), None);
        }
        let news = page.turn(&self.path);
        let news = news.filter(|news| *news != News::BeingWritten);
        (Arc::clone(&page.content), news)
    }

    /// Looks at the file because somebody asks: what they should know of it,
    /// even if it has been told before. `None` if it is in force as it stands.
    pub fn reread(&self) -> Option<News> {
        let mut page = lock(&self.page);
        let news = page.turn(&self.path);
        news.or_else(|| page.complaint.clone().map(News::Kept))
    }
}

impl<T: Content> Page<T> {
    /// Looks at the file, and adopts it if it has changed and is good.
    fn turn(&mut self, path: &Path) -> Option<News> {
        if self.is_settled(Stamp::of_file(path)) {
            return None;
        }
        let copy = match Copy::read(path) {
            Ok(copy) => copy,
            Err(unusable) => {
                self.settled = None;
                return self.complain(unusable);
            }
        };
        let same = copy.text == self.text;
        if same && !matches!(self.complaint, Some(Unusable::Unreadable(_))) {
            self.settled = copy.settled();
            return None;
        }
        std::thread::sleep(match copy.text.ends_with(b"\n") {
            true => WRITTEN_OUT,
            false => SURELY_WRITTEN_OUT,
        });
        let again = Copy::read(path);
        if !again.is_ok_and(|again| again.is_unchanged_from(&copy)) {
            // The next request looks again.
            return Some(News::BeingWritten);
        }
        self.settled = copy.settled();
        self.text = copy.text;
        match T::parse(&self.text) {
            Ok(content) => {
                self.complaint = None;
                self.content = Arc::new(content);
                Some(News::Reloaded(self.content.to_string()))
            }
            Err(mistakes) => self.complain(Unusable::Mistakes(mistakes)),
        }
    }

    /// Does a file with this stamp need no reading?
    fn is_settled(&self, seen: Option<Stamp>) -> bool {
        seen.is_some() && seen == self.settled
    }

    /// The same complaint is news only once.
    fn complain(&mut self, unusable: Unusable) -> Option<News> {
        if self.complaint.as_ref() == Some(&unusable) {
            return None;
        }
        self.complaint = Some(unusable.clone());
        Some(News::Kept(unusable))
    }
}

/// The file as it was at one moment.
struct Copy {
    text: Vec<u8>,
    stamp: Stamp,
    /// How long the file had been left alone; none if the clock cannot tell.
    age: Option<Duration>,
}

impl Copy {
    fn read(path: &Path) -> Result<Copy, Unusable> {
        let now = SystemTime::now();
        let file = open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Unusable::Unreadable("it is not a regular file".to_owned()));
        }
        let mut text = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(Unusable::Unreadable(format!(
                "it is larger than {MAX_FILE} bytes"
            )));
        }
        let modified = metadata.modified().ok();
        Ok(Copy {
            text,
            stamp: Stamp::of(&metadata),
            age: modified.and_then(|modified| now.duration_since(modified).ok()),
        })
    }

    /// The stamp, if from now on an equal stamp means equal content.
    fn settled(&self) -> Option<Stamp> {
        let old_enough = self.age.is_some_and(|age| age > STAMP_GRAIN);
        old_enough.then_some(self.stamp)
    }

    fn is_unchanged_from(&self, before: &Copy) -> bool {
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
