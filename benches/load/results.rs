//! All numbers of all rounds.

use std::collections::BTreeMap;

use crate::peers::Contender;

/// What a test gives: numbers by the key of their measure, or why there are
/// none.
pub(crate) type Outcome = Result<Vec<(&'static str, f64)>, String>;

/// Something that is measured.
pub(crate) struct Measure {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    /// Is it in the plot?
    pub(crate) plotted: bool,
}

pub(crate) const MEASURES: [Measure; 36] = [
    measure("down", "one stream, down", "Gbit/s", true, true),
    measure("down_cpu", "one stream, down: CPU", "s/GB", false, true),
    measure("up", "one stream, up", "Gbit/s", true, true),
    measure("up_cpu", "one stream, up: CPU", "s/GB", false, false),
    measure("four", "four streams, down", "Gbit/s", true, true),
    measure("four_cpu", "four streams, down: CPU", "s/GB", false, false),
    measure("rate_1", "connections, 1 client", "1/s", true, false),
    measure(
        "rate_1_cpu",
        "connections, 1 client: CPU",
        "us each",
        false,
        false,
    ),
    measure("rate_8", "connections, 8 clients", "1/s", true, true),
    measure(
        "rate_8_cpu",
        "connections, 8 clients: CPU",
        "us each",
        false,
        true,
    ),
    measure("rate_64", "connections, 64 clients", "1/s", true, true),
    measure(
        "rate_64_cpu",
        "connections, 64 clients: CPU",
        "us each",
        false,
        false,
    ),
    measure(
        "trip_p50",
        "one byte there and back, p50",
        "us",
        false,
        true,
    ),
    measure(
        "trip_p99",
        "one byte there and back, p99",
        "us",
        false,
        false,
    ),
    measure(
        "busy_p50",
        "new one beside 4 streams, p50",
        "us",
        false,
        false,
    ),
    measure(
        "busy_p99",
        "new one beside 4 streams, p99",
        "us",
        false,
        true,
    ),
    measure("udp_small", "64-byte datagrams", "1/s", true, true),
    measure(
        "udp_small_cpu",
        "64-byte datagrams: CPU",
        "us each",
        false,
        false,
    ),
    measure(
        "udp_small_back",
        "64-byte datagrams: back",
        "%",
        true,
        false,
    ),
    measure("udp_large", "1,400-byte datagrams", "1/s", true, false),
    measure(
        "udp_large_cpu",
        "1,400-byte datagrams: CPU",
        "us each",
        false,
        false,
    ),
    measure(
        "udp_large_back",
        "1,400-byte datagrams: back",
        "%",
        true,
        false,
    ),
    measure("udp_eight", "64-byte, 8 clients", "1/s", true, false),
    measure(
        "udp_eight_cpu",
        "64-byte, 8 clients: CPU",
        "us each",
        false,
        false,
    ),
    measure(
        "udp_eight_back",
        "64-byte, 8 clients: back",
        "%",
        true,
        false,
    ),
    measure(
        "udp_trip_p50",
        "a datagram there and back, p50",
        "us",
        false,
        true,
    ),
    measure(
        "udp_trip_p99",
        "a datagram there and back, p99",
        "us",
        false,
        false,
    ),
    measure("idle_memory", "1,000 idle: memory", "kB each", false, true),
    measure("idle_threads", "1,000 idle: threads", "each", false, false),
    measure(
        "idle_descriptors",
        "1,000 idle: descriptors",
        "each",
        false,
        false,
    ),
    measure("most", "as many idle as fit", "", true, false),
    measure(
        "most_memory",
        "as many as fit: memory",
        "kB each",
        false,
        false,
    ),
    measure("most_new", "as many as fit: a new one", "ms", false, false),
    measure("rules_look", "rules unchanged: a look", "us", false, false),
    measure(
        "rules_addresses",
        "10,000 addresses: a verdict",
        "us",
        false,
        false,
    ),
    measure("rules_names", "10,000 names: a verdict", "us", false, false),
];

const fn measure(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    more_is_better: bool,
    plotted: bool,
) -> Measure {
    Measure {
        key,
        title,
        unit,
        more_is_better,
        plotted,
    }
}

#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(&'static str, Contender), Vec<f64>>,
    out: Vec<Contender>,
    /// Who was left out and why, to be told again at the end.
    pub(crate) troubles: Vec<String>,
    /// How many there were.
    pub(crate) rounds: usize,
    /// How long it all took.
    pub(crate) seconds: f64,
    /// CPU seconds that the machine's host gave to somebody else meanwhile.
    pub(crate) stolen: f64,
}

impl Results {
    /// Does a test, unless its contender is out. One that fails is out from then
    /// on: what it did before still counts.
    pub(crate) fn take(&mut self, contender: Contender, test: impl FnOnce() -> Outcome) {
        if self.is_out(contender) {
            return;
        }
        match test() {
            Ok(numbers) => {
                for (key, number) in numbers {
                    let samples = self.samples.entry((key, contender));
                    samples.or_default().push(number);
                }
            }
            Err(why) => self.leave_out(contender, &why),
        }
    }

    pub(crate) fn is_out(&self, contender: Contender) -> bool {
        self.out.contains(&contender)
    }

    pub(crate) fn leave_out(&mut self, contender: Contender, why: &str) {
        let trouble = format!("{} IS LEFT OUT: {why}", contender.name());
        eprintln!("{trouble}");
        self.troubles.push(trouble);
        self.out.push(contender);
    }

    /// One number for each round.
    pub(crate) fn samples(&self, key: &'static str, contender: Contender) -> Option<&[f64]> {
        let samples = self.samples.get(&(key, contender));
        samples.map(Vec::as_slice)
    }

    /// The median of the ratios of each round: what has slowed down one of the
    /// two has mostly slowed down the other as well.
    pub(crate) fn ratio(&self, key: &'static str, one: Contender, other: Contender) -> Option<f64> {
        let ones = self.samples(key, one)?.iter();
        let others = self.samples(key, other)?.iter();
        let ratios: Vec<f64> = ones.zip(others).map(|(one, other)| one / other).collect();
        Some(median(&ratios))
    }
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// From the least to the most, as a part of the median.
pub(crate) fn spread(samples: &[f64]) -> f64 {
    let least = samples.iter().copied().reduce(f64::min);
    let most = samples.iter().copied().reduce(f64::max);
    match (least, most) {
        (Some(least), Some(most)) => (most - least) / median(samples),
        _ => 0.0,
    }
}
