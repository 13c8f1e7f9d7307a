//! The keys of one mapping, taken one by one; what is left over is refused.

use super::Report;
use crate::leaf::Place;
use crate::node::{Key, Node, Value};

/// The entries of a mapping.
#[derive(Debug)]
pub struct Fields {
    entries: Vec<(Key, Node)>,
    /// Where the mapping begins.
    pub place: Place,
    /// What the mapping is, for messages: "a leaf".
    what: &'static str,
    /// Keys that were asked for, for hints.
    known: Vec<&'static str>,
}

impl Fields {
    /// The entries of a mapping at a place; `what` is what it is, for messages ("a leaf").
    pub fn new(entries: Vec<(Key, Node)>, place: Place, what: &'static str) -> Self {
        Self { entries, place, what, known: Vec::new() }
    }

    /// The fields of a node that must be a mapping.
    pub fn of(node: Node, what: &'static str, report: &mut Report<'_>) -> Option<Self> {
        match node.value {
            Value::Mapping(entries) => Some(Self::new(entries, node.place, what)),
            other => {
                report.error(
                    node.place,
                    format!("{what} is a mapping of keys to values, this is {}", other.kind()),
                    "write `key: value` lines, indented below",
                );
                None
            }
        }
    }

    /// Whether a key is there that nobody took so far.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// The value of a key that nobody took so far.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The keys that nobody took so far.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.name.as_str())
    }

    /// Removes a key.
    pub fn take(&mut self, name: &'static str) -> Option<(Key, Node)> {
        self.known.push(name);
        let index = self.entries.iter().position(|(key, _)| key.name == name)?;
        Some(self.entries.remove(index))
    }

    /// All entries that are left.
    pub fn take_all(self) -> Vec<(Key, Node)> {
        self.entries
    }

    /// Removes a key that must be there.
    pub fn require(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<Node> {
        let found = self.take(name);
        if found.is_none() {
            let hint = match self.closest(name) {
                Some(close) => format!("`{close}` is there: write `{name}`"),
                None => format!("add `{name}: ...`"),
            };
            report.error(self.place, format!("`{name}` is missing in {}", self.what), hint);
        }
        found.map(|(_, node)| node)
    }

    /// A text that is there and not empty.
    pub fn required_text(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<(String, Place)> {
        let node = self.require(name, report)?;
        text(node, name, report)
    }

    /// A text that is there; whether it may be empty or blank says `blank`.
    pub(crate) fn text_or_blank(
        &mut self,
        name: &'static str,
        blank: Blank,
        report: &mut Report<'_>,
    ) -> Option<String> {
        let node = self.require(name, report)?;
        text_or_blank(node, name, blank, report).map(|(text, _)| text)
    }

    /// A text that may be missing, but not empty.
    pub fn optional_text(&mut self, name: &'static str, report: &mut Report<'_>) -> Option<String> {
        let (_, node) = self.take(name)?;
        text(node, name, report).map(|(text, _)| text)
    }

    /// Reports every key that nobody took.
    pub fn refuse_the_rest(mut self, report: &mut Report<'_>) {
        for (key, _) in std::mem::take(&mut self.entries) {
            let message = format!("unknown key `{}` in {}", key.name, self.what);
            let close = self.known.iter().find(|known| distance(known, &key.name) <= 2);
            let hint = match close {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("remove it; known here: {}", self.known.join(", ")),
            };
            report.error(key.place, message, hint);
        }
    }

    fn closest(&self, name: &str) -> Option<&str> {
        self.names().find(|other| distance(other, name) <= 2)
    }
}

/// Texts without a word in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blank {
    /// None is taken.
    Refused,
    /// Blanks are taken with a warning, nothing at all is refused: as a JSON schema counts characters.
    Blanks,
    /// Also nothing at all is taken, with a warning.
    Empty,
}

/// A text; whether it may be empty or blank says `blank`.
pub(crate) fn text_or_blank(node: Node, name: &str, blank: Blank, report: &mut Report<'_>) -> Option<(String, Place)> {
    match node.value {
        Value::Text(text)
            if text.trim().is_empty() && (blank == Blank::Empty || blank == Blank::Blanks && !text.is_empty()) =>
        {
            report.warning(node.place, format!("`{name}` is blank"), "write its text");
            Some((text, node.place))
        }
        value => self::text(Node { value, place: node.place }, name, report),
    }
}

/// A text that is not empty.
pub fn text(node: Node, name: &str, report: &mut Report<'_>) -> Option<(String, Place)> {
    match node.value {
        Value::Text(text) if text.trim().is_empty() => {
            report.error(node.place, format!("`{name}` is empty"), "write its text");
            None
        }
        Value::Text(text) => Some((text, node.place)),
        Value::Null => {
            report.error(node.place, format!("`{name}` is empty"), "write its text");
            None
        }
        other => {
            let hint = match other {
                Value::Sequence(_) | Value::Mapping(_) => "write one text; a long one after `|`, indented below",
                _ => "put it in quotes, so that YAML reads it as text",
            };
            report.error(node.place, format!("`{name}` is a text, this is {}", other.kind()), hint);
            None
        }
    }
}

/// The items of a list.
pub fn list(node: Node, name: &str, report: &mut Report<'_>) -> Option<Vec<Node>> {
    match node.value {
        Value::Sequence(items) => Some(items),
        other => {
            report.error(
                node.place,
                format!("`{name}` is a list, this is {}", other.kind()),
                "begin each item with `- `, indented below",
            );
            None
        }
    }
}

/// Edits (one character put in, left out or changed) between two short words.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
