//! Collecting an importance matrix in the engine's forward pass.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use espalier_inference::{LinearInput, NativeEngine};
use rayon::prelude::*;

use super::{CHUNK_TOKENS, Importance, ImportanceMatrix};
use crate::QuantizeError;
use crate::text::MeasuredText;

/// Columns that one task sums: a few cache lines of sums, read row by row.
const COLUMNS_PER_TASK: usize = 64;

/// Measures the importance of every matrix on `texts`, each a sequence of its own; every token counts. `head` adds the head's, under
/// `output.weight`, which llama-imatrix leaves out unless told. `datasets` names the texts.
///
/// Each sum is taken in `f64` over the rows in the order of the texts, so that it depends on nothing but them.
/// `on_progress` hears texts done; `Break` is an interruption.
///
/// # Errors
///
/// Without texts, on a text that the engine refuses, when an input is no number, or interrupted.
pub fn importance(
    engine: &NativeEngine,
    texts: &[MeasuredText],
    datasets: Vec<String>,
    head: bool,
    on_progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<ImportanceMatrix, QuantizeError> {
    let tokens: usize = texts.iter().map(|text| text.tokens().len()).sum();
    if tokens == 0 {
        return Err(QuantizeError::NothingToMeasure { texts: texts.len() });
    }
    let mut sums: BTreeMap<LinearInput, Vec<f64>> = BTreeMap::new();
    for (done, text) in texts.iter().enumerate() {
        engine.linear_inputs(text.tokens(), &mut |input, columns, values| {
            if input != LinearInput::Head || head {
                add_squares(sums.entry(input).or_insert_with(|| vec![0.0; columns]), values);
            }
        })?;
        if on_progress(done + 1).is_break() && done + 1 < texts.len() {
            return Err(QuantizeError::Interrupted);
        }
    }
    let chunks = tokens.div_ceil(CHUNK_TOKENS as usize);
    let mut matrix = ImportanceMatrix::new(datasets, u32::try_from(chunks).unwrap_or(u32::MAX), CHUNK_TOKENS);
    for (input, sums) in sums {
        let sums: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        for tensor in input.tensors() {
            let importance = Importance::new(sums.clone(), vec![tokens as u64])
                .map_err(|problem| QuantizeError::Activations { tensor: tensor.clone(), problem })?;
            matrix.insert(tensor, importance);
        }
    }
    Ok(matrix)
}

/// Adds the squares of rows, each column in the order of the rows.
fn add_squares(sums: &mut [f64], rows: &[f32]) {
    let columns = sums.len();
    sums.par_chunks_mut(COLUMNS_PER_TASK).enumerate().for_each(|(task, sums)| {
        let first = task * COLUMNS_PER_TASK;
        for row in rows.chunks_exact(columns) {
            for (sum, value) in sums.iter_mut().zip(&row[first..]) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
    });
}
