//! Better rounding inside the same formats: encoded blocks whose scales are moved while that lowers their error.
//!
//! The encoders find the scale of a group before they round it to the few bits that are stored, and round the elements once
//! more at the end. Here the stored numbers themselves are moved: the scale and minimum of each group a few steps up and
//! down, then the scales of the block by least squares on the levels as they are, in turn until nothing gets better. A block
//! is replaced only when its weighted error, decoded as any reader decodes it, is lower.

mod groups;
mod single;

use espalier_kernels::blocks::{
    BlockIq4Nl, BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K,
    BlockQ6K, decode,
};
use espalier_kernels::{BlockType, PlainWork, run_widest};
use rayon::prelude::*;

use super::half_scales::HalfScales;
use super::{EncodeError, check_importance, weighs_importance};

/// Elements that one task of the thread pool refines, about.
const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// A format with scales to be moved, in blocks of `N` elements.
trait Refine<const N: usize>: HalfScales {
    /// The block with the least weighted error that is found near this one.
    fn refined(&self, values: &[f32; N], weights: &[f32; N]) -> Self;
}

/// Moves the scales of encoded blocks while that lowers `sum importance (x - decoded)^2`; without importance all columns
/// count alike. No block gets worse. `blocks` are those that [`encode`](super::encode) made of the same values; types that
/// leave no choice ([`weighs_importance`]) stay as they are.
///
/// # Errors
///
/// When the importance or the length of the blocks does not fit the values.
pub fn refine(
    block_type: BlockType,
    values: &[f32],
    importance: Option<&[f32]>,
    blocks: &mut [u8],
) -> Result<(), EncodeError> {
    if !values.len().is_multiple_of(block_type.block_size()) {
        return Err(EncodeError::PartialBlock { block_type, elements: values.len() });
    }
    let needed = values.len() / block_type.block_size() * block_type.block_bytes();
    if blocks.len() != needed {
        return Err(EncodeError::OutputLength { block_type, needed, given: blocks.len() });
    }
    if let Some(importance) = importance {
        check_importance(block_type, values, importance)?;
    }
    if !weighs_importance(block_type) || values.is_empty() {
        return Ok(());
    }
    let even = vec![1.0; if importance.is_some() { 0 } else { block_type.block_size() }];
    let row = importance.unwrap_or(&even);
    let elements_per_task = (ELEMENTS_PER_TASK / row.len()).max(1) * row.len();
    let bytes_per_task = elements_per_task / block_type.block_size() * block_type.block_bytes();
    let refine_task = match block_type {
        BlockType::Q4_0 => in_blocks::<32, BlockQ4_0>,
        BlockType::Q4_1 => in_blocks::<32, BlockQ4_1>,
        BlockType::Q5_0 => in_blocks::<32, BlockQ5_0>,
        BlockType::Q5_1 => in_blocks::<32, BlockQ5_1>,
        BlockType::Iq4Nl => in_blocks::<32, BlockIq4Nl>,
        BlockType::Iq4Xs => in_blocks::<256, BlockIq4Xs>,
        BlockType::Q2K => in_blocks::<256, BlockQ2K>,
        BlockType::Q3K => in_blocks::<256, BlockQ3K>,
        BlockType::Q4K => in_blocks::<256, BlockQ4K>,
        BlockType::Q5K => in_blocks::<256, BlockQ5K>,
        BlockType::Q6K => in_blocks::<256, BlockQ6K>,
        _ => return Ok(()),
    };
    values
        .par_chunks(elements_per_task)
        .zip(blocks.par_chunks_mut(bytes_per_task))
        .for_each(|(values, blocks)| refine_task(block_type, values, row, blocks));
    Ok(())
}

fn in_blocks<const N: usize, B: Refine<N>>(block_type: BlockType, values: &[f32], row: &[f32], blocks: &mut [u8]) {
    let found = run_widest(RefinedBlocks::<'_, B, N> { values, row, blocks: bytemuck::cast_slice(blocks) });
    let (mut before, mut after) = ([0.0; N], [0.0; N]);
    let weights = row.as_chunks::<N>().0;
    let parts = blocks.chunks_exact_mut(size_of::<B>()).zip(values.as_chunks::<N>().0).zip(weights.iter().cycle());
    for (((block, values), weights), found) in parts.zip(&found) {
        let candidate = bytemuck::bytes_of(found);
        let decoded =
            decode(block_type, block, &mut before).is_ok() && decode(block_type, candidate, &mut after).is_ok();
        if decoded && found.is_finite() && error(values, weights, &after) < error(values, weights, &before) {
            block.copy_from_slice(candidate);
        }
    }
}

/// The weighted error of a block as it is decoded.
fn error<const N: usize>(values: &[f32; N], weights: &[f32; N], decoded: &[f32; N]) -> f64 {
    let parts = values.iter().zip(weights).zip(decoded);
    parts.map(|((value, weight), decoded)| f64::from(*weight) * f64::from(value - decoded).powi(2)).sum()
}

/// Blocks to be refined on one thread.
struct RefinedBlocks<'a, B, const N: usize> {
    values: &'a [f32],
    row: &'a [f32],
    blocks: &'a [B],
}

impl<B: Refine<N>, const N: usize> PlainWork for RefinedBlocks<'_, B, N> {
    type Output = Vec<B>;

    #[inline(always)]
    fn run(self) -> Vec<B> {
        let weights = self.row.as_chunks::<N>().0;
        let mut found = Vec::with_capacity(self.blocks.len());
        for (index, (block, values)) in self.blocks.iter().zip(self.values.as_chunks::<N>().0).enumerate() {
            found.push(block.refined(values, &weights[index % weights.len()]));
        }
        found
    }
}

/// Lanes of the sums: each adds up every sixteenth element, and they are added at last.
const LANES: usize = 16;

/// The weighted error of elements that are rounded to the nearest `step level - shift`.
#[inline(always)]
fn rounding_error<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    (step, shift): (f32, f32),
    nearest: impl Fn(f32) -> f32,
) -> f32 {
    let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
    let mut sums = [0.0; LANES];
    for (x, weights) in x.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0) {
        for l in 0..LANES {
            let difference = step * nearest((x[l] + shift) * inverse) - shift - x[l];
            sums[l] += weights[l] * difference * difference;
        }
    }
    sums.into_iter().sum()
}

/// The sums of a least-squares fit `x ~ step level - shift`.
#[derive(Default)]
struct Moments {
    weight: f64,
    level: f64,
    level_level: f64,
    x: f64,
    x_level: f64,
}

/// The sums over the levels to which elements are rounded.
#[inline(always)]
fn moments<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    (step, shift): (f32, f32),
    nearest: impl Fn(f32) -> f32,
) -> Moments {
    let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
    let mut sums = [[0.0; LANES]; 5];
    for (x, weights) in x.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0) {
        for l in 0..LANES {
            let (x, w) = (x[l], weights[l]);
            let level = nearest((x + shift) * inverse);
            sums[0][l] += w;
            sums[1][l] += w * level;
            sums[2][l] += w * level * level;
            sums[3][l] += w * x;
            sums[4][l] += w * x * level;
        }
    }
    let [weight, level, level_level, x, x_level] = sums.map(|sums| f64::from(sums.into_iter().sum::<f32>()));
    Moments { weight, level, level_level, x, x_level }
}
