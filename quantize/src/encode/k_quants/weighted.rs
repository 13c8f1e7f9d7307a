//! The k-quants with importance: scales and minima of the groups are searched for with the importance of their columns,
//! and those of the block with the weight of their groups. Eight blocks at a time.

use espalier_kernels::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, K_BLOCK};

use super::super::lanes::{Lanes, side_by_side};
use super::super::search::{Grid, positive, squares, symmetric, with_minimum};
use super::super::weighted::{Batch, EncodeWeighted, weigh, weight_sums};
use super::{SixBitScales, round_again, six_bit_block, three_bit_block, two_bit_block};

/// Blocks side by side: as many as fill the lanes of the search over their scales and minima.
pub(in super::super) const K_BATCH: usize = 8;

type KBatch<'a> = Batch<'a, K_BLOCK, K_BATCH>;

/// Sum of the squares of each block, in the order of its elements.
#[inline(always)]
fn sums_of_squares(batch: &KBatch<'_>) -> [f32; K_BATCH] {
    let mut sums = [0.0; K_BATCH];
    for i in 0..K_BLOCK {
        for (sum, values) in sums.iter_mut().zip(&batch.values) {
            *sum += values[i] * values[i];
        }
    }
    sums
}

/// The groups of two blocks side by side.
#[inline(always)]
fn pair_side_by_side(first: &[f32; K_BLOCK], second: &[f32; K_BLOCK]) -> Lanes<f32, 16, 32> {
    let (first, second): (Lanes<f32, 8, 32>, Lanes<f32, 8, 32>) = (side_by_side(first), side_by_side(second));
    let mut pair = [[0.0; 16]; 32];
    for ((pair, first), second) in pair.iter_mut().zip(&first).zip(&second) {
        pair[..8].copy_from_slice(first);
        pair[8..].copy_from_slice(second);
    }
    pair
}

/// Scales and levels of `Q4_K` (`greatest` 15) and `Q5_K` (31); scales of `Q4_K` are not bounded to six bits, as in ggml.
#[inline(always)]
fn with_six_bit_scales(batch: &KBatch<'_>, greatest: f32, bound: u8) -> [(SixBitScales, Lanes<f32, 8, 32>); K_BATCH] {
    let grid = Grid { greatest, first: -0.9, delta: 0.05, steps: 36 };
    let variance = sums_of_squares(batch).map(|sum| 2.0 * sum / K_BLOCK as f32);
    let mut x = [[[0.0; 16]; 32]; K_BATCH / 2];
    let mut levels = x;
    // Scales in the first half of the lanes, minima in the second.
    let mut steps = [[0.0; 2 * K_BATCH]; 8];
    let mut group_weights = steps;
    for (pair, (x, levels)) in x.iter_mut().zip(&mut levels).enumerate() {
        let (first, second) = (2 * pair, 2 * pair + 1);
        *x = pair_side_by_side(batch.values[first], batch.values[second]);
        let weights = match batch.importance {
            Some(importance) => {
                let importance = pair_side_by_side(importance[first], importance[second]);
                let mut variances = [variance[first]; 16];
                variances[8..].fill(variance[second]);
                weigh(x, &importance, &variances)
            }
            None => squares(x),
        };
        let found = with_minimum::<16, 32, false>(x, &weights, &grid);
        *levels = found.levels;
        for (l, sum) in weight_sums(&weights).into_iter().enumerate() {
            let (group, block) = (l % 8, first + l / 8);
            steps[group][block] = found.scale[l];
            steps[group][K_BATCH + block] = found.minimum[l];
            group_weights[group][block] = sum;
            group_weights[group][K_BATCH + block] = sum;
        }
    }
    let found = positive(&steps, &group_weights, 63.0);
    std::array::from_fn(|block| {
        let number = |lane: usize| std::array::from_fn(|group| (found.levels[group][lane] as u8).min(bound));
        let (d, dmin) = (found.scale[block], found.scale[K_BATCH + block]);
        let scales = SixBitScales::new(d, dmin, number(block), number(K_BATCH + block));
        let (step, shift) = scales.steps();
        let half = |lanes: &Lanes<f32, 16, 32>| {
            let mut half = [[0.0; 8]; 32];
            for (half, lanes) in half.iter_mut().zip(lanes) {
                half.copy_from_slice(&lanes[block % 2 * 8..][..8]);
            }
            half
        };
        let mut levels = half(&levels[block / 2]);
        round_again(&half(&x[block / 2]), &step, &shift, greatest, &mut levels);
        (scales, levels)
    })
}

impl EncodeWeighted<K_BLOCK, K_BATCH> for BlockQ4K {
    #[inline(always)]
    fn encode_weighted(batch: &KBatch<'_>) -> [Self; K_BATCH] {
        with_six_bit_scales(batch, 15.0, u8::MAX).map(|(scales, levels)| scales.four_bit_block(&levels))
    }
}

impl EncodeWeighted<K_BLOCK, K_BATCH> for BlockQ5K {
    #[inline(always)]
    fn encode_weighted(batch: &KBatch<'_>) -> [Self; K_BATCH] {
        with_six_bit_scales(batch, 31.0, 63).map(|(scales, levels)| scales.five_bit_block(&levels))
    }
}

/// The groups of 16 of one block of a batch, and the weights of their elements.
#[inline(always)]
fn groups_of_16(batch: &KBatch<'_>, block: usize, variance: f32) -> (Lanes<f32, 16, 16>, Lanes<f32, 16, 16>) {
    let x: Lanes<f32, 16, 16> = side_by_side(batch.values[block]);
    let weights = match batch.importance {
        Some(importance) => weigh(&x, &side_by_side(importance[block]), &[variance; 16]),
        None => squares(&x),
    };
    (x, weights)
}

impl EncodeWeighted<K_BLOCK, K_BATCH> for BlockQ6K {
    #[inline(always)]
    fn encode_weighted(batch: &KBatch<'_>) -> [Self; K_BATCH] {
        std::array::from_fn(|block| {
            let x: Lanes<f32, 16, 16> = side_by_side(batch.values[block]);
            // The importance itself: six bits need no emphasis on large values.
            let weights = match batch.importance {
                Some(importance) => side_by_side(importance[block]),
                None => squares(&x),
            };
            let found = symmetric(&x, &weights, 32.0);
            six_bit_block(&x, &found.scale, found.levels)
        })
    }
}

impl EncodeWeighted<K_BLOCK, K_BATCH> for BlockQ3K {
    #[inline(always)]
    fn encode_weighted(batch: &KBatch<'_>) -> [Self; K_BATCH] {
        let variance = sums_of_squares(batch).map(|sum| 2.0 * sum / K_BLOCK as f32);
        let mut x = [[[0.0; 16]; 16]; K_BATCH];
        let mut levels = x;
        let mut steps = [[0.0; K_BATCH]; 16];
        let mut group_weights = steps;
        for block in 0..K_BATCH {
            let weights;
            (x[block], weights) = groups_of_16(batch, block, variance[block]);
            let found = symmetric(&x[block], &weights, 4.0);
            levels[block] = found.levels;
            let sums = weight_sums(&weights);
            for group in 0..16 {
                steps[group][block] = found.scale[group];
                group_weights[group][block] = sums[group];
            }
        }
        let found = symmetric(&steps, &group_weights, 32.0);
        std::array::from_fn(|block| {
            let sc = std::array::from_fn(|group| found.levels[group][block] as i32 - 32);
            three_bit_block(&x[block], found.scale[block], sc, levels[block])
        })
    }
}

impl EncodeWeighted<K_BLOCK, K_BATCH> for BlockQ2K {
    #[inline(always)]
    fn encode_weighted(batch: &KBatch<'_>) -> [Self; K_BATCH] {
        let grid = Grid { greatest: 3.0, first: -0.9, delta: 0.05, steps: 36 };
        let variance = sums_of_squares(batch).map(|sum| sum / K_BLOCK as f32);
        let mut x = [[[0.0; 16]; 16]; K_BATCH];
        let mut levels = x;
        // Scales in the first half of the lanes, minima in the second.
        let mut steps = [[0.0; 2 * K_BATCH]; 16];
        let mut group_weights = steps;
        for block in 0..K_BATCH {
            let weights;
            (x[block], weights) = groups_of_16(batch, block, variance[block]);
            let found = with_minimum::<16, 16, false>(&x[block], &weights, &grid);
            levels[block] = found.levels;
            let sums = weight_sums(&weights);
            for group in 0..16 {
                steps[group][block] = found.scale[group];
                steps[group][K_BATCH + block] = found.minimum[group];
                group_weights[group][block] = sums[group];
                group_weights[group][K_BATCH + block] = sums[group];
            }
        }
        let found = positive(&steps, &group_weights, 15.0);
        std::array::from_fn(|block| {
            let number = |group: usize, lane: usize| found.levels[group][lane] as u8;
            let scales = std::array::from_fn(|group| number(group, block) | (number(group, K_BATCH + block) << 4));
            two_bit_block(&x[block], (found.scale[block], found.scale[K_BATCH + block]), scales, levels[block])
        })
    }
}
