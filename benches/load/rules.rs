//! Test `rules`: the cost of the rules for one request.

use std::fmt::Write;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use tempfile::NamedTempFile;
use threadsocks::protocol::{Command, Host};
use threadsocks::rules::{AccessQuery, RulesFile, WeekTime};

use crate::results::TestResult;

/// Rules in the file. Only the last one matches, so all are evaluated.
const RULE_COUNT: usize = 10_000;

/// Calls in one measurement, of which the mean is taken.
const REPETITIONS: u32 = 200;

/// Microseconds of one check whether the file has changed (it has not), and of one
/// evaluation of 10,000 rules: for rules with addresses, and for rules with names.
pub(crate) fn measure() -> TestResult {
    let addresses = rules_file(|number, line| {
        let [high, low] = (number as u16).to_be_bytes();
        write!(line, "deny c - - 10.{high}.{low}.0/24 80,443")
    });
    let names = rules_file(|number, line| write!(line, "deny c - - *.ads{number}.example.com -"));
    let (addresses, names) = (load(&addresses), load(&names));
    let unchanged = mean_micros(|| addresses.current());
    let name = match Host::from_name(b"www.example.org") {
        Host::Name(name) => name,
        other => return Err(format!("{other:?} is not a name")),
    };
    let verdict = |rules_file: &RulesFile| {
        let (rules, _) = rules_file.current();
        let query = AccessQuery {
            command: Command::Connect,
            source: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)),
            user: b"",
            logged_in: false,
            name: Some(&name),
            address: Some(IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1))),
            port: Some(80),
            time: WeekTime::MONDAY,
            nat64: &[],
        };
        let verdict = rules.evaluate(&query);
        assert!(verdict.permitted && verdict.line == Some(RULE_COUNT));
        mean_micros(|| black_box(&rules).evaluate(black_box(&query)))
    };
    Ok(vec![
        ("rules_check", unchanged),
        ("rules_addresses", verdict(&addresses)),
        ("rules_names", verdict(&names)),
    ])
}

/// A file of [`RULE_COUNT`] rules, the last of which permits everything. Its
/// modification time is a minute ago: a file that changed shortly before it was read
/// would be read again.
fn rules_file(write_rule: impl Fn(usize, &mut String) -> std::fmt::Result) -> NamedTempFile {
    let mut text = String::new();
    for number in 1..RULE_COUNT {
        write_rule(number, &mut text).expect("writing to a string does not fail");
        text.push('\n');
    }
    text.push_str("permit c - - - -\n");
    let mut file = NamedTempFile::new().expect("create a temporary file");
    file.write_all(text.as_bytes()).expect("write the rules");
    let old = SystemTime::now() - Duration::from_secs(60);
    File::set_modified(file.as_file(), old).expect("set the modification time");
    file
}

fn load(file: &NamedTempFile) -> RulesFile {
    RulesFile::open(file.path()).expect("valid rules")
}

/// The mean duration of `operation` in microseconds.
fn mean_micros<T>(operation: impl Fn() -> T) -> f64 {
    let began = Instant::now();
    for _ in 0..REPETITIONS {
        black_box(operation());
    }
    1e6 * began.elapsed().as_secs_f64() / f64::from(REPETITIONS)
}
