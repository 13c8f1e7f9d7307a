//! The formats with blocks of 256 elements: `Q2_K`, `Q3_K`, `Q4_K`, `Q5_K`, `Q6_K`.
//!
//! In each: the best scale (and minimum) of every group in `f32`; these rounded to a few bits on a scale of the block in
//! half precision; then the levels rounded once more against the scales as they are stored.

use espalier_kernels::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, K_BLOCK, scale_and_minimum};

use super::EncodeBlock;
use super::lanes::{Lanes, side_by_side};
use super::nearest::{from_half, half_is_finite, nearest_integer, nearest_level, to_half};
use super::search::{Grid, Shifted, ZERO_MAGNITUDE, refined, symmetric, with_minimum};

type Values = [f32; K_BLOCK];

/// Greatest of numbers of which only those above zero count, else 0.
#[inline]
fn greatest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |greatest, number| if *number > greatest { *number } else { greatest })
}

/// The number of the largest magnitude, the first of several, and that magnitude.
#[inline]
fn of_largest_magnitude(numbers: &[f32]) -> (f32, f32) {
    let mut found = (0.0, 0.0);
    for number in numbers {
        if number.abs() > found.1 {
            found = (*number, number.abs());
        }
    }
    found
}

/// Levels `nearest((x + shift) / step)` within `0..=bound`; groups with step 0 keep the level that they have.
#[inline]
fn round_again<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    step: &[f32; L],
    shift: &[f32; L],
    bound: f32,
    levels: &mut Lanes<f32, L, N>,
) {
    for i in 0..N {
        for l in 0..L {
            let level = nearest_level((x[i][l] + shift[l]) / step[l], 0.0, bound);
            levels[i][l] = if step[l] == 0.0 { levels[i][l] } else { level };
        }
    }
}

/// Levels `nearest(x / step) + half` within `0..2 half`; groups with step 0 keep the level that they have.
#[inline]
fn round_again_symmetric<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    step: &[f32; L],
    half: f32,
    levels: &mut Lanes<f32, L, N>,
) {
    for i in 0..N {
        for l in 0..L {
            let level = nearest_level(x[i][l] / step[l], -half, half - 1.0) + half;
            levels[i][l] = if step[l] == 0.0 { levels[i][l] } else { level };
        }
    }
}

/// Level of the element with this index in the block.
#[inline]
fn level<const L: usize, const N: usize>(levels: &Lanes<f32, L, N>, element: usize) -> u8 {
    levels[element % N][element / N] as u8
}

/// The low two bits of four elements 32 apart in each byte.
#[inline]
fn pack_two_bits<const L: usize, const N: usize>(levels: &Lanes<f32, L, N>, shift: u32) -> [u8; K_BLOCK / 4] {
    let mut packed = [0; K_BLOCK / 4];
    for (byte, packed) in packed.iter_mut().enumerate() {
        let first = byte / 32 * 128 + byte % 32;
        for quarter in 0..4 {
            *packed |= ((level(levels, first + 32 * quarter) >> shift) & 3) << (2 * quarter);
        }
    }
    packed
}

/// What `Q4_K` and `Q5_K` share: groups of 32, scales and minima of 6 bits.
struct SixBitScales {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    levels: Lanes<f32, 8, 32>,
}

#[inline]
fn with_six_bit_scales(values: &Values, grid: &Grid) -> SixBitScales {
    let x: Lanes<f32, 8, 32> = side_by_side(values);
    let mut sum_x2 = [0.0; 8];
    for x in &x {
        for l in 0..8 {
            sum_x2[l] += x[l] * x[l];
        }
    }
    let mut weights = [[0.0; 8]; 32];
    let root_mean_square = sum_x2.map(|sum| (sum / 32.0f32).sqrt());
    for i in 0..32 {
        for l in 0..8 {
            weights[i][l] = root_mean_square[l] + x[i][l].abs();
        }
    }
    let Shifted { scale, minimum, mut levels } = with_minimum::<8, 32, false>(&x, &weights, grid);

    let (max_scale, max_minimum) = (greatest(&scale), greatest(&minimum));
    let inverse_scale = if max_scale > 0.0 { 63.0 / max_scale } else { 0.0 };
    let inverse_minimum = if max_minimum > 0.0 { 63.0 / max_minimum } else { 0.0 };
    let mut scales = [0; 12];
    for group in 0..8 {
        let sc = (nearest_integer(inverse_scale * scale[group]) as u8).min(63);
        let m = (nearest_integer(inverse_minimum * minimum[group]) as u8).min(63);
        if group < 4 {
            scales[group] = sc;
            scales[group + 4] = m;
        } else {
            scales[group + 4] = (sc & 0x0F) | ((m & 0x0F) << 4);
            scales[group - 4] |= (sc >> 4) << 6;
            scales[group] |= (m >> 4) << 6;
        }
    }
    let (d, dmin) = (to_half(max_scale / 63.0), to_half(max_minimum / 63.0));
    let (stored_d, stored_dmin) = (from_half(d), from_half(dmin));
    let mut step = [0.0; 8];
    let mut shift = [0.0; 8];
    for group in 0..8 {
        let (sc, m) = scale_and_minimum(&scales, group);
        step[group] = stored_d * f32::from(sc);
        shift[group] = stored_dmin * f32::from(m);
    }
    round_again(&x, &step, &shift, grid.greatest, &mut levels);
    SixBitScales { d, dmin, scales, levels }
}

/// Low nibbles: byte `l` of a quarter block holds elements `l` and `l + 32`.
#[inline]
fn pack_nibbles(levels: &Lanes<f32, 8, 32>) -> [u8; K_BLOCK / 2] {
    let mut packed = [0; K_BLOCK / 2];
    for (quarter, packed) in packed.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (packed, levels) in packed.iter_mut().zip(levels) {
            *packed = (levels[2 * quarter] as u8 & 0x0F) | ((levels[2 * quarter + 1] as u8 & 0x0F) << 4);
        }
    }
    packed
}

impl EncodeBlock<K_BLOCK> for BlockQ4K {
    fn encode_block(values: &Values) -> Self {
        let grid = Grid { greatest: 15.0, first: -1.0, delta: 0.1, steps: 20 };
        let SixBitScales { d, dmin, scales, levels } = with_six_bit_scales(values, &grid);
        Self { d, dmin, scales, qs: pack_nibbles(&levels) }
    }

    fn is_finite(&self) -> bool {
        half_is_finite(self.d) && half_is_finite(self.dmin)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ5K {
    fn encode_block(values: &Values) -> Self {
        let grid = Grid { greatest: 31.0, first: -0.5, delta: 0.1, steps: 15 };
        let SixBitScales { d, dmin, scales, levels } = with_six_bit_scales(values, &grid);
        let mut qh = [0; K_BLOCK / 8];
        for (qh, levels) in qh.iter_mut().zip(&levels) {
            for (group, level) in levels.iter().enumerate() {
                *qh |= (*level as u8 >> 4) << group;
            }
        }
        Self { d, dmin, scales, qh, qs: pack_nibbles(&levels) }
    }

    fn is_finite(&self) -> bool {
        half_is_finite(self.d) && half_is_finite(self.dmin)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ6K {
    fn encode_block(values: &Values) -> Self {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let found = symmetric(&x, 32.0);
        let mut levels = found.levels;
        let (largest, magnitude) = of_largest_magnitude(&found.scale);
        if magnitude < ZERO_MAGNITUDE {
            return Self { ql: [0; K_BLOCK / 2], qh: [0; K_BLOCK / 4], scales: [0; 16], d: to_half(0.0) };
        }
        let inverse = -128.0 / largest;
        let d = to_half(1.0 / inverse);
        let scales = found.scale.map(|scale| nearest_integer(inverse * scale).min(127) as i8);
        let stored = from_half(d);
        round_again_symmetric(&x, &scales.map(|sc| stored * f32::from(sc)), 32.0, &mut levels);

        let mut ql = [0; K_BLOCK / 2];
        for (byte, ql) in ql.iter_mut().enumerate() {
            let first = byte / 64 * 128 + byte % 64;
            *ql = (level(&levels, first) & 0x0F) | ((level(&levels, first + 64) & 0x0F) << 4);
        }
        Self { ql, qh: pack_two_bits(&levels, 4), scales, d }
    }

    fn is_finite(&self) -> bool {
        half_is_finite(self.d)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ3K {
    fn encode_block(values: &Values) -> Self {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let found = refined(&x, 4.0);
        let mut levels = found.levels;
        let (largest, _) = of_largest_magnitude(&found.scale);
        let mut stored_scales = [-32; 16];
        let mut packed = [0u8; 12];
        let mut d = to_half(0.0);
        if largest != 0.0 {
            let inverse = -32.0 / largest;
            for (group, scale) in found.scale.iter().enumerate() {
                let sc = i32::from(nearest_integer(inverse * scale) as i8).clamp(-32, 31);
                stored_scales[group] = sc;
                let sc = (sc + 32) as u8;
                packed[group % 8] |= (sc & 0x0F) << (group / 8 * 4);
                packed[8 + group % 4] |= (sc >> 4) << (group / 4 * 2);
            }
            d = to_half(1.0 / inverse);
        }
        let stored = from_half(d);
        round_again_symmetric(&x, &stored_scales.map(|sc| stored * sc as f32), 4.0, &mut levels);

        let mut hmask = [0; K_BLOCK / 8];
        for element in 0..K_BLOCK {
            hmask[element % 32] |= (level(&levels, element) >> 2) << (element / 32);
        }
        Self { hmask, qs: pack_two_bits(&levels, 0), scales: packed, d }
    }

    fn is_finite(&self) -> bool {
        half_is_finite(self.d)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ2K {
    fn encode_block(values: &Values) -> Self {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let weights = x.map(|x| x.map(f32::abs));
        let grid = Grid { greatest: 3.0, first: -0.5, delta: 0.1, steps: 15 };
        let Shifted { scale, minimum, mut levels } = with_minimum::<16, 16, true>(&x, &weights, &grid);

        let (max_scale, max_minimum) = (greatest(&scale), greatest(&minimum));
        let mut scales = [0u8; 16];
        let (mut d, mut dmin) = (to_half(0.0), to_half(0.0));
        if max_scale > 0.0 {
            let inverse = 15.0 / max_scale;
            scales = scale.map(|scale| nearest_integer(inverse * scale) as u8);
            d = to_half(max_scale / 15.0);
        }
        if max_minimum > 0.0 {
            let inverse = 15.0 / max_minimum;
            for (sc, minimum) in scales.iter_mut().zip(minimum) {
                *sc |= (nearest_integer(inverse * minimum) << 4) as u8;
            }
            dmin = to_half(max_minimum / 15.0);
        }
        let (stored_d, stored_dmin) = (from_half(d), from_half(dmin));
        let step = scales.map(|sc| stored_d * f32::from(sc & 0x0F));
        let shift = scales.map(|sc| stored_dmin * f32::from(sc >> 4));
        round_again(&x, &step, &shift, 3.0, &mut levels);
        Self { scales, qs: pack_two_bits(&levels, 0), d, dmin }
    }

    fn is_finite(&self) -> bool {
        half_is_finite(self.d) && half_is_finite(self.dmin)
    }
}
