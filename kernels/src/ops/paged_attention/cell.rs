//! What a 32-bit word of a page holds: one f32, or a pair of bf16 that are neighbours in the depth of a product.

use half::bf16;

use crate::gemm::{bf16_bits, round_row};
use crate::ops::simd::{MAX_WIDTH, Simd};

/// The content of a word.
pub(super) trait Cell: Send + Sync + 'static {
    /// Inputs of a product in one word.
    const INPUTS: usize;

    /// `sum` and the products of the inputs in the words of `a` and `b`.
    fn multiply<S: Simd>(simd: S, a: S::Vector, b: S::Vector, sum: S::Vector) -> S::Vector;

    /// Packs one row, a whole number of vectors, as words; both are f32 in memory.
    fn pack<S: Simd>(simd: S, row: &[f32], words: &mut [f32]);

    /// Packs one row of any length, filled up with zeros.
    fn pack_short(row: &[f32], words: &mut [f32]);
}

/// One f32.
pub(super) struct Single;

impl Cell for Single {
    const INPUTS: usize = 1;

    #[inline(always)]
    fn multiply<S: Simd>(simd: S, a: S::Vector, b: S::Vector, sum: S::Vector) -> S::Vector {
        simd.mul_add(a, b, sum)
    }

    #[inline(always)]
    fn pack<S: Simd>(_: S, row: &[f32], words: &mut [f32]) {
        words[..row.len()].copy_from_slice(row);
    }

    fn pack_short(row: &[f32], words: &mut [f32]) {
        words[..row.len()].copy_from_slice(row);
        words[row.len()..].fill(0.0);
    }
}

/// Two bf16, the even input in the low half.
pub(super) struct Pair;

/// The word of two values.
pub(super) fn pair(even: f32, odd: f32) -> u32 {
    u32::from(bf16_bits(even)) | u32::from(bf16_bits(odd)) << 16
}

impl Cell for Pair {
    const INPUTS: usize = 2;

    #[inline(always)]
    fn multiply<S: Simd>(simd: S, a: S::Vector, b: S::Vector, sum: S::Vector) -> S::Vector {
        simd.dot_pairs(a, b, sum)
    }

    #[inline(always)]
    fn pack<S: Simd>(simd: S, row: &[f32], words: &mut [f32]) {
        // In little-endian order, neighbours are a word with the first of them in its low half.
        if cfg!(target_endian = "big") {
            Self::pack_short(row, words);
            return;
        }
        let halves: &mut [bf16] = bytemuck::cast_slice_mut(words);
        for (row, halves) in row.chunks_exact(S::WIDTH).zip(halves.chunks_exact_mut(S::WIDTH)) {
            simd.write(halves, simd.load(row));
        }
    }

    fn pack_short(row: &[f32], words: &mut [f32]) {
        if cfg!(target_endian = "little") {
            round_row(row, bytemuck::cast_slice_mut(words));
            return;
        }
        words.fill(0.0);
        for (word, values) in words.iter_mut().zip(row.chunks(2)) {
            *word = f32::from_bits(pair(values[0], values.get(1).copied().unwrap_or(0.0)));
        }
    }
}

const _: () = assert!(MAX_WIDTH.is_multiple_of(2), "a vector is whole pairs");
