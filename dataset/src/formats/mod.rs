//! Training data in the forms that other tools write, a row at a time.
//!
//! | format | a row |
//! |---|---|
//! | `messages` | `{"messages": [{"role": "user", "content": "..."}, ...]}`, the form of chat APIs and of our own rows |
//! | `alpaca` | `{"instruction": "...", "input": "...", "output": "..."}` |
//! | `sharegpt` | `{"conversations": [{"from": "human", "value": "..."}, ...]}` |
//! | `prompt_completion` | `{"prompt": "...", "completion": "..."}`: text as it stands, or two lists of messages |
//! | `text` | `{"text": "..."}` |
//! | `document` | a whole file of text |
//! | `rows` | a row of our own Parquet table that was accepted |
//!
//! The first five are JSON lines or one JSON list. [`Records`] cuts a file into records and knows their lines;
//! [`Record::example`] reads one, so that many can be read at the same time. Keys that a format does not have are ignored.

mod alpaca;
mod example;
mod line;
mod messages;
mod prompt_completion;
mod records;
mod sharegpt;
mod split;
mod text;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use example::{Content, Example, WeightedTurn};
pub use line::TrainingLine;
pub(crate) use line::labels;
pub use records::{Problem, Record, Records};

/// What a row looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `messages` of chat APIs.
    Messages,
    /// `instruction`, `input` and `output`.
    Alpaca,
    /// `conversations` of `from` and `value`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `text`.
    Text,
    /// A file of plain text.
    Document,
    /// Our own Parquet table.
    Rows,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Messages, Self::Alpaca, Self::ShareGpt, Self::PromptCompletion, Self::Text, Self::Document, Self::Rows];

    /// The word used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Alpaca => "alpaca",
            Self::ShareGpt => "sharegpt",
            Self::PromptCompletion => "prompt_completion",
            Self::Text => "text",
            Self::Document => "document",
            Self::Rows => "rows",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The keys by which a row is known.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Messages => &["messages"],
            Self::Alpaca => &["instruction", "output"],
            Self::ShareGpt => &["conversations"],
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Text => &["text"],
            Self::Document | Self::Rows => &[],
        }
    }

    /// The format that an object's keys tell; where they tell several, the one that says most (alpaca files also carry a
    /// rendered `text`).
    fn of_object(object: &Map<String, Value>) -> Option<Self> {
        let fits =
            |format: &Self| !format.keys().is_empty() && format.keys().iter().all(|key| object.contains_key(*key));
        Self::ALL.into_iter().find(fits)
    }

    /// Refuses an object without this format's keys, with a guess at what it is.
    fn check(self, object: &Map<String, Value>) -> Result<(), String> {
        let Some(missing) = self.keys().iter().find(|key| !object.contains_key(**key)) else { return Ok(()) };
        let has = names(object);
        Err(match Self::of_object(object) {
            Some(other) => format!(
                "the row has no `{missing}`, which {} needs; with {has} it looks like {other}: say `format: {other}`, or \
                 keep rows of one format in a file",
                self.name(),
                other = other.name()
            ),
            None => format!("the row has no `{missing}`, which {} needs (it has {has})", self.name()),
        })
    }

    /// Reads a row of JSON.
    fn read(self, object: &Map<String, Value>) -> Result<Content, String> {
        self.check(object)?;
        match self {
            Self::Messages => messages::read(object),
            Self::Alpaca => alpaca::read(object),
            Self::ShareGpt => sharegpt::read(object),
            Self::PromptCompletion => prompt_completion::read(object),
            Self::Text => text::read(object),
            Self::Document | Self::Rows => Err(format!("{} has no rows of JSON", self.name())),
        }
    }
}

/// What an object has, in words.
fn names(object: &Map<String, Value>) -> String {
    let names: Vec<String> = object.keys().take(8).map(|key| format!("`{key}`")).collect();
    if names.is_empty() { "no key at all".to_owned() } else { names.join(", ") }
}

/// A text under a key; absent and null are `None`.
fn optional_text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` must be a text, this is {}", kind_of(other))),
    }
}

/// A text under a key that must be there.
fn text_of<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    optional_text(object, key)?.ok_or_else(|| format!("`{key}` must be a text, this is null"))
}

/// A weight under a key: a number from 0.
fn weight_of(object: &Map<String, Value>) -> Result<Option<f32>, String> {
    match object.get("weight") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .map(|weight| weight as f32)
            .filter(|weight| weight.is_finite() && *weight >= 0.0)
            .map(Some)
            .ok_or_else(|| format!("`weight` must be a number, not below 0, this is {value}")),
    }
}

/// What a JSON value is, in words.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
