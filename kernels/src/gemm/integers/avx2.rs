//! Products of integers with registers of 256 bits, with `VPDPWSSD` or without: 6 rows x 16 outputs in 12 accumulators, a
//! panel in two halves.

#![allow(clippy::inline_always, reason = "the body is compiled for both sets of instructions")]

use std::arch::x86_64::{
    __m256, __m256i, _CMP_GT_OQ, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_and_ps, _mm256_and_si256,
    _mm256_blend_epi16, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_div_ps,
    _mm256_fmadd_ps, _mm256_load_ps, _mm256_load_si256, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_mul_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::super::avx2;
use super::super::kernel::{Activation, Ahead, GROUP, Integers, Kernels, Order, Right};
use super::{PIECE_GROUPS, ROUNDING};
use crate::dot_pairs::dot_pairs_avx;
use crate::panels::PANEL;

/// How far ahead a panel that is used once is asked for, in words.
const AHEAD_WORDS: usize = 1024;

/// The [`Kernels`] of two microkernels by their rows.
macro_rules! kernels {
    ($multiply:ident, $lone:ident) => {
        kernels!($multiply, $lone; 1 2 3 4 5 6)
    };
    ($multiply:ident, $lone:ident; $($rows:literal)*) => {
        Kernels {
            activation: Activation::Pairs,
            width: PANEL,
            row_step: 1,
            micro: &[$($multiply::<$rows>),*],
            depth: PIECE_GROUPS,
            order: Order::Grouped,
            session: None,
            integers: Some(Integers { floats: &avx2::FAMILY.widened, lone: &[$($lone::<$rows>),*] }),
        }
    };
}

/// 1 to 6 rows by 32 outputs.
pub(in crate::gemm) static KERNELS: Kernels = kernels!(multiply, lone);

/// The same with `VPDPWSSD`.
pub(in crate::gemm) static VNNI_KERNELS: Kernels = kernels!(multiply_vnni, lone_vnni);

/// See [`Micro`](super::super::kernel::Micro).
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    // SAFETY: the caller's promises.
    unsafe {
        product::<R>(a, b, groups, c, c_stride, add, |x, w, sum| _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)));
    }
}

/// See [`Micro`](super::super::kernel::Micro).
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn multiply_vnni<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    // SAFETY: the caller's promises.
    unsafe { product::<R>(a, b, groups, c, c_stride, add, |x, w, sum| dot_pairs_avx(x, w, sum)) }
}

/// The product, with what adds the products of pairs to sums.
#[inline(always)]
unsafe fn product<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    for half in 0..2 {
        // SAFETY: the callers have the instructions; the reads stay in the packed buffers that they describe, factors
        // included, and `c` is read and written inside the block.
        unsafe {
            let (mut a, mut b, factors) = (a, b.panel.add(half * 16), b.factors.add(half * 16));
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for _ in 0..groups {
                for j in 0..GROUP {
                    let b0 = _mm256_load_si256(b.add(j * PANEL).cast());
                    let b1 = _mm256_load_si256(b.add(j * PANEL + 8).cast());
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(a.add(r * GROUP + j).read().cast_signed());
                        sum[0] = dot(x, b0, sum[0]);
                        sum[1] = dot(x, b1, sum[1]);
                    }
                }
                a = a.add(GROUP * R);
                b = b.add(GROUP * PANEL);
            }
            let factors = [0, 8].map(|v| _mm256_load_ps(factors.add(v)));
            store(&sums, a.cast(), &factors, c.add(half * 16), c_stride, add);
        }
    }
}

/// See [`Micro`](super::super::kernel::Micro); the panel is of bf16 and is rounded on the way.
#[target_feature(enable = "avx2,fma")]
unsafe fn lone<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    // SAFETY: the caller's promises.
    unsafe {
        lone_product::<R>(a, b, groups, c, c_stride, add, |x, w, sum| _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)));
    }
}

/// See [`Micro`](super::super::kernel::Micro); the panel is of bf16 and is rounded on the way.
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn lone_vnni<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    // SAFETY: the caller's promises.
    unsafe { lone_product::<R>(a, b, groups, c, c_stride, add, |x, w, sum| dot_pairs_avx(x, w, sum)) }
}

/// [`product`] with a panel of bf16: with few rows more outputs at a time, so that no sum waits for the one before.
#[inline(always)]
unsafe fn lone_product<const R: usize>(
    a: *const u32,
    b: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    // SAFETY: the caller's promises.
    unsafe {
        match R {
            1 => lone_columns::<R, 4>(a, b, groups, c, c_stride, add, dot),
            2 | 3 => lone_columns::<R, 2>(a, b, groups, c, c_stride, add, dot),
            _ => lone_columns::<R, 1>(a, b, groups, c, c_stride, add, dot),
        }
    }
}

/// [`lone_product`] by `V` registers of outputs.
#[inline(always)]
unsafe fn lone_columns<const R: usize, const V: usize>(
    a: *const u32,
    right: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    for first in (0..PANEL).step_by(8 * V) {
        // SAFETY: as in `product`; prefetches never fault.
        unsafe {
            let (mut a, mut b) = (a, right.panel.add(first));
            let factors: [__m256; V] = std::array::from_fn(|v| _mm256_load_ps(right.factors.add(first + v * 8)));
            let inverses = factors.map(|factors| inverses(factors));
            let mut sums = [[_mm256_setzero_si256(); V]; R];
            for _ in 0..groups {
                for j in 0..GROUP {
                    for line in (0..8 * V).step_by(16) {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD_WORDS + j * PANEL + line).cast());
                    }
                    let pairs: [__m256i; V] = std::array::from_fn(|v| {
                        round_pairs(_mm256_load_si256(b.add(j * PANEL + v * 8).cast()), inverses[v])
                    });
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(a.add(r * GROUP + j).read().cast_signed());
                        for (sum, &pairs) in sum.iter_mut().zip(&pairs) {
                            *sum = dot(x, pairs, *sum);
                        }
                    }
                }
                a = a.add(GROUP * R);
                b = b.add(GROUP * PANEL);
            }
            store(&sums, a.cast(), &factors, c.add(first), c_stride, add);
        }
    }
}

/// What an integer is multiplied with to become the value, inverted; zero for zero and what is not a number.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn inverses(factors: __m256) -> __m256 {
    let are_some = _mm256_cmp_ps::<_CMP_GT_OQ>(factors, _mm256_setzero_ps());
    _mm256_and_ps(are_some, _mm256_div_ps(_mm256_set1_ps(1.0), factors))
}

/// Rounds pairs of bf16 to pairs of integers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn round_pairs(pairs: __m256i, inverse: __m256) -> __m256i {
    let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    let [even, odd] = [_mm256_slli_epi32::<16>(pairs), _mm256_and_si256(pairs, high)].map(|values| {
        let rounded = _mm256_fmadd_ps(_mm256_castsi256_ps(values), inverse, _mm256_set1_ps(ROUNDING));
        _mm256_castps_si256(rounded)
    });
    _mm256_blend_epi16::<0xaa>(even, _mm256_slli_epi32::<16>(odd))
}

/// Writes or adds the sums of a part of a block times the factors of its rows and outputs.
///
/// # Safety
/// AVX2 and FMA; `R` row factors; `c` holds `R` rows of 8 for each factor of outputs at its stride.
#[inline(always)]
unsafe fn store<const R: usize, const V: usize>(
    sums: &[[__m256i; V]; R],
    row_factors: *const f32,
    factors: &[__m256; V],
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    for (r, sums) in sums.iter().enumerate() {
        for (v, (&sum, &factor)) in sums.iter().zip(factors).enumerate() {
            // SAFETY: inside the factors and the block.
            unsafe {
                let row_factor = _mm256_set1_ps(*row_factors.add(r));
                let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor);
                let place = c.add(r * c_stride + v * 8);
                let value = if add {
                    _mm256_fmadd_ps(value, row_factor, _mm256_loadu_ps(place))
                } else {
                    _mm256_mul_ps(value, row_factor)
                };
                _mm256_storeu_ps(place, value);
            }
        }
    }
}
