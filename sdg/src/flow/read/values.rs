//! Values of keys, with a finding where one is not what it must be.

use espalier_taxonomy::Place;
use espalier_taxonomy::yaml::{Fields, Node, Report, Value, list, text};

/// A text, or a list of texts.
pub(super) fn texts(node: Node, name: &str, report: &mut Report<'_>) -> Option<Vec<(String, Place)>> {
    match node.value {
        Value::Sequence(items) => items.into_iter().map(|item| text(item, name, report)).collect(),
        _ => text(node, name, report).map(|found| vec![found]),
    }
}

/// Texts without their places; nothing where the key is not there.
pub(super) fn words(fields: &mut Fields, name: &'static str, report: &mut Report<'_>) -> Vec<String> {
    let found = fields.take(name).and_then(|(_, node)| texts(node, name, report));
    found.unwrap_or_default().into_iter().map(|(word, _)| word).collect()
}

/// Texts of a key that must be there.
pub(super) fn required_words(fields: &mut Fields, name: &'static str, report: &mut Report<'_>) -> Option<Vec<String>> {
    let node = fields.require(name, report)?;
    let place = node.place;
    let found = texts(node, name, report)?;
    if found.is_empty() {
        report.error(place, format!("`{name}` is empty"), "name at least one");
        return None;
    }
    Some(found.into_iter().map(|(word, _)| word).collect())
}

/// Texts that may be empty.
pub(super) fn raw_texts(node: Node, name: &str, report: &mut Report<'_>) -> Option<Vec<String>> {
    if node.value == Value::Null {
        return Some(Vec::new());
    }
    list(node, name, report)?.into_iter().map(|item| raw_text(item, name, report)).collect()
}

/// A text that may be empty; numbers as they are written.
pub(super) fn raw_text(node: Node, name: &str, report: &mut Report<'_>) -> Option<String> {
    match node.value {
        Value::Text(text) => Some(text),
        Value::Null => Some(String::new()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => {
            report.error(node.place, format!("`{name}` is a text, this is {}", node.value.kind()), "write a text");
            None
        }
    }
}

/// A whole number from `least` on.
pub(super) fn whole(node: &Node, name: &str, least: i64, report: &mut Report<'_>) -> Option<usize> {
    let found = match node.value {
        Value::Integer(number) => Some(number),
        Value::Float(number) if number.fract().abs() <= 0.0 && number.abs() < 1e15 => Some(number as i64),
        _ => None,
    };
    if let Some(number) = found.filter(|number| *number >= least).and_then(|number| usize::try_from(number).ok()) {
        Some(number)
    } else {
        report.error(node.place, format!("`{name}` is a whole number from {least} on"), "write such a number");
        None
    }
}

/// A number between two.
pub(super) fn number(node: &Node, name: &str, from: f64, to: f64, report: &mut Report<'_>) -> Option<f64> {
    let found = match &node.value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        // InstructLab passes it through Python's `float`.
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    let found = found.filter(|number| (from..=to).contains(number));
    if found.is_none() {
        let range = if to.is_finite() { format!("from {from} to {to}") } else { format!("from {from} on") };
        report.error(node.place, format!("`{name}` is a number {range}"), "write such a number");
    }
    found
}

/// Names with texts, in the order of the file.
pub(super) fn pairs(node: Node, name: &'static str, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let entries = Fields::of(node, name, report)?.take_all();
    entries.into_iter().map(|(key, node)| Some((key.name, text(node, name, report)?.0))).collect()
}

/// A pattern with look-around, in which `.` matches line ends too.
pub(super) fn pattern(found: &(String, Place), report: &mut Report<'_>) -> Option<fancy_regex::Regex> {
    let (pattern, place) = found;
    match fancy_regex::RegexBuilder::new(pattern).dot_matches_new_line(true).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let message = format!("this is not a regular expression: {error}");
            report.error(*place, message.replace('\n', " "), "correct the pattern; in YAML put it into single quotes");
            None
        }
    }
}
