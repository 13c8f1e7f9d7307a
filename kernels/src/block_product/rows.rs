//! Rows of activations as numbers of eight bits.

use bytemuck::{Pod, Zeroable};

use crate::Values;

/// Values with one scale.
pub(super) const BLOCK: usize = 32;
/// Blocks of a quad.
const BLOCKS: usize = 4;
/// Values of a quad.
pub(crate) const QUAD: usize = BLOCKS * BLOCK;
/// Sums that a quad gives: lane `4 b + j` is that of the elements `4 j..4 j + 4` and `16 + 4 j..16 + 4 j + 4` of block `b`.
pub(super) const LANES: usize = 16;

/// Four blocks of a row, `x = q scale`, laid out for instructions that add four products of bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Quad {
    /// The first sixteen numbers of each block.
    pub(super) first: [i8; QUAD / 2],
    /// The last sixteen numbers of each block.
    pub(super) second: [i8; QUAD / 2],
    /// The scale of each lane's block.
    pub(super) scales: [f32; LANES],
    /// The sum of each lane's numbers.
    pub(super) sums: [i32; LANES],
    /// The same times the scale.
    pub(super) scaled_sums: [f32; LANES],
}

/// Rows of activations, rounded to 8 bits with a scale for each 32 values: `q = round(x 127 / max |x|)`, nearest even.
///
/// The bits are the same on every instruction set. A block with a NaN or an infinity gives NaN in every product.
#[derive(Clone, Default)]
pub struct QuantizedRows {
    rows: usize,
    columns: usize,
    quads: Vec<Quad>,
}

impl std::fmt::Debug for QuantizedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuantizedRows({} x {})", self.rows, self.columns)
    }
}

impl QuantizedRows {
    /// Takes other rows; the memory is used again.
    ///
    /// # Panics
    /// If `columns` is not a multiple of 32, or the values are not `rows * columns`.
    pub fn quantize(&mut self, x: Values<'_>, rows: usize, columns: usize) {
        assert!(columns.is_multiple_of(BLOCK), "quantize: {columns} columns are not whole blocks of {BLOCK}");
        assert_eq!(x.len(), rows * columns, "quantize: the values are not {rows} x {columns}");
        (self.rows, self.columns) = (rows, columns);
        let per_row = self.quads_per_row();
        self.quads.resize(rows * per_row, Quad::zeroed());
        for (row, quads) in self.quads.chunks_exact_mut(per_row.max(1)).enumerate() {
            let own = row * columns..(row + 1) * columns;
            match x {
                Values::F32(x) => quantize_row(&x[own], quads),
                Values::Bf16(x) => {
                    let wide: Vec<f32> = x[own].iter().map(|value| value.to_f32()).collect();
                    quantize_row(&wide, quads);
                }
            }
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn quads_per_row(&self) -> usize {
        self.columns.div_ceil(QUAD)
    }

    pub(super) fn quads(&self) -> &[Quad] {
        &self.quads
    }
}

fn quantize_row(x: &[f32], quads: &mut [Quad]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the CPU has the features.
            unsafe { quantize_avx512(x, quads) };
            return;
        }
        if has!("avx2") {
            // SAFETY: the CPU has the feature.
            unsafe { quantize_avx2(x, quads) };
            return;
        }
    }
    quantize_plain(x, quads);
}

/// [`quantize_plain`] compiled for the widest registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn quantize_avx512(x: &[f32], quads: &mut [Quad]) {
    quantize_plain(x, quads);
}

/// [`quantize_plain`] compiled for registers of 256 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_avx2(x: &[f32], quads: &mut [Quad]) {
    quantize_plain(x, quads);
}

#[inline(always)]
fn quantize_plain(x: &[f32], quads: &mut [Quad]) {
    for (x, quad) in x.chunks(QUAD).zip(quads) {
        let (blocks, _) = x.as_chunks::<BLOCK>();
        if blocks.len() < BLOCKS {
            *quad = Quad::zeroed();
        }
        for (block, x) in blocks.iter().enumerate() {
            quantize_block(x, block, quad);
        }
    }
}

#[inline(always)]
fn quantize_block(x: &[f32; BLOCK], block: usize, quad: &mut Quad) {
    let (scale, numbers) = round_block(x);
    quad.first[16 * block..][..16].copy_from_slice(&numbers[..16]);
    quad.second[16 * block..][..16].copy_from_slice(&numbers[16..]);
    for lane in 0..4 {
        let of = |from: usize| numbers[from..from + 4].iter().map(|&number| i32::from(number)).sum::<i32>();
        let sum = of(4 * lane) + of(16 + 4 * lane);
        quad.scales[4 * block + lane] = scale;
        quad.sums[4 * block + lane] = sum;
        quad.scaled_sums[4 * block + lane] = sum as f32 * scale;
    }
}

/// Added to a number below 2^22 this rounds it to an integer, whose two's complement are the lowest bits.
pub(crate) const ROUNDING: f32 = 12_582_912.0;

/// The scale of 32 values, and the values as numbers of eight bits. A NaN or an infinity makes the scale no number.
#[inline(always)]
pub(crate) fn round_block(x: &[f32; BLOCK]) -> (f32, [i8; BLOCK]) {
    // Magnitudes of floats are ordered as their bits, and a NaN is above all of them.
    let (scale, inverse) = scales_of(x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF)));
    let mut numbers = [0_i8; BLOCK];
    for (number, value) in numbers.iter_mut().zip(x) {
        *number = (value * inverse + ROUNDING).to_bits() as i8;
    }
    (scale, numbers)
}

/// The scale of values by the bits of the largest magnitude, and what they are multiplied by.
#[inline(always)]
pub(crate) fn scales_of(largest: u32) -> (f32, f32) {
    let largest = f32::from_bits(largest);
    (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_nearest_and_the_rest_of_the_last_quad_is_zero() {
        let x: Vec<f32> = (0..160).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut rows = QuantizedRows::default();
        rows.quantize(Values::F32(&x), 1, 160);
        for (index, value) in x.iter().enumerate() {
            let (quad, block, place) = (&rows.quads()[index / QUAD], index % QUAD / BLOCK, index % BLOCK);
            let side = if place < 16 { &quad.first } else { &quad.second };
            let largest = x[index / BLOCK * BLOCK..][..BLOCK].iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            assert_eq!(i32::from(side[16 * block + place % 16]), (value * (127.0 / largest)).round_ties_even() as i32);
            assert!((quad.scales[4 * block] - largest / 127.0).abs() < 1e-9);
        }
        let last = &rows.quads()[1];
        assert_eq!((&last.first[16..], &last.scales[4..]), (&[0_i8; 48][..], &[0.0_f32; 12][..]));
        assert_eq!(last.sums[0], (0..4).chain(16..20).map(|i| (x[128 + i] / last.scales[0]).round() as i32).sum());
    }

    #[test]
    fn wide_registers_change_no_bit_and_strange_values_are_seen() {
        let mut x: Vec<f32> = (0..1024).map(|i| f32::from_bits((i as u32).wrapping_mul(2_654_435_761))).collect();
        x[..32].fill(0.0);
        x[40] = f32::NAN;
        let mut plain = vec![Quad::zeroed(); 8];
        quantize_plain(&x, &mut plain);
        let mut fast = plain.clone();
        quantize_row(&x, &mut fast);
        assert!(plain.iter().zip(&fast).all(|(plain, fast)| plain.first == fast.first && plain.second == fast.second));
        assert_eq!(plain[0].scales[0].to_bits(), 0);
        assert!(plain[0].scales[4].is_nan());
    }
}
