//! Which source file imports a name from which other file, and the circles among them.
//!
//! An import through a re-export counts for the file that defines the name. A `mod x;` and a
//! mere `pub use` are no imports. Unit tests (`#[cfg(test)]`) do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of one crate, and the imports between them.
pub(crate) struct ImportGraph {
    modules: BTreeMap<Vec<String>, Module>,
}

/// One file.
struct Module {
    file: PathBuf,
    /// The code without comments, strings, tests and `use` items.
    code: String,
    /// The names that `use` items bring into the file.
    uses: Vec<Use>,
}

/// One name of a `use` item.
struct Use {
    /// The absolute path in the crate.
    path: Vec<String>,
    /// The name in the file; `*` for all names.
    name: String,
    /// Is it a re-export (`pub use`)?
    is_public: bool,
}

impl ImportGraph {
    /// Reads the crate with this root file.
    pub(crate) fn read(root: &Path) -> ImportGraph {
        let mut graph = ImportGraph {
            modules: BTreeMap::new(),
        };
        graph.add(Vec::new(), root);
        graph
    }

    /// Adds a module and its submodules.
    fn add(&mut self, path: Vec<String>, file: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let declared = declared_modules(&without_tests(&text));
        let code = without_strings(&without_comments(&without_tests(&text)));
        let code = without_inline_modules(&code);
        let (items, code) = split_uses(&code);
        let mut uses = Vec::new();
        for (is_public, tree) in items {
            expand(&tree, &[], &mut |relative, name| {
                let Some(absolute) = absolute(&relative, &path) else {
                    return;
                };
                // A name of the file itself, used in an inline module.
                let is_own = absolute.len() == path.len() + 1
                    && absolute.starts_with(&path)
                    && !declared
                        .iter()
                        .any(|(child, _)| Some(child) == absolute.last());
                if !is_own {
                    uses.push(Use {
                        path: absolute,
                        name,
                        is_public,
                    });
                }
            });
        }
        let folder = file.parent().unwrap();
        let stem = file.file_stem().unwrap().to_string_lossy();
        let owns_folder = path.is_empty() || stem == "mod";
        let children = match owns_folder {
            true => folder.to_owned(),
            false => folder.join(&*stem),
        };
        let file = file.to_owned();
        self.modules
            .insert(path.clone(), Module { file, code, uses });
        for (name, explicit) in declared {
            let child = match explicit {
                Some(explicit) => folder.join(explicit),
                None => [
                    children.join(format!("{name}.rs")),
                    children.join(&name).join("mod.rs"),
                ]
                .into_iter()
                .find(|file| file.exists())
                .unwrap_or_else(|| panic!("{children:?} has no module {name}")),
            };
            self.add([&path[..], &[name]].concat(), &child);
        }
    }

    /// The file that defines the name at the end of this path, if it is in this crate.
    fn defining_file(&self, path: &[String], depth: usize) -> Option<&Path> {
        assert!(depth < 20, "re-exports that do not end: {path:?}");
        if let Some(module) = self.modules.get(path) {
            return Some(&module.file);
        }
        let known = (0..path.len()).rev();
        let prefix = known.map(|length| &path[..length]);
        let module_path = prefix
            .into_iter()
            .find(|it| self.modules.contains_key(*it))?;
        let module = &self.modules[module_path];
        let (name, rest) = path[module_path.len()..].split_first()?;
        let exported = module.uses.iter().filter(|item| item.name == *name);
        for item in exported {
            let target = [&item.path[..], rest].concat();
            if let Some(file) = self.defining_file(&target, depth + 1) {
                return Some(file);
            }
        }
        Some(&module.file)
    }

    /// From which files does each file import names?
    pub(crate) fn imports(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut imports: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for (module_path, module) in &self.modules {
            let targets = imports.entry(&module.file).or_default();
            let mut import = |path: &[String]| {
                if let Some(file) = self.defining_file(path, 0).filter(|it| **it != module.file) {
                    targets.insert(file);
                }
            };
            for item in &module.uses {
                let is_module = self.modules.contains_key(&item.path);
                let through = paths_through(&module.code, &item.name);
                if is_module {
                    for name in &through {
                        import(&[&item.path[..], std::slice::from_ref(name)].concat());
                    }
                    if through.is_empty() && !item.is_public {
                        import(&item.path);
                    }
                } else if !item.is_public || has_word(&module.code, &item.name) {
                    import(&item.path);
                }
            }
            // Paths in the code: from the root, from a parent, or to a submodule.
            for start in ["crate", "super", "self"] {
                for tail in paths_after(&module.code, start) {
                    let relative = [&[start.to_owned()], &tail[..]].concat();
                    if let Some(path) = absolute(&relative, module_path) {
                        import(&path);
                    }
                }
            }
            let children = self.modules.keys().filter(|path| {
                path.len() == module_path.len() + 1 && path.starts_with(module_path)
            });
            for child in children {
                for name in paths_through(&module.code, &child[child.len() - 1]) {
                    import(&[&child[..], &[name]].concat());
                }
            }
        }
        imports
    }

    /// A circle of imports between files, if there is one.
    pub(crate) fn circle(&self) -> Option<Vec<PathBuf>> {
        let imports = self.imports();
        let mut done = BTreeSet::new();
        for &start in imports.keys() {
            let mut trail = Vec::new();
            if let Some(circle) = find_circle(start, &imports, &mut trail, &mut done) {
                return Some(circle);
            }
        }
        None
    }
}

/// Depth-first search for a file that is on its own trail.
fn find_circle<'a>(
    file: &'a Path,
    imports: &BTreeMap<&'a Path, BTreeSet<&'a Path>>,
    trail: &mut Vec<&'a Path>,
    done: &mut BTreeSet<&'a Path>,
) -> Option<Vec<PathBuf>> {
    if let Some(first) = trail.iter().position(|on_trail| *on_trail == file) {
        return Some(
            trail[first..]
                .iter()
                .map(|file| file.to_path_buf())
                .collect(),
        );
    }
    if !done.insert(file) {
        return None;
    }
    trail.push(file);
    for target in imports.get(file).into_iter().flatten() {
        if let Some(circle) = find_circle(target, imports, trail, done) {
            return Some(circle);
        }
    }
    trail.pop();
    None
}

/// The text before the unit tests.
fn without_tests(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| format!("{line}\n")).collect()
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| match line.find("//") {
        // A comment in a string ends the line too early, which costs no import.
        Some(start) => line[..start].to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(|line| code(line) + "\n").collect()
}

fn without_strings(code: &str) -> String {
    let mut kept = String::new();
    let mut in_string = false;
    let mut chars = code.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if in_string => drop(chars.next()),
            '\'' if !in_string => {
                // A character literal such as '"'; a lifetime has no second quote.
                let rest = chars.as_str();
                if rest.starts_with("\"'") {
                    chars.nth(1);
                } else if rest.starts_with("\\\"'") {
                    chars.nth(2);
                }
            }
            '"' => in_string = !in_string,
            _ if in_string => {}
            _ => kept.push(char),
        }
    }
    kept
}

/// The code of inline modules (`mod x { ... }`) as if it stood directly in the file: there
/// `super` means the file itself. Relies on rustfmt's layout.
fn without_inline_modules(code: &str) -> String {
    let mut is_inline = false;
    let mut flat = String::new();
    for line in code.lines() {
        let is_start = line.ends_with('{') && has_word(line, "mod");
        is_inline = is_start || is_inline && line != "}";
        if is_start {
            continue;
        }
        match is_inline {
            true => flat.push_str(&line.replace("super::", "self::")),
            false => flat.push_str(line),
        }
        flat.push('\n');
    }
    flat
}

/// The modules that a file declares (`mod x;`), with the file of a `#[path]`.
fn declared_modules(text: &str) -> Vec<(String, Option<String>)> {
    let mut declared = Vec::new();
    let mut explicit = None;
    for line in text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"") {
            explicit = Some(path.trim_end_matches("\"]").to_owned());
            continue;
        }
        let item = line.strip_prefix("pub(crate) ").unwrap_or(line);
        let item = item.strip_prefix("pub ").unwrap_or(item);
        if let Some(name) = item
            .strip_prefix("mod ")
            .and_then(|it| it.strip_suffix(';'))
        {
            declared.push((name.to_owned(), explicit.take()));
        }
    }
    declared
}

/// All `use` items, each with whether it is public, and the code without them.
fn split_uses(code: &str) -> (Vec<(bool, String)>, String) {
    let mut items = Vec::new();
    let mut rest = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        let (is_public, item) = match trimmed.split_once("use ") {
            Some(("", item)) => (false, item),
            Some((visibility, item)) if visibility.starts_with("pub") => (true, item),
            _ => {
                rest.push_str(line);
                rest.push('\n');
                continue;
            }
        };
        let mut tree = item.to_owned();
        while !tree.ends_with(';') {
            tree.push_str(lines.next().expect("the end of a use item").trim());
        }
        items.push((is_public, tree.trim_end_matches(';').to_owned()));
    }
    (items, rest)
}

/// Calls `found` with the path and the local name of each name of a `use` tree.
fn expand(tree: &str, prefix: &[String], found: &mut impl FnMut(Vec<String>, String)) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut prefix = prefix.to_vec();
        prefix.extend(segments(&tree[..open]));
        let inner = &tree[open + 1..tree.rfind('}').expect("a closed brace")];
        let mut depth = 0;
        for branch in inner.split(|char| {
            depth += i32::from(char == '{') - i32::from(char == '}');
            char == ',' && depth == 0
        }) {
            if !branch.trim().is_empty() {
                expand(branch, &prefix, found);
            }
        }
        return;
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (tree, None),
    };
    let mut path = [prefix, &segments(path)].concat();
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    let name = alias.or(path.last().cloned()).unwrap_or_default();
    found(path, name);
}

fn segments(path: &str) -> Vec<String> {
    let parts = path.split("::").map(str::trim);
    parts
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The path from the root of the crate; `None` for a path into another crate. A path
/// without `crate`, `self` or `super` is taken for one to a submodule, which another crate
/// does not have.
fn absolute(relative: &[String], module: &[String]) -> Option<Vec<String>> {
    let (first, rest) = relative.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let ups = 1 + rest.iter().take_while(|it| *it == "super").count();
            let parent = &module[..module.len().checked_sub(ups)?];
            Some([parent, &rest[ups - 1..]].concat())
        }
        "std" | "core" | "nix" | "crossbeam_channel" | "threadsocks" => None,
        _ => Some([module, relative].concat()),
    }
}

fn is_word_char(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Is this name a word of the code?
fn has_word(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(is_word_char) && !after.is_some_and(is_word_char)
    })
}

/// The paths that follow `start::` in the code.
fn paths_after(code: &str, start: &str) -> Vec<Vec<String>> {
    let pattern = format!("{start}::");
    let tail = |(at, _): (usize, &str)| {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|char| is_word_char(char) || char == ':') {
            return None;
        }
        let rest = &code[at + pattern.len()..];
        let end = rest.find(|char| !is_word_char(char) && char != ':');
        let tail = segments(&rest[..end.unwrap_or(rest.len())]);
        (!tail.is_empty()).then_some(tail)
    };
    code.match_indices(&pattern).filter_map(tail).collect()
}

/// The first names that follow `start::` in the code.
fn paths_through(code: &str, start: &str) -> BTreeSet<String> {
    let paths = paths_after(code, start).into_iter();
    paths.filter_map(|path| path.into_iter().next()).collect()
}
