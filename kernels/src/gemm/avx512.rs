//! f32 and widened bf16 kernels with AVX-512: 12 rows x 32 outputs in 24 accumulators.

#![allow(
    clippy::inline_always,
    reason = "sums that are in registers stay there: a call would take them through memory"
)]

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use super::kernel::{Ahead, Family, GROUP, Right, family, word_index};
use crate::panels::PANEL;

/// 1 to 12 rows; 2 registers of 16 outputs in a wide panel, 1 in a narrow one.
pub(super) static FAMILY: Family = family!(2, 1; 1 2 3 4 5 6 7 8 9 10 11 12);

/// See [`Micro`](super::kernel::Micro); `V` registers of 16 outputs.
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const R: usize, const V: usize, const INTERLEAVED: bool>(
    a: *const u32,
    Right { panel: b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
    let (mut next, half) = (ahead.next, ahead.step / 2);
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: the reads stay in the packed buffers that the caller describes.
    unsafe {
        ask_for::<R, V>(c, c_stride);
        for _ in 0..groups {
            for j in 0..GROUP {
                let columns: [__m512; V] = std::array::from_fn(|v| _mm512_load_ps(b.add((j * V + v) * 16)));
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                if V == 2 {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(half).cast());
                }
                next = next.wrapping_add(ahead.step);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(word_index::<R, INTERLEAVED>(r, j)));
                    for (sum, &column) in sum.iter_mut().zip(&columns) {
                        *sum = _mm512_fmadd_ps(x, column, *sum);
                    }
                }
            }
            a = a.add(GROUP * R);
            b = b.add(GROUP * V * 16);
        }
        store(&sums, c, c_stride, add);
    }
}

/// See [`Micro`](super::kernel::Micro); the even input of each pair first, then the odd one.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_widened<const R: usize>(
    a: *const u32,
    Right { panel: mut b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    let mut a = a.cast::<f32>();
    let (mut next, half) = (ahead.next, ahead.step / 2);
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // SAFETY: the reads stay in the packed buffers that the caller describes.
    unsafe {
        ask_for::<R, 2>(c, c_stride);
        for _ in 0..groups {
            for j in 0..GROUP / 2 {
                let b0 = _mm512_load_si512(b.add(j * PANEL).cast());
                let b1 = _mm512_load_si512(b.add(j * PANEL + 16).cast());
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(half).cast());
                next = next.wrapping_add(ahead.step);
                let even = [b0, b1].map(|pairs| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r * GROUP + 2 * j));
                    sum[0] = _mm512_fmadd_ps(x, even[0], sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, even[1], sum[1]);
                }
                let odd = [b0, b1].map(|pairs| _mm512_castsi512_ps(_mm512_and_si512(pairs, high)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r * GROUP + 2 * j + 1));
                    sum[0] = _mm512_fmadd_ps(x, odd[0], sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, odd[1], sum[1]);
                }
            }
            a = a.add(GROUP * R);
            b = b.add(GROUP / 2 * PANEL);
        }
        store(&sums, c, c_stride, add);
    }
}

/// Asks for a block of the result, `R` rows of `V` lines: it comes from far away while the block is multiplied.
#[inline(always)]
pub(crate) fn ask_for<const R: usize, const V: usize>(c: *const f32, c_stride: usize) {
    for r in 0..R {
        for v in 0..V {
            // SAFETY: every processor that runs these kernels has the instruction, which never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * c_stride + v * 16).cast()) };
        }
    }
}

/// Writes or adds the sums of a block.
///
/// # Safety
/// AVX-512 F; `c` holds `R` rows of `16 * V` at its stride.
#[inline(always)]
pub(crate) unsafe fn store<const R: usize, const V: usize>(
    sums: &[[__m512; V]; R],
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    for (r, sum) in sums.iter().enumerate() {
        for (v, &value) in sum.iter().enumerate() {
            // SAFETY: inside the block.
            unsafe {
                let place = c.add(r * c_stride + v * 16);
                let value = if add { _mm512_add_ps(_mm512_loadu_ps(place), value) } else { value };
                _mm512_storeu_ps(place, value);
            }
        }
    }
}
