//! Cutting one block into pieces that fit.

use super::blocks::{Block, Kind};

/// A block, or a part of one, that is not cut further.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub text: String,
    /// Whether it is running text, whose last sentences may be repeated.
    pub tail: bool,
    pub first_line: usize,
    pub last_line: usize,
}

impl Piece {
    /// A piece that is not running text.
    fn new(text: String, first_line: usize, last_line: usize) -> Self {
        Self { text, tail: false, first_line, last_line }
    }
}

/// Cuts by the tokens that the caller counts.
pub(super) struct Cutter<'a> {
    pub max_tokens: usize,
    pub count_tokens: &'a dyn Fn(&str) -> usize,
}

impl Cutter<'_> {
    pub fn fits(&self, text: &str) -> bool {
        (self.count_tokens)(text) <= self.max_tokens
    }

    /// The block, whole where it fits.
    pub fn pieces(&self, block: &Block) -> Vec<Piece> {
        let tail = block.kind == Kind::Text;
        let whole = |text: String| Piece { text, tail, first_line: block.first_line, last_line: block.last_line };
        if self.fits(&block.text) {
            return vec![whole(block.text.clone())];
        }
        match block.kind {
            Kind::Text => self.gather(sentences(&block.text), " ").into_iter().map(whole).collect(),
            Kind::Lines => self.lines(block),
            Kind::Table => self.table(block).unwrap_or_else(|| self.lines(block)),
            Kind::Code => self.code(block).unwrap_or_else(|| self.lines(block)),
        }
    }

    /// Parts joined as long as they fit; a part that is too long by itself is cut at words.
    fn gather(&self, parts: Vec<&str>, separator: &str) -> Vec<String> {
        let mut result: Vec<String> = Vec::new();
        for part in parts {
            if let Some(last) = result.last_mut() {
                let joined = format!("{last}{separator}{part}");
                if self.fits(&joined) {
                    *last = joined;
                    continue;
                }
            }
            if self.fits(part) {
                result.push(part.to_owned());
            } else {
                result.append(&mut self.words(part));
            }
        }
        result
    }

    /// A word that is too long by itself stands alone.
    fn words(&self, text: &str) -> Vec<String> {
        let mut result: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            if let Some(last) = result.last_mut() {
                let joined = format!("{last} {word}");
                if self.fits(&joined) {
                    *last = joined;
                    continue;
                }
            }
            result.push(word.to_owned());
        }
        result
    }

    fn lines(&self, block: &Block) -> Vec<Piece> {
        let mut result: Vec<Piece> = Vec::new();
        for (number, line) in (block.first_line..).zip(block.text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            if let Some(last) = result.last_mut() {
                let joined = format!("{}\n{line}", last.text);
                if self.fits(&joined) {
                    *last = Piece::new(joined, last.first_line, number);
                    continue;
                }
            }
            if self.fits(line) {
                result.push(Piece::new(line.to_owned(), number, number));
            } else {
                result.extend(self.words(line).into_iter().map(|text| Piece::new(text, number, number)));
            }
        }
        result
    }

    /// Rows below a repeated header; none where the header leaves no room for a row. A row that is too long is cut at words
    /// and stands without it.
    fn table(&self, block: &Block) -> Option<Vec<Piece>> {
        let lines: Vec<&str> = block.text.lines().collect();
        let (header, rows) = lines.split_at_checked(2)?;
        let header = header.join("\n");
        let mut result: Vec<Piece> = Vec::new();
        let mut open = false;
        for (number, row) in (block.first_line + 2..).zip(rows) {
            if open && let Some(last) = result.last_mut() {
                let joined = format!("{}\n{row}", last.text);
                if self.fits(&joined) {
                    *last = Piece::new(joined, last.first_line, number);
                    continue;
                }
            }
            let below = format!("{header}\n{row}");
            open = self.fits(&below);
            if open {
                result.push(Piece::new(below, number, number));
            } else if result.is_empty() {
                return None;
            } else {
                result.extend(self.words(row).into_iter().map(|text| Piece::new(text, number, number)));
            }
        }
        if let Some(first) = result.first_mut() {
            first.first_line = block.first_line;
        }
        Some(result)
    }

    /// Lines between repeated fences, cut at empty lines where that is possible; none where a line does not fit with them.
    fn code(&self, block: &Block) -> Option<Vec<Piece>> {
        let lines: Vec<&str> = block.text.lines().collect();
        let [open, inner @ .., close] = &lines[..] else { return None };
        let fenced = |lines: &[&str]| format!("{open}\n{}\n{close}", lines.join("\n"));
        let mut result: Vec<Piece> = Vec::new();
        let mut push = |from: usize, end: usize| {
            if let Some((from, end)) = trimmed(inner, from, end) {
                // The fence stands on the first line of the block.
                let (first, last) = (block.first_line + 1 + from, block.first_line + end);
                result.push(Piece::new(fenced(&inner[from..end]), first, last));
            }
        };
        let (mut from, mut to, mut gap) = (0, 0, 0);
        while to < inner.len() {
            if self.fits(&fenced(&inner[from..=to])) {
                to += 1;
                if inner[to - 1].trim().is_empty() {
                    gap = to;
                }
                continue;
            }
            let end = if gap > from { gap } else { to };
            if end == from {
                return None;
            }
            push(from, end);
            (from, to) = (end, end);
        }
        push(from, inner.len());
        result.first_mut()?.first_line = block.first_line;
        result.last_mut()?.last_line = block.last_line;
        Some(result)
    }
}

/// Lines `from..end` of code without empty lines at their ends; none where there are no others.
fn trimmed(inner: &[&str], mut from: usize, mut end: usize) -> Option<(usize, usize)> {
    while from < end && inner[from].trim().is_empty() {
        from += 1;
    }
    while from < end && inner[end - 1].trim().is_empty() {
        end -= 1;
    }
    (from < end).then_some((from, end))
}

/// A paragraph cut after `.`, `!` or `?` before white space.
pub(super) fn sentences(paragraph: &str) -> Vec<&str> {
    let mut result = Vec::new();
    let mut start = 0;
    let mut previous = ' ';
    for (index, c) in paragraph.char_indices() {
        if c.is_whitespace() && matches!(previous, '.' | '!' | '?') {
            result.push(paragraph[start..index].trim());
            start = index;
        }
        previous = c;
    }
    result.push(paragraph[start..].trim());
    result.retain(|sentence| !sentence.is_empty());
    result
}
