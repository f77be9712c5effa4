//! The tour in `docs/tour/`: its quotations, names, outputs and questions are true.
//!
//! The line "From `FILE`, `NAME`:" stands before each block of Rust code, except in the
//! questions. The block consists of lines of that item. `// ...` stands for lines that are
//! left out, and the whole block may be indented by less than the source is.

use std::fs;

use crate::lessons::{defines, lessons};
use crate::support::project::{project, project_file};

const FOLDER: &str = "docs/tour";
const KEYS: &str = "labs/answers/questions.md";
const GLOSSARY: &str = "docs/tour/glossary.md";
const QUESTION: &str = "## Test yourself";

/// The pages in their order: the start, one for each lesson, the running server, and the model.
fn pages() -> Vec<(String, String)> {
    let lessons = lessons().into_iter().map(|lesson| lesson.name);
    let names = ["00-start".to_owned()].into_iter().chain(lessons);
    let names = names.chain(["observe".to_owned(), "model-report".to_owned()]);
    let page = |name: String| {
        let text = project_file(&format!("{FOLDER}/{name}.md"));
        (name, text)
    };
    names.map(page).collect()
}

/// The documents that these tests check: the pages, the glossary and the keys.
fn documents() -> Vec<(String, String)> {
    let pages = pages().into_iter();
    let pages = pages.map(|(name, text)| (format!("{FOLDER}/{name}.md"), text));
    let others = [GLOSSARY, KEYS].map(|path| (path.to_owned(), project_file(path)));
    pages.chain(others).collect()
}

/// The part of a text after this heading, up to the next heading of the same level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, part) = text.split_once(&format!("\n{heading}\n")).expect(heading);
    let level = heading.split(' ').next().unwrap();
    let end = format!("\n{level} ");
    part.split(end.as_str()).next().unwrap()
}

/// The parts of a text in backticks, without its blocks of code.
fn code_words(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let words = prose.split('`').skip(1).step_by(2);
    words
        .map(|word| word.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The text without its blocks of code, as one line.
fn prose(text: &str) -> String {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Quotation<'a> {
    file: &'a str,
    /// The function or type, or nothing: then the lines may be anywhere in the file.
    item: Option<&'a str>,
    block: Vec<&'a str>,
}

/// All blocks of Rust code of a page that are not its question.
fn quotations(text: &str) -> Vec<Quotation<'_>> {
    let text = text.split(QUESTION).next().unwrap();
    let parts: Vec<&str> = text.split("```").collect();
    let blocks = parts.windows(2).step_by(2);
    let blocks = blocks.filter_map(|pair| Some((pair[0], pair[1].strip_prefix("rust\n")?)));
    blocks
        .map(|(before, block)| {
            let line = before.trim_end().lines().last().unwrap_or_default();
            let names: Vec<&str> = line.split('`').collect();
            let (file, item) = match *names.as_slice() {
                ["From ", file, ":"] => (file, None),
                ["From ", file, ", ", item, ":"] => (file, Some(item)),
                _ => panic!("no source before: {block}"),
            };
            Quotation {
                file,
                item,
                block: block.lines().collect(),
            }
        })
        .collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines of each function or type with this name: from its definition to the line that
/// closes it, which has the same indentation.
fn items<'a>(lines: &'a [&'a str], name: &str) -> Vec<&'a [&'a str]> {
    let name = name.rsplit("::").next().unwrap();
    let is_definition = |line: &str| {
        ["fn ", "struct ", "enum "].iter().any(|kind| {
            let rest = line.split_once(&format!("{kind}{name}")).map(|it| it.1);
            rest.is_some_and(|rest| rest.starts_with(['(', '<', ' ']))
        })
    };
    let starts = (0..lines.len()).filter(|&start| is_definition(lines[start]));
    starts
        .map(|start| {
            let close = format!("{}}}", " ".repeat(indent(lines[start])));
            let mut rest = lines[start..].iter();
            let length = rest.position(|line| line.starts_with(&close)).unwrap();
            &lines[start..=start + length]
        })
        .collect()
}

/// Do these lines consist of the block's lines? Before and after `// ...` other lines may stand.
fn contains(lines: &[&str], block: &[&str]) -> bool {
    let parts: Vec<&[&str]> = block.split(|line| line.trim() == "// ...").collect();
    let dedent = lines.iter().map(|line| indent(line)).max().unwrap_or(0);
    (0..=dedent).any(|dedent| {
        let is_same = |source: &str, quoted: &str| match quoted.is_empty() {
            true => source.is_empty(),
            false => *source == format!("{}{quoted}", " ".repeat(dedent)),
        };
        let find = |begin: usize, part: &[&str]| {
            let begins = begin..(lines.len() + 1).saturating_sub(part.len());
            let is_at = |at: &usize| {
                let quoted = lines[*at..].iter().zip(part);
                quoted
                    .into_iter()
                    .all(|(source, line)| is_same(source, line))
            };
            begins.into_iter().find(is_at).map(|at| at + part.len())
        };
        let found = parts.iter().try_fold(0, |begin, part| find(begin, part));
        found.is_some()
    })
}

#[test]
fn each_quotation_stands_in_its_source() {
    for (page, text) in pages() {
        for Quotation { file, item, block } in quotations(&text) {
            let source = project_file(file);
            let lines: Vec<&str> = source.lines().collect();
            let parts = match item {
                Some(item) => items(&lines, item),
                None => vec![&lines[..]],
            };
            let found = parts.iter().any(|part| contains(part, &block));
            let block = block.join("\n");
            assert!(found, "{page}: not in {item:?} of {file}:\n{block}");
            assert!(block.lines().count() <= 15, "{page}: too long:\n{block}");
        }
    }
}

/// If this did not fail, the test above could not.
#[test]
fn a_quotation_that_differs_is_not_found() {
    let source =
        "fn one() {\n    first();\n    second();\n\n    third();\n}\nfn two() {\n    more();\n}";
    let lines: Vec<&str> = source.lines().collect();
    let one = items(&lines, "one");
    assert_eq!(one, [&lines[0..6]]);
    let one = one[0];
    for found in [
        &["    first();", "    second();", "", "    third();"][..],
        &["first();", "second();"],
        &["    first();", "    // ...", "    third();"],
    ] {
        assert!(contains(one, found), "{found:?}");
    }
    for missing in [
        &["    first(1);"][..],
        &["    first();", "    third();"],
        &["    second();", "    first();"],
        &["    third();", "    // ...", "    first();"],
        &["    first();", "second();"],
        &["    more();"],
        &["    second();", "    third();"],
    ] {
        assert!(!contains(one, missing), "{missing:?}");
    }
}

#[test]
fn each_lesson_has_a_page_with_its_question_and_its_output() {
    let pages = pages();
    for lesson in lessons() {
        let name = &lesson.name;
        let (_, page) = pages.iter().find(|(it, _)| it == name).unwrap();
        let (_, question) = lesson.header()[0].split_once(": ").unwrap();
        let asked = section(page, "## The question").to_lowercase();
        assert!(asked.contains(question), "{name}: {question}");
        let run = section(page, "## Run it");
        assert!(
            run.contains(&format!("--package lessons --bin {name}\n")),
            "{name}"
        );
        assert!(
            run.contains(&format!("(../../lessons/src/bin/{name}.rs)")),
            "{name}"
        );
        let output = section(page, "## What you see");
        let output = output.split("```text\n").nth(1).expect(name);
        let output = output.split("```").next().unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines, lesson.output(), "{name}");
        for part in [
            "## Why",
            "## In the server",
            "## Two questions",
            "## Answers to the two questions",
        ] {
            assert!(!section(page, part).trim().is_empty(), "{name}: {part}");
        }
        assert!(
            lesson.text.contains(&format!("{FOLDER}/{name}.md")),
            "{name}"
        );
    }
    let count = fs::read_dir(project().join(FOLDER)).unwrap().count();
    assert_eq!(count, pages.len() + 1, "the pages and the glossary");
}

/// "`name` in `path`" and "`path`, `name`" of a quotation.
#[test]
fn each_named_function_exists_in_its_file() {
    let mut count = 0;
    for (document, text) in documents() {
        let prose = prose(&text);
        let parts: Vec<&str> = prose.split('`').collect();
        for names in parts.windows(3).skip(1).step_by(2) {
            let (name, file) = match *names {
                [name, " in ", file] if is_source(file) => (name, file),
                [file, ", ", name] if is_source(file) && !name.contains('/') => (name, file),
                _ => continue,
            };
            let code = project_file(file);
            assert!(defines(&code, name), "{document}: {name} in {file}");
            count += 1;
        }
    }
    assert!(count > 80, "only {count} names were found");
}

fn is_source(file: &str) -> bool {
    file.ends_with(".rs") && file.contains('/')
}

#[test]
fn the_named_files_exist_and_no_line_number_is_stated() {
    let folders = ["src/", "lessons/", "tests/", "cgi-bin/", "docs/", "labs/"];
    for (document, text) in documents() {
        for word in code_words(&text) {
            if folders.iter().any(|folder| word.starts_with(folder)) {
                assert!(project().join(&word).exists(), "{document}: {word}");
            }
        }
        // The report of the model has line numbers.
        let text = prose(&text);
        for word in ["line ", "lines ", ".rs:", "#L"] {
            for (_, after) in text
                .match_indices(word)
                .map(|(at, _)| text.split_at(at + word.len()))
            {
                let is_number = after.starts_with(|char: char| char.is_ascii_digit());
                assert!(!is_number, "{document}: {word}{after:.20}");
            }
        }
    }
}

#[test]
fn each_page_leads_to_the_one_before_and_the_one_after() {
    let pages = pages();
    for pair in pages.windows(2) {
        let [(before, first), (after, second)] = pair else {
            unreachable!();
        };
        let links = |text: &str| {
            let (_, links) = text.rsplit_once("\n---\n").unwrap();
            links.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let (first, second) = (links(first), links(second));
        assert!(first.contains("Next: ["), "{before}");
        assert!(
            first.ends_with(&format!("({after}.md)")),
            "{before}: {first}"
        );
        assert!(second.starts_with("Previous: ["), "{after}");
        let link = format!("({before}.md)");
        assert!(
            second.split(" | ").next().unwrap().ends_with(&link),
            "{after}: {second}"
        );
    }
    let (_, start) = &pages[0];
    for (name, _) in &pages[1..] {
        assert!(start.contains(&format!("({name}.md)")), "{name}");
    }
}

#[test]
fn each_question_has_four_answers_and_a_key_with_a_reason_for_each() {
    let keys = project_file(KEYS);
    for lesson in lessons() {
        let name = &lesson.name;
        let page = project_file(&format!("{FOLDER}/{name}.md"));
        let question = section(&page, QUESTION);
        let answers = question.lines().filter(|line| line.starts_with("- **"));
        let answers: Vec<&str> = answers.map(|line| &line[..8]).collect();
        let expected = ["A", "B", "C", "D"].map(|letter| format!("- **{letter}.**"));
        assert_eq!(answers, expected, "{name}");
        let code = question.split("```rust\n").nth(1).expect(name);
        let lines = code.split("```").next().unwrap().lines();
        assert!((4..=15).contains(&lines.count()), "{name}");
        let link = format!("(../../{KEYS}#{name})");
        assert!(question.contains(&link), "{name}: {link}");

        let key = section(&keys, &format!("## {name}"));
        let right = key.trim_start().lines().next().unwrap();
        let letters = ["A", "B", "C", "D"];
        let is_right = |letter: &&&str| right.starts_with(&format!("**Right: {letter}.**"));
        assert_eq!(letters.iter().filter(is_right).count(), 1, "{name}");
        let reasons = key.lines().filter(|line| line.starts_with("- "));
        let reasons: Vec<&str> = reasons.map(|line| &line[..5]).collect();
        assert_eq!(
            reasons,
            letters.map(|letter| format!("- {letter}: ")),
            "{name}"
        );
    }
}

#[test]
fn the_glossary_is_sorted_and_its_terms_are_used_where_it_says() {
    let glossary = project_file(GLOSSARY);
    let mut entries = glossary.split("\n### ").skip(1).peekable();
    assert!(entries.peek().is_some());
    let mut previous = String::new();
    for entry in entries {
        let (title, text) = entry.split_once('\n').unwrap();
        let sorted = title.to_lowercase();
        assert!(previous < sorted, "{title} comes after {previous}");
        previous = sorted;

        let (_, places) = text.split_once("\nWhere: ").expect(title);
        let term = title.split(" (").next().unwrap().to_lowercase();
        let targets = places.split("](").skip(1);
        let targets = targets.map(|rest| rest.split(')').next().unwrap());
        let pages = targets.filter(|file| *file != "00-start.md");
        let pages = pages.map(|file| format!("{FOLDER}/{file}"));
        let sources = code_words(places).into_iter();
        let places: Vec<String> = pages.chain(sources).collect();
        assert!(!places.is_empty(), "{title}");
        let is_used = |place: &String| prose(&project_file(place)).to_lowercase().contains(&term);
        assert!(places.iter().any(is_used), "{title}: {places:?}");
    }
}
