//! The report: tables on stdout, and `bench.json`.

use serde_json::{Map, Value, json};

use crate::contender::Contender;
use crate::machine;
use crate::performance_goals::GOALS;
use crate::results::{METRICS, Metric, Results};
use crate::statistics::{median, relative_range};

/// Prints medians, ratios, goals, and the contenders that were excluded.
pub(crate) fn print(results: &Results, contenders: &[Contender]) {
    print!("\n{:38}", "");
    for contender in contenders {
        print!("{:>16}", contender.name());
    }
    println!("{:>10}", "spread");
    for metric in &METRICS {
        print_row(metric, results, contenders);
    }
    println!(
        "\nMedians of all rounds; in brackets how many times what threadsocks has, the median of\n\
         the ratios of each round; (+) more is better, (-) less. Spread: of threadsocks, from its\n\
         worst round to its best.\n"
    );
    for goal in &GOALS {
        let metric = METRICS.iter().find(|metric| metric.key == goal.metric);
        let title = metric.map_or(goal.metric, |metric| metric.title);
        let (value, verdict) = match goal.value(results) {
            Some(value) if goal.is_met_by(value) => (format_number(value), "met"),
            Some(value) => (format_number(value), "MISSED"),
            None => (String::new(), "not measured"),
        };
        println!("{title:34} {:32} {value:>8}  {verdict}", goal.description());
    }
    println!(
        "\n{:.0} seconds, in which this machine's host took {:.1} CPU seconds for others",
        results.seconds, results.steal_seconds
    );
    for exclusion in &results.exclusions {
        println!("{exclusion}");
    }
}

fn print_row(metric: &Metric, results: &Results, contenders: &[Contender]) {
    let measured = |contender: &&Contender| results.samples(metric.key, **contender).is_some();
    if contenders.iter().find(measured).is_none() {
        return;
    }
    let sign = if metric.more_is_better { '+' } else { '-' };
    print!("{:29}{:>7} {sign}", metric.title, metric.unit);
    for contender in contenders {
        let cell = match results.samples(metric.key, *contender) {
            Some(samples) => format_number(median(samples)),
            None => "-".to_owned(),
        };
        let ratio = match results.ratio(metric.key, *contender, Contender::Threadsocks) {
            Some(ratio) if *contender != Contender::Threadsocks => format!("({ratio:.2})"),
            _ => String::new(),
        };
        print!("{cell:>8}{ratio:>8}");
    }
    match results.samples(metric.key, Contender::Threadsocks) {
        Some(samples) if samples.len() > 1 => println!("{:9.0}%", 100.0 * relative_range(samples)),
        _ => println!(),
    }
}

/// Three or four significant digits; three decimal places below 1.
pub(crate) fn format_number(number: f64) -> String {
    match number.abs() {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        1.0.. => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// All samples, medians and goals as JSON, for other programs.
pub(crate) fn json(results: &Results, contenders: &[Contender], profile: &str) -> String {
    let versions = contenders.iter().map(|contender| {
        let version = Value::from(contender.version());
        (contender.name().to_owned(), version)
    });
    let measures = METRICS.iter().map(|metric| {
        let numbers = contenders.iter().filter_map(|contender| {
            let samples = results.samples(metric.key, *contender)?;
            let numbers = json!({ "median": median(samples), "rounds": samples });
            Some((contender.name().to_owned(), numbers))
        });
        json!({
            "key": metric.key,
            "title": metric.title,
            "unit": metric.unit,
            "more_is_better": metric.more_is_better,
            "contenders": numbers.collect::<Map<String, Value>>(),
        })
    });
    let goals = GOALS.iter().map(|goal| {
        let value = goal.value(results);
        json!({
            "key": goal.metric,
            "wish": goal.description(),
            "value": value,
            "met": value.map(|value| goal.is_met_by(value)),
        })
    });
    let document = json!({
        "form": profile,
        "seconds": results.seconds,
        "stolen_cpu_seconds": results.steal_seconds,
        "machine": machine::description(),
        "contenders": versions.collect::<Map<String, Value>>(),
        "measures": measures.collect::<Vec<Value>>(),
        "goals": goals.collect::<Vec<Value>>(),
        "left_out": results.exclusions,
    });
    format!("{document:#}\n")
}
