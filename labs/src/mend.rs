//! The judge of L2: the model that finds the bug, and the test that belongs to it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use crate::lab::{Bug, bug, patch, root};
use crate::put::uncommitted;

/// Schedules under each of the two schedulers of a model, unless the user asks for fewer.
const SCHEDULES: usize = 10_000;

/// What the judge says.
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// Judges the source as it is now.
pub(crate) fn judge(name: &str, schedules: Option<usize>) -> Result<Verdict, String> {
    let bug = bug(name)?;
    let schedules = schedules.unwrap_or(SCHEDULES);
    if schedules == 0 {
        return Err("0 schedules find nothing; give 1 or more".to_owned());
    }
    let of_model = schedules_of(bug)?;
    let rounds = schedules.div_ceil(of_model);
    say_changes()?;

    println!("builds the model, from the source as it is now");
    // Cargo looks at the time of a file only. A file that was copied or moved into its place can
    // be older than the last build.
    for file in patch(name)?.files() {
        let touched = File::options().append(true).open(root().join(file));
        let touched = touched.and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(|error| format!("{file}: {error}"))?;
    }
    let build = cargo(&["test", "--test", "model", "--no-run"], &[]);
    let (built, log) = run(build, "build")?;
    if !built {
        println!("{}", last_lines(&log, 30));
        return Err("the source does not compile".to_owned());
    }
    println!("runs {}: 2 x {} schedules", bug.model, rounds * of_model);
    let rounds = [("MODEL_ROUNDS", rounds.to_string())];
    let model = cargo(&["test", "--test", "model", "--", bug.model], &rounds);
    let (passed, log) = run(model, "model")?;
    if !passed {
        println!("found: the model has failed, so the bug {name} is in, or another one");
        println!("what the model says: {}", shown(&log));
        return Ok(Verdict::Failed);
    }
    let finished = format!("{}: 2 x ", bug.model);
    if !fs::read_to_string(&log)
        .unwrap_or_default()
        .contains(&finished)
    {
        return Err(format!("{} did not run: {}", bug.model, shown(&log)));
    }
    if patch(name)?.is_in(&root()) {
        println!("NOT FOUND: the bug {name} is in, and the model has passed");
        return Ok(Verdict::Failed);
    }
    println!("the model has passed; now the test that belongs to it");
    if !test(bug)? {
        return Ok(Verdict::Failed);
    }
    println!("mended: {name} is not found any more");
    Ok(Verdict::Passed)
}

/// Runs the test that belongs to the bug.
fn test(bug: &Bug) -> Result<bool, String> {
    let (target, filter) = bug.test;
    let arguments = [&["test"], target, &["--", filter]].concat();
    let (passed, log) = run(cargo(&arguments, &[]), "test")?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let ok = text
        .lines()
        .filter(|it| it.starts_with("test ") && it.ends_with("... ok"));
    let count = ok.count();
    let command = format!("cargo {}", arguments.join(" "));
    match (passed, count) {
        (true, 0) => Err(format!("no test ran: {command}")),
        (true, _) => Ok(true),
        (false, _) => {
            println!("the test fails: {command}");
            println!("what it says: {}", shown(&log));
            Ok(false)
        }
    }
}

/// Says what was changed: with a weaker model or test, a bug that is in can pass as mended.
fn say_changes() -> Result<(), String> {
    let judges = [
        "tests",
        "labs",
        "lessons",
        "Cargo.toml",
        "Cargo.lock",
        "clippy.toml",
        ".cargo",
    ];
    let changed = uncommitted(&judges)?;
    if !changed.is_empty() {
        println!("NOTE: these files differ from the last commit, and the verdict depends on them:");
        println!("  {}", changed.join("\n  "));
    }
    let source = uncommitted(&["src"])?;
    if !source.is_empty() {
        println!("changed in the source: {}", source.join(", "));
    }
    Ok(())
}

/// The number of schedules of the model in one round: `model!(500, thread_pool::...)`.
fn schedules_of(bug: &Bug) -> Result<usize, String> {
    let file = "tests/model/main.rs";
    let text = fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))?;
    let end = format!(", {}),", bug.model);
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_suffix(&end)?.strip_prefix("model!("));
    let number = line
        .and_then(|number| number.parse().ok())
        .filter(|number| *number > 0);
    number.ok_or_else(|| format!("{file} has no model {}", bug.model))
}

/// Cargo in the folder of the project.
fn cargo(arguments: &[&str], environment: &[(&str, String)]) -> Command {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo
        .current_dir(root())
        .args(arguments)
        .env_remove("SHUTTLE_RANDOM_SEED");
    cargo.envs(environment.iter().map(|(name, value)| (name, value)));
    cargo
}

/// Runs it with its output in a file. True if it succeeds.
fn run(mut command: Command, name: &str) -> Result<(bool, PathBuf), String> {
    let folder = root().join("target/labs");
    let log = folder.join(format!("{name}.txt"));
    let open = || {
        fs::create_dir_all(&folder)?;
        let file = File::create(&log)?;
        Ok((file.try_clone()?, file))
    };
    let (stdout, stderr) = open().map_err(|error: std::io::Error| error.to_string())?;
    let status = command.stdout(stdout).stderr(stderr).status();
    let status = status.map_err(|error| format!("cargo: {error}"))?;
    Ok((status.success(), log))
}

/// A path as the user can type it.
fn shown(path: &std::path::Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn last_lines(path: &std::path::Path, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
