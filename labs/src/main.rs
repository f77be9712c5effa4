//! The judge of the labs in `docs/labs.md`.

mod lab;
mod limit;
mod mend;
mod patch;
mod predict;
mod put;
mod see;
mod server;

use std::env;
use std::process::ExitCode;

use mend::Verdict;

const HELP: &str = "\
labs/judge: the judge of the labs; docs/labs.md describes them

  labs/judge list              the bugs of L2
  labs/judge put NAME          puts a bug into the source, or the start of L3
  labs/judge take-out NAME     takes it out again
  labs/judge L0                starts a server with four clients, to look at
  labs/judge L0 FILE           judges the answers in this file
  labs/judge L1 NAME FILE      judges the order of steps in this file
  labs/judge NAME [SCHEDULES]  L2: is the bug mended? [10000]
  labs/judge L3                judges examples/shell_server

Exit status: 0 passed or mended, 1 not, 2 could not be judged.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("labs/judge: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Result<Verdict, String> {
    match *arguments {
        [] | ["help" | "-h" | "--help"] => print!("{HELP}"),
        ["list"] => lab::BUGS.iter().for_each(|bug| println!("{}", bug.name)),
        ["put", name] => put::put(name)?,
        ["take-out", name] => put::take_out(name)?,
        ["L0"] => return see::show(),
        ["L0", file] => return see::judge(file),
        ["L1", bug, file] => return predict::judge(bug, file),
        ["L3"] => return limit::judge(),
        [bug] => return mend::judge(bug, None),
        [bug, schedules] => {
            let schedules = schedules
                .parse()
                .map_err(|_| format!("{schedules}: no number"))?;
            return mend::judge(bug, Some(schedules));
        }
        _ => return Err("see labs/judge --help".to_owned()),
    }
    Ok(Verdict::Passed)
}
