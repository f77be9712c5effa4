//! The table on the screen, and the file of numbers.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use crate::goals::GOALS;
use crate::peers::Contender;
use crate::results::{MEASURES, Measure, Results, median, spread};

/// Medians, ratios, goals, and who is missing.
pub(crate) fn screen(results: &Results, contenders: &[Contender]) {
    print!("\n{:38}", "");
    for contender in contenders {
        print!("{:>16}", contender.name());
    }
    println!("{:>10}", "spread");
    for measure in &MEASURES {
        row(measure, results, contenders);
    }
    println!(
        "\nMedians of all rounds; in brackets how many times what threadsocks has, the median of\n\
         the ratios of each round; (+) more is better, (-) less. Spread: of threadsocks, from its\n\
         worst round to its best.\n"
    );
    for goal in &GOALS {
        let measure = MEASURES.iter().find(|it| it.key == goal.measure);
        let title = measure.map_or(goal.measure, |it| it.title);
        let (value, verdict) = match goal.value(results) {
            Some(value) if goal.is_met_by(value) => (short(value), "met"),
            Some(value) => (short(value), "MISSED"),
            None => (String::new(), "not measured"),
        };
        println!("{title:34} {:32} {value:>8}  {verdict}", goal.words());
    }
    println!(
        "\n{:.0} seconds, in which this machine's host took {:.1} CPU seconds for others",
        results.seconds, results.stolen
    );
    for trouble in &results.troubles {
        println!("{trouble}");
    }
}

fn row(measure: &Measure, results: &Results, contenders: &[Contender]) {
    let measured = |it: &&Contender| results.samples(measure.key, **it).is_some();
    if contenders.iter().find(measured).is_none() {
        return;
    }
    let sign = if measure.more_is_better { '+' } else { '-' };
    print!("{:29}{:>7} {sign}", measure.title, measure.unit);
    for contender in contenders {
        let cell = match results.samples(measure.key, *contender) {
            Some(samples) => short(median(samples)),
            None => "-".to_owned(),
        };
        let ratio = match results.ratio(measure.key, *contender, Contender::Ours) {
            Some(ratio) if *contender != Contender::Ours => format!("({ratio:.2})"),
            _ => String::new(),
        };
        print!("{cell:>8}{ratio:>8}");
    }
    match results.samples(measure.key, Contender::Ours) {
        Some(samples) if samples.len() > 1 => println!("{:9.0}%", 100.0 * spread(samples)),
        _ => println!(),
    }
}

/// About three digits of it.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        1.0.. => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// Everything, for other programs.
pub(crate) fn json(results: &Results, contenders: &[Contender], form: &str) -> String {
    let versions = contenders.iter().map(|it| {
        let version = Value::from(it.version());
        (it.name().to_owned(), version)
    });
    let measures = MEASURES.iter().map(|measure| {
        let numbers = contenders.iter().filter_map(|it| {
            let samples = results.samples(measure.key, *it)?;
            let numbers = json!({ "median": median(samples), "rounds": samples });
            Some((it.name().to_owned(), numbers))
        });
        json!({
            "key": measure.key,
            "title": measure.title,
            "unit": measure.unit,
            "more_is_better": measure.more_is_better,
            "contenders": numbers.collect::<Map<String, Value>>(),
        })
    });
    let goals = GOALS.iter().map(|goal| {
        let value = goal.value(results);
        json!({
            "key": goal.measure,
            "wish": goal.words(),
            "value": value,
            "met": value.map(|value| goal.is_met_by(value)),
        })
    });
    let everything = json!({
        "form": form,
        "seconds": results.seconds,
        "stolen_cpu_seconds": results.stolen,
        "machine": machine(),
        "contenders": versions.collect::<Map<String, Value>>(),
        "measures": measures.collect::<Vec<Value>>(),
        "goals": goals.collect::<Vec<Value>>(),
        "left_out": results.troubles,
    });
    format!("{everything:#}\n")
}

fn machine() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft);
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "kernel": kernel.trim(),
        "descriptors": descriptors.ok(),
    })
}
