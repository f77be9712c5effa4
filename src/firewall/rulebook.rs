//! The rulebook keeps the rules in force equal to `socks.conf`.
//!
//! Every request looks at the file; the one that notices a change already uses
//! the new rules. A file that cannot be read or understood, or that somebody is
//! still writing, changes nothing: the last good rules stay in force.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::grammar::{self, Mistake};
use super::rules::Rules;
use crate::sync::{Mutex, lock};

/// Largest rules file in bytes: some 100,000 rules. Whatever is larger is not
/// a rules file, and reading it would hold up every request.
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

/// The rules in force, and the file they come from.
#[derive(Debug)]
pub struct Rulebook {
    path: PathBuf,
    page: Mutex<Page>,
}

/// What was read last.
#[derive(Debug)]
struct Page {
    /// The last good rules: those in force.
    rules: Arc<Rules>,
    /// The last content that was looked into, good or bad.
    text: Vec<u8>,
    /// The stamp of the file that needs no further reading.
    settled: Option<Stamp>,
    /// Why the file is not in force, already told once.
    complaint: Option<Unusable>,
}

/// Something the operator should hear about the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The file has changed, and this many rules are in force from now on.
    Reloaded(usize),
    /// The file is unusable, and the last good rules stay in force.
    Kept(Unusable),
    /// Somebody is still writing the file, and the last good rules stay in
    /// force until that is done. Told only to who asks.
    BeingWritten,
}

/// Why a rules file cannot be used.
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
                if mistakes.len() == grammar::MOST_MISTAKES {
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

impl Rulebook {
    /// Opens the rulebook at this file.
    ///
    /// # Errors
    ///
    /// [`Unusable`] if the file cannot be read or has mistakes.
    pub fn open(path: &Path) -> Result<Rulebook, Unusable> {
        let copy = Copy::read(path)?;
        let rules = grammar::parse(&copy.text).map_err(Unusable::Mistakes)?;
        Ok(Rulebook {
            path: path.to_owned(),
            page: Mutex::new(Page {
                rules: Arc::new(rules),
                settled: copy.settled(),
                text: copy.text,
                complaint: None,
            }),
        })
    }

    /// The file this rulebook follows.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rules in force now, and news if looking at the file brought some.
    ///
    /// Costs one `stat` while nothing changes. The request that notices a
    /// change waits some 10 ms longer, as does every request meanwhile:
    /// none of them may use rules that are out of date.
    pub fn current(&self) -> (Arc<Rules>, Option<News>) {
        // Looked at before the lock is taken, so that requests need not queue
        // for the disk.
        let seen = Stamp::of_file(&self.path);
        let mut page = lock(&self.page);
        if page.is_settled(seen) {
            return (Arc::clone(&page.rules), None);
        }
        let news = page.turn(&self.path);
        let news = news.filter(|news| *news != News::BeingWritten);
        (Arc::clone(&page.rules), news)
    }

    /// Looks at the file because somebody asks: what they should know of it,
    /// even if it has been told before. `None` if it is in force as it stands.
    pub fn reread(&self) -> Option<News> {
        let mut page = lock(&self.page);
        let news = page.turn(&self.path);
        news.or_else(|| page.complaint.clone().map(News::Kept))
    }
}

impl Page {
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
        match grammar::parse(&self.text) {
            Ok(rules) => {
                self.complaint = None;
                self.rules = Arc::new(rules);
                Some(News::Reloaded(self.rules.len()))
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
