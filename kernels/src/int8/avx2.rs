//! 256 bits: 6 rows x 8 outputs at a time, with `VPDPBUSD` or without.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32,
    _mm256_fmadd_ps, _mm256_load_ps, _mm256_load_si256, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps, _mm256_xor_si256,
};
use std::ops::Range;

use super::kernel::{Factor, Kernels, Kind, Right, SHIFT_OF_16, SHIFT_OF_32, WORDS, block_lines, group_words, kernels};
use crate::block_product::Second;
use crate::panels::PANEL;

/// 1 to 6 rows by 32 outputs.
pub(super) static KERNELS: Kernels = kernels!(multiply);
/// The same with `VPDPBUSD`.
pub(super) static VNNI_KERNELS: Kernels = kernels!(multiply_vnni);

/// Outputs of a register.
const LANES: usize = 8;

/// See [`Micro`](super::kernel::Micro).
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<K: Kind, const R: usize>(
    rows: *const u32,
    right: Right,
    blocks: usize,
    y: *mut f32,
    stride: usize,
    add: bool,
) {
    // A product of its own for each range of numbers: a choice inside the loop would cost half of its speed.
    // SAFETY: the caller's promises, and each block is handed on as it is.
    unsafe {
        match (K::SECOND, right.shift) {
            (Second::Addend, _) | (_, SHIFT_OF_16) => {
                product::<K, R>(rows, right, blocks, y, stride, add, |rows, weights, words, start| {
                    dot_small::<R, 4>(rows, weights, words, start)
                });
            }
            (_, SHIFT_OF_32) => {
                product::<K, R>(rows, right, blocks, y, stride, add, |rows, weights, words, start| {
                    dot_small::<R, 2>(rows, weights, words, start)
                });
            }
            _ => {
                product::<K, R>(rows, right, blocks, y, stride, add, |rows, weights, words, _| {
                    dot_signed::<R>(rows, weights, words)
                });
            }
        }
    }
}

/// See [`Micro`](super::kernel::Micro).
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn multiply_vnni<K: Kind, const R: usize>(
    rows: *const u32,
    right: Right,
    blocks: usize,
    y: *mut f32,
    stride: usize,
    add: bool,
) {
    let dot = |rows: *const u32, weights: *const u32, words: Range<usize>, mut sums: [__m256i; R]| {
        for word in words {
            // SAFETY: the block that the caller hands on.
            unsafe {
                let own = _mm256_load_si256(weights.add(word * PANEL).cast());
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, own, number_word(rows, word, r));
                }
            }
        }
        sums
    };
    // SAFETY: the caller's promises.
    unsafe { product::<K, R>(rows, right, blocks, y, stride, add, dot) }
}

/// The product, with what adds the products of some words of a block to sums.
#[inline(always)]
unsafe fn product<K: Kind, const R: usize>(
    rows: *const u32,
    right: Right,
    blocks: usize,
    y: *mut f32,
    stride: usize,
    add: bool,
    dot: impl Fn(*const u32, *const u32, Range<usize>, [__m256i; R]) -> [__m256i; R],
) {
    // SAFETY: the callers have the instructions; reads stay in the group and the panel, whose lanes begin on multiples of 32
    // bytes, and `y` is read and written inside the block.
    unsafe {
        // In memory: all registers go to the sums of a block, and the panel is read once.
        let mut sums = [[_mm256_setzero_ps(); R]; PANEL / LANES];
        let (mut rows, mut panel, shift) = (rows, right.panel.cast::<u32>(), right.shift);
        for _ in 0..blocks {
            for (lanes, sums) in sums.iter_mut().enumerate() {
                let panel = panel.add(lanes * LANES);
                let scales = _mm256_load_ps(panel.add(WORDS * PANEL).cast());
                let second = panel.add((WORDS + 1) * PANEL).cast();
                match K::SECOND {
                    Second::None => {
                        let found = dot(rows, panel, 0..WORDS, start(rows, Factor::Start, shift));
                        add_scaled(sums, found, scales, rows);
                    }
                    Second::Addend => {
                        let found = dot(rows, panel, 0..WORDS, [_mm256_setzero_si256(); R]);
                        add_scaled(sums, found, scales, rows);
                        let minima = _mm256_load_ps(second);
                        for (r, sum) in sums.iter_mut().enumerate() {
                            *sum = _mm256_fmadd_ps(minima, factor::<R>(rows, Factor::ScaledSum, r), *sum);
                        }
                    }
                    Second::Scale => {
                        let found = dot(rows, panel, 0..WORDS / 2, start(rows, Factor::FirstStart, shift));
                        add_scaled(sums, found, scales, rows);
                        let found = dot(rows, panel, WORDS / 2..WORDS, start(rows, Factor::LastStart, shift));
                        add_scaled(sums, found, _mm256_load_ps(second), rows);
                    }
                }
            }
            rows = rows.add(group_words(R));
            panel = panel.add(block_lines(K::SECOND) * PANEL / 2);
        }
        for (lanes, sums) in sums.into_iter().enumerate() {
            for (r, sum) in sums.into_iter().enumerate() {
                let place = y.add(r * stride + lanes * LANES);
                let sum = if add { _mm256_add_ps(_mm256_loadu_ps(place), sum) } else { sum };
                _mm256_storeu_ps(place, sum);
            }
        }
    }
}

/// Adds sums of a block times both scales.
///
/// # Safety
/// AVX2 with FMA, and a block of `R` rows.
#[inline(always)]
unsafe fn add_scaled<const R: usize>(sums: &mut [__m256; R], found: [__m256i; R], scales: __m256, rows: *const u32) {
    // SAFETY: the caller's promise.
    unsafe {
        for r in 0..R {
            let scale = _mm256_mul_ps(scales, factor::<R>(rows, Factor::Scale, r));
            sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(found[r]), scale, sums[r]);
        }
    }
}

/// A factor of a row in every lane.
///
/// # Safety
/// AVX2, and a block of `R` rows.
#[inline(always)]
unsafe fn factor<const R: usize>(rows: *const u32, factor: Factor, r: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_set1_ps(rows.add((WORDS + factor as usize) * R + r).cast::<f32>().read()) }
}

/// What the sums of a block start from.
///
/// # Safety
/// AVX2, and a block of `R` rows.
#[inline(always)]
unsafe fn start<const R: usize>(rows: *const u32, factor: Factor, shift: u32) -> [__m256i; R] {
    let mut start = [0; R];
    // SAFETY: the caller's promise.
    unsafe {
        for (r, start) in start.iter_mut().enumerate() {
            *start = rows.add((WORDS + factor as usize) * R + r).cast::<i32>().read() >> shift;
        }
        start.map(|start| _mm256_set1_epi32(start))
    }
}

/// Four numbers of a row in every lane.
///
/// # Safety
/// AVX2, and `rows` holds the word.
#[inline(always)]
unsafe fn number_word(rows: *const u32, word: usize, r: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_set1_epi32(rows.add(r * WORDS + word).cast::<i32>().read()) }
}

/// Adds the products of bytes so small that those of `SHORT` words fit in 16 bits: below 32 those of four
/// (8 x 31 x 127 = 31,496), below 64 those of two.
///
/// # Safety
/// AVX2, and a block of both sides.
#[inline(always)]
unsafe fn dot_small<const R: usize, const SHORT: usize>(
    rows: *const u32,
    weights: *const u32,
    words: Range<usize>,
    mut sums: [__m256i; R],
) -> [__m256i; R] {
    // SAFETY: the caller's promise.
    unsafe {
        for first in words.step_by(SHORT) {
            let mut short = [_mm256_setzero_si256(); R];
            for word in first..first + SHORT {
                let own = _mm256_load_si256(weights.add(word * PANEL).cast());
                for (r, short) in short.iter_mut().enumerate() {
                    *short = _mm256_add_epi16(*short, _mm256_maddubs_epi16(own, number_word(rows, word, r)));
                }
            }
            for (sum, short) in sums.iter_mut().zip(short) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(short, _mm256_set1_epi16(1)));
            }
        }
        sums
    }
}

/// The sums of numbers with a sign: the first factor must have none, so the second takes it. Two products of at most
/// 128 x 127 fit in 16 bits.
///
/// # Safety
/// AVX2, and a block of both sides.
#[inline(always)]
unsafe fn dot_signed<const R: usize>(rows: *const u32, weights: *const u32, words: Range<usize>) -> [__m256i; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); R];
        for word in words {
            let bytes = _mm256_load_si256(weights.add(word * PANEL).cast());
            let own = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
            let magnitude = _mm256_sign_epi8(own, own);
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_sign_epi8(number_word(rows, word, r), own);
                let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, x), _mm256_set1_epi16(1));
                *sum = _mm256_add_epi32(*sum, pairs);
            }
        }
        sums
    }
}
