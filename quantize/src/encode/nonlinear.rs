//! The formats with uneven levels: `IQ4_NL` and `IQ4_XS`, with or without importance, and `MXFP4`.

use espalier_kernels::blocks::{
    BlockIq4Nl, BlockIq4Xs, BlockMxfp4, FLOAT_LEVELS, K_BLOCK, LEGACY_BLOCK, NONLINEAR_LEVELS, half_of_exponent_scale,
};

use super::EncodeBlock;
use super::k_quants::K_BATCH;
use super::lanes::{Lanes, blocks_side_by_side};
use super::legacy::{LEGACY_BATCH, nibbles};
use super::nearest::{nearest_level, to_half};
use super::search::{ZERO_MAGNITUDE, largest, squares};
use super::weighted::{Batch, EncodeWeighted, weigh};

/// Scales tried to either side of the first.
const TRIALS: i32 = 7;

/// Groups of 32 side by side.
const GROUPS: usize = 16;

type Groups = Lanes<f32, GROUPS, LEGACY_BLOCK>;

/// Half way between level `index` and the next; what lies on it belongs to the next.
const fn boundary(index: usize) -> f32 {
    f32::midpoint(NONLINEAR_LEVELS[index] as f32, NONLINEAR_LEVELS[index + 1] as f32)
}

/// The level nearest to `value`. Around the boundaries the differences to both levels are exact in `f32`, so that to
/// compare with the boundary is to compare the differences.
#[inline(always)]
pub(super) fn nearest_nonlinear(value: f32) -> f32 {
    let mut level = f32::from(NONLINEAR_LEVELS[0]);
    for index in 0..15 {
        let next = f32::from(NONLINEAR_LEVELS[index + 1]);
        level = if value < boundary(index) { level } else { next };
    }
    level
}

/// The index of the level nearest to `value`; that of NaN is the last.
#[inline(always)]
fn nearest_nonlinear_index(value: f32) -> u8 {
    let mut count = 0;
    for index in 0..15 {
        let below = value < boundary(index);
        count += u8::from(!below);
    }
    count
}

/// The scale of each group with the least weighted error, 0 for zeros.
#[inline(always)]
fn search_scales(x: &Groups, weights: &Groups) -> [f32; GROUPS] {
    let (largest, magnitude) = largest(x);
    let lowest = f32::from(NONLINEAR_LEVELS[0]);
    let mut inverse = [0.0; GROUPS];
    for l in 0..GROUPS {
        let scale = -largest[l] / lowest;
        inverse[l] = 1.0 / scale;
    }
    let (sum_qx, sum_q2) = fit(x, weights, &inverse);
    let mut scale = [0.0; GROUPS];
    let mut best = [0.0; GROUPS];
    for l in 0..GROUPS {
        scale[l] = if sum_q2[l] > 0.0 { sum_qx[l] / sum_q2[l] } else { 0.0 };
        best[l] = scale[l] * sum_qx[l];
    }
    for trial in -TRIALS..=TRIALS {
        for l in 0..GROUPS {
            inverse[l] = (trial as f32 + lowest) / largest[l];
        }
        let (sum_qx, sum_q2) = fit(x, weights, &inverse);
        for l in 0..GROUPS {
            let better = sum_q2[l] > 0.0 && sum_qx[l] * sum_qx[l] > best[l] * sum_q2[l];
            let trial_scale = sum_qx[l] / sum_q2[l];
            scale[l] = if better { trial_scale } else { scale[l] };
            best[l] = if better { trial_scale * sum_qx[l] } else { best[l] };
        }
    }
    for l in 0..GROUPS {
        scale[l] = if magnitude[l] < ZERO_MAGNITUDE { 0.0 } else { scale[l] };
    }
    scale
}

/// The sums `weight level x` and `weight level^2` over the levels nearest to `inverse x`.
#[inline(always)]
fn fit(x: &Groups, weights: &Groups, inverse: &[f32; GROUPS]) -> ([f32; GROUPS], [f32; GROUPS]) {
    let (mut sum_qx, mut sum_q2) = ([0.0; GROUPS], [0.0; GROUPS]);
    for i in 0..LEGACY_BLOCK {
        for l in 0..GROUPS {
            let (x, w) = (x[i][l], weights[i][l]);
            let level = nearest_nonlinear(inverse[l] * x);
            sum_qx[l] += w * level * x;
            sum_q2[l] += w * level * level;
        }
    }
    (sum_qx, sum_q2)
}

/// `1 / d`, or 0 where there is nothing to scale.
#[inline(always)]
fn inverse_or_zero(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The packed levels of 32 elements.
#[inline(always)]
pub(super) fn packed_levels(values: &[f32; LEGACY_BLOCK], inverse: f32) -> [u8; LEGACY_BLOCK / 2] {
    let mut levels = [0; LEGACY_BLOCK];
    for (level, value) in levels.iter_mut().zip(values) {
        *level = nearest_nonlinear_index(inverse * value);
    }
    nibbles(&levels)
}

/// Variance of `N` elements: twice their mean square.
#[inline(always)]
fn twice_mean_square<const N: usize, const S: usize>(blocks: &[&[f32; N]; S]) -> [f32; S] {
    let mut sums = [0.0; S];
    for i in 0..N {
        for (sum, block) in sums.iter_mut().zip(blocks) {
            *sum += block[i] * block[i];
        }
    }
    sums.map(|sum| sum * (2.0 / N as f32))
}

impl EncodeWeighted<LEGACY_BLOCK, LEGACY_BATCH> for BlockIq4Nl {
    #[inline(always)]
    fn encode_weighted(batch: &Batch<'_, LEGACY_BLOCK, LEGACY_BATCH>) -> [Self; LEGACY_BATCH] {
        let x = blocks_side_by_side(&batch.values);
        let weights = match &batch.importance {
            Some(importance) => weigh(&x, &blocks_side_by_side(importance), &twice_mean_square(&batch.values)),
            None => squares(&x),
        };
        let scale = search_scales(&x, &weights);
        std::array::from_fn(|block| Self {
            d: to_half(scale[block]),
            qs: packed_levels(batch.values[block], inverse_or_zero(scale[block])),
        })
    }
}

impl EncodeWeighted<K_BLOCK, K_BATCH> for BlockIq4Xs {
    #[inline(always)]
    fn encode_weighted(batch: &Batch<'_, K_BLOCK, K_BATCH>) -> [Self; K_BATCH] {
        const PER_BLOCK: usize = K_BLOCK / LEGACY_BLOCK;
        let variance = twice_mean_square(&batch.values);
        let mut scales = [0.0; K_BATCH * PER_BLOCK];
        for (turn, scales) in scales.as_chunks_mut::<GROUPS>().0.iter_mut().enumerate() {
            let block_of = |group: usize| turn * GROUPS / PER_BLOCK + group / PER_BLOCK;
            let groups = |blocks: &[&[f32; K_BLOCK]; K_BATCH]| {
                let mut groups = [[0.0; GROUPS]; LEGACY_BLOCK];
                for l in 0..GROUPS {
                    let values = &blocks[block_of(l)][l % PER_BLOCK * LEGACY_BLOCK..][..LEGACY_BLOCK];
                    for (group, value) in groups.iter_mut().zip(values) {
                        group[l] = *value;
                    }
                }
                groups
            };
            let x = groups(&batch.values);
            let weights = match &batch.importance {
                Some(importance) => {
                    weigh(&x, &groups(importance), &std::array::from_fn(|group| variance[block_of(group)]))
                }
                None => squares(&x),
            };
            *scales = search_scales(&x, &weights);
        }
        std::array::from_fn(|block| {
            let scales: &[f32; PER_BLOCK] = &scales.as_chunks().0[block];
            with_scales_of_six_bits(batch.values[block], scales)
        })
    }
}

/// An `IQ4_XS` block whose groups have about these scales.
#[inline(always)]
fn with_scales_of_six_bits(values: &[f32; K_BLOCK], scales: &[f32; K_BLOCK / 32]) -> BlockIq4Xs {
    let mut widest = 0.0_f32;
    for scale in scales {
        widest = if scale.abs() > widest.abs() { *scale } else { widest };
    }
    let d = -widest / 32.0;
    let inverse = inverse_or_zero(d);
    block_with_steps(values, d, &scales.map(|scale| nearest_level(inverse * scale, -32.0, 31.0) as i32))
}

/// An `IQ4_XS` block whose groups have scales `sc` from -32 to 31 on the scale `d`, to which elements are rounded before it
/// is itself.
#[inline(always)]
pub(super) fn block_with_steps(values: &[f32; K_BLOCK], d: f32, sc: &[i32; K_BLOCK / 32]) -> BlockIq4Xs {
    let mut block =
        BlockIq4Xs { d: to_half(d), scales_h: [0; 2], scales_l: [0; K_BLOCK / 64], qs: [[0; 16]; K_BLOCK / 32] };
    let mut high = 0_u16;
    for (group, (sc, values)) in sc.iter().zip(values.as_chunks::<32>().0).enumerate() {
        block.qs[group] = packed_levels(values, inverse_or_zero(d * *sc as f32));
        let number = (sc + 32) as u16;
        block.scales_l[group / 2] |= ((number & 0x0F) as u8) << (group % 2 * 4);
        high |= (number >> 4) << (2 * group);
    }
    block.scales_h = high.to_le_bytes();
    block
}

impl EncodeBlock<LEGACY_BLOCK> for BlockMxfp4 {
    #[inline(always)]
    fn encode_block(values: &[f32; LEGACY_BLOCK]) -> Self {
        let magnitude = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let e = exponent_for(magnitude);
        let scale = half_of_exponent_scale(e);
        let mut best = [0_u8; LEGACY_BLOCK];
        let mut error = values.map(f32::abs);
        // The first of the nearest levels; zero with a sign, the eighth, is never nearer than zero.
        for (index, level) in FLOAT_LEVELS.iter().enumerate().skip(1) {
            let level = f32::from(*level) * scale;
            for j in 0..LEGACY_BLOCK {
                let distance = (level - values[j]).abs();
                best[j] = if distance < error[j] { index as u8 } else { best[j] };
                error[j] = if distance < error[j] { distance } else { error[j] };
            }
        }
        Self { e, qs: nibbles(&best) }
    }
}

/// The exponent with which the largest level, 6, is nearest below four thirds of `magnitude`.
///
/// The logarithm is rounded to `f32`: just below a power of two it may be that of the power itself, as with C's `log2f`.
/// Magnitudes near the smallest wrap around, as in ggml, and their elements are zeros.
#[inline(always)]
fn exponent_for(magnitude: f32) -> u8 {
    if magnitude > 0.0 { ((f64::from(magnitude).log2() as f32).floor() as i32 as u8).wrapping_add(125) } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    /// ggml's search over the levels: bisection, then the nearer of two, the upper where they are as near.
    fn bisected(value: f32) -> usize {
        let level = |index: usize| f32::from(NONLINEAR_LEVELS[index]);
        if value <= level(0) {
            return 0;
        }
        match (1..16).find(|index| value < level(*index)) {
            None => 15,
            Some(above) if value - level(above - 1) < level(above) - value => above - 1,
            Some(above) => above,
        }
    }

    #[test]
    fn the_nearest_level_is_found_at_and_around_every_boundary() {
        let around = |value: f32| [value.next_down(), value, value.next_up()];
        let boundaries = (0..15).flat_map(|index| around(boundary(index)));
        let levels = NONLINEAR_LEVELS.into_iter().flat_map(|level| around(f32::from(level)));
        let sweep = (-15_000..15_000).map(|hundredth| hundredth as f32 / 97.0);
        for value in boundaries.chain(levels).chain(sweep).chain([f32::INFINITY, f32::NEG_INFINITY]) {
            let index = bisected(value);
            assert_eq!(usize::from(nearest_nonlinear_index(value)), index, "{value}");
            assert_eq!(nearest_nonlinear(value), f32::from(NONLINEAR_LEVELS[index]), "{value}");
        }
        assert_eq!(nearest_nonlinear_index(f32::NAN), 15);
    }

    #[test]
    fn exponents_are_those_of_log2f() {
        assert_eq!((exponent_for(1.0), exponent_for(1.999), exponent_for(0.5)), (125, 125, 124));
        // log2f(2^-10 less one to five units) is -10, less six it is below.
        let mut below = 2.0_f32.powi(-10);
        for _ in 0..5 {
            below = below.next_down();
            assert_eq!(exponent_for(below), 115);
        }
        assert_eq!(exponent_for(below.next_down()), 114);
        assert_eq!(exponent_for(0.0), 0);
    }
}
