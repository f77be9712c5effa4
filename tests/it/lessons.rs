//! The programs in `lessons/`: each prints what its header says, and names code that exists.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::child::RunningChild;
use crate::support::project::{build_package, project, project_file};
use crate::support::wait::TIMEOUT;

pub(crate) struct Lesson {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// All lessons, in the order of their numbers.
pub(crate) fn lessons() -> Vec<Lesson> {
    let folder = fs::read_dir(project().join("lessons/src/bin")).unwrap();
    let lesson = |path: PathBuf| Lesson {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    let mut lessons: Vec<Lesson> = folder.map(|it| lesson(it.unwrap().path())).collect();
    lessons.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!lessons.is_empty());
    lessons
}

impl Lesson {
    /// The header, without the marks of its comments.
    pub(crate) fn header(&self) -> Vec<&str> {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        lines.map(str::trim).collect()
    }

    /// What the program prints, according to its header.
    pub(crate) fn output(&self) -> Vec<&str> {
        let header = self.header();
        let mut parts = header.split(|line| line.starts_with("```"));
        parts.nth(1).expect(&self.name).to_vec()
    }

    /// The paragraph of the header that begins with this word.
    fn paragraph(&self, begin: &str) -> String {
        let header = self.header();
        let mut paragraphs = header.split(|line| line.is_empty());
        let found = paragraphs.find(|lines| lines.first().is_some_and(|it| it.starts_with(begin)));
        found.expect(&self.name).join(" ")
    }
}

#[test]
fn each_lesson_prints_the_output_in_its_header() {
    let (folder, lessons) = (build_package("lessons"), lessons());
    let start = |lesson: &Lesson| {
        let mut program = Command::new(folder.join(&lesson.name));
        RunningChild::start(&mut program, b"")
    };
    // All at the same time: some wait for seconds.
    let running: Vec<RunningChild> = lessons.iter().map(start).collect();
    for (lesson, program) in lessons.iter().zip(running) {
        let output = program.wait_for_exit(TIMEOUT);
        assert!(output.status.success(), "{}: {output:?}", lesson.name);
        let text = output.text();
        let printed: Vec<&str> = text.lines().collect();
        assert_eq!(printed, lesson.output(), "{}", lesson.name);
    }
}

/// A file and the names in it are written as "`name` in `path`" or "`name` and `name` in
/// `path`".
#[test]
fn each_lesson_names_code_that_exists() {
    for lesson in lessons() {
        let paragraph = lesson.paragraph("In the server:");
        let quoted: Vec<&str> = paragraph.split('`').skip(1).step_by(2).collect();
        let mut names = Vec::new();
        let mut files = 0;
        for word in quoted {
            if !word.ends_with(".rs") {
                names.push(word);
                continue;
            }
            let code = project_file(word);
            assert!(!names.is_empty(), "{}: {word}", lesson.name);
            for name in names.drain(..) {
                assert!(defines(&code, name), "{}: {name} in {word}", lesson.name);
            }
            files += 1;
        }
        assert!(files > 0 && names.is_empty(), "{}: {names:?}", lesson.name);
    }
}

/// Does this code define the type, the function, or the function of a type?
pub(crate) fn defines(code: &str, name: &str) -> bool {
    let (of, name) = name.split_once("::").unwrap_or(("", name));
    let definitions = [
        "struct # ",
        "struct #<",
        "struct #(",
        "enum # ",
        "fn #(",
        "fn #<",
    ];
    let mut definitions = definitions.iter().map(|it| it.replace('#', name));
    code.contains(of) && definitions.any(|it| code.contains(&it))
}

#[test]
fn the_list_of_the_lessons_has_the_question_of_each() {
    let list = project_file("lessons/README.md");
    let rows: Vec<&str> = list.lines().filter(|it| it.starts_with("| [")).collect();
    let lessons = lessons();
    assert_eq!(rows.len(), lessons.len());
    for (row, lesson) in rows.into_iter().zip(lessons) {
        let (_, question) = lesson.header()[0].split_once(": ").expect(&lesson.name);
        assert!(row.contains(question), "{row}: {question}");
        let link = format!("| [{0}](src/bin/{0}.rs) |", lesson.name);
        assert!(row.starts_with(&link), "{row}: {link}");
    }
}
