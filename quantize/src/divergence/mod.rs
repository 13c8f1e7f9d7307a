//! How far the predictions of a quantized model lie from those of its reference.
//!
//! Both engines read the same texts at the same time, and each position is compared as it comes: no file of logits, which
//! would take gigabytes, and no more than a few dozen positions in memory. Where many candidates are held against one
//! reference on a few texts, its logits are kept instead ([`ReferenceLogits`]).

mod position;
mod summary;

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};

use espalier_inference::NativeEngine;
use rayon::prelude::*;

use self::position::Position;
pub use self::summary::{Divergence, Estimate};
use crate::QuantizeError;
use crate::text::MeasuredText;

/// Pieces of logits that the reference may run ahead.
const PIECES_AHEAD: usize = 1;

/// Compares two engines on texts. `on_progress` hears texts done; `Break` is an interruption.
///
/// # Errors
///
/// When the vocabularies differ, no token counts, an engine refuses a text, or interrupted.
pub fn divergence(
    reference: &NativeEngine,
    candidate: &NativeEngine,
    texts: &[MeasuredText],
    on_progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Divergence, QuantizeError> {
    same_vocabulary(reference.tokenizer().vocabulary(), candidate)?;
    let mut positions = Vec::with_capacity(texts.len());
    for text in texts {
        positions.push(compare_text(reference, candidate, text)?);
        if on_progress(positions.len()).is_break() && positions.len() < texts.len() {
            return Err(QuantizeError::Interrupted);
        }
    }
    summary::summary(&positions).ok_or(QuantizeError::NothingToCompare { texts: texts.len() })
}

/// The logits of a reference on a few texts, kept.
pub struct ReferenceLogits {
    texts: Vec<MeasuredText>,
    /// For each text its logits from the first position that counts.
    logits: Vec<Vec<f32>>,
    vocabulary: usize,
}

impl ReferenceLogits {
    /// Runs the reference.
    ///
    /// # Errors
    ///
    /// When the engine refuses a text.
    pub fn new(reference: &NativeEngine, texts: Vec<MeasuredText>) -> Result<Self, QuantizeError> {
        let mut logits = Vec::with_capacity(texts.len());
        for text in &texts {
            let mut kept = Vec::new();
            if let Some(first) = text.first_position() {
                reference.logits_from(text.tokens(), first, &mut |_, rows| kept.extend_from_slice(rows))?;
            }
            logits.push(kept);
        }
        Ok(Self { texts, logits, vocabulary: reference.tokenizer().vocabulary() })
    }

    /// Compares a candidate with the reference.
    ///
    /// # Errors
    ///
    /// As [`divergence`].
    pub fn divergence(&self, candidate: &NativeEngine) -> Result<Divergence, QuantizeError> {
        same_vocabulary(self.vocabulary, candidate)?;
        let mut positions = Vec::with_capacity(self.texts.len());
        for (text, kept) in self.texts.iter().zip(&self.logits) {
            let mut found = Vec::new();
            if let Some(first) = text.first_position() {
                let mut rest = kept.as_slice();
                candidate.logits_from(text.tokens(), first, &mut |position, rows| {
                    let (expected, after) = rest.split_at(rows.len());
                    compare_rows(text, self.vocabulary, position, [expected, rows], &mut found);
                    rest = after;
                })?;
            }
            positions.push(found);
        }
        summary::summary(&positions).ok_or(QuantizeError::NothingToCompare { texts: self.texts.len() })
    }
}

fn same_vocabulary(reference: usize, candidate: &NativeEngine) -> Result<(), QuantizeError> {
    let candidate = candidate.tokenizer().vocabulary();
    if reference == candidate { Ok(()) } else { Err(QuantizeError::Vocabulary { reference, candidate }) }
}

/// Runs both engines over a text, in step.
fn compare_text(
    reference: &NativeEngine,
    candidate: &NativeEngine,
    text: &MeasuredText,
) -> Result<Vec<Position>, QuantizeError> {
    let Some(first) = text.first_position() else { return Ok(Vec::new()) };
    let (sender, receiver) = sync_channel::<Vec<f32>>(PIECES_AHEAD);
    std::thread::scope(|scope| {
        let running = scope.spawn(move || {
            reference.logits_from(text.tokens(), first, &mut |_, rows| {
                // A receiver that is gone had an error of its own.
                let _ = sender.send(rows.to_vec());
            })
        });
        let compared = against(candidate, text, first, receiver);
        let referred = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        referred?;
        compared
    })
}

/// Runs the candidate; takes the receiver, so that the reference goes on alone when the candidate stops.
fn against(
    candidate: &NativeEngine,
    text: &MeasuredText,
    first: usize,
    receiver: Receiver<Vec<f32>>,
) -> Result<Vec<Position>, QuantizeError> {
    let vocabulary = candidate.tokenizer().vocabulary();
    let (mut found, mut waiting) = (Vec::new(), Vec::new());
    let result = candidate.logits_from(text.tokens(), first, &mut |position, rows| {
        while waiting.len() < rows.len() {
            match receiver.recv() {
                Ok(piece) => waiting.extend(piece),
                Err(_) => return,
            }
        }
        compare_rows(text, vocabulary, position, [&waiting[..rows.len()], rows], &mut found);
        waiting.drain(..rows.len());
    });
    drop(receiver);
    result?;
    Ok(found)
}

/// Compares the logits of neighbouring positions from `first` on, and adds those that count, in order.
fn compare_rows(
    text: &MeasuredText,
    vocabulary: usize,
    first: usize,
    [reference, candidate]: [&[f32]; 2],
    found: &mut Vec<Position>,
) {
    let rows = reference.par_chunks_exact(vocabulary).zip(candidate.par_chunks_exact(vocabulary));
    let compared: Vec<Option<Position>> = rows
        .enumerate()
        .map(|(row, (reference, candidate))| {
            text.next(first + row).map(|next| Position::compare(reference, candidate, next))
        })
        .collect();
    found.extend(compared.into_iter().flatten());
}
