//! Patches: each puts a bug, or the starting point of a lab, into the source.

use std::fs;
use std::path::Path;

/// A unified diff. Line numbers are ignored: the old lines of a hunk must occur exactly once.
pub(crate) struct Patch {
    pub(crate) text: String,
}

/// What a patch does to one file.
struct FileChange<'a> {
    path: &'a str,
    hunks: Vec<Hunk>,
}

/// Neighbouring lines before and after the change.
#[derive(Default)]
struct Hunk {
    old: String,
    new: String,
}

/// Which way a patch is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    PutIn,
    TakeOut,
}

impl Patch {
    pub(crate) fn read(path: &Path) -> Result<Patch, String> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Patch { text }),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// The files that it changes.
    pub(crate) fn files(&self) -> Vec<&str> {
        self.changes().into_iter().map(|it| it.path).collect()
    }

    fn changes(&self) -> Vec<FileChange<'_>> {
        let mut changes: Vec<FileChange<'_>> = Vec::new();
        for line in self.text.lines() {
            if let Some(path) = line.strip_prefix("+++ b/") {
                let hunks = Vec::new();
                changes.push(FileChange { path, hunks });
                continue;
            }
            let Some(change) = changes.last_mut() else {
                continue;
            };
            if line.starts_with("@@") {
                change.hunks.push(Hunk::default());
                continue;
            }
            let Some(hunk) = change.hunks.last_mut() else {
                continue;
            };
            let (mark, code) = line.split_at(line.len().min(1));
            let line = format!("{code}\n");
            match mark {
                // The first line of the next file.
                "-" if code.starts_with("-- ") => {}
                "-" => hunk.old += &line,
                "+" => hunk.new += &line,
                _ => {
                    hunk.old += &line;
                    hunk.new += &line;
                }
            }
        }
        changes
    }

    /// The changed files with their new text, if every hunk fits; nothing is written.
    pub(crate) fn result(&self, root: &Path, way: Way) -> Option<Vec<(&str, String)>> {
        let mut results = Vec::new();
        for FileChange { path, hunks } in self.changes() {
            let mut text = fs::read_to_string(root.join(path)).ok()?;
            for Hunk { old, new } in hunks {
                let (from, to) = match way {
                    Way::PutIn => (old, new),
                    Way::TakeOut => (new, old),
                };
                let (before, after) = text.split_once(&from)?;
                if after.contains(&from) {
                    return None;
                }
                text = format!("{before}{to}{after}");
            }
            results.push((path, text));
        }
        Some(results)
    }

    /// Could it be taken out: are all its lines there?
    pub(crate) fn is_in(&self, root: &Path) -> bool {
        self.result(root, Way::TakeOut).is_some()
    }
}
