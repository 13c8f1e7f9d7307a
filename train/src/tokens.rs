//! The data of a run as the model sees it: tokens with their weights in the loss, and where each row came from.

use std::path::PathBuf;

use espalier_dataset::{Example, Turn};
use espalier_model::Model;
use espalier_nn::ops::teacher_tokens::TeacherTokens;
use sha2::{Digest, Sha256};

use crate::collect::Collector;
use crate::config::hex;
use crate::{TrainConfig, TrainError};

/// A row as the model sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// All tokens, in order.
    pub tokens: Vec<u32>,
    /// For each token its weight in the loss: 0 where the model does not learn to write it.
    pub weights: Vec<f32>,
    /// Which of [`Sequences::sources`] it comes from.
    pub source: usize,
    /// Which of [`Sequences::leaves`] it belongs to, where it says so.
    pub leaf: Option<usize>,
    /// How often an epoch takes it, as that leaf says; once where that says nothing. The weight of its source multiplies it.
    pub leaf_weight: Option<f64>,
    /// The row's own id, else a hash of what it says; pieces of a long text have `.1`, `.2` and so on behind it.
    pub id: String,
    /// Which of [`Sequences::files`] it stands in.
    pub file: usize,
    /// Line in the file, from 1.
    pub line: usize,
    /// What a teacher thinks of each token but the first, where one was asked.
    pub teacher: Option<TeacherTokens>,
}

impl Sequence {
    /// Tokens that are learned. The first token of a sequence is never predicted.
    pub fn targets(&self) -> usize {
        self.weights.iter().skip(1).filter(|&&weight| weight != 0.0).count()
    }

    /// Sum of the weights of what is learned.
    pub fn target_weight(&self) -> f64 {
        self.weights.iter().skip(1).map(|&weight| f64::from(weight)).sum()
    }
}

/// The data of a run.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    /// Rows to train on, in the order of the data.
    pub rows: Vec<Sequence>,
    /// Names of the sources.
    pub sources: Vec<String>,
    /// How often a row of each source comes in an epoch: 1 once, 2 twice, 0.25 in every fourth.
    pub mixing: Vec<f64>,
    /// Names of the leaves.
    pub leaves: Vec<String>,
    /// Files of the data.
    pub files: Vec<PathBuf>,
    /// Rows left out because they were too long.
    pub dropped: usize,
    /// Rows whose end was cut off.
    pub truncated: usize,
    /// The Jinja that its conversations went through, where that is not the model's own.
    pub chat_template: Option<String>,
    /// What a person should know before the run starts, a sentence each.
    pub warnings: Vec<String>,
}

impl Sequences {
    /// SHA-256 over all that the run depends on: tokens, weights, labels, mixing, and what teachers think of the rows.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for row in &self.rows {
            hash.update((row.tokens.len() as u64).to_le_bytes());
            for (token, weight) in row.tokens.iter().zip(&row.weights) {
                hash.update(token.to_le_bytes());
                hash.update(weight.to_le_bytes());
            }
            for (tokens, log_probabilities) in row.teacher.iter().flat_map(TeacherTokens::iter) {
                hash.update((tokens.len() as u64).to_le_bytes());
                for (token, log_probability) in tokens.iter().zip(log_probabilities) {
                    hash.update(token.to_le_bytes());
                    hash.update(log_probability.to_le_bytes());
                }
            }
            hash.update((row.source as u64).to_le_bytes());
            hash.update(row.leaf.map_or(u64::MAX, |leaf| leaf as u64).to_le_bytes());
            // A row without a weight is hashed as it was before rows could have one: checkpoints stay good.
            if let Some(weight) = row.leaf_weight {
                hash.update(weight.to_le_bytes());
            }
        }
        for (name, weight) in self.sources.iter().zip(&self.mixing) {
            hash.update(weight.to_le_bytes());
            hash.update(name.as_bytes());
        }
        hex(&hash.finalize())
    }

    /// `FILE:LINE` of a row.
    pub fn place(&self, row: &Sequence) -> String {
        let file = self.files.get(row.file).map_or_else(String::new, |file| file.display().to_string());
        format!("{file}:{}", row.line)
    }

    /// How often a row comes in an epoch: 1 once, 2 twice, 0.25 in every fourth.
    pub fn often(&self, row: &Sequence) -> f64 {
        self.mixing[row.source] * row.leaf_weight.unwrap_or(1.0)
    }

    /// Rows of a source, and their tokens.
    pub fn count(&self, source: usize) -> (usize, usize) {
        let rows = self.rows.iter().filter(|row| row.source == source);
        rows.fold((0, 0), |(rows, tokens), row| (rows + 1, tokens + row.tokens.len()))
    }
}

/// Encodes conversations that are in memory; [`crate::load`] reads files.
///
/// # Errors
/// Conversations that cannot be learned from, all of them named by their place.
pub fn encode(model: &Model, conversations: &[Vec<Turn>], config: &TrainConfig) -> Result<Sequences, TrainError> {
    let mut collector = Collector::new(model, config)?;
    collector.source("data", 1.0);
    collector.file("conversation".into());
    let examples = conversations.iter().enumerate().map(|(at, turns)| Ok(Example::conversation(turns, at + 1)));
    collector.add(examples.collect(), config.loss);
    collector.finish()
}
