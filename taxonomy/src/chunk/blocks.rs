//! Markdown as sections of blocks: as much of it as cutting needs.

/// What stands below one heading, up to the next.
#[derive(Debug)]
pub(super) struct Section {
    /// The headings above it, outermost first, joined by ` > `.
    pub heading: String,
    pub blocks: Vec<Block>,
}

/// How a block may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Running text, its lines joined.
    Text,
    /// A list, a quotation, or lines with a form of their own.
    Lines,
    /// A header of two lines, and rows.
    Table,
    /// A fence, lines, and a fence.
    Code,
}

/// A paragraph, a list, a table or code, with the lines that it stands on.
#[derive(Debug)]
pub(super) struct Block {
    pub kind: Kind,
    pub text: String,
    pub first_line: usize,
    pub last_line: usize,
}

/// The sections of a document; the first has no heading.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let mut result = vec![Section { heading: String::new(), blocks: Vec::new() }];
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut block: Vec<&str> = Vec::new();
    let mut fence: Option<&str> = None;
    let mut number = 0;
    for line in text.lines() {
        number += 1;
        if let Some(mark) = fence {
            block.push(line);
            if closes(line, mark) {
                fence = None;
                finish(&mut block, Kind::Code, number, &mut result);
            }
        } else if let Some(mark) = opening(line) {
            finish_text(&mut block, number - 1, &mut result);
            fence = Some(mark);
            block.push(line);
        } else if let Some((level, title)) = heading(line) {
            finish_text(&mut block, number - 1, &mut result);
            path.retain(|(above, _)| *above < level);
            path.push((level, title.to_owned()));
            let titles: Vec<&str> = path.iter().map(|(_, title)| title.as_str()).collect();
            result.push(Section { heading: titles.join(" > "), blocks: Vec::new() });
        } else if line.trim().is_empty() {
            finish_text(&mut block, number - 1, &mut result);
        } else {
            block.push(line);
        }
    }
    if fence.is_some() {
        finish(&mut block, Kind::Lines, number, &mut result);
    }
    finish_text(&mut block, number, &mut result);
    result
}

/// The mark of a fence that opens here.
fn opening(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mark = ["`", "~"].into_iter().find(|mark| line.starts_with(&mark.repeat(3)))?;
    let length = line.len() - line.trim_start_matches(mark).len();
    // Backticks behind it are code within a line.
    (mark == "~" || !line[length..].contains('`')).then(|| &line[..length])
}

fn closes(line: &str, mark: &str) -> bool {
    let line = line.trim();
    line.len() >= mark.len() && line.starts_with(mark) && line.trim_start_matches(&mark[..1]).is_empty()
}

/// Ends a block that is no code. Lines of running text are joined; lines that have a structure keep it.
fn finish_text(lines: &mut Vec<&str>, last_line: usize, sections: &mut [Section]) {
    let kind = if is_table(lines) {
        Kind::Table
    } else if lines.iter().any(|line| is_structured(line)) {
        Kind::Lines
    } else {
        Kind::Text
    };
    finish(lines, kind, last_line, sections);
}

fn finish(lines: &mut Vec<&str>, kind: Kind, last_line: usize, sections: &mut [Section]) {
    if lines.is_empty() {
        return;
    }
    let text = match kind {
        Kind::Text => lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
        _ => lines.join("\n"),
    };
    let first_line = last_line + 1 - lines.len();
    lines.clear();
    if let Some(section) = sections.last_mut().filter(|_| !text.trim().is_empty()) {
        section.blocks.push(Block { kind, text, first_line, last_line });
    }
}

fn is_structured(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with(['-', '*', '+', '|', '>', '`', '~']) && !line.starts_with("**")
        || line.split_once(['.', ')']).is_some_and(|(number, _)| {
            !number.is_empty() && number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit())
        })
}

/// A header, a line of dashes and bars, and rows.
fn is_table(lines: &[&str]) -> bool {
    let [header, rule, _, ..] = lines else { return false };
    let rule = rule.trim();
    header.contains('|')
        && rule.contains('|')
        && rule.contains('-')
        && rule.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '))
}

/// `## Title ##` as level and title.
fn heading(line: &str) -> Option<(usize, &str)> {
    let line =
        line.strip_prefix("   ").or_else(|| line.strip_prefix("  ")).or_else(|| line.strip_prefix(' ')).unwrap_or(line);
    let level = line.bytes().take_while(|&byte| byte == b'#').count();
    let rest = &line[level..];
    if !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    Some((level, rest.trim().trim_end_matches('#').trim_end()))
}
