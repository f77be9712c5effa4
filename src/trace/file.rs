//! The file of a trace: created at the start of the server, written at its end.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::recorder;
use super::timeline::{Timeline, overflow};
use super::{json, svg};

/// Only the owner may read a new file: it has the addresses of clients and destinations.
const MODE: u32 = 0o600;

/// Paths that lead to the files of stdout and stderr.
const OUTPUTS: [&str; 2] = ["/dev/stdout", "/dev/stderr"];

/// Where a trace goes, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceTarget {
    path: PathBuf,
    format: Format,
}

/// The format, by the extension of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Json,
}

impl TraceTarget {
    /// `None` if the path ends neither with `.svg` nor with `.json`.
    pub fn new(path: PathBuf) -> Option<TraceTarget> {
        let extension = path.extension()?.to_ascii_lowercase();
        let format = match extension.to_str()? {
            "svg" => Format::Svg,
            "json" => Format::Json,
            _ => return None,
        };
        Some(TraceTarget { path, format })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A trace that is being recorded.
#[derive(Debug)]
pub struct Trace {
    file: File,
    format: Format,
}

/// What the file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    events: usize,
    missing: u64,
}

impl Summary {
    /// That the trace is full, if it is.
    pub fn overflow(&self) -> Option<String> {
        (self.missing > 0).then(|| overflow(self.events, self.missing))
    }
}

/// Why there is no trace.
#[derive(Debug)]
pub enum TraceError {
    /// The file cannot be opened or written.
    File(io::Error),
    /// The server reads this file.
    InUse(PathBuf),
    /// It is a pipe, a device or a socket. Its reader could delay the end of the server.
    NotRegular,
    /// It is the file that has the output of the server.
    Output,
    /// This process records a trace already.
    Started,
}

impl fmt::Display for TraceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::File(error) => error.fmt(out),
            TraceError::InUse(other) => write!(out, "the server reads {}", other.display()),
            TraceError::NotRegular => out.write_str("it is not a regular file"),
            TraceError::Output => out.write_str("stdout or stderr goes to this file"),
            TraceError::Started => out.write_str("this process records a trace already"),
        }
    }
}

impl std::error::Error for TraceError {}

/// Requires a regular file that the server does not use otherwise: neither one of those that it
/// reads, nor that of its output. A path that leads nowhere is another file.
fn check(file: &File, read: &[&Path]) -> Result<(), TraceError> {
    let own = file.metadata().map_err(TraceError::File)?;
    if !own.is_file() {
        return Err(TraceError::NotRegular);
    }
    let is_at = |path: &Path| {
        let other = fs::metadata(path);
        other.is_ok_and(|other| (own.dev(), own.ino()) == (other.dev(), other.ino()))
    };
    if let Some(path) = read.iter().find(|path| is_at(path)) {
        return Err(TraceError::InUse(path.to_path_buf()));
    }
    match OUTPUTS.iter().any(|path| is_at(Path::new(path))) {
        true => Err(TraceError::Output),
        false => Ok(()),
    }
}

impl Trace {
    /// Creates the file and starts to record, in all threads of this process and until its end.
    /// An existing file keeps its content until [`finish`](Self::finish): a start that fails later
    /// must not destroy an earlier trace.
    ///
    /// # Errors
    ///
    /// As open(2), the file is one of those that are `read` or not a regular one, or this process
    /// records already.
    pub fn start(file: &TraceTarget, read: &[&Path]) -> Result<Trace, TraceError> {
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            // A pipe without a reader is an error, and does not block the start.
            .custom_flags(libc::O_NONBLOCK)
            .open(&file.path);
        let (opened, format) = (opened.map_err(TraceError::File)?, file.format);
        check(&opened, read)?;
        match recorder::start() {
            true => Ok(Trace {
                file: opened,
                format,
            }),
            false => Err(TraceError::Started),
        }
    }

    /// Writes everything that was recorded.
    ///
    /// # Errors
    ///
    /// As write(2).
    pub fn finish(self) -> Result<Summary, TraceError> {
        let recorded = recorder::take().ok_or(TraceError::Started)?;
        let timeline = Timeline::new(recorded);
        self.file.set_len(0).map_err(TraceError::File)?;
        let mut out = BufWriter::new(self.file);
        let written = match self.format {
            Format::Svg => svg::write(&timeline, &mut out),
            Format::Json => json::write(&timeline, &mut out),
        };
        written
            .and_then(|()| out.flush())
            .map_err(TraceError::File)?;
        Ok(Summary {
            events: timeline.events,
            missing: timeline.missing,
        })
    }
}
