//! Plots as inline SVG: no script, no font, no network.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const TEXT: &str = "font-family=\"system-ui,sans-serif\" font-size=\"12\" fill=\"currentColor\"";

/// A score with its interval, both in 0 to 1.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Name at the left.
    pub label: String,
    /// The estimate.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Whether to draw it as one of the run's own results.
    pub emphasis: bool,
}

/// A named point with an interval on its vertical axis.
#[derive(Debug, Clone)]
pub struct Point {
    /// Name beside the point.
    pub label: String,
    /// Horizontal value.
    pub x: f64,
    /// Vertical value and its bounds, in 0 to 1.
    pub y: (f64, f64, f64),
}

/// Text that is safe inside XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(height: f64, title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>", escape(title))
}

/// Round numbers that cover a span in about `count` steps.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let raw = span / count as f64;
    let scale = 10_f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * scale).find(|step| *step >= raw).unwrap_or(scale);
    let mut tick = (low / step).ceil() * step;
    let mut found = Vec::new();
    while tick <= high + step * 1e-9 && found.len() < 50 {
        found.push(tick);
        tick += step;
    }
    found
}

fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.to_owned() }
}

/// A line across the plot, between its margins, with its value in front.
fn grid_line(svg: &mut String, [left, right]: [f64; 2], at: f64, label: &str) {
    let _ = write!(
        svg,
        "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" {TEXT}>{label}</text>",
        WIDTH - right,
        left - 6.0,
        at + 4.0,
    );
}

/// A value of the horizontal axis.
fn label_below(svg: &mut String, [x, y]: [f64; 2], label: &str) {
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" {TEXT}>{label}</text>");
}

/// A line over steps: the loss curve. Points are `(step, value)`; a running mean is drawn over the raw values.
pub fn line_plot(title: &str, points: &[(f64, f64)]) -> String {
    let (left, right, top, bottom, height) = (56.0, 16.0, 12.0, 36.0, 260.0);
    let mut svg = open(height, title);
    if points.len() < 2 {
        let _ = write!(svg, "<text x=\"20\" y=\"40\" {TEXT}>too few steps to plot</text></svg>");
        return svg;
    }
    let fold = |pick: fn(&(f64, f64)) -> f64| {
        points.iter().map(pick).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (first, last) = fold(|point| point.0);
    let (_, highest) = fold(|point| point.1);
    let x = |value: f64| left + (value - first) / (last - first).max(1e-9) * (WIDTH - left - right);
    let y = |value: f64| height - bottom - value / highest.max(1e-9) * (height - top - bottom);
    for tick in ticks(0.0, highest, 5) {
        grid_line(&mut svg, [left, right], y(tick), &number(tick));
    }
    for tick in ticks(first, last, 8) {
        label_below(&mut svg, [x(tick), height - bottom + 18.0], &number(tick));
    }
    let path = |values: &mut dyn Iterator<Item = (f64, f64)>| {
        values.map(|(step, value)| format!("{:.1},{:.1}", x(step), y(value))).collect::<Vec<_>>().join(" ")
    };
    let window = (points.len() / 20).max(1);
    let mut smooth = points.iter().enumerate().map(|(index, point)| {
        let part = &points[index.saturating_sub(window)..(index + window + 1).min(points.len())];
        (point.0, part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64)
    });
    let _ = write!(svg, "<polyline class=\"faint\" points=\"{}\"/>", path(&mut points.iter().copied()));
    let _ = write!(svg, "<polyline class=\"line\" points=\"{}\"/>", path(&mut smooth));
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" {TEXT}>step</text></svg>",
        WIDTH - right,
        height - 4.0
    );
    svg
}

/// A named line over steps.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Steps and values, in order.
    pub points: Vec<(f64, f64)>,
}

/// Several lines over steps, with a legend below.
pub fn series_plot(title: &str, series: &[Series]) -> String {
    const COLUMNS: usize = 3;
    let (left, right, top, bottom) = (56.0, 16.0, 12.0, 36.0);
    let rows = series.len().div_ceil(COLUMNS) as f64;
    let (frame, height) = (260.0, 260.0 + 18.0 * rows);
    let mut svg = open(height, title);
    let points = || series.iter().flat_map(|series| series.points.iter());
    let (first, last) = points().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.0), b.max(p.0)));
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    if first >= last {
        let _ = write!(svg, "<text x=\"20\" y=\"40\" {TEXT}>too few steps to plot</text></svg>");
        return svg;
    }
    let x = |value: f64| left + (value - first) / (last - first) * (WIDTH - left - right);
    let y = |value: f64| frame - bottom - value / highest.max(1e-12) * (frame - top - bottom);
    for tick in ticks(0.0, highest, 5) {
        let label = if highest < 0.01 { format!("{tick:.1e}") } else { number(tick) };
        grid_line(&mut svg, [left, right], y(tick), &label);
    }
    for tick in ticks(first, last, 8) {
        label_below(&mut svg, [x(tick), frame - bottom + 18.0], &number(tick));
    }
    for (index, series) in series.iter().enumerate() {
        let path: Vec<String> = series.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        // The golden angle keeps neighbours apart.
        let colour = format!("hsl({:.0} 55% 45%)", (137.5 * index as f64 + 100.0) % 360.0);
        let place = (left + 210.0 * (index % COLUMNS) as f64, frame + 4.0 + 18.0 * (index / COLUMNS) as f64);
        let _ = write!(
            svg,
            "<polyline points=\"{}\" style=\"stroke:{colour};stroke-width:2\"/><line x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" style=\"stroke:{colour};stroke-width:3\"/><text x=\"{}\" y=\"{}\" {TEXT}>{}</text>",
            path.join(" "),
            place.0,
            place.0 + 16.0,
            place.1,
            place.1,
            place.0 + 22.0,
            place.1 + 4.0,
            escape(&series.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Scores with their intervals, one a line.
pub fn interval_plot(title: &str, intervals: &[Interval]) -> String {
    let (left, right, row) = (210.0, 60.0, 28.0);
    let height = 34.0 + row * intervals.len() as f64;
    let mut svg = open(height, title);
    let x = |value: f64| left + value.clamp(0.0, 1.0) * (WIDTH - left - right);
    for tick in ticks(0.0, 1.0, 5) {
        let _ = write!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"6\" y2=\"{1}\" class=\"grid\"/><text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\" {TEXT}>{3:.0} %</text>",
            x(tick),
            height - 24.0,
            height - 8.0,
            tick * 100.0
        );
    }
    for (index, interval) in intervals.iter().enumerate() {
        let at = 20.0 + row * index as f64;
        let class = if interval.emphasis { "mark strong" } else { "mark" };
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" {TEXT}>{}</text><line class=\"{class}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><circle class=\"{class}\" cx=\"{:.1}\" cy=\"{at:.1}\" r=\"5\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" {TEXT}>{:.1} %</text>",
            left - 10.0,
            at + 4.0,
            escape(&interval.label),
            x(interval.low),
            x(interval.high),
            x(interval.value),
            WIDTH - 4.0,
            at + 4.0,
            interval.value * 100.0
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Two counts for each span of lengths, one on top of the other.
#[derive(Debug, Clone)]
pub struct Bars {
    /// Lengths in a span; the first begins at 0.
    pub step: usize,
    /// The lower part of each bar.
    pub below: Vec<usize>,
    /// The upper part.
    pub above: Vec<usize>,
    /// What the parts count.
    pub names: [&'static str; 2],
    /// What lengths are counted in.
    pub unit: &'static str,
}

/// Counts by length.
pub fn bar_plot(title: &str, bars: &Bars) -> String {
    let (left, right, top, bottom, height) = (56.0, 16.0, 12.0, 54.0, 220.0);
    let mut svg = open(height, title);
    let highest = bars.below.iter().zip(&bars.above).map(|(below, above)| below + above).max().unwrap_or(0).max(1);
    let width = (WIDTH - left - right) / bars.below.len().max(1) as f64;
    let y = |count: f64| height - bottom - count / highest as f64 * (height - top - bottom);
    for tick in ticks(0.0, highest as f64, 4).into_iter().filter(|tick| tick.fract() == 0.0) {
        grid_line(&mut svg, [left, right], y(tick), &number(tick));
    }
    for (at, (&below, &above)) in bars.below.iter().zip(&bars.above).enumerate() {
        let x = left + width * at as f64;
        for (class, from, count) in [("strong", 0, below), ("other", below, above)] {
            let (low, high) = (y(from as f64), y((from + count) as f64));
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x + 1.0,
                (width - 2.0).max(0.5),
                low - high
            );
        }
    }
    for tick in ticks(0.0, (bars.below.len() * bars.step) as f64, 8) {
        label_below(&mut svg, [left + tick / bars.step as f64 * width, height - bottom + 16.0], &number(tick));
    }
    for (at, (class, name)) in ["strong", "other"].into_iter().zip(bars.names).enumerate() {
        let x = left + 110.0 * at as f64;
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\"/><text x=\"{}\" y=\"{}\" {TEXT}>{name}</text>",
            height - 22.0,
            x + 18.0,
            height - 12.0
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" {TEXT}>{}</text></svg>",
        WIDTH - right,
        height - 12.0,
        bars.unit
    );
    svg
}

/// Quality against size, one point a file.
pub fn scatter_plot(title: &str, unit: &str, points: &[Point]) -> String {
    let (left, right, top, bottom, height) = (56.0, 90.0, 12.0, 40.0, 280.0);
    let mut svg = open(height, title);
    let widest = points.iter().map(|point| point.x).fold(0.0, f64::max) * 1.08;
    if widest <= 0.0 {
        let _ = write!(svg, "<text x=\"20\" y=\"40\" {TEXT}>nothing to plot</text></svg>");
        return svg;
    }
    let x = |value: f64| left + value / widest * (WIDTH - left - right);
    let y = |value: f64| height - bottom - value.clamp(0.0, 1.0) * (height - top - bottom);
    for tick in ticks(0.0, 1.0, 5) {
        grid_line(&mut svg, [left, right], y(tick), &format!("{:.0} %", tick * 100.0));
    }
    for tick in ticks(0.0, widest, 6) {
        label_below(&mut svg, [x(tick), height - bottom + 20.0], &format!("{} {unit}", number(tick)));
    }
    for point in points {
        let (value, low, high) = point.y;
        let at = x(point.x);
        let _ = write!(
            svg,
            "<line class=\"mark strong\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/><circle class=\"mark strong\" cx=\"{at:.1}\" cy=\"{:.1}\" r=\"5\"/><text x=\"{:.1}\" y=\"{:.1}\" {TEXT}>{}</text>",
            y(low),
            y(high),
            y(value),
            at + 9.0,
            y(value) - 6.0,
            escape(&point.label)
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(0.0, 143.0, 6), [0.0, 50.0, 100.0]);
        assert_eq!(number(0.30), "0.3");
    }

    #[test]
    fn labels_are_escaped_and_plots_close() {
        let interval = Interval { label: "<base> & co".into(), value: 0.5, low: 0.4, high: 0.6, emphasis: false };
        let point = Point { label: "Q8_0".into(), x: 144.0, y: (0.9, 0.86, 0.93) };
        for svg in [
            interval_plot("scores", &[interval]),
            line_plot("loss", &[(1.0, 2.0), (2.0, 1.0), (3.0, 0.5)]),
            line_plot("loss", &[]),
            series_plot("losses", &[Series { name: "<base>".into(), points: vec![(1.0, 2.0), (5.0, 1e-4)] }]),
            series_plot("losses", &[]),
            scatter_plot("sizes", "MB", &[point]),
            bar_plot(
                "lengths",
                &Bars { step: 2, below: vec![3, 0], above: vec![0, 1], names: ["in", "out"], unit: "words" },
            ),
            bar_plot("lengths", &Bars { step: 1, below: vec![], above: vec![], names: ["in", "out"], unit: "words" }),
            scatter_plot("sizes", "MB", &[]),
        ] {
            assert!(
                svg.starts_with("<svg") && svg.ends_with("</svg>") && !svg.contains("<base>") && !svg.contains("NaN")
            );
        }
    }
}
