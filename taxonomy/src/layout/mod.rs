//! How a file is laid out, as `InstructLab`'s tools ask for it: `yamllint`'s relaxed rules without its limit of line length,
//! and what `PyYAML` cannot read though YAML allows it.
//!
//! Nothing here changes what a leaf says; the rules count in strict reading alone, and are what `--fix` mends.

mod indentation;
mod spacing;

use std::collections::HashSet;

use serde_saphyr::granit_parser::{ScalarStyle, Scanner, Span, StrInput, Token, TokenType};

use crate::leaf::Place;

/// A rule of `yamllint`, by its name there.
pub(crate) type Rule = &'static str;

/// Something in the layout that the other tools refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The rule that it breaks; empty where the file cannot be read at all.
    pub(crate) rule: Rule,
    /// Where.
    pub(crate) place: Place,
    /// What is wrong.
    pub(crate) message: String,
}

/// Most empty lines one after another.
const MAX_EMPTY_LINES: usize = 2;

/// What `yamllint` finds in a text that is YAML, in the order of the rules; its comments that turn rules off count.
pub(crate) fn lint(text: &str) -> Vec<Flaw> {
    let mut flaws = trailing_blanks(text);
    flaws.extend(empty_lines(text));
    flaws.extend(last_line(text));
    let tokens = tokens(text);
    flaws.extend(spacing::check(text, &tokens));
    flaws.extend(indentation::check(text));
    let switches = switches(&tokens);
    flaws.retain(|flaw| !switches.iter().any(|switch| switch.silences(flaw)));
    flaws
}

/// What `PyYAML` cannot read in a text that is YAML: characters that cannot be printed, and tabs outside of texts in quotes,
/// block texts and comments.
pub(crate) fn unreadable(text: &str) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if let Some((offset, found)) = text.char_indices().find(|(_, found)| !is_printable(*found)) {
        let message = format!("the character U+{:04X} cannot stand in a YAML file", u32::from(found));
        flaws.push(Flaw { rule: "", place: place_of(text, offset), message });
    }
    let mut end = 0;
    let tokens = tokens(text);
    for (index, (span, token)) in tokens.iter().enumerate() {
        let (Some(start), Some(after)) = (span.start.byte_offset(), span.end.byte_offset()) else { continue };
        let (start, after) = (start.min(text.len()), after.min(text.len()));
        let gap = text.get(end..start).unwrap_or_default();
        if let Some(offset) = gap_mark(gap) {
            flaws.push(Flaw { rule: "", place: place_of(text, end + offset), message: OUTSIDE_QUOTES.to_owned() });
        }
        if let TokenType::Scalar(ScalarStyle::Plain, word) = token {
            if let Some(offset) = text.get(start..after).unwrap_or_default().find(is_tab_or_line_end) {
                flaws.push(Flaw {
                    rule: "",
                    place: place_of(text, start + offset),
                    message: OUTSIDE_QUOTES.to_owned(),
                });
            }
            let key = tokens.get(index + 1).is_some_and(|(_, next)| matches!(next, TokenType::Value));
            if word == "=" || (word == "<<" && !key) {
                let message = format!("`{word}` without quotes is no text in YAML 1.1");
                flaws.push(Flaw { rule: "", place: place_of(text, start), message });
            }
        }
        end = end.max(after);
    }
    flaws
}

/// A stretch of lines in which a comment turned rules off.
struct Switch {
    lines: std::ops::Range<usize>,
    /// Which rules; all where there are none.
    rules: Vec<String>,
}

impl Switch {
    fn silences(&self, flaw: &Flaw) -> bool {
        self.lines.contains(&flaw.place.line)
            && (self.rules.is_empty() || self.rules.iter().any(|rule| rule == flaw.rule))
    }
}

/// `# yamllint disable`, `# yamllint enable` and `# yamllint disable-line`, with `rule:NAME` behind them or without.
fn switches(tokens: &[(Span, TokenType<'_>)]) -> Vec<Switch> {
    let mut switches: Vec<Switch> = Vec::new();
    for (span, token) in tokens {
        let TokenType::Comment(comment) = token else { continue };
        let mut words = comment.text().split_whitespace();
        if words.next() != Some("yamllint") {
            continue;
        }
        let line = span.start.line();
        let verb = words.next();
        let rules: Vec<String> = words.filter_map(|word| word.strip_prefix("rule:")).map(str::to_owned).collect();
        match verb {
            Some("disable") => switches.push(Switch { lines: line..usize::MAX, rules }),
            Some("disable-line") => switches.push(Switch { lines: line..line + 1, rules }),
            Some("disable-file") if line == 1 => switches.push(Switch { lines: 1..usize::MAX, rules: Vec::new() }),
            Some("enable") => {
                for switch in switches.iter_mut().filter(|switch| switch.lines.end == usize::MAX) {
                    if rules.is_empty() || switch.rules == rules {
                        switch.lines.end = line;
                    }
                }
            }
            _ => {}
        }
    }
    switches
}

fn is_printable(found: char) -> bool {
    matches!(found, '\t' | '\n' | '\r' | '\u{85}')
        || matches!(found, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

const OUTSIDE_QUOTES: &str = "a tab, or a line end that only older YAML knows, stands outside of a text in quotes";

/// A tab; the line ends of YAML 1.1.
fn is_tab_or_line_end(found: char) -> bool {
    matches!(found, '\t' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The first such character between two tokens, tabs in comments left out.
fn gap_mark(gap: &str) -> Option<usize> {
    let mut comment = false;
    gap.char_indices().find_map(|(at, found)| {
        match found {
            '#' => comment = true,
            '\n' => comment = false,
            _ => {}
        }
        (is_tab_or_line_end(found) && !(found == '\t' && comment)).then_some(at)
    })
}

/// The lines of block texts (behind `|` and `>`), in which blanks are part of what is said.
pub(crate) fn line_of_text_blocks(text: &str) -> HashSet<usize> {
    let mut lines = HashSet::new();
    for (span, token) in tokens(text) {
        if let TokenType::Scalar(ScalarStyle::Literal | ScalarStyle::Folded, _) = token {
            lines.extend(span.start.line()..=span.end.line());
        }
    }
    lines
}

/// The tokens of a text, up to the first that cannot be read.
fn tokens(text: &str) -> Vec<(Span, TokenType<'_>)> {
    Scanner::new(StrInput::new(text)).map_while(Result::ok).map(Token::into_parts).collect()
}

/// Line and column of a byte.
fn place_of(text: &str, offset: usize) -> Place {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    Place { line, column: before[start..].chars().count() + 1 }
}

fn trailing_blanks(text: &str) -> Vec<Flaw> {
    let flaw = |(index, line): (usize, &str)| {
        let kept = line.trim_end_matches([' ', '\t', '\r', '\u{b}', '\u{c}']);
        line[kept.len()..].starts_with([' ', '\t']).then(|| Flaw {
            rule: "trailing-spaces",
            place: Place { line: index + 1, column: kept.chars().count() + 1 },
            message: "blanks stand at the end of the line".to_owned(),
        })
    };
    text.split('\n').enumerate().filter_map(flaw).collect()
}

fn empty_lines(text: &str) -> Vec<Flaw> {
    if text == "\n" {
        return Vec::new();
    }
    let mut flaws = Vec::new();
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    let mut run = 0;
    for (index, line) in lines.iter().enumerate() {
        run = if line.is_empty() { run + 1 } else { 0 };
        let last_of_run = run > 0 && lines.get(index + 1).is_none_or(|next| !next.is_empty());
        if !last_of_run {
            continue;
        }
        let (allowed, part) = if run == index + 1 {
            (0, "at the start of the file")
        } else if index + 1 == lines.len() {
            (0, "at the end of the file")
        } else {
            (MAX_EMPTY_LINES, "one after another")
        };
        if run > allowed {
            let message = format!("{run} empty {} {part}", if run == 1 { "line" } else { "lines" });
            flaws.push(Flaw { rule: "empty-lines", place: Place { line: index + 1, column: 1 }, message });
        }
    }
    flaws
}

fn last_line(text: &str) -> Option<Flaw> {
    let last = text.rsplit('\n').next().filter(|last| !last.is_empty())?;
    let place = Place { line: text.matches('\n').count() + 1, column: last.chars().count() + 1 };
    Some(Flaw { rule: "new-line-at-end-of-file", place, message: "the last line has no line end".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        lint(text).iter().map(|flaw| format!("{}:{} {}", flaw.place.line, flaw.place.column, flaw.message)).collect()
    }

    #[test]
    fn lines() {
        assert_eq!(
            found("a: 1 \nb: |\n  x\t\n"),
            ["1:5 blanks stand at the end of the line", "3:4 blanks stand at the end of the line"]
        );
        assert_eq!(
            found("\na: 1\n\n\nb: 2\n\n\n\nc: 3\n\n"),
            [
                "1:1 1 empty line at the start of the file",
                "8:1 3 empty lines one after another",
                "10:1 1 empty line at the end of the file"
            ]
        );
        assert_eq!(found("a: 1\nb: 2"), ["2:5 the last line has no line end"]);
        assert_eq!(found("a: 1\n"), [""; 0]);
    }

    #[test]
    fn tabs_and_characters() {
        let places =
            |text: &str| unreadable(text).iter().map(|flaw| (flaw.place.line, flaw.place.column)).collect::<Vec<_>>();
        assert_eq!(places("a: 'x\ty' # \t\nb: |\n  x\ty\n"), []);
        assert_eq!(places("a:\t1\n"), [(1, 3)]);
        assert_eq!(places("a: x\ty\n"), [(1, 5)]);
        assert_eq!(places("a: 'x\u{1}'\n"), [(1, 6)]);
    }
}
