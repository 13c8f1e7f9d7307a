//! A row under way, what wrote its columns, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_inference::TokenLogprob;
use serde_json::{Map, Value};

use crate::identity::{digest, hexadecimal};

/// Where a row comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Numbers of the leaf's seeds that it was made with.
    pub seeds: Vec<String>,
    /// Name of the document.
    pub document: Option<String>,
    /// Hexadecimal sha256 of the piece of the document.
    pub chunk_hash: Option<String>,
}

/// How a model wrote a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Writing {
    /// The block that asked.
    pub block: String,
    /// What answered.
    pub engine: String,
    /// Hexadecimal sha256 of the conversation.
    pub prompt_hash: String,
    /// The seed of sampling.
    pub seed: u64,
    /// The temperature.
    pub temperature: f32,
    /// The longest answer allowed, in tokens.
    pub max_tokens: usize,
    /// Tokens of the prompt; 0 where a server does not say.
    pub prompt_tokens: usize,
    /// Tokens of the answer; from a server, a quarter of its bytes.
    pub answer_tokens: usize,
    /// Everything that was written, reasoning included.
    pub raw: String,
    /// What stood before `</think>`.
    pub reasoning: Option<String>,
    /// One entry a token, where the block asked for them.
    pub logprobs: Vec<TokenLogprob>,
}

/// A row under way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Names the row: a digest of leaf, source and the path through the blocks. The same in every run of one flow.
    pub id: String,
    /// Its values by name, in the order in which they came.
    pub columns: Map<String, Value>,
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// How a model wrote a column, by the column's name.
    pub written: BTreeMap<String, Arc<Writing>>,
    /// What judges and filters found: block and score.
    pub scores: Vec<(String, f64)>,
}

impl Sample {
    /// A row of a source: `place` tells it from the others of its leaf.
    pub fn new(leaf: &str, place: &[u8], columns: Map<String, Value>, origin: Origin) -> Self {
        let id = short(&[b"source", leaf.as_bytes(), place]);
        Self { id, columns, origin: Arc::new(origin), ..Self::default() }
    }

    /// The same row as number `ordinal` of those that a block makes of it.
    pub(crate) fn child(&self, block: &str, ordinal: usize) -> Self {
        Self { id: self.child_id(block, ordinal), ..self.clone() }
    }

    /// The id of such a row.
    pub(crate) fn child_id(&self, block: &str, ordinal: usize) -> String {
        short(&[self.id.as_bytes(), block.as_bytes(), &ordinal.to_le_bytes()])
    }

    /// A column's text; `None` where it is not there or not a text.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.columns.get(column)?.as_str()
    }

    /// Puts a value that no model wrote.
    pub(crate) fn put(&mut self, column: &str, value: Value) {
        self.columns.insert(column.to_owned(), value);
        self.written.remove(column);
    }

    /// Takes a column away, with the account of its writing.
    pub(crate) fn take(&mut self, column: &str) -> Option<(Value, Option<Arc<Writing>>)> {
        let value = self.columns.shift_remove(column)?;
        Some((value, self.written.remove(column)))
    }

    /// What goes into a training row. Columns `question` and `response`; where a flow writes both into one column `output`,
    /// the question ends with the first question mark, and a text without one is all answer, as `InstructLab` has it.
    pub fn question_and_answer(&self) -> Option<(String, String)> {
        match (self.text("question"), self.text("response")) {
            (Some(question), Some(answer)) => Some((question.to_owned(), answer.to_owned())),
            _ => self.text("output").map(|output| match output.split_once('?') {
                Some((question, answer)) => (format!("{}?", question.trim()), answer.trim().to_owned()),
                None => (String::new(), output.trim().to_owned()),
            }),
        }
    }

    /// How the answer came about: the account of `response`, or of `output`.
    pub fn answer_writing(&self) -> Option<&Writing> {
        self.written.get("response").or_else(|| self.written.get("output")).map(Arc::as_ref)
    }
}

/// Sixteen hexadecimal digits of a digest.
fn short(parts: &[&[u8]]) -> String {
    hexadecimal(&digest(parts)[..8])
}

/// A row that a block dropped, with the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The row as the block got it; what a model wrote for it is among [`Sample::written`].
    pub sample: Sample,
    /// The block.
    pub block: String,
    /// What kind of fault it is, in a few words that are the same for all rows with it.
    pub category: &'static str,
    /// What is wrong with this one.
    pub detail: String,
    /// The score, where there is one.
    pub score: Option<f64>,
}

impl Rejected {
    pub(crate) fn new(sample: Sample, block: &str, category: &'static str, detail: impl Into<String>) -> Self {
        Self { sample, block: block.to_owned(), category, detail: detail.into(), score: None }
    }
}

/// What a block makes of rows, each in the order of the rows given to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Passed {
    pub(crate) kept: Vec<Sample>,
    pub(crate) rejected: Vec<Rejected>,
}

impl Passed {
    /// Each row by itself: as it is now, or the reason for which it is dropped.
    pub(crate) fn each(
        samples: Vec<Sample>,
        block: &str,
        mut change: impl FnMut(&mut Sample) -> Result<(), Refused>,
    ) -> Self {
        let mut passed = Self::default();
        for mut sample in samples {
            match change(&mut sample) {
                Ok(()) => passed.kept.push(sample),
                Err(Refused { category, detail, score }) => {
                    passed.rejected.push(Rejected { score, ..Rejected::new(sample, block, category, detail) });
                }
            }
        }
        passed
    }
}

/// Why a block drops a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) category: &'static str,
    pub(crate) detail: String,
    pub(crate) score: Option<f64>,
}

impl Refused {
    pub(crate) fn new(category: &'static str, detail: impl Into<String>) -> Self {
        Self { category, detail: detail.into(), score: None }
    }

    /// A column that the row does not have.
    pub(crate) fn missing(column: &str) -> Self {
        Self::new("missing column", format!("`{column}` is not there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_path_and_nothing_else() {
        let sample = Sample::new("leaf", b"0", Map::new(), Origin::default());
        assert_eq!(sample.id.len(), 16);
        assert_eq!(sample, Sample::new("leaf", b"0", Map::new(), Origin::default()));
        let ids = [
            sample.child_id("a", 0),
            sample.child_id("a", 1),
            sample.child_id("b", 0),
            sample.child("a", 0).child_id("a", 0),
            sample.id.clone(),
        ];
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn one_text_is_cut_at_its_first_question_mark() {
        let with = |column: &str, text: &str| {
            let columns = Map::from_iter([(column.to_owned(), Value::from(text))]);
            Sample::new("leaf", b"0", columns, Origin::default()).question_and_answer()
        };
        assert_eq!(with("output", " Who? He? Yes. "), Some(("Who?".into(), "He? Yes.".into())));
        assert_eq!(with("output", " No question. "), Some((String::new(), "No question.".into())));
        assert_eq!(with("question", "Who?"), None);
    }
}
