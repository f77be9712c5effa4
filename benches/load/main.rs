//! `make bench`: the performance of threadsocks and of other SOCKS servers on the same machine.
//!
//! Each round starts every contender on loopback and runs every test with each
//! of them in turn. The speed of a shared machine varies with time. So results
//! are compared as ratios within one round, not as absolute values of different
//! hours. Each test is in the file of its name.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod baseline;
mod bulk;
mod connections;
mod contender;
mod endpoints;
mod idle;
mod interval;
mod latency;
mod machine;
mod performance_goals;
mod plot;
mod process_tree;
mod report;
mod results;
mod rules;
mod running_contender;
mod server_process;
mod statistics;
mod udp;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};

use bulk::Direction;
use contender::Contender;
use results::{Results, TestResult};
use running_contender::RunningContender;

const HELP: &str = "\
cargo bench --bench load -- [OPTIONS]

      --quick          under a minute [default]
      --full           under ten minutes; also fills each contender with idle connections
      --only NAMES     only these contenders: direct,threadsocks,plain,microsocks,dante
      --tests NAMES    only these tests: bulk,connections,latency,udp,idle,rules
      --before FILE    add a contender: another build of threadsocks
      --out FOLDER     folder for bench.json and bench.svg [docs]
";

fn main() {
    match parse_options() {
        Ok(Action::Help) => print!("{HELP}"),
        Ok(Action::PlainRelay(port)) => baseline::serve(port),
        Ok(Action::Measure(options)) => run_benchmark(&options),
        Err(error) => {
            eprint!("{error}\n\n{HELP}");
            std::process::exit(2);
        }
    }
}

enum Action {
    Help,
    /// Run as the baseline server, in a process of its own (hidden option).
    PlainRelay(u16),
    Measure(Options),
}

struct Options {
    profile: &'static Profile,
    contenders: Vec<Contender>,
    tests: Vec<String>,
    other_build: Option<PathBuf>,
    out: PathBuf,
}

/// The values of `--tests`; each is the name of the file that contains the test.
const TESTS: [&str; 6] = ["bulk", "connections", "latency", "udp", "idle", "rules"];

/// The number of rounds, and the measuring time of each test in a round.
/// `bench.json` calls it `form`.
struct Profile {
    name: &'static str,
    rounds: usize,
    bulk: Duration,
    connections: Duration,
    round_trips: Duration,
    connect_while_busy: Duration,
    datagrams: Duration,
    fills_capacity: bool,
}

const QUICK: Profile = Profile {
    name: "quick",
    rounds: 3,
    bulk: Duration::from_millis(250),
    connections: Duration::from_millis(200),
    round_trips: Duration::from_millis(100),
    connect_while_busy: Duration::from_millis(300),
    datagrams: Duration::from_millis(200),
    fills_capacity: false,
};

const FULL: Profile = Profile {
    name: "full",
    rounds: 7,
    bulk: Duration::from_millis(1500),
    connections: Duration::from_millis(1000),
    round_trips: Duration::from_millis(700),
    connect_while_busy: Duration::from_millis(1500),
    datagrams: Duration::from_millis(700),
    fills_capacity: true,
};

impl Options {
    fn wants(&self, test: &str) -> bool {
        self.tests.iter().any(|wanted| wanted == test)
    }
}

fn parse_options() -> Result<Action, lexopt::Error> {
    let mut options = Options {
        profile: &QUICK,
        contenders: Contender::ALL.to_vec(),
        tests: TESTS.map(str::to_owned).to_vec(),
        other_build: None,
        out: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")),
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            // Cargo passes this option to every benchmark.
            Arg::Long("bench") => {}
            Arg::Long("quick") => options.profile = &QUICK,
            Arg::Long("full") => options.profile = &FULL,
            Arg::Long("only") => options.contenders = parse_contenders(&parser.value()?.string()?)?,
            Arg::Long("tests") => options.tests = parse_tests(&parser.value()?.string()?)?,
            Arg::Long("before") => options.other_build = Some(parser.value()?.into()),
            Arg::Long("out") => options.out = parser.value()?.into(),
            Arg::Long("plain-relay") => return Ok(Action::PlainRelay(parser.value()?.parse()?)),
            Arg::Long("help") | Arg::Short('h') => return Ok(Action::Help),
            unknown => return Err(unknown.unexpected()),
        }
    }
    match options.other_build {
        Some(_) if !options.contenders.contains(&Contender::OtherBuild) => {
            options.contenders.push(Contender::OtherBuild);
        }
        Some(_) => {}
        None => options
            .contenders
            .retain(|contender| *contender != Contender::OtherBuild),
    }
    Ok(Action::Measure(options))
}

fn parse_contenders(names: &str) -> Result<Vec<Contender>, String> {
    let find = |name: &str| {
        let mut contenders = Contender::ALL.into_iter();
        let found = contenders.find(|contender| contender.name() == name);
        found.ok_or_else(|| format!("there is no contender {name:?}"))
    };
    names.split(',').map(find).collect()
}

fn parse_tests(names: &str) -> Result<Vec<String>, String> {
    match names.split(',').find(|name| !TESTS.contains(name)) {
        Some(name) => Err(format!("there is no test {name:?}")),
        None => Ok(names.split(',').map(str::to_owned).collect()),
    }
}

/// Runs all rounds, prints the tables and writes both files.
fn run_benchmark(options: &Options) {
    let began = Instant::now();
    let steal_before = machine::steal_time();
    machine::raise_descriptor_limit();
    let profile = options.profile;
    let mut results = Results::default();
    results.rounds = profile.rounds;
    for round in 0..profile.rounds {
        // Rotates the order: a contender can slow down the next one, so that one
        // differs from round to round.
        let mut order = options.contenders.clone();
        order.rotate_left(round % options.contenders.len());
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{seconds:5.0} s: round {} of {}", round + 1, profile.rounds);
        run_round(&order, options, &mut results);
    }
    if options.wants("rules") && options.contenders.contains(&Contender::Threadsocks) {
        for _ in 0..profile.rounds {
            results.record(Contender::Threadsocks, rules::measure);
        }
    }
    if options.wants("idle") {
        run_idle_tests(began, options, &mut results);
    }
    results.seconds = began.elapsed().as_secs_f64();
    results.steal_seconds = machine::steal_time()
        .saturating_sub(steal_before)
        .as_secs_f64();
    report::print(&results, &options.contenders);
    let files = [
        (
            "bench.json",
            report::json(&results, &options.contenders, profile.name),
        ),
        ("bench.svg", plot::svg(&results, &options.contenders)),
    ];
    for (name, text) in files {
        let path = options.out.join(name);
        fs::write(&path, text).expect("write to the folder of --out");
        println!("{}", path.display());
    }
}

type Test<'a> = &'a dyn Fn(&RunningContender) -> TestResult;

/// Starts all contenders and runs every test with each of them.
fn run_round(order: &[Contender], options: &Options, results: &mut Results) {
    let running: Vec<RunningContender> = order
        .iter()
        .filter_map(|contender| start(*contender, options, results))
        .collect();
    let profile = options.profile;
    let tests: [(&str, Test); 12] = [
        ("bulk", &|contender| {
            bulk::measure(contender, 1, Direction::Down, profile.bulk)
        }),
        ("bulk", &|contender| {
            bulk::measure(contender, 1, Direction::Up, profile.bulk)
        }),
        ("bulk", &|contender| {
            bulk::measure(contender, 4, Direction::Down, profile.bulk)
        }),
        ("connections", &|contender| {
            connections::measure(contender, 1, profile.connections)
        }),
        ("connections", &|contender| {
            connections::measure(contender, 8, profile.connections)
        }),
        ("connections", &|contender| {
            connections::measure(contender, 64, profile.connections)
        }),
        ("latency", &|contender| {
            latency::round_trip(contender, profile.round_trips)
        }),
        ("latency", &|contender| {
            latency::connect_while_busy(contender, profile.connect_while_busy)
        }),
        ("udp", &|contender| {
            udp::measure(contender, 1, udp::SMALL_PAYLOAD, profile.datagrams)
        }),
        ("udp", &|contender| {
            udp::measure(contender, 1, udp::LARGE_PAYLOAD, profile.datagrams)
        }),
        ("udp", &|contender| {
            udp::measure(contender, 8, udp::SMALL_PAYLOAD, profile.datagrams)
        }),
        ("udp", &|contender| {
            udp::round_trip(contender, profile.round_trips)
        }),
    ];
    for (_, test) in tests.iter().filter(|(name, _)| options.wants(name)) {
        for contender in &running {
            results.record(contender.kind, || test(contender));
        }
    }
}

/// Runs the tests of idle connections, each with a newly started server.
fn run_idle_tests(began: Instant, options: &Options, results: &mut Results) {
    let seconds = || began.elapsed().as_secs_f64();
    let proxies = options.contenders.iter().copied();
    for contender in proxies.filter(|proxy| *proxy != Contender::Direct) {
        if let Some(running) = start(contender, options, results) {
            eprintln!("{:5.0} s: 1,000 idle, {}", seconds(), contender.name());
            results.record(contender, || idle::thousand_connections(&running));
        }
        if options.profile.fills_capacity
            && let Some(running) = start(contender, options, results)
        {
            eprintln!(
                "{:5.0} s: as many idle as fit, {}",
                seconds(),
                contender.name()
            );
            results.record(contender, || idle::maximum_connections(&running));
        }
    }
}

/// Starts a contender. Returns `None` if it fails or has failed before.
fn start(
    contender: Contender,
    options: &Options,
    results: &mut Results,
) -> Option<RunningContender> {
    if results.is_excluded(contender) {
        return None;
    }
    match RunningContender::start(contender, options.other_build.as_deref()) {
        Ok(running) => Some(running),
        Err(reason) => {
            results.exclude(contender, &reason);
            None
        }
    }
}
