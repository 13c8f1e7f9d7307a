//! A look at rows before training: what is learned of each, and how the first step packs them.

use espalier_model::Tokenizer;
use serde::Serialize;

use crate::pack::Plan;
use crate::tokens::{Sequence, Sequences};
use crate::{TrainConfig, TrainError};

/// Tokens in a row that have the same weight in the loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stretch {
    /// What they say, special tokens by their names.
    pub text: String,
    /// What each counts; 0 is not learned.
    pub weight: f32,
}

/// How a person tells learned text from masked text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Learned text is green, or yellow with its weight behind it where that is not 1; masked text is dim.
    Colour,
    /// Masked text stands between `⟦` and `⟧`, text of another weight than 1 between `⟪WEIGHT:` and `⟫`.
    Brackets,
}

/// The stretches of a row. A character whose bytes are divided among tokens belongs to the stretch of the last of them.
pub fn stretches(tokenizer: &Tokenizer, row: &Sequence) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    let mut bytes = Vec::new();
    for (place, (&token, &weight)) in row.tokens.iter().zip(&row.weights).enumerate() {
        if tokenizer.is_special(token) {
            bytes.extend_from_slice(tokenizer.token_text(token).as_bytes());
        } else {
            bytes.extend_from_slice(tokenizer.token_bytes(token));
        }
        let ends = row.weights.get(place + 1).is_none_or(|next| next.to_bits() != weight.to_bits());
        let torn = std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_none());
        let last = place + 1 == row.tokens.len();
        if ends && (last || !torn) {
            found.push(Stretch { text: String::from_utf8_lossy(&bytes).into_owned(), weight });
            bytes.clear();
        }
    }
    found
}

/// The text of a row, marked.
pub fn marked_text(tokenizer: &Tokenizer, row: &Sequence, marks: Marks) -> String {
    let plain = |weight: f32| (weight - 1.0).abs() < f32::EPSILON;
    let mark = |stretch: &Stretch| {
        let Stretch { text, weight } = stretch;
        match marks {
            Marks::Colour if *weight == 0.0 => format!("\u{1b}[2m{text}\u{1b}[0m"),
            Marks::Colour if plain(*weight) => format!("\u{1b}[32m{text}\u{1b}[0m"),
            Marks::Colour => format!("\u{1b}[33m{text}({weight})\u{1b}[0m"),
            Marks::Brackets if *weight == 0.0 => format!("⟦{text}⟧"),
            Marks::Brackets if plain(*weight) => text.clone(),
            Marks::Brackets => format!("⟪{weight}:{text}⟫"),
        }
    };
    stretches(tokenizer, row).iter().map(mark).collect()
}

/// Where a row lies in a micro-batch. Its positions begin at 0, and no token sees one of another row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackedRow {
    /// `FILE:LINE`.
    pub place: String,
    /// Its place among the rows of the run, from 0.
    pub row: usize,
    /// First token of the micro-batch that is its own.
    pub first: usize,
    /// How many are.
    pub tokens: usize,
    /// How many of them predict a token that is learned.
    pub targets: usize,
}

/// The micro-batches of the first optimizer step, of at most `micro_batch_rows` tokens, as the run will take them.
///
/// # Errors
/// Settings that make no sense.
pub fn first_step(
    data: &Sequences,
    config: &TrainConfig,
    micro_batch_rows: usize,
) -> Result<Vec<Vec<PackedRow>>, TrainError> {
    config.validate()?;
    let plan = Plan::new(data, config, micro_batch_rows);
    if plan.steps() == 0 {
        return Ok(Vec::new());
    }
    let (epoch, place) = plan.place(0);
    let pack = |micro_batch: &Vec<usize>| {
        let mut first = 0;
        let row = |&row: &usize| {
            let sequence = &data.rows[row];
            let (tokens, before) = (sequence.tokens.len() - 1, first);
            first += tokens;
            PackedRow { place: data.place(sequence), row, first: before, tokens, targets: sequence.targets() }
        };
        micro_batch.iter().map(row).collect()
    };
    Ok(plan.epoch(epoch)[place].iter().map(pack).collect())
}
