//! What a teacher thinks of the rows of a run: a table that `inference` made, joined to the rows by what they say.
//!
//! A row is known by its tokens. So a table fits only where rows, chat template and tokenizer are the same, and rows that
//! the table does not have are learned from their text alone.

use std::collections::HashMap;

use espalier_dataset::{TeacherOrigin, TeacherRow};
use espalier_model::Model;
use espalier_nn::ops::teacher_tokens::TeacherTokens;
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::config::hex;
use crate::tokens::{Sequence, Sequences};

impl Sequence {
    /// SHA-256 over the tokens: the row's name in a teacher's table.
    pub fn teacher_key(&self) -> String {
        let mut hash = Sha256::new();
        for token in &self.tokens {
            hash.update(token.to_le_bytes());
        }
        hex(&hash.finalize())
    }

    /// Places of the tokens that are learned.
    pub fn learned(&self) -> Vec<u32> {
        (1..self.tokens.len()).filter(|&at| self.weights[at] != 0.0).map(|at| at as u32).collect()
    }
}

/// Gives every row of `data` that the table has what the teacher thinks of it; says how many these are.
///
/// # Errors
///
/// A table of another vocabulary, one without a single row of the data, one that does not fit a row.
pub fn attach_teacher(
    data: &mut Sequences,
    model: &Model,
    origin: &TeacherOrigin,
    table: &[TeacherRow],
) -> Result<usize, TrainError> {
    if origin.vocabulary != model.tokenizer().vocabulary_sha256() {
        return Err(TrainError::Teacher(
            "it names tokens of another vocabulary than the student's: make it again with `pipeline teach` for this student"
                .to_owned(),
        ));
    }
    let vocabulary = model.config().vocabulary;
    let by_key: HashMap<&str, &TeacherRow> = table.iter().map(|row| (row.row.as_str(), row)).collect();
    let mut taught = 0;
    for row in &mut data.rows {
        if let Some(found) = by_key.get(row.teacher_key().as_str()) {
            row.teacher = Some(tokens_of(row, found, origin.top_k, vocabulary)?);
            taught += 1;
        }
    }
    if taught == 0 {
        return Err(TrainError::Teacher(format!(
            "none of the {} rows to train on is among its {}: it is from other rows, or from these in another chat \
             template; make it again with `pipeline teach` from the same data and student",
            data.rows.len(),
            table.len()
        )));
    }
    Ok(taught)
}

/// The entries of a row, one for each token but the first; empty for tokens that are not learned.
fn tokens_of(row: &Sequence, found: &TeacherRow, top_k: usize, vocabulary: usize) -> Result<TeacherTokens, TrainError> {
    let refuse = |what: &str| TrainError::Teacher(format!("row {} {what}: the table is damaged", found.row));
    if found.tokens.iter().any(|&token| token as usize >= vocabulary) {
        return Err(refuse("names a token beyond the vocabulary"));
    }
    let mut tokens = TeacherTokens::default();
    let entries = found.tokens.chunks(top_k).zip(found.log_probabilities.chunks(top_k));
    for (&position, (ids, log_probabilities)) in found.positions.iter().zip(entries) {
        let position = position as usize;
        if position <= tokens.len() || position >= row.tokens.len() {
            return Err(refuse("has places that are not in order or not in the row"));
        }
        if row.weights[position] != 0.0 {
            tokens.extend_empty(position - 1 - tokens.len());
            tokens.push(ids, log_probabilities);
        }
    }
    tokens.extend_empty(row.tokens.len() - 1 - tokens.len());
    tokens.shrink();
    Ok(tokens)
}

/// What the teacher thinks of the rows of a micro-batch, one after another; `None` where it knows none of them.
pub(crate) fn of_micro_batch(rows: &[Sequence], micro_batch: &[usize]) -> Option<TeacherTokens> {
    let mut tokens = TeacherTokens::default();
    for &row in micro_batch {
        match &rows[row].teacher {
            Some(teacher) => tokens.extend(teacher),
            None => tokens.extend_empty(rows[row].tokens.len() - 1),
        }
    }
    micro_batch.iter().any(|&row| rows[row].teacher.is_some()).then_some(tokens)
}
