//! The labs of `docs/labs.md`: each bug applies, and the judge finds it and accepts the answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use crate::support::child::{ChildOutput, RunningChild};
use crate::support::project::{build_package, project, project_file};
use crate::support::wait::TIMEOUT;

#[path = "../../labs/src/patch.rs"]
mod patch;

use patch::{Patch, Way};

/// More lines than this a student would have to search for, and not to think about.
const MAX_CHANGED_LINES: usize = 12;

/// A judge builds the model or the tests of a copy of the project, perhaps from nothing.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(1200);

/// The names of the bugs, and their patches.
fn bugs() -> Vec<(String, Patch)> {
    let folder = fs::read_dir(project().join("labs/bugs")).unwrap();
    let bug = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, Patch::read(&path).unwrap())
    };
    let mut bugs: Vec<_> = folder.map(|entry| bug(entry.unwrap().path())).collect();
    bugs.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(bugs.len(), 6);
    bugs
}

/// Runs the judge, built once in its own folder.
fn judge(arguments: &[&str]) -> ChildOutput {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| build_package("labs"));
    let mut judge = Command::new(FOLDER.join("labs"));
    judge.args(arguments);
    judge.env("LABS_SERVER", env!("CARGO_BIN_EXE_threadsocks"));
    RunningChild::start(&mut judge, b"").wait_for_exit(TIMEOUT)
}

/// A file with this text.
fn file(text: &str) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn each_bug_of_the_labs_applies_and_can_be_taken_out() {
    for (name, patch) in bugs() {
        assert!(!patch.is_in(project()), "{name} is in the source");
        let broken = patch.result(project(), Way::PutIn).expect(&name);
        let copy = tempfile::tempdir().unwrap();
        for (path, text) in &broken {
            assert!(path.starts_with("src/"), "{name}: {path}");
            let path = copy.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(patch.files().len(), broken.len());
        let mended = patch.result(copy.path(), Way::TakeOut).expect(&name);
        for (path, text) in mended {
            assert_eq!(text, project_file(path), "{name}");
        }
    }
}

#[test]
fn each_bug_of_the_labs_is_small_and_has_its_lab_and_its_answer() {
    let labs = project_file("docs/labs.md");
    for (name, patch) in bugs() {
        let lines = patch.text.lines().filter(|line| {
            let is_header = line.starts_with("--- a/") || line.starts_with("+++ b/");
            line.starts_with(['+', '-']) && !is_header
        });
        let count = lines.count();
        assert!((1..=MAX_CHANGED_LINES).contains(&count), "{name}: {count}");
        assert!(labs.contains(&format!("\n### {name}\n")), "{name}");
        assert!(
            labs.contains(&format!("\n| [`{name}`](#{name}) |")),
            "{name}"
        );
    }
    let listed = judge(&["list"]).text();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, bugs().iter().map(|it| &*it.0).collect::<Vec<_>>());
}

/// Each answer has two orders of steps: the first breaks the program, and the second does not.
#[test]
fn the_judge_of_lab_l1_knows_which_order_breaks_each_program() {
    for (name, _) in bugs() {
        let answer = project_file(&format!("labs/answers/{name}.md"));
        let orders: Vec<&str> = answer.split('`').skip(1).step_by(2).take(2).collect();
        for (order, status, says) in [
            (orders[0], 0, "this order breaks it"),
            (orders[1], 1, "in this order the program works"),
            (&orders[0][3..], 1, "this order cannot happen"),
        ] {
            let verdict = judge(&["L1", &name, file(order).to_str().unwrap()]);
            assert_eq!(verdict.status.code(), Some(status), "{name}: {verdict:?}");
            assert!(verdict.text().starts_with(says), "{name}: {verdict:?}");
        }
    }
}

#[test]
fn the_judge_of_lab_l0_accepts_the_answers_and_no_others() {
    let path = project().join("labs/answers/L0.txt");
    let verdict = judge(&["L0", path.to_str().unwrap()]);
    assert!(verdict.status.success(), "{verdict:?}");
    let answers = fs::read_to_string(path).unwrap();
    for (right, wrong) in [
        ("accept      = poll", "accept      = futex"),
        ("s3          = poll\n", ""),
        ("s2-down     =", "s2          = read client\ns2-down     ="),
    ] {
        let wrong = answers.replacen(right, wrong, 1);
        assert_ne!(wrong, answers);
        let verdict = judge(&["L0", file(&wrong).to_str().unwrap()]);
        assert_eq!(verdict.status.code(), Some(1), "{wrong}: {verdict:?}");
    }
}

/// A copy of the project, in which bugs are put in while others use the project.
struct ProjectCopy(PathBuf);

impl ProjectCopy {
    fn new() -> ProjectCopy {
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("labs-copy");
        // It is there if a run has ended early.
        let _ = fs::remove_dir_all(&copy);
        copy_folder(project(), &copy);
        ProjectCopy(copy)
    }

    /// Runs `labs/judge` there. Its programs go into a folder of their own; cargo 1.91 and later
    /// find the crates that are compiled already.
    fn judge(&self, arguments: &[&str]) -> ChildOutput {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut judge = Command::new(self.0.join("labs/judge"));
        judge.current_dir(&self.0).args(arguments);
        judge.env("CARGO_TARGET_DIR", target.join("labs-copy"));
        judge.env("CARGO_BUILD_BUILD_DIR", target);
        let began = std::time::Instant::now();
        let output = RunningChild::start(&mut judge, b"").wait_for_exit(JUDGE_TIMEOUT);
        println!(
            "judge {arguments:?}, {:.0?}:\n{}",
            began.elapsed(),
            output.text()
        );
        output
    }

    /// Applies a patch of a lab.
    fn apply(&self, patch: &str) {
        let patch = Patch::read(&project().join(patch)).unwrap();
        for (path, text) in patch.result(&self.0, Way::PutIn).unwrap() {
            fs::write(self.0.join(path), text).unwrap();
        }
    }
}

impl Drop for ProjectCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies a folder without what git and cargo keep there.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        match path.is_dir() {
            true if ["target", ".git"].contains(&name) => {}
            true => copy_folder(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

/// The command is "make labs".
#[test]
#[ignore = "builds the model once for each bug"]
fn the_judge_of_the_labs_finds_each_bug_and_accepts_the_source() {
    let copy = ProjectCopy::new();
    for (name, _) in bugs() {
        let put = copy.judge(&["put", &name]);
        assert!(put.status.success(), "{put:?}");
        let verdict = copy.judge(&[&name]);
        assert_eq!(verdict.status.code(), Some(1), "{verdict:?}");
        assert!(verdict.text().contains("\nfound: "), "{verdict:?}");
        let again = copy.judge(&["put", &name]);
        assert_eq!(again.status.code(), Some(2), "{again:?}");
        let taken_out = copy.judge(&["take-out", &name]);
        assert!(taken_out.status.success(), "{taken_out:?}");
    }
    // "cargo test" runs the other models on this source.
    let verdict = copy.judge(&["permit", "1000"]);
    assert!(verdict.status.success(), "{verdict:?}");
    assert!(verdict.text().contains("\nmended: permit"), "{verdict:?}");
}

/// The command is "make labs".
#[test]
#[ignore = "builds the example in a copy of the project"]
fn the_judge_of_the_labs_refuses_the_start_of_l3_and_accepts_its_answer() {
    let copy = ProjectCopy::new();
    let put = copy.judge(&["put", "L3"]);
    assert!(put.status.success(), "{put:?}");
    let verdict = copy.judge(&["L3"]);
    assert_eq!(verdict.status.code(), Some(1), "{verdict:?}");
    copy.apply("labs/answers/L3.patch");
    let verdict = copy.judge(&["L3"]);
    assert!(verdict.status.success(), "{verdict:?}");
    // A slot that is given back by the last line of a session is lost in a panic.
    let main = copy.0.join("examples/shell_server/main.rs");
    let answer = fs::read_to_string(&main).unwrap();
    let session = "let _ = handle_client(&stream, &faults);";
    let last_line = format!(
        "let slot = std::mem::ManuallyDrop::new(_slot);
        {session}
        drop(std::mem::ManuallyDrop::into_inner(slot));"
    );
    fs::write(&main, answer.replace(session, &last_line)).unwrap();
    let verdict = copy.judge(&["L3"]);
    assert_eq!(verdict.status.code(), Some(1), "{verdict:?}");
    assert!(verdict.text().contains("ended by panic"), "{verdict:?}");
}
