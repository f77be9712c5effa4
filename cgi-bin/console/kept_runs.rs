//! Kept runs: one text file for each run, in the folder that `CONSOLE_RUNS` names.
//!
//! The ID of a run, the name of its file, is the time of the start and 128 random bits. So IDs
//! sort by time, and cannot be guessed. The extension tells the state: `.part` while the run
//! writes the file, `.txt` after its end. A file `.stop` next to it asks the run to stop.
//!
//! A run holds a lock on its file (flock(2)), which the kernel releases even if the process is
//! killed. So a `.part` without a lock is an interrupted run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::folder;
use crate::output::log_error;
use crate::run_token::{has_token_alphabet, random_token};

/// Maximum number of kept runs. A new run removes the oldest.
pub(crate) const MAX_RUNS: usize = 200;

/// Maximum size of all kept runs in bytes when a run starts, with [`MAX_RUN_SIZE`] for this
/// run. Runs that are still running count with their present size.
pub(crate) const MAX_TOTAL_SIZE: u64 = 256 * 1024 * 1024;

/// Maximum size of one kept run in bytes, without its last lines. Five shells with 30,000
/// lines of 76 characters have 14 MB.
pub(crate) const MAX_RUN_SIZE: u64 = 16 * 1024 * 1024;

/// Time for a run to end after a request to stop it. A run looks for the request once per
/// second.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval at which a request to stop looks whether the run has ended.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The extension of a file until it has its first lines.
const NEW: &str = "new";

/// The extension of a file while its run writes it.
const PART: &str = "part";

/// The extension of a file after the end of its run.
const COMPLETE: &str = "txt";

/// The extension of a request to stop.
const STOP: &str = "stop";

/// The folder of the kept runs.
#[derive(Clone, Debug)]
pub(crate) struct KeptRuns {
    folder: PathBuf,
}

/// The state of a kept run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    /// A process writes the file.
    Running,
    /// The process has ended, and the file has no end.
    Interrupted,
    Complete,
}

/// A kept run that was found in the folder.
#[derive(Debug)]
pub(crate) struct KeptRun {
    pub(crate) id: String,
    pub(crate) state: RunState,
    /// Open for reading.
    pub(crate) file: File,
}

impl KeptRuns {
    pub(crate) fn new(folder: PathBuf) -> KeptRuns {
        KeptRuns { folder }
    }

    fn path(&self, id: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{id}.{extension}"))
    }

    /// Removes the oldest runs above the limits, then creates the file of a run that starts
    /// now, with these first lines. Runs that start at the same time may exceed the limits by
    /// as many.
    ///
    /// # Errors
    ///
    /// The folder cannot be read or written.
    pub(crate) fn create(&self, first_lines: &str) -> io::Result<RunFile> {
        self.remove_oldest()?;
        let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let time: String = started
            .chars()
            .filter(|char| char.is_ascii_alphanumeric())
            .collect();
        let id = format!("{time}-{}", random_token()?);
        let new = self.path(&id, NEW);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        // A file with the next extension has its lock and its first lines.
        file.lock()?;
        let written = file.write_all(first_lines.as_bytes());
        if let Err(error) = written.and_then(|()| fs::rename(&new, self.path(&id, PART))) {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        Ok(RunFile {
            runs: self.clone(),
            id,
            file,
            size: first_lines.len() as u64,
            has_failed: false,
        })
    }

    /// Finds a run by its name. `None` if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(crate) fn find(&self, id: &str) -> io::Result<Option<KeptRun>> {
        if !is_id(id) {
            return Ok(None);
        }
        // A run that ends between the two tests is found by the second one: its process renames
        // the file before it releases the lock.
        for extension in [PART, COMPLETE] {
            match folder::open_regular_file(&self.path(id, extension)) {
                Ok(file) => {
                    let state = state_of(&file, extension)?;
                    if state == RunState::Interrupted && self.path(id, COMPLETE).exists() {
                        continue;
                    }
                    let id = id.to_owned();
                    return Ok(Some(KeptRun { id, state, file }));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The names of all runs, the newest first.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub(crate) fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.split_once('.') {
                Some((id, PART | COMPLETE)) if is_id(id) => ids.push(id.to_owned()),
                _ => {}
            }
        }
        ids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(ids)
    }

    /// Asks a run to stop, and waits up to [`STOP_TIMEOUT`] for its end. Returns whether the
    /// run has ended.
    ///
    /// # Errors
    ///
    /// There is no such run, or the folder cannot be written.
    pub(crate) fn stop(&self, id: &str) -> io::Result<bool> {
        let is_running = || match self.find(id)? {
            Some(run) => Ok(run.state == RunState::Running),
            None => Err(io::Error::from(ErrorKind::NotFound)),
        };
        if !is_running()? {
            return Ok(true);
        }
        let request = self.path(id, STOP);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&request);
        match created {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let polls = STOP_TIMEOUT.as_millis() / STOP_POLL_INTERVAL.as_millis();
        for _ in 0..polls {
            if !is_running()? {
                // A run that ended before it read the request has left this file.
                let _ = fs::remove_file(&request);
                return Ok(true);
            }
            thread::sleep(STOP_POLL_INTERVAL);
        }
        Ok(false)
    }

    /// Removes the oldest runs that have ended, until a new run is within the limits.
    fn remove_oldest(&self) -> io::Result<()> {
        let ids = self.ids()?;
        let runs = ids.iter().filter_map(|id| self.find(id).ok().flatten());
        let (running, ended): (Vec<KeptRun>, Vec<KeptRun>) =
            runs.partition(|run| run.state == RunState::Running);
        let mut count = running.len() + 1;
        let mut size = running.iter().map(KeptRun::size).sum::<u64>() + MAX_RUN_SIZE;
        for run in &ended {
            count += 1;
            size += run.size();
            if count > MAX_RUNS || size > MAX_TOTAL_SIZE {
                for extension in [PART, COMPLETE, STOP] {
                    let _ = fs::remove_file(self.path(&run.id, extension));
                }
            }
        }
        Ok(())
    }
}

impl KeptRun {
    /// The size of its file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// The state of a file with this extension.
fn state_of(file: &File, extension: &str) -> io::Result<RunState> {
    if extension == COMPLETE {
        return Ok(RunState::Complete);
    }
    match file.try_lock_shared() {
        Ok(()) => {
            file.unlock()?;
            Ok(RunState::Interrupted)
        }
        Err(TryLockError::WouldBlock) => Ok(RunState::Running),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Reports whether this is the name of a run, which becomes part of a path.
pub(crate) fn is_id(id: &str) -> bool {
    let Some((time, random)) = id.split_once('-') else {
        return false;
    };
    let is_time = time.len() == "20261128T154612Z".len()
        && time.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_time && has_token_alphabet(random)
}

/// The file of a run, which its process writes.
#[derive(Debug)]
pub(crate) struct RunFile {
    runs: KeptRuns,
    pub(crate) id: String,
    /// It holds the lock.
    file: File,
    size: u64,
    /// A write has failed: nothing more is written.
    has_failed: bool,
}

impl RunFile {
    /// Reports whether the file has its maximum size.
    pub(crate) fn is_full(&self) -> bool {
        self.size >= MAX_RUN_SIZE
    }

    /// Appends text, unless a write has failed before.
    pub(crate) fn write(&mut self, text: &str) {
        if self.has_failed {
            return;
        }
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => self.size += text.len() as u64,
            Err(error) => {
                log_error(&format!("the run {} is not kept further: {error}", self.id));
                self.has_failed = true;
            }
        }
    }

    /// Reports whether there is a request to stop this run.
    pub(crate) fn is_stopped(&self) -> bool {
        self.runs.path(&self.id, STOP).exists()
    }

    /// Marks the run as complete, unless a write has failed.
    pub(crate) fn complete(&self) {
        let _ = fs::remove_file(self.runs.path(&self.id, STOP));
        if self.has_failed {
            return;
        }
        let (part, complete) = (
            self.runs.path(&self.id, PART),
            self.runs.path(&self.id, COMPLETE),
        );
        if let Err(error) = fs::rename(part, complete) {
            log_error(&format!("the run {} stays incomplete: {error}", self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn runs() -> (TempDir, KeptRuns) {
        let folder = tempfile::tempdir().unwrap();
        let runs = KeptRuns::new(folder.path().to_owned());
        (folder, runs)
    }

    fn state(runs: &KeptRuns, id: &str) -> RunState {
        runs.find(id).unwrap().unwrap().state
    }

    #[test]
    fn w35_the_lock_tells_a_running_run_from_an_interrupted_one() {
        let (_folder, runs) = runs();
        let file = runs.create("").unwrap();
        let id = file.id.clone();
        assert_eq!(state(&runs, &id), RunState::Running);
        drop(file);
        assert_eq!(state(&runs, &id), RunState::Interrupted);
        assert!(runs.stop(&id).unwrap(), "it has ended already");
        let file = runs.create("").unwrap();
        file.complete();
        assert_eq!(state(&runs, &file.id), RunState::Complete);
        assert_eq!(runs.ids().unwrap().len(), 2);
    }

    #[test]
    fn w35_only_names_of_runs_are_opened() {
        let (folder, runs) = runs();
        let id = runs.create("").unwrap().id;
        let random = &id[id.len() - 32..];
        fs::write(folder.path().join("secret.txt"), "x").unwrap();
        // Each of these names has a file.
        fs::create_dir(folder.path().join("20261128T15461")).unwrap();
        for name in [
            format!("20261128T15461/Z-{random}.txt"),
            format!("{id}.part.txt"),
            format!("{random}.txt"),
            ".txt".to_owned(),
            format!("{}.txt", id.to_uppercase()),
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        for other in [
            "secret".to_owned(),
            format!("20261128T15461/../{id}"),
            format!("{id}.part"),
            format!("20261128T15461/Z-{random}"),
            random.to_owned(),
            String::new(),
            id.to_uppercase(),
        ] {
            assert!(runs.find(&other).unwrap().is_none(), "{other}");
            assert!(runs.stop(&other).is_err(), "{other}");
        }
        // A link, and a FIFO, which would block an ordinary open.
        let path = runs.path(&id, PART);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret.txt"), &path).unwrap();
        assert!(runs.find(&id).is_err());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(runs.find(&id).is_err());
    }

    #[test]
    fn w35_the_oldest_runs_that_have_ended_are_removed() {
        let (folder, runs) = runs();
        let id = |number: usize| format!("2026010{}T000000Z-{number:032x}", number % 2);
        let oldest_running = runs.create("").unwrap();
        let running = id(0);
        fs::rename(
            runs.path(&oldest_running.id, PART),
            runs.path(&running, PART),
        )
        .unwrap();
        for number in 1..=MAX_RUNS {
            fs::write(runs.path(&id(number), COMPLETE), "x").unwrap();
        }
        runs.create("").unwrap();
        let left = runs.ids().unwrap();
        assert_eq!(left.len(), MAX_RUNS);
        assert!(left.contains(&running) && !left.contains(&id(2)));
        // A file without data of the maximum size.
        let large = folder.path().join(format!("{}.txt", id(1)));
        let file = File::options().write(true).open(large).unwrap();
        file.set_len(MAX_TOTAL_SIZE).unwrap();
        runs.create("").unwrap();
        let left = runs.ids().unwrap();
        assert!(
            left.contains(&running) && !left.contains(&id(1)),
            "{left:?}"
        );
    }

    #[test]
    fn w35_a_run_sees_the_request_to_stop_and_removes_it() {
        let (folder, runs) = runs();
        let file = runs.create("").unwrap();
        let id = file.id.clone();
        assert!(!file.is_stopped());
        thread::scope(|scope| {
            let stop = scope.spawn(|| runs.stop(&id).unwrap());
            while !file.is_stopped() {
                thread::yield_now();
            }
            file.complete();
            assert!(stop.join().unwrap());
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(file);
    }
}
