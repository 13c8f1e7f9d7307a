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

/// Of each matrix the squares of its inputs, column by column, where no token counts for more than the median one.
///
/// In some layers a few tokens (the first of a text, delimiters) have inputs far above all others, in a few columns (Sun et al.
/// 2024, "Massive Activations in Large Language Models"). A plain sum of squares shows those columns, and what rounding
/// the others does to every other token counts for too little.
///
/// # Errors
///
/// On a text that the engine refuses.
pub(crate) fn usual_squares(
    engine: &NativeEngine,
    texts: &[MeasuredText],
) -> Result<BTreeMap<String, Vec<f32>>, QuantizeError> {
    let mut sums: BTreeMap<LinearInput, Vec<f64>> = BTreeMap::new();
    let mut rows = Vec::new();
    for text in texts {
        engine.linear_inputs(text.tokens(), &mut |input, columns, values| {
            rows.clear();
            rows.extend_from_slice(values);
            limit_to_median(&mut rows, columns);
            add_squares(sums.entry(input).or_insert_with(|| vec![0.0; columns]), &rows);
        })?;
    }
    let mut found = BTreeMap::new();
    for (input, sums) in sums {
        let sums: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        found.extend(input.tensors().into_iter().map(|tensor| (tensor, sums.clone())));
    }
    Ok(found)
}

/// Scales rows that are longer than the median one down to its length.
fn limit_to_median(rows: &mut [f32], columns: usize) {
    let length = |row: &[f32]| row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = rows.par_chunks(columns).map(length).collect();
    let mut sorted = lengths.clone();
    sorted.sort_by(f64::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else { return };
    rows.par_chunks_mut(columns).zip(lengths).filter(|(_, length)| *length > median).for_each(|(row, length)| {
        let scale = (median / length) as f32;
        for value in row {
            *value *= scale;
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_longer_than_the_median() {
        let mut rows = vec![3.0, 4.0, 3000.0, 4000.0, 0.6, 0.8];
        limit_to_median(&mut rows, 2);
        let expected = [3.0, 4.0, 3.0, 4.0, 0.6, 0.8];
        assert!(rows.iter().zip(expected).all(|(found, value)| (found - value).abs() < 1e-6), "{rows:?}");
        limit_to_median(&mut [], 2);
    }
}
