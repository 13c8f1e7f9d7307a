//! The formats with blocks of 32 elements and one scale: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`.
//!
//! Without importance the element of the largest magnitude is met exactly by the formats without a minimum; the least
//! and the greatest element by the others. A block of equal values has scale 0 and inverse 0. With importance the scale
//! (and the minimum) with the least weighted error is searched for, in sixteen blocks at a time; `Q8_0` has no such form.

use espalier_kernels::blocks::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, LEGACY_BLOCK};

use super::EncodeBlock;
use super::lanes::{Lanes, blocks_side_by_side};
use super::nearest::{to_half, truncate_to_byte};
use super::search::{Grid, Scaled, Shifted, squares, symmetric, with_minimum};
use super::weighted::{Batch, EncodeWeighted, weigh};

type Values = [f32; LEGACY_BLOCK];

/// Elements in a nibble array: element `j` shares byte `j` with element `j + 16`.
const HALF_BLOCK: usize = LEGACY_BLOCK / 2;

/// Width of the partial bounds: two SSE registers.
const WIDTH: usize = 8;

/// The least and the greatest element; which of two zeros is open.
#[inline(always)]
fn bounds(values: &Values) -> (f32, f32) {
    let mut least = [f32::MAX; WIDTH];
    let mut greatest = [-f32::MAX; WIDTH];
    for values in values.as_chunks::<WIDTH>().0 {
        for l in 0..WIDTH {
            least[l] = if values[l] < least[l] { values[l] } else { least[l] };
            greatest[l] = if values[l] > greatest[l] { values[l] } else { greatest[l] };
        }
    }
    (least.into_iter().fold(f32::MAX, f32::min), greatest.into_iter().fold(-f32::MAX, f32::max))
}

/// The least and the greatest element; of zeros with both signs the first counts, because its sign is stored.
#[inline(always)]
fn signed_bounds(values: &Values) -> (f32, f32) {
    let first_zero = |bound: f32| {
        if bound == 0.0 { values.iter().copied().find(|value| *value == 0.0) } else { None }
    };
    let (least, greatest) = bounds(values);
    (first_zero(least).unwrap_or(least), first_zero(greatest).unwrap_or(greatest))
}

/// The largest magnitude.
#[inline(always)]
fn largest_magnitude(values: &Values) -> f32 {
    let (least, greatest) = bounds(values);
    least.abs().max(greatest.abs())
}

/// The element of the largest magnitude, the first of several; 0 for a block of zeros.
#[inline(always)]
fn largest(values: &Values) -> f32 {
    let (least, greatest) = bounds(values);
    if greatest > -least {
        greatest
    } else if -least > greatest {
        least
    } else if greatest == 0.0 {
        0.0
    } else {
        values.iter().copied().find(|value| value.abs() == greatest).unwrap_or(greatest)
    }
}

/// `1 / d`, or 0 where there is nothing to scale.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The values as levels from 0 to `bound`: `value * id + offset`, truncated.
#[inline(always)]
fn levels(values: &Values, least: f32, id: f32, offset: f32, bound: u8) -> [u8; LEGACY_BLOCK] {
    if id.is_infinite() {
        return values.map(|value| truncate_to_byte((value - least) * id + offset).min(bound as i8) as u8);
    }
    values.map(|value| (((value - least) * id + offset) as u8).min(bound))
}

/// Numbers of the first half below those of the second.
#[inline(always)]
pub(super) fn nibbles(numbers: &[u8; LEGACY_BLOCK]) -> [u8; HALF_BLOCK] {
    let mut packed = [0; HALF_BLOCK];
    for j in 0..HALF_BLOCK {
        packed[j] = numbers[j] | (numbers[j + HALF_BLOCK] << 4);
    }
    packed
}

/// The four low bits of each number, packed.
#[inline(always)]
pub(super) fn low_nibbles(numbers: &[u8; LEGACY_BLOCK]) -> [u8; HALF_BLOCK] {
    nibbles(&numbers.map(|number| number & 0x0F))
}

/// Bit `j` is the fifth bit of number `j`.
#[inline(always)]
pub(super) fn fifth_bits(numbers: &[u8; LEGACY_BLOCK]) -> [u8; 4] {
    let mut bits = 0u32;
    for (j, number) in numbers.iter().enumerate() {
        bits |= u32::from((number >> 4) & 1) << j;
    }
    bits.to_le_bytes()
}

impl EncodeBlock<LEGACY_BLOCK> for BlockQ4_0 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let d = largest(values) / -8.0;
        let levels = levels(values, 0.0, inverse(d), 8.5, 15);
        Self { d: to_half(d), qs: nibbles(&levels) }
    }
}

impl EncodeBlock<LEGACY_BLOCK> for BlockQ4_1 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let (least, greatest) = signed_bounds(values);
        let d = (greatest - least) / 15.0;
        let levels = levels(values, least, inverse(d), 0.5, 15);
        Self { d: to_half(d), m: to_half(least), qs: nibbles(&levels) }
    }
}

impl EncodeBlock<LEGACY_BLOCK> for BlockQ5_0 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let d = largest(values) / -16.0;
        let levels = levels(values, 0.0, inverse(d), 16.5, 31);
        Self { d: to_half(d), qh: fifth_bits(&levels), qs: low_nibbles(&levels) }
    }
}

impl EncodeBlock<LEGACY_BLOCK> for BlockQ5_1 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let (least, greatest) = signed_bounds(values);
        let d = (greatest - least) / 31.0;
        let levels = levels(values, least, inverse(d), 0.5, 31);
        Self { d: to_half(d), m: to_half(least), qh: fifth_bits(&levels), qs: low_nibbles(&levels) }
    }
}

impl EncodeBlock<LEGACY_BLOCK> for BlockQ8_0 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let d = largest_magnitude(values) / 127.0;
        let id = inverse(d);
        let qs = if id.is_infinite() {
            values.map(|value| truncate_to_byte((value * id).round()))
        } else {
            values.map(|value| round_to_byte(value * id))
        };
        Self { d: to_half(d), qs }
    }
}

/// C's `roundf`, half away from zero, of a value within the range of a byte, in operations that vectorise.
///
/// What is added is the number below one half: one half itself would carry 0.49999997 to 1.
#[inline(always)]
fn round_to_byte(value: f32) -> i8 {
    (value + 0.499_999_97_f32.copysign(value)) as i8
}

/// Blocks side by side: one for each lane.
pub(super) const LEGACY_BATCH: usize = 16;

type LegacyBatch<'a> = Batch<'a, LEGACY_BLOCK, LEGACY_BATCH>;
type LegacyLanes = Lanes<f32, LEGACY_BATCH, LEGACY_BLOCK>;

/// The blocks side by side, and the weights of their elements.
#[inline(always)]
fn weighted_lanes(batch: &LegacyBatch<'_>) -> (LegacyLanes, LegacyLanes) {
    let x = blocks_side_by_side(&batch.values);
    let weights = match &batch.importance {
        Some(importance) => weigh(&x, &blocks_side_by_side(importance), &batch.row_mean_square),
        None => squares(&x),
    };
    (x, weights)
}

/// The scale of each block with levels `-half..half`, and the levels from 0.
#[inline(always)]
fn scaled(batch: &LegacyBatch<'_>, half: f32) -> Scaled<LEGACY_BATCH, LEGACY_BLOCK> {
    let (x, weights) = weighted_lanes(batch);
    symmetric(&x, &weights, half)
}

/// Scale and minimum of each block with levels `0..=greatest`, and the levels.
#[inline(always)]
fn shifted(batch: &LegacyBatch<'_>, greatest: f32) -> Shifted<LEGACY_BATCH, LEGACY_BLOCK> {
    let (x, weights) = weighted_lanes(batch);
    with_minimum::<LEGACY_BATCH, LEGACY_BLOCK, false>(
        &x,
        &weights,
        &Grid { greatest, first: -0.9, delta: 0.05, steps: 36 },
    )
}

/// The levels of one block.
#[inline(always)]
fn of_block(levels: &LegacyLanes, block: usize) -> [u8; LEGACY_BLOCK] {
    let mut numbers = [0; LEGACY_BLOCK];
    for (number, levels) in numbers.iter_mut().zip(levels) {
        *number = levels[block] as u8;
    }
    numbers
}

impl EncodeWeighted<LEGACY_BLOCK, LEGACY_BATCH> for BlockQ4_0 {
    const NEEDS_ROW: bool = true;

    #[inline(always)]
    fn encode_weighted(batch: &LegacyBatch<'_>) -> [Self; LEGACY_BATCH] {
        let found = scaled(batch, 8.0);
        std::array::from_fn(|block| Self {
            d: to_half(found.scale[block]),
            qs: nibbles(&of_block(&found.levels, block)),
        })
    }
}

impl EncodeWeighted<LEGACY_BLOCK, LEGACY_BATCH> for BlockQ4_1 {
    const NEEDS_ROW: bool = true;

    #[inline(always)]
    fn encode_weighted(batch: &LegacyBatch<'_>) -> [Self; LEGACY_BATCH] {
        let found = shifted(batch, 15.0);
        std::array::from_fn(|block| Self {
            d: to_half(found.scale[block]),
            m: to_half(-found.minimum[block]),
            qs: nibbles(&of_block(&found.levels, block)),
        })
    }
}

impl EncodeWeighted<LEGACY_BLOCK, LEGACY_BATCH> for BlockQ5_0 {
    const NEEDS_ROW: bool = true;

    #[inline(always)]
    fn encode_weighted(batch: &LegacyBatch<'_>) -> [Self; LEGACY_BATCH] {
        let found = scaled(batch, 16.0);
        std::array::from_fn(|block| {
            let levels = of_block(&found.levels, block);
            Self { d: to_half(found.scale[block]), qh: fifth_bits(&levels), qs: low_nibbles(&levels) }
        })
    }
}

impl EncodeWeighted<LEGACY_BLOCK, LEGACY_BATCH> for BlockQ5_1 {
    const NEEDS_ROW: bool = true;

    #[inline(always)]
    fn encode_weighted(batch: &LegacyBatch<'_>) -> [Self; LEGACY_BATCH] {
        let found = shifted(batch, 31.0);
        std::array::from_fn(|block| {
            let levels = of_block(&found.levels, block);
            let (d, m) = (to_half(found.scale[block]), to_half(-found.minimum[block]));
            Self { d, m, qh: fifth_bits(&levels), qs: low_nibbles(&levels) }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_round() {
        // Every float from 0.25 to 128 that has a neighbour at half an integer, and a sweep of the rest.
        let halves = (0..255).flat_map(|n| {
            let half = n as f32 / 2.0 + 0.25;
            [half.next_down(), half, half.next_up(), half + 0.25, (half + 0.25).next_down(), (half + 0.25).next_up()]
        });
        let sweep = (0u32..0x42FE_0000).step_by(997).map(f32::from_bits);
        for value in halves.chain(sweep).filter(|value| *value <= 127.0) {
            assert_eq!(f32::from(round_to_byte(value)), value.round(), "{value}");
            assert_eq!(f32::from(round_to_byte(-value)), (-value).round(), "{}", -value);
        }
    }

    #[test]
    fn the_first_of_equal_magnitudes_gives_the_sign() {
        let mut values = [0.0; LEGACY_BLOCK];
        values[5] = -2.0;
        values[17] = 2.0;
        assert_eq!(largest(&values), -2.0);
        values[3] = 2.0;
        assert_eq!(largest(&values), 2.0);
    }

    #[test]
    fn a_block_of_zeros_has_a_negative_zero_scale() {
        let block = BlockQ4_0::encode_block(&[0.0; LEGACY_BLOCK]);
        assert_eq!(block.d, [0x00, 0x80]);
        assert_eq!(block.qs, [0x88; HALF_BLOCK]);
    }
}
