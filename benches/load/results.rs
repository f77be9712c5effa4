//! The metrics, and the samples of all rounds.

use std::collections::BTreeMap;

use crate::contender::Contender;
use crate::statistics::median;

/// The samples of one test by the key of their metric, or the reason of its failure.
pub(crate) type TestResult = Result<Vec<(&'static str, f64)>, String>;

/// A quantity that a test measures.
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    /// Does `bench.svg` show it?
    pub(crate) plotted: bool,
}

pub(crate) const METRICS: [Metric; 36] = [
    metric("down", "one stream, down", "Gbit/s", true, true),
    metric("down_cpu", "one stream, down: CPU", "s/GB", false, true),
    metric("up", "one stream, up", "Gbit/s", true, true),
    metric("up_cpu", "one stream, up: CPU", "s/GB", false, false),
    metric("four", "four streams, down", "Gbit/s", true, true),
    metric("four_cpu", "four streams, down: CPU", "s/GB", false, false),
    metric("rate_1", "connections, 1 client", "1/s", true, false),
    metric(
        "rate_1_cpu",
        "connections, 1 client: CPU",
        "us each",
        false,
        false,
    ),
    metric("rate_8", "connections, 8 clients", "1/s", true, true),
    metric(
        "rate_8_cpu",
        "connections, 8 clients: CPU",
        "us each",
        false,
        true,
    ),
    metric("rate_64", "connections, 64 clients", "1/s", true, true),
    metric(
        "rate_64_cpu",
        "connections, 64 clients: CPU",
        "us each",
        false,
        false,
    ),
    metric(
        "trip_p50",
        "one byte there and back, p50",
        "us",
        false,
        true,
    ),
    metric(
        "trip_p99",
        "one byte there and back, p99",
        "us",
        false,
        false,
    ),
    metric(
        "busy_p50",
        "new one beside 4 streams, p50",
        "us",
        false,
        false,
    ),
    metric(
        "busy_p99",
        "new one beside 4 streams, p99",
        "us",
        false,
        true,
    ),
    metric("udp_small", "64-byte datagrams", "1/s", true, true),
    metric(
        "udp_small_cpu",
        "64-byte datagrams: CPU",
        "us each",
        false,
        false,
    ),
    metric(
        "udp_small_back",
        "64-byte datagrams: back",
        "%",
        true,
        false,
    ),
    metric("udp_large", "1,400-byte datagrams", "1/s", true, false),
    metric(
        "udp_large_cpu",
        "1,400-byte datagrams: CPU",
        "us each",
        false,
        false,
    ),
    metric(
        "udp_large_back",
        "1,400-byte datagrams: back",
        "%",
        true,
        false,
    ),
    metric("udp_eight", "64-byte, 8 clients", "1/s", true, false),
    metric(
        "udp_eight_cpu",
        "64-byte, 8 clients: CPU",
        "us each",
        false,
        false,
    ),
    metric(
        "udp_eight_back",
        "64-byte, 8 clients: back",
        "%",
        true,
        false,
    ),
    metric(
        "udp_trip_p50",
        "a datagram there and back, p50",
        "us",
        false,
        true,
    ),
    metric(
        "udp_trip_p99",
        "a datagram there and back, p99",
        "us",
        false,
        false,
    ),
    metric("idle_memory", "1,000 idle: memory", "kB each", false, true),
    metric("idle_threads", "1,000 idle: threads", "each", false, false),
    metric(
        "idle_descriptors",
        "1,000 idle: descriptors",
        "each",
        false,
        false,
    ),
    metric("most", "as many idle as fit", "", true, false),
    metric(
        "most_memory",
        "as many as fit: memory",
        "kB each",
        false,
        false,
    ),
    metric("most_new", "as many as fit: a new one", "ms", false, false),
    metric("rules_check", "rules unchanged: check", "us", false, false),
    metric(
        "rules_addresses",
        "10,000 addresses: evaluation",
        "us",
        false,
        false,
    ),
    metric(
        "rules_names",
        "10,000 names: evaluation",
        "us",
        false,
        false,
    ),
];

const fn metric(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    more_is_better: bool,
    plotted: bool,
) -> Metric {
    Metric {
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
    excluded: Vec<Contender>,
    /// The message for each excluded contender, printed again at the end.
    pub(crate) exclusions: Vec<String>,
    /// The number of rounds.
    pub(crate) rounds: usize,
    /// The duration of the whole run.
    pub(crate) seconds: f64,
    /// The steal time during the run, see [`crate::machine::steal_time`].
    pub(crate) steal_seconds: f64,
}

impl Results {
    /// Runs a test unless its contender is excluded. A failed test excludes its
    /// contender from all later tests; earlier samples still count.
    pub(crate) fn record(&mut self, contender: Contender, test: impl FnOnce() -> TestResult) {
        if self.is_excluded(contender) {
            return;
        }
        match test() {
            Ok(numbers) => {
                for (key, number) in numbers {
                    let samples = self.samples.entry((key, contender));
                    samples.or_default().push(number);
                }
            }
            Err(reason) => self.exclude(contender, &reason),
        }
    }

    pub(crate) fn is_excluded(&self, contender: Contender) -> bool {
        self.excluded.contains(&contender)
    }

    pub(crate) fn exclude(&mut self, contender: Contender, reason: &str) {
        let exclusion = format!("{} IS LEFT OUT: {reason}", contender.name());
        eprintln!("{exclusion}");
        self.exclusions.push(exclusion);
        self.excluded.push(contender);
    }

    /// One sample for each round.
    pub(crate) fn samples(&self, key: &'static str, contender: Contender) -> Option<&[f64]> {
        let samples = self.samples.get(&(key, contender));
        samples.map(Vec::as_slice)
    }

    /// The median of the ratios of each round. Other load on the machine mostly slows
    /// down both contenders in the same round, so it cancels out.
    pub(crate) fn ratio(
        &self,
        key: &'static str,
        numerator: Contender,
        denominator: Contender,
    ) -> Option<f64> {
        let numerators = self.samples(key, numerator)?.iter();
        let denominators = self.samples(key, denominator)?.iter();
        let pairs = numerators.zip(denominators);
        let ratios: Vec<f64> = pairs
            .map(|(numerator, denominator)| numerator / denominator)
            .collect();
        Some(median(&ratios))
    }
}
