//! `make bench`: how fast this server is, next to others on the same machine.
//!
//! Every contender is started on loopback, and every test is done with each of
//! them in turn, several rounds of it, because a machine that others use too is
//! now faster and now slower: ratios within one round mean something, seconds
//! of different hours do not. What a test does is in the file of its name.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

/// The contenders as child processes.
mod peers;

/// What a process and its children use.
mod tree;

/// Both ends of a connection.
mod ends;

/// A window of time in which something is counted.
mod span;

/// As many bytes as will go.
mod bulk;

/// One short connection after the other.
mod connections;

/// How long one byte takes, and one connection.
mod latency;

/// Datagrams, where a contender relays them.
mod udp;

/// Connections on which nothing happens.
mod idle;

/// What the rules cost.
mod rules;

/// What we want to reach.
mod goals;

/// All numbers, and what is made of them.
mod results;

/// The table, and the file of numbers.
mod report;

/// The numbers as bars.
mod plot;

/// The baseline: a relay that copies.
mod plain;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use bulk::Direction;
use peers::{Contender, Peer};
use results::{Outcome, Results};

const HELP: &str = "\
cargo bench --bench load -- [OPTIONS]

      --quick          under a minute [this]
      --full           under ten minutes; also as many idle connections as fit
      --only NAMES     these contenders: direct,threadsocks,plain,microsocks,dante
      --tests NAMES    these tests: bulk,connections,latency,udp,idle,rules
      --before FILE    one more contender: another build of threadsocks
      --out FOLDER     where bench.json and bench.svg are put [docs]
";

fn main() {
    match options() {
        Ok(Action::Help) => print!("{HELP}"),
        Ok(Action::PlainRelay(port)) => plain::serve(port),
        Ok(Action::Measure(options)) => measure(&options),
        Err(error) => {
            eprint!("{error}\n\n{HELP}");
            std::process::exit(2);
        }
    }
}

enum Action {
    Help,
    /// To be the baseline, as a process of its own.
    PlainRelay(u16),
    Measure(Options),
}

struct Options {
    form: &'static Form,
    contenders: Vec<Contender>,
    tests: Vec<String>,
    before: Option<PathBuf>,
    out: PathBuf,
}

/// By the name of the file they are in.
const TESTS: [&str; 6] = ["bulk", "connections", "latency", "udp", "idle", "rules"];

/// How long everything takes.
struct Form {
    name: &'static str,
    rounds: usize,
    bulk: Duration,
    connections: Duration,
    round_trips: Duration,
    while_busy: Duration,
    datagrams: Duration,
    as_many_as_fit: bool,
}

const QUICK: Form = Form {
    name: "quick",
    rounds: 3,
    bulk: Duration::from_millis(250),
    connections: Duration::from_millis(200),
    round_trips: Duration::from_millis(100),
    while_busy: Duration::from_millis(300),
    datagrams: Duration::from_millis(200),
    as_many_as_fit: false,
};

const FULL: Form = Form {
    name: "full",
    rounds: 7,
    bulk: Duration::from_millis(1500),
    connections: Duration::from_millis(1000),
    round_trips: Duration::from_millis(700),
    while_busy: Duration::from_millis(1500),
    datagrams: Duration::from_millis(700),
    as_many_as_fit: true,
};

impl Options {
    fn wants(&self, test: &str) -> bool {
        self.tests.iter().any(|wanted| wanted == test)
    }
}

fn options() -> Result<Action, lexopt::Error> {
    let mut options = Options {
        form: &QUICK,
        contenders: Contender::ALL.to_vec(),
        tests: TESTS.map(str::to_owned).to_vec(),
        before: None,
        out: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")),
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            // Cargo says so to every benchmark.
            Arg::Long("bench") => {}
            Arg::Long("quick") => options.form = &QUICK,
            Arg::Long("full") => options.form = &FULL,
            Arg::Long("only") => options.contenders = only(&parser.value()?.string()?)?,
            Arg::Long("tests") => options.tests = tests(&parser.value()?.string()?)?,
            Arg::Long("before") => options.before = Some(parser.value()?.into()),
            Arg::Long("out") => options.out = parser.value()?.into(),
            Arg::Long("plain-relay") => return Ok(Action::PlainRelay(parser.value()?.parse()?)),
            Arg::Long("help") | Arg::Short('h') => return Ok(Action::Help),
            unknown => return Err(unknown.unexpected()),
        }
    }
    match options.before {
        Some(_) if !options.contenders.contains(&Contender::Before) => {
            options.contenders.push(Contender::Before);
        }
        Some(_) => {}
        None => options.contenders.retain(|it| *it != Contender::Before),
    }
    Ok(Action::Measure(options))
}

fn only(names: &str) -> Result<Vec<Contender>, String> {
    let find = |name: &str| {
        let found = Contender::ALL.into_iter().find(|it| it.name() == name);
        found.ok_or_else(|| format!("no contender is called {name:?}"))
    };
    names.split(',').map(find).collect()
}

fn tests(names: &str) -> Result<Vec<String>, String> {
    match names.split(',').find(|name| !TESTS.contains(name)) {
        Some(name) => Err(format!("no test is called {name:?}")),
        None => Ok(names.split(',').map(str::to_owned).collect()),
    }
}

/// The whole benchmark.
fn measure(options: &Options) {
    let began = Instant::now();
    let stolen_before = tree::stolen();
    raise_descriptors();
    let form = options.form;
    let mut results = Results::default();
    results.rounds = form.rounds;
    for round in 0..form.rounds {
        // Whoever comes after the hungriest one shall be another each time.
        let mut order = options.contenders.clone();
        order.rotate_left(round % options.contenders.len());
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{seconds:5.0} s: round {} of {}", round + 1, form.rounds);
        one_round(&order, options, &mut results);
    }
    if options.wants("rules") && options.contenders.contains(&Contender::Ours) {
        for _ in 0..form.rounds {
            results.take(Contender::Ours, rules::measure);
        }
    }
    if options.wants("idle") {
        hold_idle(began, options, &mut results);
    }
    results.seconds = began.elapsed().as_secs_f64();
    results.stolen = tree::stolen().saturating_sub(stolen_before).as_secs_f64();
    report::screen(&results, &options.contenders);
    let files = [
        (
            "bench.json",
            report::json(&results, &options.contenders, form.name),
        ),
        ("bench.svg", plot::svg(&results, &options.contenders)),
    ];
    for (name, text) in files {
        let path = options.out.join(name);
        fs::write(&path, text).expect("the folder of --out can be written to");
        println!("{}", path.display());
    }
}

type Test<'a> = &'a dyn Fn(&Peer) -> Outcome;

/// Starts all contenders anew and does every test with each of them.
fn one_round(order: &[Contender], options: &Options, results: &mut Results) {
    let peers: Vec<Peer> = order
        .iter()
        .filter_map(|contender| start(*contender, options, results))
        .collect();
    let form = options.form;
    let tests: [(&str, Test); 12] = [
        ("bulk", &|peer| {
            bulk::measure(peer, 1, Direction::Down, form.bulk)
        }),
        ("bulk", &|peer| {
            bulk::measure(peer, 1, Direction::Up, form.bulk)
        }),
        ("bulk", &|peer| {
            bulk::measure(peer, 4, Direction::Down, form.bulk)
        }),
        ("connections", &|peer| {
            connections::measure(peer, 1, form.connections)
        }),
        ("connections", &|peer| {
            connections::measure(peer, 8, form.connections)
        }),
        ("connections", &|peer| {
            connections::measure(peer, 64, form.connections)
        }),
        ("latency", &|peer| {
            latency::round_trip(peer, form.round_trips)
        }),
        ("latency", &|peer| {
            latency::new_while_busy(peer, form.while_busy)
        }),
        ("udp", &|peer| {
            udp::measure(peer, 1, udp::SMALL, form.datagrams)
        }),
        ("udp", &|peer| {
            udp::measure(peer, 1, udp::LARGE, form.datagrams)
        }),
        ("udp", &|peer| {
            udp::measure(peer, 8, udp::SMALL, form.datagrams)
        }),
        ("udp", &|peer| udp::round_trip(peer, form.round_trips)),
    ];
    for (_, test) in tests.iter().filter(|(name, _)| options.wants(name)) {
        for peer in &peers {
            results.take(peer.contender, || test(peer));
        }
    }
}

/// A thousand idle connections, and as many as fit, with fresh servers.
fn hold_idle(began: Instant, options: &Options, results: &mut Results) {
    let seconds = || began.elapsed().as_secs_f64();
    let proxies = options.contenders.iter().copied();
    for contender in proxies.filter(|it| *it != Contender::Direct) {
        if let Some(peer) = start(contender, options, results) {
            eprintln!("{:5.0} s: 1,000 idle, {}", seconds(), contender.name());
            results.take(contender, || idle::thousand(&peer));
        }
        if options.form.as_many_as_fit
            && let Some(peer) = start(contender, options, results)
        {
            eprintln!(
                "{:5.0} s: as many idle as fit, {}",
                seconds(),
                contender.name()
            );
            results.take(contender, || idle::most(&peer));
        }
    }
}

/// A running contender, unless it fails or has failed before.
fn start(contender: Contender, options: &Options, results: &mut Results) -> Option<Peer> {
    if results.is_out(contender) {
        return None;
    }
    match Peer::start(contender, options.before.as_deref()) {
        Ok(peer) => Some(peer),
        Err(why) => {
            results.leave_out(contender, &why);
            None
        }
    }
}

/// The load generator holds both ends of every connection. The servers inherit
/// the limit, so that none of them is held back by a modest shell.
fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit raised");
}
