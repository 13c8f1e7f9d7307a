//! Rounding with registers of 512 bits: the bits of the plain loops.
//!
//! Values go two registers at a time: those of even and of odd places, as a line of bf16 or integer pairs holds them.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GT_OQ, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_mov_epi16, _mm512_maskz_div_ps, _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::super::super::pack::Part;
use super::{GROUP, INPUTS, ROUNDING, each_row, factor, inverse};
use crate::buffer::Line;
use crate::panels::PANEL;
use crate::values::{Element, Values};

/// How far ahead a piece is asked for, in lines.
const AHEAD: usize = 64;

/// The values of pairs of bf16: even places, odd places.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen(pairs: __m512i) -> [__m512; 2] {
    let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    [_mm512_slli_epi32::<16>(pairs), _mm512_and_si512(pairs, high)].map(|bits| _mm512_castsi512_ps(bits))
}

/// Pairs of integers from values of even and odd places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn integers([even, odd]: [__m512; 2], inverse: __m512) -> __m512i {
    let rounding = _mm512_set1_ps(ROUNDING);
    let [even, odd] = [even, odd].map(|values| _mm512_castps_si512(_mm512_fmadd_ps(values, inverse, rounding)));
    _mm512_mask_mov_epi16(even, 0xaaaa_aaaa, _mm512_slli_epi32::<16>(odd))
}

/// Rounds pairs of bf16 to pairs of integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(in crate::gemm::integers) fn round_pairs(pairs: __m512i, inverse: __m512) -> __m512i {
    integers(widen(pairs), inverse)
}

/// [`inverse`] of each factor.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(in crate::gemm::integers) fn inverses(factors: __m512) -> __m512 {
    let are_some = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(factors, _mm512_setzero_ps());
    _mm512_maskz_div_ps(are_some, _mm512_set1_ps(1.0), factors)
}

/// Rounds a piece of a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn round_panel(piece: &[Line], factors: &[f32; PANEL], target: &mut [Line]) {
    assert!(piece.len() == target.len() && piece.len().is_multiple_of(2));
    // SAFETY: both halves of the factors, and lines inside the slices, which have one length.
    unsafe {
        let inverses = [0, 16].map(|half| inverses(_mm512_loadu_ps(factors.as_ptr().add(half))));
        for line in (0..piece.len()).step_by(2) {
            for (half, &inverse) in inverses.iter().enumerate() {
                let from = piece.as_ptr().wrapping_add(line + half);
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
                let words = round_pairs(_mm512_loadu_si512(from.cast()), inverse);
                _mm512_storeu_si512(target.as_mut_ptr().add(line + half).cast(), words);
            }
        }
    }
}

/// Packs a piece of the rows of a block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn pack_rows<T: Element>(x: &[T], columns: usize, part: &Part, lines: &mut [Line]) {
    each_row(x, columns, part, lines, |row, lines, step| pack_row(row, lines, step));
}

/// What the plain form does.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn pack_row<T: Element>(row: &[T], lines: &mut [Line], step: usize) -> f32 {
    let (chunks, rest) = row.as_chunks::<INPUTS>();
    let mut last = [T::round(0.0); INPUTS];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    let mut sums = [_mm512_setzero_ps(); 2];
    for values in chunks.iter().chain(last) {
        let values = read(values);
        sums = [0, 1].map(|side| _mm512_fmadd_ps(values[side], values[side], sums[side]));
    }
    let factor = factor(halves_of(_mm512_add_ps(sums[0], sums[1])));
    let inverse = _mm512_set1_ps(inverse(factor));
    let mut targets = lines.iter_mut().step_by(step);
    for (values, line) in chunks.iter().chain(last).zip(&mut targets) {
        // SAFETY: a line has 64 bytes.
        unsafe { _mm512_storeu_si512(line.0.as_mut_ptr().cast(), integers(read(values), inverse)) };
    }
    targets.for_each(|line| line.0 = [0; GROUP]);
    factor
}

/// The values of even and of odd places.
#[inline]
#[target_feature(enable = "avx512f")]
fn read<T: Element>(values: &[T; INPUTS]) -> [__m512; 2] {
    static EVEN: [u32; GROUP] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
    static ODD: [u32; GROUP] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
    // SAFETY: 32 values are there, as 16 places are.
    unsafe {
        match T::values(values) {
            Values::Bf16(values) => widen(_mm512_loadu_si512(values.as_ptr().cast())),
            Values::F32(values) => {
                let [low, high] = [0, 16].map(|half| _mm512_loadu_ps(values.as_ptr().add(half)));
                [&EVEN, &ODD]
                    .map(|places| _mm512_permutex2var_ps(low, _mm512_loadu_si512(places.as_ptr().cast()), high))
            }
        }
    }
}

/// The sum of a vector by halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves_of(vector: __m512) -> f32 {
    let mut sums = [0.0_f32; GROUP];
    // SAFETY: sixteen places.
    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), vector) };
    let mut count = GROUP / 2;
    while count > 0 {
        for lane in 0..count {
            sums[lane] += sums[lane + count];
        }
        count /= 2;
    }
    sums[0]
}
