//! A line of messages as training tools read it, `InstructLab`'s above all: `messages`, `metadata` as JSON text, `id`, `unmask`.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::example::{Content, WeightedTurn};
use crate::row::{Row, Turn};

/// The label that says how often training takes a row in an epoch.
pub(super) const LEAF_WEIGHT: &str = "leaf_weight";

/// A conversation to train on, with its labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainingLine {
    /// What is said.
    pub messages: Vec<WeightedTurn>,
    /// Where it comes from. Written as a text of JSON, so that all lines have columns of one type.
    #[serde(serialize_with = "as_text")]
    pub metadata: Map<String, Value>,
    /// Its name.
    pub id: String,
    /// Whether the questions are learned too, as text is in pretraining.
    pub unmask: bool,
}

fn as_text<S: Serializer>(metadata: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&serde_json::to_string(metadata).map_err(serde::ser::Error::custom)?)
}

impl TrainingLine {
    /// The line of a row as it is.
    pub fn of_row(row: &Row) -> Self {
        let turns = row.turns.iter().cloned().map(WeightedTurn::from).collect();
        Self { messages: turns, metadata: labels(row), id: row.id.clone(), unmask: false }
    }

    /// The line of a row of a file of messages, with the keys that are not a line's own moved to its metadata.
    pub(super) fn of_object(mut object: Map<String, Value>, content: Content, id: String) -> Result<Self, String> {
        let messages = match content {
            Content::Conversation(turns) => turns,
            Content::Completion { prompt, completion } => {
                vec![Turn::new("user", prompt).into(), Turn::new("assistant", completion).into()]
            }
            Content::Text(_) | Content::Document(_) => {
                return Err("a text has no messages; mix files of conversations".to_owned());
            }
        };
        let unmask = object.get("unmask").and_then(Value::as_bool).unwrap_or_default();
        let mut metadata = metadata_of(&object)?.unwrap_or_default();
        let own = ["messages", "metadata", "id", "unmask", "conversations", "instruction", "input", "output", "prompt"];
        for key in own.iter().chain(&["completion", "history", "system"]) {
            object.remove(*key);
        }
        metadata.append(&mut object);
        // The weights of an unmasked row come from `unmask` again when it is read.
        let messages =
            messages.into_iter().map(|turn| WeightedTurn { weight: turn.weight.filter(|_| !unmask), ..turn });
        Ok(Self { messages: messages.collect(), metadata, id, unmask })
    }

    /// Sets the system prompt, in place of the one that stands there.
    pub fn set_system(&mut self, prompt: &str) {
        self.messages.retain(|turn| turn.role != "system");
        self.messages.insert(0, Turn::new("system", prompt).into());
    }

    /// How many lines of an epoch it is, as its leaf says; one where that says nothing.
    pub fn leaf_weight(&self) -> f64 {
        self.metadata.get(LEAF_WEIGHT).and_then(Value::as_f64).unwrap_or(1.0)
    }

    /// Takes the weight of its leaf away: what was mixed by it is not weighed again.
    pub(crate) fn without_leaf_weight(mut self) -> Self {
        self.metadata.shift_remove(LEAF_WEIGHT);
        self
    }

    /// Whether a turn that is not the system's says nothing: such a line teaches to say nothing.
    pub fn is_empty(&self) -> bool {
        let silent = |turn: &WeightedTurn| turn.role != "system" && turn.content.trim().is_empty();
        self.messages.is_empty() || self.messages.iter().any(silent)
    }

    /// The leaf that it says it belongs to.
    pub fn leaf(&self) -> Option<&str> {
        self.metadata.get("leaf")?.as_str()
    }

    /// Writes the line.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

/// The labels of a row of JSON: an object, or a text of one as `InstructLab` writes it.
pub(super) fn metadata_of(object: &Map<String, Value>) -> Result<Option<Map<String, Value>>, String> {
    match object.get("metadata") {
        Some(Value::Object(labels)) => Ok(Some(labels.clone())),
        Some(Value::String(text)) if text.trim_start().starts_with('{') => serde_json::from_str(text)
            .map(Some)
            .map_err(|error| format!("`metadata` is a text that is not JSON: {error}; write an object")),
        _ => Ok(None),
    }
}

/// What a line says of the row that it was made from.
pub(crate) fn labels(row: &Row) -> Map<String, Value> {
    let mut labels = Map::new();
    let texts = [("leaf", &row.leaf), ("kind", &row.kind), ("flow", &row.flow)];
    labels
        .extend(texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(k, v)| (k.to_owned(), v.clone().into())));
    labels.insert("row".to_owned(), row.id.clone().into());
    let optional = [("document", &row.document), ("domain", &row.domain), ("license", &row.license)];
    labels.extend(optional.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into()))));
    labels.extend(row.leaf_weight.map(|weight| (LEAF_WEIGHT.to_owned(), weight.into())));
    labels
}
