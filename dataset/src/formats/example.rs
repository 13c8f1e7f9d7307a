//! A row of training data, whatever file it came from.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::line::{LEAF_WEIGHT, metadata_of};
use super::weight_of;
use crate::row::{Row, Turn};

/// A turn and what it counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightedTurn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// What its tokens count in the loss, where the row says so: 0 is not learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f32>,
}

impl From<Turn> for WeightedTurn {
    fn from(Turn { role, content }: Turn) -> Self {
        Self { role, content, weight: None }
    }
}

/// What a row teaches.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Turns, for a chat template.
    Conversation(Vec<WeightedTurn>),
    /// Text as it stands, of which the second part is learned.
    Completion {
        /// What stands before.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// Text that is learned whole, in which special tokens are written out.
    Text(String),
    /// Text of a person, in which nothing is a special token.
    Document(String),
}

/// A row of training data.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What it teaches.
    pub content: Content,
    /// What all its tokens count in the loss, times the weights of its turns.
    pub weight: f32,
    /// Line in its file, from 1 (of a Parquet table: the row).
    pub line: usize,
    /// The `id` that the row has, else [`Example::content_hash`].
    pub id: String,
    /// Leaf of the skills tree (`metadata.leaf`).
    pub leaf: Option<String>,
    /// Kind of that leaf (`metadata.kind`).
    pub kind: Option<String>,
    /// How often an epoch takes the row, as that leaf says (`metadata.leaf_weight`); once where that says nothing.
    pub leaf_weight: Option<f64>,
}

impl Example {
    /// A row without labels.
    pub fn new(content: Content, line: usize) -> Self {
        let id = content.hash();
        Self { content, weight: 1.0, line, id, leaf: None, kind: None, leaf_weight: None }
    }

    /// A conversation of `turns`.
    pub fn conversation(turns: &[Turn], line: usize) -> Self {
        Self::new(Content::Conversation(turns.iter().cloned().map(WeightedTurn::from).collect()), line)
    }

    /// An accepted row of our own; `line` is its place in the table.
    pub fn of_row(row: &Row, line: usize) -> Self {
        let example = Self::conversation(&row.turns, line);
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            id: known(&row.id).unwrap_or_else(|| example.id.clone()),
            leaf: known(&row.leaf),
            kind: known(&row.kind),
            leaf_weight: row.leaf_weight,
            ..example
        }
    }

    /// The labels of a row of JSON around its content.
    pub(super) fn of_object(object: &Map<String, Value>, content: Content, line: usize) -> Result<Self, String> {
        let metadata = metadata_of(object)?;
        let label = |name: &str| metadata.as_ref().and_then(|labels| labels.get(name)?.as_str()).map(str::to_owned);
        let id = match object.get("id") {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => content.hash(),
        };
        let weight = weight_of(object)?.unwrap_or(1.0);
        let leaf_weight = metadata.as_ref().map(leaf_weight).transpose()?.flatten();
        Ok(Self { content, weight, line, id, leaf: label("leaf"), kind: label("kind"), leaf_weight })
    }

    /// 16 hexadecimal digits of the SHA-256 over roles and texts: equal for rows that say the same.
    pub fn content_hash(&self) -> String {
        self.content.hash()
    }
}

/// How often an epoch takes a row with these labels.
fn leaf_weight(labels: &Map<String, Value>) -> Result<Option<f64>, String> {
    let Some(value) = labels.get(LEAF_WEIGHT).filter(|value| !value.is_null()) else { return Ok(None) };
    let weight = value.as_f64().filter(|weight| weight.is_finite() && *weight > 0.0);
    weight.map(Some).ok_or_else(|| format!("`metadata.{LEAF_WEIGHT}` must be a number above zero, this is {value}"))
}

impl Content {
    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        match self {
            Self::Conversation(turns) => turns.iter().for_each(|turn| {
                add(&turn.role);
                add(&turn.content);
            }),
            Self::Completion { prompt, completion } => {
                add(prompt);
                add(completion);
            }
            Self::Text(text) | Self::Document(text) => add(text),
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
