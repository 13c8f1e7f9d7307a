//! From what a model wrote to rows of columns.

use std::sync::Arc;

use espalier_inference::Constraint;
use fancy_regex::Regex;
use serde_json::Value;

use crate::reward::{excerpt, without_fence};

/// How an answer is read. Each form gives any number of rows; a row has a value for some or all of the block's columns.
#[derive(Clone, Debug)]
pub(crate) enum Parse {
    /// The whole answer, without white space around it, is the value of the first column.
    Text,
    /// The same with the white space.
    Verbatim,
    /// What stands between tags, a pair for each column. As often as the rarest pair occurs, there is a row.
    Tags(Vec<(String, String)>),
    /// A row for each match: the groups are the columns, a pattern without groups is itself the first.
    Regex(Arc<Pattern>),
    /// JSON that conforms to a schema: an object is a row, an array a row for each of its items. An item that is not an object
    /// is the value of the first column. The engine writes nothing else.
    Json(Arc<Constraint>),
}

/// A regular expression with look-around, and texts that are taken out of what it finds.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) regex: Regex,
    pub(crate) cleanup: Vec<String>,
}

/// A row's values, each with its column.
pub(crate) type Row = Vec<(String, Value)>;

impl Parse {
    /// Reads an answer without white space around it.
    ///
    /// # Errors
    /// Why there is no row in it.
    pub(crate) fn rows(&self, text: &str, columns: &[String]) -> Result<Vec<Row>, String> {
        let whole = |text: &str| vec![columns.iter().take(1).map(|column| (column.clone(), text.into())).collect()];
        let verbatim = text;
        let text = text.trim();
        let rows = match self {
            Self::Text => whole(text),
            Self::Verbatim => whole(verbatim),
            Self::Tags(tags) => tagged(text, tags, columns),
            Self::Regex(pattern) => pattern.rows(text, columns)?,
            Self::Json(constraint) => json(text, constraint, columns)?,
        };
        if rows.is_empty() {
            return Err(format!("{} in {}", self.missing(), excerpt(text)));
        }
        Ok(rows)
    }

    fn missing(&self) -> String {
        match self {
            Self::Text | Self::Verbatim => "nothing".to_owned(),
            Self::Tags(tags) => {
                let tags: Vec<String> = tags.iter().map(|(start, end)| format!("{start} ... {end}")).collect();
                format!("not all of {}", tags.join(", "))
            }
            Self::Regex(_) => "no match of the pattern".to_owned(),
            Self::Json(_) => "an empty list".to_owned(),
        }
    }

    /// The form that the engine is to keep to.
    pub(crate) fn constraint(&self) -> Option<Arc<Constraint>> {
        match self {
            Self::Json(constraint) => Some(Arc::clone(constraint)),
            _ => None,
        }
    }
}

fn tagged(text: &str, tags: &[(String, String)], columns: &[String]) -> Vec<Row> {
    let found: Vec<(&String, Vec<&str>)> =
        columns.iter().zip(tags).map(|(column, (start, end))| (column, between(text, start, end))).collect();
    zip(&found)
}

/// Everything between two tags; the whole text where both are empty.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    if start.is_empty() && end.is_empty() {
        return vec![text];
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, inner)) = rest.split_once(start) {
        let Some((inner, after)) = inner.split_once(end) else { break };
        found.push(inner.trim());
        rest = after;
    }
    found
}

/// Rows as long as the shortest column goes.
fn zip(columns: &[(&String, Vec<&str>)]) -> Vec<Row> {
    let rows = columns.iter().map(|(_, values)| values.len()).min().unwrap_or(0);
    (0..rows)
        .map(|row| columns.iter().map(|(column, values)| ((*column).clone(), values[row].into())).collect())
        .collect()
}

impl Pattern {
    fn rows(&self, text: &str, columns: &[String]) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for found in self.regex.captures_iter(text) {
            let found = found.map_err(|error| format!("the pattern takes too long: {error}"))?;
            let group = |number: usize| found.get(number).map_or("", |group| group.as_str()).trim();
            // One group or none is one value, as Python's `findall` has it, and then nothing is cleaned up.
            let values: Vec<String> = match found.len() - 1 {
                groups @ (0 | 1) => vec![group(groups).to_owned()],
                groups => (1..=groups).map(|number| self.cleaned(group(number))).collect(),
            };
            if values.len() >= columns.len() {
                rows.push(columns.iter().cloned().zip(values.into_iter().map(Value::from)).collect());
            }
        }
        Ok(rows)
    }

    fn cleaned(&self, text: &str) -> String {
        self.cleanup.iter().fold(text.to_owned(), |text, tag| text.replace(tag.as_str(), ""))
    }
}

fn json(text: &str, constraint: &Constraint, columns: &[String]) -> Result<Vec<Row>, String> {
    let text = without_fence(text);
    constraint.check(text)?;
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let row = |value: Value| -> Row {
        match value {
            Value::Object(mut entries) => columns
                .iter()
                .filter_map(|column| entries.shift_remove(column).map(|value| (column.clone(), value)))
                .collect(),
            other => columns.iter().take(1).map(|column| (column.clone(), other.clone())).collect(),
        }
    };
    Ok(match value {
        Value::Array(items) => items.into_iter().map(row).collect(),
        other => vec![row(other)],
    })
}

/// A text as a model that reasons writes it: what it thought, and what it says.
pub(crate) fn split_reasoning(text: &str) -> (Option<&str>, &str) {
    match text.split_once("</think>") {
        // A template may have opened the tag itself.
        Some((thought, said)) => {
            let thought = thought.trim_start();
            (Some(thought.strip_prefix("<think>").unwrap_or(thought).trim()), said.trim())
        }
        None if text.trim_start().starts_with("<think>") => (Some(text.trim()), ""),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parse: &Parse, text: &str, columns: &[&str]) -> Result<Value, String> {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let rows = parse.rows(text, &columns)?;
        Ok(rows.into_iter().map(|row| row.into_iter().collect::<serde_json::Map<_, _>>()).map(Value::from).collect())
    }

    fn tags(pairs: &[(&str, &str)]) -> Parse {
        Parse::Tags(pairs.iter().map(|(start, end)| ((*start).to_owned(), (*end).to_owned())).collect())
    }

    #[test]
    fn tags_give_as_many_rows_as_the_rarest_pair() {
        let parse = tags(&[("[Q]", "[/Q]"), ("[A]", "[/A]")]);
        let text = "[Q] one\ntwo [/Q][A]1[/A] [Q]three[/Q]";
        assert_eq!(read(&parse, text, &["q", "a"]), Ok(json!([{"q": "one\ntwo", "a": "1"}])));
        assert_eq!(read(&parse, "[Q]x", &["q", "a"]), Err("not all of [Q] ... [/Q], [A] ... [/A] in \"[Q]x\"".into()));
        assert_eq!(read(&tags(&[("", "")]), " all \n", &["x"]), Ok(json!([{"x": "all"}])));
        assert_eq!(read(&tags(&[("[Q]", "[/Q]")]), "[Q]x[/Q]", &["q", "a"]), Ok(json!([{"q": "x"}])));
    }

    #[test]
    fn patterns_may_look_ahead() {
        let pattern = r"(?s)\[QUESTION\]\s*(.*?)\s*\[ANSWER\]\s*(.*?)\s*(?=\[QUESTION\]|$)";
        let regex = |pattern: &str| {
            let cleanup = vec!["[END]".to_owned()];
            Parse::Regex(Arc::new(Pattern { regex: Regex::new(pattern).unwrap(), cleanup }))
        };
        let text = "[QUESTION]\nA?\n[ANSWER]\nB.\n[END]\n\n[QUESTION]\nC?\n[ANSWER]\nD.\n[END]\n";
        let expected = json!([{"q": "A?", "a": "B.\n"}, {"q": "C?", "a": "D.\n"}]);
        assert_eq!(read(&regex(pattern), text, &["q", "a"]), Ok(expected));
        assert_eq!(read(&regex("[0-9]+"), "1 and 22", &["n"]), Ok(json!([{"n": "1"}, {"n": "22"}])));
        assert!(read(&regex("([0-9]+)"), "1", &["n", "m"]).is_err());
    }

    #[test]
    fn json_is_rows() {
        let schema = json!({"type": ["array", "object"], "items": {"type": ["object", "string"]}});
        let parse = Parse::Json(Arc::new(Constraint::JsonSchema(schema)));
        assert_eq!(read(&parse, r#"{"a": 1, "b": 2}"#, &["b", "a"]), Ok(json!([{"b": 2, "a": 1}])));
        assert_eq!(read(&parse, r#"["x", "y"]"#, &["a"]), Ok(json!([{"a": "x"}, {"a": "y"}])));
        assert!(read(&parse, "1", &["a"]).is_err());
        assert_eq!(read(&parse, "[]", &["a"]), Err("an empty list in \"[]\"".into()));
    }

    #[test]
    fn reasoning_is_split_off() {
        assert_eq!(split_reasoning("<think>a b</think>\n\nc"), (Some("a b"), "c"));
        assert_eq!(split_reasoning("a b</think>c"), (Some("a b"), "c"));
        assert_eq!(split_reasoning("<think>never ends"), (Some("<think>never ends"), ""));
        assert_eq!(split_reasoning("plain"), (None, "plain"));
    }
}
