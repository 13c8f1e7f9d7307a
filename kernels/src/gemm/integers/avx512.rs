//! Products of integers with `VPDPWSSD`: 12 rows x 32 outputs in 24 accumulators.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::super::avx512::{self, ask_for};
use super::super::kernel::{Activation, Ahead, GROUP, Integers, Kernels, Order, Right};
use super::PIECE_GROUPS;
use super::rounding::{inverses_avx512 as inverses, round_pairs_avx512 as round_pairs};
use crate::dot_pairs::dot_pairs_avx512;
use crate::panels::PANEL;

/// 1 to 12 rows by 32 outputs.
pub(in crate::gemm) static KERNELS: Kernels = Kernels {
    activation: Activation::Pairs,
    width: PANEL,
    row_step: 1,
    micro: &[
        multiply::<1>,
        multiply::<2>,
        multiply::<3>,
        multiply::<4>,
        multiply::<5>,
        multiply::<6>,
        multiply::<7>,
        multiply::<8>,
        multiply::<9>,
        multiply::<10>,
        multiply::<11>,
        multiply::<12>,
    ],
    depth: PIECE_GROUPS,
    order: Order::Grouped,
    session: None,
    integers: Some(Integers {
        floats: &avx512::FAMILY.widened,
        lone: &[
            multiply_lone::<1>,
            multiply_lone::<2>,
            multiply_lone::<3>,
            multiply_lone::<4>,
            multiply_lone::<5>,
            multiply_lone::<6>,
            multiply_lone::<7>,
            multiply_lone::<8>,
        ],
    }),
};

/// See [`Micro`](super::super::kernel::Micro).
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply<const R: usize>(
    mut a: *const u32,
    Right { panel: mut b, factors }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    let (mut next, half) = (ahead.next, ahead.step / 2);
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    // SAFETY: the reads of `a` and `b` stay in the packed buffers that the caller describes, factors included, prefetches
    // never fault, and `c` is read and written inside the block.
    unsafe {
        ask_for::<R, 2>(c, c_stride);
        for _ in 0..groups {
            for j in 0..GROUP {
                let b0 = _mm512_load_si512(b.add(j * PANEL).cast());
                let b1 = _mm512_load_si512(b.add(j * PANEL + 16).cast());
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(half).cast());
                next = next.wrapping_add(ahead.step);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(a.add(r * GROUP + j).read().cast_signed());
                    sum[0] = dot_pairs_avx512(x, b0, sum[0]);
                    sum[1] = dot_pairs_avx512(x, b1, sum[1]);
                }
            }
            a = a.add(GROUP * R);
            b = b.add(GROUP * PANEL);
        }
        store(&sums, a.cast(), factors, c, c_stride, add);
    }
}

/// See [`Micro`](super::super::kernel::Micro); the panel is of bf16 and is rounded on the way.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply_lone<const R: usize>(
    mut a: *const u32,
    Right { panel: mut b, factors }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    let (mut next, half) = (ahead.next, ahead.step / 2);
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    // SAFETY: as in `multiply`.
    unsafe {
        let inverses = [0, 16].map(|half| inverses(_mm512_load_ps(factors.add(half))));
        for _ in 0..groups {
            for j in 0..GROUP {
                let b0 = round_pairs(_mm512_load_si512(b.add(j * PANEL).cast()), inverses[0]);
                let b1 = round_pairs(_mm512_load_si512(b.add(j * PANEL + 16).cast()), inverses[1]);
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(half).cast());
                next = next.wrapping_add(ahead.step);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(a.add(r * GROUP + j).read().cast_signed());
                    sum[0] = dot_pairs_avx512(x, b0, sum[0]);
                    sum[1] = dot_pairs_avx512(x, b1, sum[1]);
                }
            }
            a = a.add(GROUP * R);
            b = b.add(GROUP * PANEL);
        }
        store(&sums, a.cast(), factors, c, c_stride, add);
    }
}

/// Writes or adds the sums of a block times the factors of its rows and outputs.
///
/// # Safety
/// AVX-512 F; `R` and 32 factors, these on 64 bytes; `c` holds `R` rows of 32 at its stride.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const R: usize>(
    sums: &[[__m512i; 2]; R],
    row_factors: *const f32,
    factors: *const f32,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    for (r, sum) in sums.iter().enumerate() {
        for (half, &sum) in sum.iter().enumerate() {
            // SAFETY: inside the factors and the block.
            unsafe {
                let row_factor = _mm512_set1_ps(*row_factors.add(r));
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_load_ps(factors.add(half * 16)));
                let place = c.add(r * c_stride + half * 16);
                let value = if add {
                    _mm512_fmadd_ps(value, row_factor, _mm512_loadu_ps(place))
                } else {
                    _mm512_mul_ps(value, row_factor)
                };
                _mm512_storeu_ps(place, value);
            }
        }
    }
}
