//! Size against divergence, in the terminal and as SVG; divergence on a logarithmic axis.

use super::Compared;
use std::fmt::Write as _;

const COLUMNS: usize = 64;
const LINES: usize = 12;
/// Of the SVG.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;

/// Where points stand between 0 and 1, larger files at the right, larger divergence above.
struct Scale {
    bytes: [f64; 2],
    logarithm: [f64; 2],
}

impl Scale {
    fn new(rows: &[Compared]) -> Self {
        let span = |values: &dyn Fn(&Compared) -> f64| {
            let low = rows.iter().map(values).fold(f64::INFINITY, f64::min);
            let high = rows.iter().map(values).fold(f64::NEG_INFINITY, f64::max);
            let room = ((high - low) * 0.05).max(high.abs() * 0.01).max(1e-9);
            [low - room, high + room]
        };
        Self { bytes: span(&|row| row.bytes as f64), logarithm: span(&|row| logarithm(row.divergence.mean_kld.value)) }
    }

    fn place(&self, bytes: f64, kld: f64) -> (f64, f64) {
        let part = |value: f64, [low, high]: [f64; 2]| ((value - low) / (high - low)).clamp(0.0, 1.0);
        (part(bytes, self.bytes), part(logarithm(kld), self.logarithm))
    }
}

fn logarithm(kld: f64) -> f64 {
    kld.max(1e-9).log10()
}

/// A letter for each file, on the front a capital one.
fn letter(place: usize, row: &Compared) -> char {
    let letter = char::from(b'a' + (place % 26) as u8);
    if row.front { letter.to_ascii_uppercase() } else { letter }
}

/// The plot in characters, with a legend.
pub(super) fn in_text(rows: &[Compared]) -> String {
    let scale = Scale::new(rows);
    let mut grid = vec![vec![' '; COLUMNS]; LINES];
    for (place, row) in rows.iter().enumerate() {
        let (x, y) = scale.place(row.bytes as f64, row.divergence.mean_kld.value);
        let line = ((1.0 - y) * (LINES - 1) as f64).round() as usize;
        grid[line][(x * (COLUMNS - 1) as f64).round() as usize] = letter(place, row);
    }
    let mut text = String::from("mean divergence (logarithmic) against size; capitals are the front\n");
    for (line, cells) in grid.iter().enumerate() {
        let part = 1.0 - line as f64 / (LINES - 1) as f64;
        let value = 10_f64.powf(scale.logarithm[0] + part * (scale.logarithm[1] - scale.logarithm[0]));
        let label = if line % 4 == 0 || line + 1 == LINES { format!("{value:.2e}") } else { String::new() };
        let _ = writeln!(text, "{label:>9} |{}", cells.iter().collect::<String>().trim_end());
    }
    let _ = writeln!(text, "{:>9} +{}", "", "-".repeat(COLUMNS));
    let [low, high] = scale.bytes.map(|bytes| format!("{:.1} MB", bytes / 1e6));
    let _ = writeln!(text, "{:>10}{low}{high:>width$}", "", width = COLUMNS + 1 - low.len().min(COLUMNS));
    let names = rows.iter().enumerate().map(|(place, row)| format!("{} {}", letter(place, row), row.model));
    text + &names.collect::<Vec<_>>().join("\n")
}

/// The plot as a file of its own, with intervals; the front is joined.
pub(super) fn svg(rows: &[Compared]) -> String {
    let scale = Scale::new(rows);
    let at = |bytes: f64, kld: f64| {
        let (x, y) = scale.place(bytes, kld);
        (MARGIN + x * (WIDTH - 2.0 * MARGIN), HEIGHT - MARGIN - y * (HEIGHT - 2.0 * MARGIN))
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui,sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"{MARGIN}\" y=\"24\">mean divergence (nats, logarithmic) against size (MB); filled: the front</text>"
    );
    let [left, right, top, bottom] = [MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN];
    let _ = write!(svg, "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"gray\"/>");
    for power in scale.logarithm[0].ceil() as i32..=scale.logarithm[1].floor() as i32 {
        let (_, y) = at(0.0, 10_f64.powi(power));
        let _ = write!(
            svg,
            "<text x=\"8\" y=\"{y:.1}\">1e{power}</text><path d=\"M{left} {y:.1}H{right}\" stroke=\"lightgray\"/>"
        );
    }
    for (bytes, anchor) in scale.bytes.iter().zip([left, right - 40.0]) {
        let _ = write!(svg, "<text x=\"{anchor}\" y=\"{:.1}\">{:.1}</text>", bottom + 20.0, bytes / 1e6);
    }
    let mut front: Vec<&Compared> = rows.iter().filter(|row| row.front).collect();
    front.sort_by_key(|row| row.bytes);
    let points: Vec<String> = front
        .iter()
        .map(|row| at(row.bytes as f64, row.divergence.mean_kld.value))
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = write!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"steelblue\"/>", points.join(" "));
    for row in rows {
        let estimate = row.divergence.mean_kld;
        let (x, y) = at(row.bytes as f64, estimate.value);
        if let Some([low, high]) = estimate.interval {
            let ((_, below), (_, above)) = (at(row.bytes as f64, low), at(row.bytes as f64, high));
            let _ = write!(svg, "<path d=\"M{x:.1} {below:.1}V{above:.1}\" stroke=\"steelblue\"/>");
        }
        let fill = if row.front { "steelblue" } else { "white" };
        let name = row.model.replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"steelblue\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            x + 7.0,
            y - 5.0
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::super::tests::rows;
    use super::*;

    #[test]
    fn larger_files_stand_at_the_right_and_worse_ones_above() {
        insta::assert_snapshot!(in_text(&rows()));
    }

    #[test]
    fn the_drawing_has_every_file_and_joins_the_front() {
        let svg = svg(&rows());
        assert_eq!(svg.matches("<circle").count(), 3);
        assert_eq!(svg.matches("fill=\"steelblue\"").count(), 2);
        assert!(svg.ends_with("</svg>\n") && svg.contains("a.Q4_K_M.gguf"));
    }
}
