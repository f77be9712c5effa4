//! The medians as a bar chart: an SVG file for light and dark pages.

use std::fmt::Write;

use crate::contender::Contender;
use crate::report::format_number;
use crate::results::{METRICS, Metric, Results};
use crate::statistics::median;

/// Two panels side by side; all lengths are in pixels.
const WIDTH: usize = 820;
const PANEL_WIDTH: usize = 420;
const LINE_HEIGHT: usize = 19;
/// The left end of the bars, to the right of the names, and their maximum length.
const BAR_LEFT: usize = 90;
const MAX_BAR_LENGTH: f64 = 230.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.small { fill: #59636e }
.name { text-anchor: end }
.bar { fill: #b4bcc6 }
.direct { fill: none; stroke: #8c959f }
.ours { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .small { fill: #9198a1 }
  .bar { fill: #545d68 }
  .direct { fill: none; stroke: #768390 }
  .ours { fill: #3fb950 }
}";

pub(crate) fn svg(results: &Results, contenders: &[Contender]) -> String {
    let panel = LINE_HEIGHT * (contenders.len() + 2);
    let plotted: Vec<&Metric> = METRICS.iter().filter(|metric| metric.plotted).collect();
    let below = plotted.len().div_ceil(2) * panel;
    let height = below + 2 * LINE_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>threadsocks and other SOCKS servers, measured side by side</title>\n\
         <style>{STYLE}</style>\n"
    );
    for (number, metric) in plotted.into_iter().enumerate() {
        let (left, top) = (number % 2 * PANEL_WIDTH, number / 2 * panel);
        let bars = bars(metric, results, contenders);
        let _ = write!(
            svg,
            "<g transform=\"translate({left},{top})\">\n{bars}</g>\n"
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" y=\"{}\">{}</text>",
        below + LINE_HEIGHT,
        circumstances(results, contenders)
    );
    svg + "</svg>\n"
}

/// The caption: rounds, cores and versions, without which the numbers cannot be
/// interpreted.
fn circumstances(results: &Results, contenders: &[Contender]) -> String {
    let versions = contenders
        .iter()
        .map(|contender| (contender.name(), contender.version()));
    let known = versions.filter(|(_, version)| !version.is_empty());
    let known: Vec<String> = known
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Medians of {} rounds on loopback, {cores} cores. plain: std::io::copy. {}.",
        results.rounds,
        known.join(", ")
    )
}

/// The panel of one metric: a title, and a bar for each contender.
fn bars(metric: &Metric, results: &Results, contenders: &[Contender]) -> String {
    let numbers: Vec<(Contender, f64)> = contenders
        .iter()
        .filter_map(|contender| {
            let samples = results.samples(metric.key, *contender)?;
            Some((*contender, median(samples)))
        })
        .collect();
    let most = numbers
        .iter()
        .map(|(_, number)| *number)
        .fold(0.0, f64::max);
    let better = match metric.more_is_better {
        true => "more is better",
        false => "less is better",
    };
    let mut bars = format!(
        "<text y=\"{LINE_HEIGHT}\"><tspan class=\"title\">{}</tspan> \
         <tspan class=\"small\">{}, {better}</tspan></text>\n",
        metric.title, metric.unit
    );
    for (index, (contender, number)) in numbers.into_iter().enumerate() {
        let top = LINE_HEIGHT * (index + 1) + 7;
        let length = (MAX_BAR_LENGTH * number / most).max(1.0);
        let class = match contender {
            Contender::Threadsocks => "bar ours",
            Contender::Direct => "bar direct",
            _ => "bar",
        };
        let _ = writeln!(
            bars,
            "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>\
             <rect class=\"{class}\" x=\"{BAR_LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"13\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{}\">{}</text>",
            BAR_LEFT - 6,
            top + 11,
            contender.name(),
            BAR_LEFT as f64 + length + 6.0,
            top + 11,
            format_number(number)
        );
    }
    bars
}
