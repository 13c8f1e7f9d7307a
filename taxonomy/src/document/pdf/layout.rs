//! From places on a page to lines, paragraphs, lists and headings.

use std::collections::{BTreeMap, HashMap};

use super::content::Run;
use crate::document::ExtractError;
use crate::document::blocks::Blocks;

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub text: String,
    pub x: f64,
    pub y: f64,
    pub end: f64,
    pub size: f64,
    pub bold: bool,
}

/// The lines of a page in the order that the page shows them.
pub(super) fn lines(runs: Vec<Run>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for run in runs {
        let size = run.size.max(1.0);
        if let Some(line) = lines.last_mut() {
            let same = (run.y - line.y).abs() < 0.4 * size.max(line.size) && run.x > line.end - 0.6 * size;
            if same {
                let apart = run.x - line.end > 0.15 * size;
                if apart && !line.text.ends_with(' ') && !run.text.starts_with(' ') {
                    line.text.push(' ');
                }
                line.text.push_str(&run.text);
                line.end = run.end.max(line.end);
                // A raised or lowered figure does not decide the height of its line.
                if run.size > line.size {
                    (line.size, line.y) = (run.size, run.y);
                }
                line.bold &= run.bold || run.text.trim().is_empty();
                continue;
            }
        }
        lines.push(Line { text: run.text, x: run.x, y: run.y, end: run.end, size: run.size, bold: run.bold });
    }
    for line in &mut lines {
        let text: String = line.text.chars().flat_map(spelled_out).collect();
        line.text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    lines.retain(|line| !line.text.is_empty());
    lines
}

/// Ligatures as letters.
fn spelled_out(c: char) -> impl Iterator<Item = char> {
    let text = match c {
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' | 'ﬆ' => "st",
        '\u{ad}' => "-",
        _ => "",
    };
    let own = text.is_empty().then_some(c);
    text.chars().chain(own)
}

/// What a paragraph under way is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Item,
    Heading(usize),
}

/// Writes all pages as blocks.
pub(super) fn write(mut pages: Vec<Vec<Line>>, blocks: &mut Blocks) -> Result<(), ExtractError> {
    remove_running_lines(&mut pages);
    let styles = Styles::of(&pages);
    let mut writer = Writer { blocks, text: String::new(), kind: Kind::Text };
    let mut previous: Option<Line> = None;
    for page in pages {
        let mut first = true;
        for line in page {
            let heading = styles.heading(&line, previous.as_ref().filter(|_| !first));
            let kind = match (heading, item(&line.text)) {
                (Some(level), _) => Kind::Heading(level),
                (None, Some(_)) => Kind::Item,
                (None, None) => Kind::Text,
            };
            let goes_on = previous.as_ref().is_some_and(|previous| {
                if first { continues_over_page(previous, &line) } else { styles.continues(previous, &line) }
            });
            let joins = match (writer.kind, kind) {
                (Kind::Heading(a), Kind::Heading(b)) => a == b && goes_on,
                (Kind::Text | Kind::Item, Kind::Text) => goes_on,
                _ => false,
            };
            if joins {
                writer.join(&line.text);
            } else {
                writer.begin(
                    kind,
                    item(&line.text).filter(|_| kind == Kind::Item).unwrap_or_else(|| line.text.clone()),
                )?;
            }
            previous = Some(line);
            first = false;
        }
    }
    writer.end()
}

struct Writer<'a> {
    blocks: &'a mut Blocks,
    text: String,
    kind: Kind,
}

impl Writer<'_> {
    /// Begins a paragraph; items that follow each other are one list.
    fn begin(&mut self, kind: Kind, text: String) -> Result<(), ExtractError> {
        if kind == Kind::Item && self.kind == Kind::Item {
            self.text.push('\n');
            self.text.push_str(&text);
            return Ok(());
        }
        self.end()?;
        (self.kind, self.text) = (kind, text);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ExtractError> {
        let text = std::mem::take(&mut self.text);
        match self.kind {
            Kind::Heading(level) => self.blocks.heading(level, &text),
            Kind::Item => self.blocks.raw(&text),
            Kind::Text => self.blocks.paragraph(&text),
        }
    }

    /// Goes on with the next line; a word that is broken by a hyphen becomes whole.
    fn join(&mut self, line: &str) {
        let mut letters = self.text.chars().rev();
        let broken = letters.next() == Some('-')
            && letters.next().is_some_and(char::is_alphabetic)
            && line.chars().next().is_some_and(char::is_lowercase);
        if broken {
            self.text.pop();
        } else {
            self.text.push(' ');
        }
        self.text.push_str(line);
    }
}

/// The line as an item of a list, if it begins with a bullet.
fn item(text: &str) -> Option<String> {
    let rest = text.strip_prefix(['•', '‣', '▪', '■', '●', '○', '◦', '–', '·', '✓', '\u{f0b7}', '\u{f0a7}'])?;
    rest.starts_with(' ').then(|| format!("- {}", rest.trim()))
}

fn ends_sentence(text: &str) -> bool {
    text.ends_with(['.', '!', '?', ':', '"', '”', '’', ')'])
}

fn continues_over_page(previous: &Line, line: &Line) -> bool {
    (previous.size - line.size).abs() < 0.5
        && !ends_sentence(&previous.text)
        && line.text.chars().next().is_some_and(char::is_lowercase)
}

/// Sizes of running text and of headings.
struct Styles {
    body: i64,
    /// Heights of headings in half points, largest first.
    headings: Vec<i64>,
    /// The distance of lines of running text, in parts of their size.
    leading: f64,
    /// Where most lines of running text end.
    right: f64,
}

/// Height in half points.
fn half_points(size: f64) -> i64 {
    (2.0 * size).round() as i64
}

impl Styles {
    fn of(pages: &[Vec<Line>]) -> Self {
        let mut letters: BTreeMap<i64, usize> = BTreeMap::new();
        for line in pages.iter().flatten() {
            *letters.entry(half_points(line.size)).or_default() += line.text.chars().count();
        }
        let body = letters.iter().max_by_key(|(_, count)| **count).map_or(0, |(size, _)| *size);
        let total: usize = letters.values().sum();
        // A size that much of the text has is another running text.
        let larger = |size: i64, count: usize| size * 20 >= body * 23 && count * 5 <= total.max(1) * 2;
        let mut headings: Vec<i64> =
            letters.iter().filter(|(size, count)| larger(**size, **count)).map(|(size, _)| *size).collect();
        headings.reverse();
        let mut gaps: BTreeMap<i64, usize> = BTreeMap::new();
        let mut right = f64::MIN;
        for page in pages {
            for pair in page.windows(2) {
                let gap = pair[0].y - pair[1].y;
                if half_points(pair[0].size) == body && half_points(pair[1].size) == body && gap > 0.0 {
                    *gaps.entry((gap / pair[1].size.max(1.0) * 20.0).round() as i64).or_default() += 1;
                }
            }
            for line in page.iter().filter(|line| half_points(line.size) == body) {
                right = right.max(line.end);
            }
        }
        let usual = gaps.iter().max_by_key(|(gap, count)| (**count, -**gap)).map_or(1.2, |(gap, _)| *gap as f64 / 20.0);
        Self { body, headings, leading: usual.clamp(0.9, 2.5), right }
    }

    /// The level of a heading: larger than running text, or bold and alone on a short line.
    fn heading(&self, line: &Line, above: Option<&Line>) -> Option<usize> {
        /// Headings are short.
        const LONGEST: usize = 200;
        const LONGEST_BOLD: usize = 90;
        let letters = line.text.chars().count();
        if letters > LONGEST || !line.text.chars().any(char::is_alphabetic) {
            return None;
        }
        let size = half_points(line.size);
        if let Some(level) = self.headings.iter().position(|height| *height == size) {
            return Some((level + 1).min(6));
        }
        let alone = above.is_none_or(|above| {
            !above.bold
                && (above.y - line.y > 1.3 * self.leading * line.size
                    || ends_sentence(&above.text)
                    || above.size > line.size + 0.4)
        });
        let words = line.text.starts_with(char::is_alphanumeric) && !line.text.contains(['{', '}', '=', ';', '│']);
        let bold =
            line.bold && size == self.body && letters <= LONGEST_BOLD && words && !line.text.ends_with(['.', ',']);
        (bold && alone && item(&line.text).is_none()).then(|| (self.headings.len() + 1).min(6))
    }

    /// Whether a line goes on with the paragraph of the one above it.
    fn continues(&self, above: &Line, line: &Line) -> bool {
        let size = line.size.max(1.0);
        let gap = above.y - line.y;
        if (above.size - line.size).abs() > 0.75 || gap > 1.3 * self.leading.max(1.0) * size {
            return false;
        }
        if gap < -0.5 * size {
            // Up again: the next column.
            return !ends_sentence(&above.text);
        }
        // A last line that is short, before one that is set in, ends a paragraph.
        let short = above.end < self.right - 0.2 * (self.right - above.x).abs();
        let set_in = line.x > above.x + 0.8 * size;
        !(ends_sentence(&above.text) && (short || set_in))
    }
}

/// Takes out what stands first or last on most pages, page numbers aside: running heads and feet.
fn remove_running_lines(pages: &mut [Vec<Line>]) {
    /// Fewer pages tell nothing.
    const FEWEST: usize = 3;
    let filled = pages.iter().filter(|page| !page.is_empty()).count();
    if filled < FEWEST {
        return;
    }
    let key = |line: &Line| line.text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let edges = |page: &[Line]| {
        let mut order: Vec<usize> = (0..page.len()).collect();
        order.sort_by(|&a, &b| page[b].y.total_cmp(&page[a].y));
        let last = order.len().saturating_sub(1);
        [order.first().copied(), (last > 0).then(|| order[last])]
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    for page in pages.iter() {
        for index in edges(page).into_iter().flatten() {
            *seen.entry(key(&page[index])).or_default() += 1;
        }
    }
    for page in pages.iter_mut() {
        let mut gone: Vec<usize> = edges(page)
            .into_iter()
            .flatten()
            .filter(|&index| seen.get(&key(&page[index])).is_some_and(|count| count * 2 > filled && *count >= FEWEST))
            .collect();
        gone.sort_unstable();
        gone.dedup();
        for index in gone.into_iter().rev() {
            page.remove(index);
        }
    }
}
