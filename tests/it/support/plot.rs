//! Draws numbers over time as curves, in an SVG for light and dark pages.

use std::fmt::Write;

/// Width of the picture, in pixels as all lengths here.
const WIDTH: usize = 820;

/// Distance between two panels; there are two in a row.
const PANEL_WIDTH: usize = 420;
const PANEL_HEIGHT: usize = 190;

/// Height of a line of text.
const LINE_HEIGHT: usize = 19;

/// Size and position of a curve in its panel, below the title and right of the scale.
const CURVE_WIDTH: f64 = 330.0;
const CURVE_HEIGHT: f64 = 120.0;
const CURVE_LEFT: f64 = 60.0;
const CURVE_TOP: f64 = 34.0;

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

/// One panel: numbers over time, on a scale that begins at 0.
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Time in seconds, and the number at that time.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The whole picture; `caption` stands below the panels.
pub(crate) fn svg(title: &str, caption: &str, curves: &[Curve]) -> String {
    let bottom = curves.len().div_ceil(2) * PANEL_HEIGHT;
    let height = bottom + 2 * LINE_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n"
    );
    for (number, curve) in curves.iter().enumerate() {
        let (left, top) = (number % 2 * PANEL_WIDTH, number / 2 * PANEL_HEIGHT);
        let panel = draw(curve);
        let _ = write!(
            svg,
            "<g transform=\"translate({left},{top})\">\n{panel}</g>\n"
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" y=\"{}\">{caption}</text>",
        bottom + LINE_HEIGHT
    );
    svg + "</svg>\n"
}

/// The SVG elements of one panel.
fn draw(curve: &Curve) -> String {
    let seconds = curve.points.last().map_or(1.0, |(time, _)| time.max(1.0));
    let numbers = curve.points.iter().map(|(_, number)| *number);
    let full_scale = round_up(numbers.fold(1.0, f64::max));
    let position = |(time, number): &(f64, f64)| {
        let x = CURVE_LEFT + CURVE_WIDTH * time / seconds;
        let y = CURVE_TOP + CURVE_HEIGHT * (1.0 - number / full_scale);
        format!("{x:.1},{y:.1}")
    };
    let points: Vec<String> = curve.points.iter().map(position).collect();
    let (bottom, right) = (CURVE_TOP + CURVE_HEIGHT, CURVE_LEFT + CURVE_WIDTH);
    let Curve { title, unit, .. } = curve;
    format!(
        "<text y=\"{LINE_HEIGHT}\"><tspan class=\"title\">{title}</tspan> \
         <tspan class=\"small\">{unit}</tspan></text>\n\
         <path class=\"axis\" d=\"M{CURVE_LEFT} {CURVE_TOP}V{bottom}H{right}\"/>\n\
         <text class=\"scale\" x=\"{scale}\" y=\"{upper}\">{full_scale}</text>\n\
         <text class=\"scale\" x=\"{scale}\" y=\"{bottom}\">0</text>\n\
         <text class=\"scale\" x=\"{right}\" y=\"{time}\">{seconds:.0} s</text>\n\
         <polyline class=\"curve\" points=\"{}\"/>\n",
        points.join(" "),
        scale = CURVE_LEFT - 6.0,
        upper = CURVE_TOP + 10.0,
        time = bottom + 16.0,
    )
}

/// Rounds up to the next of 1, 2, 5, 10, 20, 50 and so on, for the end of a scale.
fn round_up(number: f64) -> f64 {
    let power = 10f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= number)
        .unwrap_or(number)
}
