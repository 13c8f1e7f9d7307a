//! Encoding of `f32` rows to the block formats of GGUF.
//!
//! The arithmetic is that of ggml's reference encoders without an importance matrix: plain `f32` multiplications and
//! additions in one fixed order, never fused, so that the bytes equal llama-quantize's. What is vectorised runs across
//! groups that do not depend on each other, so that each group keeps its own order of sums. Blocks do not depend on
//! their neighbours either: threads split them freely.

#![allow(clippy::float_cmp, reason = "the formats are defined by exact comparisons")]

mod float;
mod k_quants;
mod lanes;
mod legacy;
mod nearest;
mod search;

use bytemuck::Pod;
use espalier_kernels::BlockType;
use espalier_kernels::blocks::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};
use rayon::prelude::*;

/// Elements that one task of the thread pool encodes: large enough to hide its cost, a multiple of every block.
const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// Why values could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// The values do not fill whole blocks.
    #[error(
        "{elements} elements are not whole {name} blocks of {block}; encode rows whose length is a multiple of {block}, \
         or choose another type",
        name = .block_type.name(),
        block = .block_type.block_size()
    )]
    PartialBlock {
        /// Type asked for.
        block_type: BlockType,
        /// Number of values given.
        elements: usize,
    },
    /// The output has not the length of the encoded blocks.
    #[error("the encoded {name} blocks take {needed} bytes but the output has {given}", name = .block_type.name())]
    OutputLength {
        /// Type asked for.
        block_type: BlockType,
        /// Bytes that the blocks take.
        needed: usize,
        /// Bytes of the output.
        given: usize,
    },
    /// A value is NaN or infinite.
    #[error("element {index} is {value}; the weights hold no numbers there: check the training run or the source file")]
    NotFinite {
        /// Position of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value or the scale of a block is too large for half precision.
    #[error(
        "the values from element {index} are too large for the half-precision numbers of {name}; choose F32 or BF16 for \
         this tensor",
        name = .block_type.name()
    )]
    Overflow {
        /// Type asked for.
        block_type: BlockType,
        /// First element of the block.
        index: usize,
    },
}

/// A block format that encodes `N` elements at a time.
trait EncodeBlock<const N: usize>: Pod + Send {
    /// Encodes finite values.
    fn encode_block(values: &[f32; N]) -> Self;
    /// Whether the half-precision scales are finite.
    fn is_finite(&self) -> bool;
}

/// Appends the blocks of `row` to `out`.
///
/// `row` may be any number of rows one after another, as long as each is a whole number of blocks. The result does not
/// depend on the number of threads.
///
/// # Errors
///
/// When `row` is not a whole number of blocks, holds NaN or infinity, or does not fit the format's half-precision
/// scales; `out` is then as before.
pub fn encode(block_type: BlockType, row: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + row.len() / block_type.block_size() * block_type.block_bytes(), 0);
    let result = encode_into(block_type, row, &mut out[start..]);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Writes the blocks of `values` over `out`, which has exactly their length; see [`encode`].
///
/// # Errors
///
/// As [`encode`], and when `out` has another length.
pub fn encode_into(block_type: BlockType, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    if !values.len().is_multiple_of(block_type.block_size()) {
        return Err(EncodeError::PartialBlock { block_type, elements: values.len() });
    }
    let needed = values.len() / block_type.block_size() * block_type.block_bytes();
    if out.len() != needed {
        return Err(EncodeError::OutputLength { block_type, needed, given: out.len() });
    }
    let bytes_per_task = ELEMENTS_PER_TASK / block_type.block_size() * block_type.block_bytes();
    values
        .par_chunks(ELEMENTS_PER_TASK)
        .zip(out.par_chunks_mut(bytes_per_task))
        .enumerate()
        .find_map_first(|(task, (values, out))| {
            let offset = task * ELEMENTS_PER_TASK;
            if let Some(index) = first_not_finite(values) {
                return Some(EncodeError::NotFinite { index: offset + index, value: values[index] });
            }
            encode_task(block_type, values, out)
                .map(|index| EncodeError::Overflow { block_type, index: offset + index })
        })
        .map_or(Ok(()), Err)
}

/// Position of the first NaN or infinity.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    // A finite number times zero is zero, anything else NaN, which stays in the sum: no branch, so that it vectorises.
    let (chunks, rest) = values.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * 0.0;
        }
    }
    if sums.iter().chain(rest).all(|value| value.is_finite()) {
        return None;
    }
    values.iter().position(|value| !value.is_finite())
}

/// Encodes finite values on this thread; gives the first element of the first block that overflows.
fn encode_task(block_type: BlockType, values: &[f32], out: &mut [u8]) -> Option<usize> {
    match block_type {
        BlockType::F32 => float::encode_f32(values, out),
        BlockType::F16 => float::encode_f16(values, out),
        BlockType::Bf16 => float::encode_bf16(values, out),
        BlockType::Q4_0 => encode_blocks::<32, BlockQ4_0>(values, out),
        BlockType::Q4_1 => encode_blocks::<32, BlockQ4_1>(values, out),
        BlockType::Q5_0 => encode_blocks::<32, BlockQ5_0>(values, out),
        BlockType::Q5_1 => encode_blocks::<32, BlockQ5_1>(values, out),
        BlockType::Q8_0 => encode_blocks::<32, BlockQ8_0>(values, out),
        BlockType::Q2K => encode_blocks::<256, BlockQ2K>(values, out),
        BlockType::Q3K => encode_blocks::<256, BlockQ3K>(values, out),
        BlockType::Q4K => encode_blocks::<256, BlockQ4K>(values, out),
        BlockType::Q5K => encode_blocks::<256, BlockQ5K>(values, out),
        BlockType::Q6K => encode_blocks::<256, BlockQ6K>(values, out),
    }
}

fn encode_blocks<const N: usize, B: EncodeBlock<N>>(values: &[f32], out: &mut [u8]) -> Option<usize> {
    let blocks: &mut [B] = bytemuck::cast_slice_mut(out);
    for (index, (block, values)) in blocks.iter_mut().zip(values.as_chunks::<N>().0).enumerate() {
        *block = B::encode_block(values);
        if !block.is_finite() {
            return Some(index * N);
        }
    }
    None
}
