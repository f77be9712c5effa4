//! Puts a bug, or the starting point of a lab, into the source, and takes it out again.
//!
//! Only the lines of the patch change, and only if all of them are as they were. So no other work
//! in these files is lost.

use std::fs;
use std::process::Command;

use crate::lab::{BUGS, patch, root};
use crate::patch::{Patch, Way};

pub(crate) fn put(name: &str) -> Result<(), String> {
    let patch = patch(name)?;
    for bug in &BUGS {
        if crate::lab::patch(bug.name)?.is_in(&root()) {
            return Err(format!(
                "the bug {0} is in: labs/judge take-out {0}",
                bug.name
            ));
        }
    }
    let changed = uncommitted(&patch.files())?;
    if !changed.is_empty() {
        let files = changed.join(", ");
        return Err(format!(
            "{files}: commit your changes, or \"git stash\" them, first"
        ));
    }
    write(
        &patch,
        Way::PutIn,
        "the lines that the patch changes are not as they were",
    )?;
    println!("{name} is in: {}", patch.files().join(", "));
    Ok(())
}

pub(crate) fn take_out(name: &str) -> Result<(), String> {
    let patch = patch(name)?;
    if patch.result(&root(), Way::PutIn).is_some() {
        println!("{name} is not in: nothing to take out");
        return Ok(());
    }
    let files = patch.files().join(" ");
    let changed = format!(
        "you have changed these lines, so they stay as they are.\n\
         See your changes:          git diff -- {files}\n\
         Throw your changes away:   git restore -- {files}"
    );
    write(&patch, Way::TakeOut, &changed)?;
    println!("{name} is out: {files}");
    Ok(())
}

/// Writes all files, or none if a hunk does not fit.
fn write(patch: &Patch, way: Way, misfit: &str) -> Result<(), String> {
    let results = patch.result(&root(), way).ok_or(misfit)?;
    for (path, text) in results {
        fs::write(root().join(path), text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// Files below these paths that differ from the last commit; none without git.
pub(crate) fn uncommitted(paths: &[&str]) -> Result<Vec<String>, String> {
    let mut git = Command::new("git");
    git.current_dir(root())
        .args(["status", "--porcelain", "--"])
        .args(paths);
    let text = match git.output() {
        Ok(output) if output.status.success() => output.stdout,
        // A copy without a repository has no commits.
        _ if !root().join(".git").exists() => Vec::new(),
        Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => return Err(format!("git: {error}")),
    };
    let text = String::from_utf8_lossy(&text);
    let changed = text.lines().filter_map(|line| line.get(3..));
    Ok(changed.map(str::to_owned).collect())
}
