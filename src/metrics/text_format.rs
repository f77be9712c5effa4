//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// What the numbers of a metric mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts of durations, by their length.
    Histogram,
}

/// A page of metrics while it is written.
#[derive(Debug, Default)]
pub(crate) struct TextFormat {
    text: String,
}

/// A name and a value of a label. Both are words of this program: then no text of a client can be
/// in the page, and nothing has to be escaped.
pub(crate) type Label = (&'static str, &'static str);

impl TextFormat {
    /// Begins a metric.
    pub(crate) fn metric(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
    ) -> Samples<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail, here and below.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Samples {
            text: &mut self.text,
            name,
        }
    }

    /// The whole page.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// The lines of one metric.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// A line with these labels.
    pub(crate) fn add(&mut self, labels: &[Label], value: impl Display) {
        self.add_to("", labels, value);
    }

    /// A line of a histogram, whose name ends in `suffix`.
    pub(crate) fn add_to(&mut self, suffix: &str, labels: &[Label], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (index, (name, label)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"{label}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l20_a_metric_has_its_type_and_a_line_for_each_combination_of_labels() {
        let mut page = TextFormat::default();
        let mut samples = page.metric("a_total", Kind::Counter, "All a.");
        samples.add(&[("b", "c")], 1);
        samples.add(&[("b", "d"), ("e", "f")], u64::MAX);
        let mut samples = page.metric("g", Kind::Gauge, "One g.");
        samples.add(&[], 0.5);
        let expected = "# HELP a_total All a.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
                        a_total{b=\"d\",e=\"f\"} 18446744073709551615\n\
                        # HELP g One g.\n# TYPE g gauge\ng 0.5\n";
        assert_eq!(page.finish(), expected);
    }
}
