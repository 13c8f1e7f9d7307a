//! The formats with blocks of 256 elements: `Q2_K`, `Q3_K`, `Q4_K`, `Q5_K`, `Q6_K`.
//!
//! In each: the best scale (and minimum) of every group in `f32`; these rounded to a few bits on a scale of the block in
//! half precision; then the levels rounded once more against the scales as they are stored. What is common to the blocks
//! with and without importance stands here: from the rounded scales to the bytes.

mod plain;
mod weighted;

pub(super) use self::weighted::K_BATCH;

use espalier_kernels::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, K_BLOCK, scale_and_minimum};

use super::lanes::Lanes;
use super::nearest::{from_half, nearest_integer, nearest_level, to_half};
use super::search::ZERO_MAGNITUDE;

/// Levels `nearest((x + shift) / step)` within `0..=bound`; groups with step 0 keep the level that they have.
#[inline(always)]
pub(super) fn round_again<const L: usize, const N: usize>(
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
#[inline(always)]
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
#[inline(always)]
fn level<const L: usize, const N: usize>(levels: &Lanes<f32, L, N>, element: usize) -> u8 {
    levels[element % N][element / N] as u8
}

/// The low two bits of four elements 32 apart in each byte.
#[inline(always)]
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

/// What `Q4_K` and `Q5_K` share: the scales and minima of their groups, on two scales of the block.
pub(super) struct SixBitScales {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
}

impl SixBitScales {
    /// Packs scales and minima; numbers beyond six bits spill over as they do in ggml.
    #[inline(always)]
    pub(super) fn new(d: f32, dmin: f32, sc: [u8; 8], m: [u8; 8]) -> Self {
        let mut scales = [0; 12];
        for group in 0..8 {
            let (sc, m) = (sc[group], m[group]);
            if group < 4 {
                scales[group] = sc;
                scales[group + 4] = m;
            } else {
                scales[group + 4] = (sc & 0x0F) | ((m & 0x0F) << 4);
                scales[group - 4] |= (sc >> 4) << 6;
                scales[group] |= (m >> 4) << 6;
            }
        }
        Self { d: to_half(d), dmin: to_half(dmin), scales }
    }

    /// Step and shift of each group, as a reader will find them.
    #[inline(always)]
    pub(super) fn steps(&self) -> ([f32; 8], [f32; 8]) {
        let (d, dmin) = (from_half(self.d), from_half(self.dmin));
        let (mut step, mut shift) = ([0.0; 8], [0.0; 8]);
        for group in 0..8 {
            let (sc, m) = scale_and_minimum(&self.scales, group);
            step[group] = d * f32::from(sc);
            shift[group] = dmin * f32::from(m);
        }
        (step, shift)
    }

    #[inline(always)]
    pub(super) fn four_bit_block(self, levels: &Lanes<f32, 8, 32>) -> BlockQ4K {
        BlockQ4K { d: self.d, dmin: self.dmin, scales: self.scales, qs: pack_nibbles(levels) }
    }

    #[inline(always)]
    pub(super) fn five_bit_block(self, levels: &Lanes<f32, 8, 32>) -> BlockQ5K {
        let mut qh = [0; K_BLOCK / 8];
        for (qh, levels) in qh.iter_mut().zip(levels) {
            for (group, level) in levels.iter().enumerate() {
                *qh |= (*level as u8 >> 4) << group;
            }
        }
        BlockQ5K { d: self.d, dmin: self.dmin, scales: self.scales, qh, qs: pack_nibbles(levels) }
    }
}

/// Low nibbles: byte `l` of a quarter block holds elements `l` and `l + 32`.
#[inline(always)]
fn pack_nibbles(levels: &Lanes<f32, 8, 32>) -> [u8; K_BLOCK / 2] {
    let mut packed = [0; K_BLOCK / 2];
    for (quarter, packed) in packed.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (packed, levels) in packed.iter_mut().zip(levels) {
            *packed = (levels[2 * quarter] as u8 & 0x0F) | ((levels[2 * quarter + 1] as u8 & 0x0F) << 4);
        }
    }
    packed
}

/// A `Q6_K` block of groups with these scales, for which `levels` were found.
#[inline(always)]
fn six_bit_block(x: &Lanes<f32, 16, 16>, scale: &[f32; 16], levels: Lanes<f32, 16, 16>) -> BlockQ6K {
    let (largest, magnitude) = of_largest_magnitude(scale);
    if magnitude < ZERO_MAGNITUDE {
        return BlockQ6K { ql: [0; K_BLOCK / 2], qh: [0; K_BLOCK / 4], scales: [0; 16], d: to_half(0.0) };
    }
    let inverse = -128.0 / largest;
    let d = to_half(1.0 / inverse);
    six_bit_levels(x, d, scale.map(|scale| nearest_integer(inverse * scale).min(127) as i8), levels)
}

/// A `Q6_K` block with the scales as they are stored; groups with scale 0 keep the level that they have.
#[inline(always)]
pub(super) fn six_bit_levels(
    x: &Lanes<f32, 16, 16>,
    d: [u8; 2],
    scales: [i8; 16],
    mut levels: Lanes<f32, 16, 16>,
) -> BlockQ6K {
    let stored = from_half(d);
    round_again_symmetric(x, &scales.map(|sc| stored * f32::from(sc)), 32.0, &mut levels);

    let mut ql = [0; K_BLOCK / 2];
    for (byte, ql) in ql.iter_mut().enumerate() {
        let first = byte / 64 * 128 + byte % 64;
        *ql = (level(&levels, first) & 0x0F) | ((level(&levels, first + 64) & 0x0F) << 4);
    }
    BlockQ6K { ql, qh: pack_two_bits(&levels, 4), scales, d }
}

/// The number of the largest magnitude, the first of several, and that magnitude.
#[inline(always)]
fn of_largest_magnitude(numbers: &[f32]) -> (f32, f32) {
    let mut found = (0.0, 0.0);
    for number in numbers {
        if number.abs() > found.1 {
            found = (*number, number.abs());
        }
    }
    found
}

/// The scales of the groups of a `Q3_K` block, from -32 to 31.
#[inline(always)]
pub(super) fn three_bit_scales(packed: &[u8; 12]) -> [i32; 16] {
    std::array::from_fn(|group| {
        let low = (packed[group % 8] >> (group / 8 * 4)) & 0x0F;
        let high = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
        i32::from(low | (high << 4)) - 32
    })
}

/// A `Q3_K` block whose groups have scales `sc` from -32 to 31 on the scale `d`.
#[inline(always)]
pub(super) fn three_bit_block(
    x: &Lanes<f32, 16, 16>,
    d: f32,
    sc: [i32; 16],
    mut levels: Lanes<f32, 16, 16>,
) -> BlockQ3K {
    let d = to_half(d);
    let stored = from_half(d);
    let mut scales = [0u8; 12];
    for (group, sc) in sc.iter().enumerate() {
        let sc = (sc + 32) as u8;
        scales[group % 8] |= (sc & 0x0F) << (group / 8 * 4);
        scales[8 + group % 4] |= (sc >> 4) << (group / 4 * 2);
    }
    round_again_symmetric(x, &sc.map(|sc| stored * sc as f32), 4.0, &mut levels);
    let mut hmask = [0; K_BLOCK / 8];
    for element in 0..K_BLOCK {
        hmask[element % 32] |= (level(&levels, element) >> 2) << (element / 32);
    }
    BlockQ3K { hmask, qs: pack_two_bits(&levels, 0), scales, d }
}

/// A `Q2_K` block whose groups have 4-bit scales and minima on the scales `d` and `dmin`.
#[inline(always)]
pub(super) fn two_bit_block(
    x: &Lanes<f32, 16, 16>,
    (d, dmin): (f32, f32),
    scales: [u8; 16],
    mut levels: Lanes<f32, 16, 16>,
) -> BlockQ2K {
    let (d, dmin) = (to_half(d), to_half(dmin));
    let (stored_d, stored_dmin) = (from_half(d), from_half(dmin));
    let step = scales.map(|sc| stored_d * f32::from(sc & 0x0F));
    let shift = scales.map(|sc| stored_dmin * f32::from(sc >> 4));
    round_again(x, &step, &shift, 3.0, &mut levels);
    BlockQ2K { scales, qs: pack_two_bits(&levels, 0), d, dmin }
}
