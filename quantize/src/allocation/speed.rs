//! How long one token takes with each type, on this machine.
//!
//! One sequence reads every matrix once a token, and hardly anything else takes time. So what counts of a type is how fast its
//! blocks are read and multiplied: that is measured, on rows of the model's own length, in a matrix as large as the model or
//! larger than any cache, by the products that the engine uses for one sequence.

use std::sync::Arc;
use std::time::Instant;

use espalier_kernels::{
    Accumulate, BlockRows, BlockType, Precision, QuantizedRows, StoredMatrix, Values, has_block_product, matmul,
    matmul_quantized,
};
use espalier_model::{Model, TensorInfo};
use serde::Serialize;

use crate::QuantizeError;
use crate::encode::encode;
use crate::write::in_tensor;

/// Weights of the matrix that is timed, at most: in any type more than the caches of most machines hold.
const WEIGHTS: usize = 64 << 20;
/// Weights that are encoded; the rest of the matrix repeats them.
const ENCODED: usize = 1 << 16;
/// Seconds that a type is timed, and products at least.
const SECONDS: f64 = 0.05;
const PRODUCTS: usize = 5;

/// What the products of one token take on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenTime {
    /// Seconds with the types that were chosen.
    pub seconds: f64,
    /// Seconds with the fastest types.
    pub fastest: f64,
}

/// What a tensor takes of a budget.
pub(super) enum Spending {
    /// Bytes.
    Bytes,
    /// Picoseconds of a token.
    Time {
        /// Picoseconds a weight, of every type that the model's rows divide into.
        rates: Vec<(BlockType, f64)>,
        /// Whether the embedding is the head too, and read as a whole.
        tied_head: bool,
    },
}

impl Spending {
    /// Times every type on rows like those of the model's largest matrix.
    pub(super) fn time(model: &Model, types: &[BlockType], precision: Precision) -> Result<Self, QuantizeError> {
        let matrices = || model.tensors().filter(|info| info.rows > 1);
        let weights: usize = matrices().map(|info| info.rows * info.columns).sum();
        let columns = matrices().max_by_key(|info| info.rows * info.columns).map_or(1, |info| info.columns);
        let rows = (weights.min(WEIGHTS) / columns).max(1);
        let mut rates = Vec::new();
        // Types without a product on blocks are packed when they are loaded: all alike.
        let mut packed = None;
        for &block_type in types.iter().filter(|block_type| columns.is_multiple_of(block_type.block_size())) {
            let rate = match packed {
                Some(rate) if !has_block_product(block_type) => rate,
                _ => rate(block_type, rows, columns, precision)?,
            };
            if !has_block_product(block_type) {
                packed = Some(rate);
            }
            rates.push((block_type, rate));
        }
        Ok(Self::Time { rates, tied_head: model.config().tied_head })
    }

    /// What a tensor of a type takes.
    pub(super) fn of(&self, info: &TensorInfo, block_type: BlockType) -> u64 {
        match self {
            Self::Bytes => super::errors::bytes(info, block_type),
            // Of an embedding that is no head one row is read.
            Self::Time { tied_head: false, .. } if info.name == "token_embd.weight" => 0,
            Self::Time { rates, .. } => {
                let known = rates.iter().find(|(known, _)| *known == block_type).map(|(_, rate)| *rate);
                // Rows that are shorter may divide into what the longest do not: as slow as the slowest.
                let slowest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
                (known.unwrap_or(slowest) * (info.rows * info.columns) as f64) as u64
            }
        }
    }
}

/// Picoseconds a weight.
fn rate(block_type: BlockType, rows: usize, columns: usize, precision: Precision) -> Result<f64, QuantizeError> {
    let encoded = (ENCODED / columns).clamp(1, rows);
    let values: Vec<f32> = (0..encoded * columns).map(|i| (i * 31 % 9973 * 17 % 97) as f32 / 97.0 - 0.5).collect();
    let mut blocks = Vec::new();
    encode(block_type, &values, None, &mut blocks).map_err(|error| in_tensor("of the timing", 0, columns, error))?;
    let bytes = blocks.len() / encoded * rows;
    let blocks: Vec<u8> = blocks.iter().copied().cycle().take(bytes).collect();
    let matrix = StoredMatrix::new(precision, vec![BlockRows::new(block_type, columns, Arc::new(blocks), 0..bytes)?]);
    let x: Vec<f32> = (0..columns).map(|index| (index % 89) as f32 / 89.0 - 0.5).collect();
    let mut y = vec![0.0; rows];
    let seconds = if has_block_product(block_type) {
        let mut quantized = QuantizedRows::default();
        median_seconds(&mut || {
            quantized.quantize(Values::F32(&x), 1, columns);
            matmul_quantized(&quantized, &matrix, &mut y, Accumulate::Overwrite);
        })
    } else {
        let packed = matrix.pack();
        drop(matrix);
        median_seconds(&mut || matmul(&x, 1, &packed, &mut y, Accumulate::Overwrite))
    };
    Ok(seconds * 1e12 / (rows * columns) as f64)
}

/// The median time of a product, after a first one that touches every page.
fn median_seconds(product: &mut (dyn FnMut() + Send)) -> f64 {
    let mut times = Vec::new();
    // From a thread of the pool, as the engine calls it.
    rayon::scope(|_| {
        product();
        let begun = Instant::now();
        while times.len() < PRODUCTS || begun.elapsed().as_secs_f64() < SECONDS {
            let start = Instant::now();
            product();
            times.push(start.elapsed().as_secs_f64());
        }
    });
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_all_but_an_embedding_that_is_no_head() {
        let tensor = |name: &str| TensorInfo {
            name: name.into(),
            dimensions: vec![64, 10],
            rows: 10,
            columns: 64,
            block_type: BlockType::F32,
        };
        let time =
            |tied_head| Spending::Time { rates: vec![(BlockType::Q4_0, 20.0), (BlockType::Q8_0, 35.5)], tied_head };
        assert_eq!(time(true).of(&tensor("token_embd.weight"), BlockType::Q4_0), 12_800);
        assert_eq!(time(false).of(&tensor("token_embd.weight"), BlockType::Q4_0), 0);
        assert_eq!(time(false).of(&tensor("output.weight"), BlockType::Q8_0), 22_720);
        assert_eq!(time(false).of(&tensor("output.weight"), BlockType::Q6K), 22_720, "not timed: as the slowest");
        assert_eq!(Spending::Bytes.of(&tensor("token_embd.weight"), BlockType::Q8_0), 680);
    }
}
