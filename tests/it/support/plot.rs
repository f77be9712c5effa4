//! Numbers over time as curves, in an SVG for light and dark pages.

use std::fmt::Write;

/// Panels two by two; all lengths in pixels.
const WIDTH: usize = 820;
const COLUMN: usize = 420;
const ROW: usize = 190;
const LINE: usize = 19;
/// A curve's own room in its panel, below the title.
const LONG: f64 = 330.0;
const HIGH: f64 = 120.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 34.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.small { fill: #59636e }
.scale { fill: #59636e; text-anchor: end }
.axis { fill: none; stroke: #b4bcc6 }
.curve { fill: none; stroke: #1a7f37; stroke-width: 1.5; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .small, .scale { fill: #9198a1 }
  .axis { stroke: #545d68 }
  .curve { stroke: #3fb950 }
}";

/// What is shown over time, from nothing upwards.
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Seconds, and what there was then.
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) fn svg(title: &str, circumstances: &str, curves: &[Curve]) -> String {
    let below = curves.len().div_ceil(2) * ROW;
    let height = below + 2 * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n"
    );
    for (number, curve) in curves.iter().enumerate() {
        let (left, top) = (number % 2 * COLUMN, number / 2 * ROW);
        let drawn = draw(curve);
        let _ = write!(
            svg,
            "<g transform=\"translate({left},{top})\">\n{drawn}</g>\n"
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" y=\"{}\">{circumstances}</text>",
        below + LINE
    );
    svg + "</svg>\n"
}

fn draw(curve: &Curve) -> String {
    let seconds = curve.points.last().map_or(1.0, |(at, _)| at.max(1.0));
    let tallest = curve.points.iter().map(|(_, number)| *number);
    let full = round_up(tallest.fold(1.0, f64::max));
    let place = |(at, number): &(f64, f64)| {
        let x = LEFT + LONG * at / seconds;
        let y = TOP + HIGH * (1.0 - number / full);
        format!("{x:.1},{y:.1}")
    };
    let points: Vec<String> = curve.points.iter().map(place).collect();
    let (bottom, right) = (TOP + HIGH, LEFT + LONG);
    let Curve { title, unit, .. } = curve;
    format!(
        "<text y=\"{LINE}\"><tspan class=\"title\">{title}</tspan> \
         <tspan class=\"small\">{unit}</tspan></text>\n\
         <path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\n\
         <text class=\"scale\" x=\"{scale}\" y=\"{upper}\">{full}</text>\n\
         <text class=\"scale\" x=\"{scale}\" y=\"{bottom}\">0</text>\n\
         <text class=\"scale\" x=\"{right}\" y=\"{time}\">{seconds:.0} s</text>\n\
         <polyline class=\"curve\" points=\"{}\"/>\n",
        points.join(" "),
        scale = LEFT - 6.0,
        upper = TOP + 10.0,
        time = bottom + 16.0,
    )
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(number: f64) -> f64 {
    let power = 10f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= number)
        .unwrap_or(number)
}
