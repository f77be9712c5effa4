//! Names of threads and objects, as the source has them: the variable or field that a line sets.

use std::env;
use std::fs;
use std::panic::Location;
use std::path::{Component, Path, PathBuf};

/// The file of a place, from the root of the package.
pub(crate) fn file(place: &Location<'_>) -> String {
    let mut path = PathBuf::new();
    for part in Path::new(place.file()).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.display().to_string()
}

/// The field or variable that is set at this place, or the part of it with this index; else
/// the place.
pub(crate) fn variable(place: &Location<'_>, part: usize) -> String {
    let name = name_in(&lines(place), part);
    name.unwrap_or_else(|| format!("{}:{}", file(place), place.line()))
}

/// The same, after the type whose method sets it: `Session.state`.
pub(crate) fn field(place: &Location<'_>, part: usize) -> String {
    let name = variable(place, part);
    match owner(&lines(place)) {
        Some(owner) => format!("{owner}.{name}"),
        None => name,
    }
}

/// The lines of the file up to this place, or to the type after it whose `Default` is
/// derived there; none if the file cannot be read.
fn lines(place: &Location<'_>) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file(place));
    let source = fs::read_to_string(path).unwrap_or_default();
    let mut lines = source.lines().map(str::to_owned);
    let mut taken: Vec<String> = lines.by_ref().take(place.line() as usize).collect();
    if taken
        .last()
        .is_some_and(|line| line.starts_with("#[derive"))
    {
        taken.extend(lines.next());
    }
    taken
}

/// The name of what the last of these lines creates.
fn name_in(lines: &[String], part: usize) -> Option<String> {
    let mut indentation = usize::MAX;
    // The line itself, and then the first lines of the statements that it is in.
    for line in lines.iter().rev() {
        let own = line.len() - line.trim_start().len();
        if own >= indentation || line.trim().is_empty() {
            continue;
        }
        indentation = own;
        let line = line.trim_start();
        if let Some(pattern) = line.strip_prefix("let ") {
            return bound(pattern.trim_start_matches("mut "), part);
        }
        if let Some(field) = set(line) {
            return Some(field.to_owned());
        }
        if let Some((_, name)) = line.split_once("struct ") {
            return name.split([' ', '<']).next().map(str::to_owned);
        }
        if line.contains("fn ") {
            return None;
        }
    }
    None
}

/// The variable of `x = ...`, or the part of `(x, y) = ...`.
fn bound(pattern: &str, part: usize) -> Option<String> {
    let name = match pattern.strip_prefix('(') {
        Some(tuple) => tuple.split_once(')')?.0.split(", ").nth(part)?,
        None => pattern.split_once([' ', ':'])?.0,
    };
    Some(name.trim_start_matches('_').to_owned())
}

/// The field of `field: value`.
fn set(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(": ")?;
    let is_name = name.chars().all(|it| it.is_alphanumeric() || it == '_');
    is_name.then_some(name)
}

/// The type of the `impl` that the last of these lines is in.
fn owner(lines: &[String]) -> Option<&str> {
    // The last line of an item that is not in another one.
    let is_item = |line: &&String| {
        let words = ["impl", "fn ", "struct "];
        !line.starts_with([' ', '/']) && words.iter().any(|word| line.contains(word))
    };
    let line = lines.iter().rev().find(is_item)?;
    if !line.starts_with("impl") {
        return None;
    }
    let line = line.trim_end_matches(" {");
    let name = match line.rsplit_once(" for ") {
        Some((_, name)) => name,
        None => line.rsplit_once(' ')?.1,
    };
    name.split('<').next()
}
