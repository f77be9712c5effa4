//! The documents: their links lead somewhere, their rules are valid, and their lists are complete.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project::{project, project_file};
use crate::support::proxy::binary;

/// The folders whose files ending in `.md` are documents.
const FOLDERS: [&str; 5] = ["", "docs", "docs/tour", "labs/answers", "lessons"];

/// All documents in Markdown.
fn documents() -> Vec<PathBuf> {
    let folders = FOLDERS.iter().map(|folder| project().join(folder));
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
    paths
}

/// The anchor that a heading gets: in lower case, with hyphens.
fn anchor(heading: &str) -> String {
    let kept = |char: &char| char.is_alphanumeric() || " -".contains(*char);
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

fn has_heading(path: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(|heading| anchor(heading) == wanted)
}

#[test]
fn each_relative_link_leads_to_a_file_and_a_heading() {
    let mut count = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        let links = prose.split("](").skip(1).map(|rest| (rest, ')'));
        let pictures = prose.split("src=\"").skip(1).map(|rest| (rest, '"'));
        for (rest, end) in links.chain(pictures) {
            let target = rest.split(end).next().unwrap();
            if target.starts_with("https://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => document.clone(),
                _ => document.with_file_name("").join(file),
            };
            assert!(path.exists(), "{}: {target}", document.display());
            let is_found = heading.is_empty() || has_heading(&path, heading);
            assert!(is_found, "{}: {target}", document.display());
            count += 1;
        }
    }
    assert!(count > 400, "only {count} links were found");
}

#[test]
fn the_readme_is_short_and_has_the_commands_and_a_message() {
    let readme = project_file("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 150, "{lines} lines");
    for part in [
        "<S_IP>: ",
        "<S_PORT>: ",
        "<D_IP>: ",
        "<D_PORT>: ",
        "<Command>: ",
        "<Reply>: ",
        "cargo run --release -- 1080",
        "cargo test",
    ] {
        assert!(readme.contains(part), "{part}");
    }
}

/// The blocks of a manual between `.EX` and `.EE`, as they are displayed.
fn manual_examples(manual: &str) -> Vec<String> {
    let blocks = manual.split("\n.EX\n").skip(1);
    blocks
        .map(|block| block.split("\n.EE").next().unwrap().replace("\\-", "-"))
        .collect()
}

#[test]
fn the_rules_in_documents_are_valid() {
    let mut examples = manual_examples(&project_file("docs/socks.conf.5"));
    for document in ["README.md", "SECURITY.md"] {
        let text = project_file(document);
        let blocks = text.split("```").skip(1).step_by(2);
        // The word after the first three backticks names another language.
        let unnamed = blocks.filter(|block| block.starts_with('\n'));
        examples.extend(unnamed.map(str::to_owned));
    }
    let has_rule = |example: &String| {
        let mut words = example
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        words.any(|word| word == "permit" || word == "deny")
    };
    examples.retain(has_rule);
    assert!(examples.len() >= 5, "only {} were found", examples.len());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("socks.conf");
    for example in examples {
        fs::write(&config, format!("{example}\n")).unwrap();
        let mut check = binary();
        let output = check.args(["--check", "--config"]).arg(&config).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{example}\n{output:?}");
    }
}

#[test]
fn contributing_lists_all_commands_of_make_and_all_packages() {
    let page = project_file("CONTRIBUTING.md");
    let makefile = project_file("Makefile");
    let targets = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY: "));
    for target in targets.unwrap().split_whitespace() {
        assert!(page.contains(&format!("`make {target}`")), "{target}");
    }
    let script = project_file(".ci/run");
    let (_, packages) = script.split_once("packages=(").unwrap();
    let commands = page.split("apt install").nth(1).unwrap();
    let listed: Vec<&str> = commands.split_whitespace().collect();
    for package in packages.split(')').next().unwrap().split_whitespace() {
        assert!(listed.contains(&package), "{package}");
    }
}
