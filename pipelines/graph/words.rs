//! What the YAML reader found wrong, in a person's words.

use super::file::Place;
use crate::outcome::Failure;
use crate::suggestion::closest;
use serde_saphyr::Error;

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Words {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }

    /// A failure of wrong input with a place in front.
    pub fn failure(self, place: &str) -> Failure {
        let failure = Failure::usage(format!("{place}{}", self.message));
        match self.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Words for an error of the reader. `text` is what was read: the key in front of the place is named.
pub fn explain(error: &Error, text: &str, place: Place) -> Words {
    let line = text.lines().nth(usize::try_from(place.line).map_or(0, |line| line.saturating_sub(1))).unwrap_or("");
    let column = usize::try_from(place.column).map_or(0, |column| column.saturating_sub(1));
    let (before, after) = line.split_at(line.char_indices().nth(column).map_or(line.len(), |(index, _)| index));
    let key = key_before(before);
    match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Error::SerdeMissingField { field, .. } => {
            Words::new(format!("`{field}` is missing"), format!("add `{field}: ...`"))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => Words::new(
            format!("`{key}` stands here twice"),
            "remove one; a second stage of a kind has a name of its own and says `uses:`",
        ),
        Error::InvalidScalar { ty, .. } => wanted(&key, scalar(ty), after),
        Error::Unexpected { expected, .. } => wanted(&key, structure(expected), after),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            wanted(&key, serde_type(expected), after)
        }
        Error::Message { msg, .. } => Words { message: plain(msg), hint: None },
        other => {
            Words::new(plain(&other.to_string()), "this is not readable as YAML: look at brackets, quotes and indents")
        }
    }
}

fn unknown(what: &str, word: &str, known: &[&str]) -> Words {
    let hint = closest(word, known).map_or_else(
        || format!("known here: {}", known.join(", ")),
        |close| format!("did you mean `{close}`? known here: {}", known.join(", ")),
    );
    Words::new(format!("unknown {what} `{word}`"), hint)
}

/// `rank` must be ..., this is ...
fn wanted(key: &str, wanted: (&str, &str), found: &str) -> Words {
    let key = if key.is_empty() { "this".to_owned() } else { format!("`{key}`") };
    let end = found.find([',', '}', ']', '#']).unwrap_or(found.len());
    let found = match found[..end].trim() {
        "" => String::new(),
        found => format!(", this is `{found}`"),
    };
    Words::new(format!("{key} must be {}{found}", wanted.0), wanted.1)
}

/// The key whose value begins behind `before`; empty where none stands directly in front.
fn key_before(before: &str) -> String {
    let Some(before) = before.trim_end().trim_end_matches(['"', '\'', '-', '[']).trim_end().strip_suffix(':') else {
        return String::new();
    };
    let start = before.rfind([' ', '{', ',']).map_or(0, |index| index + 1);
    before[start..].to_owned()
}

fn scalar(reader: &str) -> (&'static str, &'static str) {
    match reader {
        "floating point" | "f32" | "f64" => ("a number", "for instance `0.5` or `2e-4`"),
        "boolean" | "bool" => ("`true` or `false`", "write one of the two"),
        text if text.starts_with('i') => ("a whole number", "digits alone"),
        _ => ("a whole number, not below 0", "digits alone, for instance `16`"),
    }
}

fn structure(reader: &str) -> (&'static str, &'static str) {
    match reader {
        "sequence start" => ("a list", "for instance `[one, two]`"),
        "mapping start" => ("a mapping", "write `key: value`, indented below, or `{key: value}`"),
        _ => ("one value", "one word, number or text in quotes"),
    }
}

fn serde_type(reader: &str) -> (&'static str, &'static str) {
    match reader {
        "f32" | "f64" => scalar("f64"),
        "a boolean" => scalar("bool"),
        "a sequence" => structure("sequence start"),
        text if text.starts_with("a map") || text.starts_with("struct") => structure("mapping start"),
        "a string" => ("a text", "put it in quotes"),
        "usize" | "u32" | "u64" => scalar("u64"),
        _ => ("another value", "see the commented file of `pipeline init`"),
    }
}

/// The reader's own words without its words for the place, which stands in front already.
fn plain(text: &str) -> String {
    let first = text.lines().next().unwrap_or("not readable as YAML");
    let first = first.split_once(": ").map_or(first, |(place, rest)| {
        if place.starts_with("error: line") || place.starts_with("line ") { rest } else { first }
    });
    first.rfind(" at line ").map_or(first, |end| &first[..end]).to_owned()
}

#[cfg(test)]
mod tests {
    use crate::graph::PipelineFile;

    /// A good file with bytes taken out, doubled and changed: every one is read or refused in words.
    #[test]
    fn no_text_is_beyond_words() {
        let good = include_str!("../tiny.yaml").as_bytes();
        let mut state = 7_u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..3000 {
            let mut text = good.to_vec();
            for _ in 0..=draw(3) {
                let at = draw(text.len());
                match draw(4) {
                    0 => drop(text.drain(at..(at + draw(20)).min(text.len()))),
                    1 => text.insert(at, b":{}[],-#&*!|>'\"%@`\n\t ?~0"[draw(24)]),
                    2 => text[at] = b'a' + draw(26) as u8,
                    _ => text.truncate(at.max(1)),
                }
                if text.is_empty() {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&text);
            if let Err(error) = PipelineFile::parse("p.yaml".as_ref(), &text) {
                let said = error.to_string();
                assert!(
                    said.starts_with("p.yaml:") && said.len() > 16 && !said.contains(" at line "),
                    "{said}\n{text}"
                );
            }
        }
    }
}
