//! A file that is read again after each change; its last valid content stays in force.
//!
//! Every request checks the file, and the request that notices a change already uses
//! the new content. While it reads the file, and waits for its writer, other requests use
//! the content in force. A file that cannot be read, has errors, or is being written
//! changes nothing.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::content::Content;
use super::error::{LoadError, SyntaxError};
use super::file_thread::FileThread;
use super::memory::{MemoryCheck, MemoryUse, NO_LIMIT, needed};
use super::snapshot::{Snapshot, Stamp};
use crate::sync::{OrderedGuard, OrderedMutex, Rank, thread};
use crate::trace::{self, Wait};

/// New content counts only if nothing was written to the file until this much later. An
/// editor that truncates a file and writes it again has finished by then. It counts also if
/// another file has replaced this one meanwhile: the next check reads that one. So files that
/// are replaced all the time do not keep the old content in force.
const SETTLE_TIME: Duration = Duration::from_millis(10);

/// The same for content that is empty or ends in the middle of a line: a slow writer may
/// have written only the first part.
const SETTLE_TIME_PARTIAL: Duration = Duration::from_millis(100);

/// What happened to a file, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadEvent {
    /// The file has changed, and its content is in force now.
    Reloaded {
        /// The content in words: "5 rules".
        content: String,
        /// How many entries it has.
        entries: usize,
    },
    /// The file cannot be used; its last valid content stays in force.
    Kept(LoadError),
    /// The file is being written; its last valid content stays in force until the writer
    /// has finished. Reported only when the operator requests a reload.
    BeingWritten,
}

/// A further check of valid content, which depends on more than the file.
type Check<T> = Arc<dyn Fn(&T) -> Result<(), SyntaxError> + Send + Sync>;

/// What is checked of a file beside its syntax.
struct Checks<T> {
    content: Check<T>,
    memory: MemoryCheck,
}

impl<T> Clone for Checks<T> {
    fn clone(&self) -> Checks<T> {
        Checks {
            content: Arc::clone(&self.content),
            memory: self.memory,
        }
    }
}

/// A file, and its content that is in force.
pub struct WatchedFile<T> {
    path: PathBuf,
    checks: Checks<T>,
    /// A leaf in the lock order, never held while the file is read.
    in_force: OrderedMutex<InForce<T>>,
    /// Held while the file is read again, for 10 to 100 ms: one thread at a time reads it.
    /// The others use the content in force, except a reload by the operator, which waits.
    last_check: OrderedMutex<LastCheck>,
}

/// The content that requests use.
#[derive(Debug)]
struct InForce<T> {
    /// The last valid content.
    content: Arc<T>,
    /// The number of its last line, if that has no newline at its end.
    unterminated_line: Option<usize>,
    /// The file need not be read again while it has this stamp.
    settled: Option<Stamp>,
}

/// What the last check of the file has found.
#[derive(Debug)]
struct LastCheck {
    /// The last text that was parsed, valid or not.
    text: Vec<u8>,
    /// Why the file's content is not in force; reported once.
    error: Option<LoadError>,
    memory: MemoryUse,
    thread: FileThread,
}

impl<T: Content> WatchedFile<T> {
    /// Reads the file for the first time.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has errors.
    pub fn open(path: &Path) -> Result<WatchedFile<T>, LoadError> {
        WatchedFile::open_with(path, |_| Ok(()), NO_LIMIT)
    }

    /// The same, with two further checks, now and after each change of the file: of the
    /// content, and before the file is parsed, of the memory for it.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has errors, or a check fails.
    pub fn open_with(
        path: &Path,
        content: impl Fn(&T) -> Result<(), SyntaxError> + Send + Sync + 'static,
        memory: MemoryCheck,
    ) -> Result<WatchedFile<T>, LoadError> {
        let content: Check<T> = Arc::new(content);
        let checks = Checks { content, memory };
        let snapshot = Snapshot::read(path)?;
        let none = MemoryUse::default();
        let content = parse(&snapshot.text, &checks, none)?;
        let memory = none.replaced_by(needed::<T>(&snapshot.text));
        let in_force = InForce {
            content: Arc::new(content),
            unterminated_line: unterminated_line(&snapshot.text),
            settled: snapshot.settled_stamp(),
        };
        let last_check = LastCheck {
            text: snapshot.text,
            error: None,
            memory,
            thread: FileThread::default(),
        };
        Ok(WatchedFile {
            path: path.to_owned(),
            checks,
            in_force: OrderedMutex::new(Rank::Leaf, in_force),
            last_check: OrderedMutex::new(Rank::FileCheck, last_check),
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Can accounts other than the owner read or write the file?
    pub fn is_accessible_to_others(&self) -> bool {
        let mode = fs::metadata(&self.path).map(|metadata| metadata.mode());
        mode.is_ok_and(|mode| mode & 0o077 != 0)
    }

    /// Can every account of this machine write the file?
    pub fn is_writable_by_everyone(&self) -> bool {
        let mode = fs::metadata(&self.path).map(|metadata| metadata.mode());
        mode.is_ok_and(|mode| mode & 0o002 != 0)
    }

    /// The content in force, without a check of the file.
    pub fn content(&self) -> Arc<T> {
        Arc::clone(&self.in_force.lock().content)
    }

    /// The number of the last line, from 1, if the content in force has no newline at its end:
    /// the file may have been cut off in this line, by a full disk for example. A blank line
    /// does not count.
    pub fn unterminated_line(&self) -> Option<usize> {
        self.in_force.lock().unterminated_line
    }

    /// The content in force now, and the event if the file has changed.
    ///
    /// Costs one stat(2) while the file does not change. The request that notices a change
    /// takes 10 to 100 ms longer. Requests that arrive in this time use the content that is
    /// in force: otherwise they would wait one after the other for a slow writer.
    pub fn current(&self) -> (Arc<T>, Option<ReloadEvent>) {
        let (content, event) = self.checked_by(|| self.last_check.try_lock());
        let event = event.filter(|event| *event != ReloadEvent::BeingWritten);
        (content, event)
    }

    /// The same, after a check that another thread has begun: not for sessions. Also returns
    /// [`ReloadEvent::BeingWritten`], so that the caller can look again.
    pub fn current_after_check(&self) -> (Arc<T>, Option<ReloadEvent>) {
        self.checked_by(|| Some(self.last_check.lock()))
    }

    /// Checks the file if it may have changed and `begin` takes the lock for it. Returns the
    /// content that is in force then.
    fn checked_by<'a>(
        &'a self,
        begin: impl FnOnce() -> Option<OrderedGuard<'a, LastCheck>>,
    ) -> (Arc<T>, Option<ReloadEvent>) {
        let seen = Stamp::of_file(&self.path);
        if let Some(content) = self.in_force.lock().settled_content(seen) {
            return (content, None);
        }
        let event = begin().and_then(|mut last_check| self.check_file(&mut last_check));
        (self.content(), event)
    }

    /// Checks the file at the operator's request, after a check that another thread has
    /// begun. An error is returned even if it was reported before; `None` if the file's
    /// content is in force already. A file for which too little memory was left is tried again.
    ///
    /// The file is read also if its time stamp is the same: a program that has mapped the file
    /// into its memory can change it without a new time stamp.
    pub fn reload(&self) -> Option<ReloadEvent> {
        let mut last_check = self.last_check.lock();
        self.in_force.lock().settled = None;
        if let Some(LoadError::NoMemory(_)) = last_check.error {
            last_check.text = Vec::new();
        }
        let event = self.check_file(&mut last_check);
        event.or_else(|| last_check.error.clone().map(ReloadEvent::Kept))
    }

    /// Reads the file if it has changed, and puts valid content in force.
    fn check_file(&self, last_check: &mut LastCheck) -> Option<ReloadEvent> {
        let seen = Stamp::of_file(&self.path);
        if self.in_force.lock().settled_content(seen).is_some() {
            return None;
        }
        let settled = Snapshot::settled_with(&self.path, &last_check.text);
        if let (Ok(Some(settled)), false) = (settled, last_check.is_unreadable()) {
            self.in_force.lock().settled = settled;
            return None;
        }
        let (path, checks) = (self.path.clone(), self.checks.clone());
        let memory = last_check.memory;
        let loaded = last_check
            .thread
            .run(move || load(&path, &checks, memory))?;
        let (snapshot, content) = match loaded {
            Ok(Some(loaded)) => loaded,
            // `settled` is unchanged, so the next request checks the file again.
            Ok(None) => return Some(ReloadEvent::BeingWritten),
            Err(error) => {
                self.in_force.lock().settled = None;
                return last_check.keep_content(error);
            }
        };
        let settled = snapshot.settled_stamp();
        last_check.text = snapshot.text;
        match content {
            Ok(content) => {
                last_check.error = None;
                last_check.memory = memory.replaced_by(needed::<T>(&last_check.text));
                let event = ReloadEvent::Reloaded {
                    content: content.to_string(),
                    entries: content.entries(),
                };
                let after = InForce {
                    content: Arc::new(content),
                    unterminated_line: unterminated_line(&last_check.text),
                    settled,
                };
                let before = std::mem::replace(&mut *self.in_force.lock(), after);
                // After the lock is released: many rules take a while.
                drop(before);
                Some(event)
            }
            Err(error) => {
                self.in_force.lock().settled = settled;
                last_check.keep_content(error)
            }
        }
    }
}

/// A snapshot of a file, and its content or why it cannot be used.
type Loaded<T> = (Snapshot, Result<T, LoadError>);

/// Reads and parses a changed file; `None` while it is being written.
fn load<T: Content>(
    path: &Path,
    checks: &Checks<T>,
    memory: MemoryUse,
) -> Result<Option<Loaded<T>>, LoadError> {
    let mut snapshot = Snapshot::read(path)?;
    let wait = trace::wait(|| Wait::Sleep);
    thread::sleep(match snapshot.text.ends_with(b"\n") {
        true => SETTLE_TIME,
        false => SETTLE_TIME_PARTIAL,
    });
    drop(wait);
    if !snapshot.is_unchanged() {
        return Ok(None);
    }
    let content = parse(&snapshot.text, checks, memory);
    Ok(Some((snapshot, content)))
}

fn unterminated_line(text: &[u8]) -> Option<usize> {
    let lines = text.split(|&byte| byte == b'\n').enumerate();
    let (index, last) = lines.last()?;
    (!last.trim_ascii().is_empty()).then_some(index + 1)
}

/// Parses the text if there is enough memory, and checks its content.
fn parse<T: Content>(text: &[u8], checks: &Checks<T>, memory: MemoryUse) -> Result<T, LoadError> {
    let has_memory = memory.check(text, needed::<T>(text), checks.memory);
    has_memory.map_err(LoadError::NoMemory)?;
    let content = T::parse(text).map_err(LoadError::Syntax)?;
    (checks.content)(&content).map_err(|error| LoadError::Syntax(vec![error]))?;
    Ok(content)
}

impl<T: fmt::Debug> fmt::Debug for WatchedFile<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WatchedFile")
            .field("path", &self.path)
            .field("in_force", &self.in_force)
            .finish_non_exhaustive()
    }
}

impl<T> InForce<T> {
    /// The content, if a file with this stamp is known, so that it need not be read.
    fn settled_content(&self, seen: Option<Stamp>) -> Option<Arc<T>> {
        let is_settled = seen.is_some() && seen == self.settled;
        is_settled.then(|| Arc::clone(&self.content))
    }
}

impl LastCheck {
    fn is_unreadable(&self) -> bool {
        matches!(self.error, Some(LoadError::Unreadable(_)))
    }

    /// Records why the content in force stays. The same error is reported only once.
    fn keep_content(&mut self, error: LoadError) -> Option<ReloadEvent> {
        if self.error.as_ref() == Some(&error) {
            return None;
        }
        self.error = Some(error.clone());
        Some(ReloadEvent::Kept(error))
    }
}
