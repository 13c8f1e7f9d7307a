//! Encoding of `f32` rows to the block formats of GGUF.
//!
//! The arithmetic is that of ggml's reference encoders, with and without an importance matrix: plain `f32` multiplications
//! and additions in one fixed order, never fused, so that the bytes equal llama-quantize's. What is vectorised runs across
//! groups that do not depend on each other, so that each group keeps its own order of sums. Rows do not depend on their
//! neighbours either: threads split them freely.

#![allow(clippy::float_cmp, reason = "the formats are defined by exact comparisons")]
// Plain loops are compiled anew for each instruction set, which needs their bodies in the callers.
#![allow(clippy::inline_always)]

mod few_levels;
mod float;
mod half_scales;
mod k_quants;
mod lanes;
mod legacy;
mod nearest;
mod nonlinear;
mod refine;
mod search;
mod weighted;

use espalier_kernels::blocks::{
    BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, BlockTq1_0, BlockTq2_0,
};
use espalier_kernels::{BlockType, PlainWork, run_widest};
use rayon::prelude::*;

use self::half_scales::HalfScales;
use self::k_quants::K_BATCH;
use self::legacy::LEGACY_BATCH;
pub use self::refine::refine;
use self::weighted::{EncodeWeighted, WeightedRows};

/// Elements that one task of the thread pool encodes: large enough to hide its cost, a multiple of every block.
const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// Why values could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// A type that is read, but not written.
    #[error(
        "{name} is only read, not written; choose one of {known}",
        name = .block_type.name(),
        known = ENCODABLE.map(BlockType::name).join(", ")
    )]
    OnlyRead {
        /// Type asked for.
        block_type: BlockType,
    },
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
    /// The importance does not fit the rows.
    #[error(
        "the importance of {columns} columns does not fit {elements} values; pass whole rows of the tensor that the \
         importance was collected for"
    )]
    ImportanceLength {
        /// Columns that the importance was given for.
        columns: usize,
        /// Number of values given.
        elements: usize,
    },
    /// A number of the importance is NaN, infinite or negative.
    #[error("the importance of column {column} is {value}; collect the importance matrix again")]
    Importance {
        /// The first such column.
        column: usize,
        /// Its importance.
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

/// The types that can be written; the others are only read.
pub const ENCODABLE: [BlockType; 18] = [
    BlockType::F32,
    BlockType::F16,
    BlockType::Bf16,
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q8_0,
    BlockType::Q2K,
    BlockType::Q3K,
    BlockType::Q4K,
    BlockType::Q5K,
    BlockType::Q6K,
    BlockType::Iq4Nl,
    BlockType::Iq4Xs,
    BlockType::Mxfp4,
    BlockType::Tq1_0,
    BlockType::Tq2_0,
];

/// Whether errors in this type are weighed by importance; the other types leave nothing to choose.
pub fn weighs_importance(block_type: BlockType) -> bool {
    matches!(
        block_type,
        BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q2K
            | BlockType::Q3K
            | BlockType::Q4K
            | BlockType::Q5K
            | BlockType::Q6K
            | BlockType::Iq4Nl
            | BlockType::Iq4Xs
    )
}

/// A block format that encodes `N` elements at a time.
trait EncodeBlock<const N: usize>: HalfScales {
    /// Encodes finite values.
    fn encode_block(values: &[f32; N]) -> Self;
}

/// Appends the blocks of `values` to `out`.
///
/// Without `importance`, `values` may be any number of rows one after another, as long as each is a whole number of
/// blocks. With it they are rows as long as `importance`, which holds one number for each column: how much an error there
/// matters, in any unit. Types that leave no
/// choice do not look at it ([`weighs_importance`]). The result does not depend on
/// the number of threads.
///
/// # Errors
///
/// When the values are not whole blocks, or not whole rows of the length of `importance`; when they hold NaN or infinity,
/// or do not fit the format's half-precision scales; when the importance is negative or no number. `out` is then as before.
pub fn encode(
    block_type: BlockType,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + values.len() / block_type.block_size() * block_type.block_bytes(), 0);
    let result = encode_into(block_type, values, importance, &mut out[start..]);
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
pub fn encode_into(
    block_type: BlockType,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), EncodeError> {
    let encoder = encoder(block_type, importance.is_some()).ok_or(EncodeError::OnlyRead { block_type })?;
    if !values.len().is_multiple_of(block_type.block_size()) {
        return Err(EncodeError::PartialBlock { block_type, elements: values.len() });
    }
    let needed = values.len() / block_type.block_size() * block_type.block_bytes();
    if out.len() != needed {
        return Err(EncodeError::OutputLength { block_type, needed, given: out.len() });
    }
    if let Some(importance) = importance {
        check_importance(block_type, values, importance)?;
    }
    // With importance a task is whole rows.
    let elements_per_task =
        importance.map_or(ELEMENTS_PER_TASK, |row| (ELEMENTS_PER_TASK / row.len().max(1)).max(1) * row.len().max(1));
    let bytes_per_task = elements_per_task / block_type.block_size() * block_type.block_bytes();
    values
        .par_chunks(elements_per_task)
        .zip(out.par_chunks_mut(bytes_per_task))
        .enumerate()
        .find_map_first(|(task, (values, out))| {
            let offset = task * elements_per_task;
            if let Some(index) = first_not_finite(values) {
                return Some(EncodeError::NotFinite { index: offset + index, value: values[index] });
            }
            encoder(values, importance, out).map(|index| EncodeError::Overflow { block_type, index: offset + index })
        })
        .map_or(Ok(()), Err)
}

/// Encodes as [`encode_into`] does, then moves the scales ([`refine`]) where that is asked for.
pub(crate) fn round_into(
    block_type: BlockType,
    values: &[f32],
    importance: Option<&[f32]>,
    refining: bool,
    out: &mut [u8],
) -> Result<(), EncodeError> {
    encode_into(block_type, values, importance, out)?;
    if refining { refine(block_type, values, importance, out) } else { Ok(()) }
}

/// Whether the importance fits the values and holds weights.
fn check_importance(block_type: BlockType, values: &[f32], importance: &[f32]) -> Result<(), EncodeError> {
    let columns = importance.len();
    let whole = columns > 0 && columns.is_multiple_of(block_type.block_size()) && values.len().is_multiple_of(columns);
    if !whole {
        return Err(EncodeError::ImportanceLength { columns, elements: values.len() });
    }
    match importance.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
        Some(column) => Err(EncodeError::Importance { column, value: importance[column] }),
        None => Ok(()),
    }
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

/// Encodes finite values on one thread; gives the first element of the first block that overflows.
type Encoder = fn(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Option<usize>;

/// The encoder of a type, where it has one.
fn encoder(block_type: BlockType, with_importance: bool) -> Option<Encoder> {
    Some(match (block_type, with_importance) {
        (BlockType::F32, _) => |values, _, out| float::encode_f32(values, out),
        (BlockType::F16, _) => |values, _, out| float::encode_f16(values, out),
        (BlockType::Bf16, _) => |values, _, out| float::encode_bf16(values, out),
        (BlockType::Q8_0, _) => plainly::<32, BlockQ8_0>,
        (BlockType::Q4_0, false) => plainly::<32, BlockQ4_0>,
        (BlockType::Q4_1, false) => plainly::<32, BlockQ4_1>,
        (BlockType::Q5_0, false) => plainly::<32, BlockQ5_0>,
        (BlockType::Q5_1, false) => plainly::<32, BlockQ5_1>,
        (BlockType::Q2K, false) => plainly::<256, BlockQ2K>,
        (BlockType::Q3K, false) => plainly::<256, BlockQ3K>,
        (BlockType::Q4K, false) => plainly::<256, BlockQ4K>,
        (BlockType::Q5K, false) => plainly::<256, BlockQ5K>,
        (BlockType::Q4_0, true) => weighted::<32, LEGACY_BATCH, BlockQ4_0>,
        (BlockType::Q4_1, true) => weighted::<32, LEGACY_BATCH, BlockQ4_1>,
        (BlockType::Q5_0, true) => weighted::<32, LEGACY_BATCH, BlockQ5_0>,
        (BlockType::Q5_1, true) => weighted::<32, LEGACY_BATCH, BlockQ5_1>,
        (BlockType::Q2K, true) => weighted::<256, K_BATCH, BlockQ2K>,
        (BlockType::Q3K, true) => weighted::<256, K_BATCH, BlockQ3K>,
        (BlockType::Q4K, true) => weighted::<256, K_BATCH, BlockQ4K>,
        (BlockType::Q5K, true) => weighted::<256, K_BATCH, BlockQ5K>,
        (BlockType::Q6K, _) => weighted::<256, K_BATCH, BlockQ6K>,
        (BlockType::Iq4Nl, _) => weighted::<32, LEGACY_BATCH, BlockIq4Nl>,
        (BlockType::Iq4Xs, _) => weighted::<256, K_BATCH, BlockIq4Xs>,
        (BlockType::Mxfp4, _) => plainly::<32, BlockMxfp4>,
        (BlockType::Tq1_0, _) => plainly::<256, BlockTq1_0>,
        (BlockType::Tq2_0, _) => plainly::<256, BlockTq2_0>,
        // Only read: see ENCODABLE.
        _ => return None,
    })
}

/// One block after another.
fn plainly<const N: usize, B: EncodeBlock<N>>(values: &[f32], _: Option<&[f32]>, out: &mut [u8]) -> Option<usize> {
    run_widest(PlainBlocks::<'_, B, N> { values, out: bytemuck::cast_slice_mut(out) })
}

/// Several blocks side by side.
fn weighted<const N: usize, const S: usize, B: EncodeWeighted<N, S>>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Option<usize> {
    run_widest(WeightedRows::<'_, B, N, S> { values, importance, out: bytemuck::cast_slice_mut(out) })
}

/// Blocks to be encoded one after another on one thread.
struct PlainBlocks<'a, B, const N: usize> {
    values: &'a [f32],
    out: &'a mut [B],
}

impl<B: EncodeBlock<N>, const N: usize> PlainWork for PlainBlocks<'_, B, N> {
    /// The first element of the first block that overflows.
    type Output = Option<usize>;

    #[inline(always)]
    fn run(self) -> Option<usize> {
        for (index, (block, values)) in self.out.iter_mut().zip(self.values.as_chunks::<N>().0).enumerate() {
            *block = B::encode_block(values);
            if !block.is_finite() {
                return Some(index * N);
            }
        }
        None
    }
}
