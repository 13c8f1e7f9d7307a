//! f32 and widened bf16 kernels with AVX2 and FMA: 6 rows x 16 outputs in 12 accumulators, a wide panel in two halves.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_load_ps, _mm256_load_si256,
    _mm256_loadu_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::kernel::{Ahead, Family, GROUP, Right, family, word_index};
use crate::panels::PANEL;

/// 1 to 6 rows; 2 halves of 16 outputs in a wide panel, 1 in a narrow one.
pub(super) static FAMILY: Family = family!(2, 1; 1 2 3 4 5 6);

/// See [`Micro`](super::kernel::Micro); `H` halves of 16 outputs.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const R: usize, const H: usize, const INTERLEAVED: bool>(
    a: *const u32,
    Right { panel: b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    for half in 0..H {
        // SAFETY: the reads stay in the packed buffers that the caller describes.
        unsafe {
            let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>().add(half * 16));
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            for _ in 0..groups {
                for j in 0..GROUP {
                    let b0 = _mm256_load_ps(b.add(j * H * 16));
                    let b1 = _mm256_load_ps(b.add(j * H * 16 + 8));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(word_index::<R, INTERLEAVED>(r, j)));
                        sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                    }
                }
                a = a.add(GROUP * R);
                b = b.add(GROUP * H * 16);
            }
            store(&sums, c.add(half * 16), c_stride, add);
        }
    }
}

/// See [`Micro`](super::kernel::Micro); the even input of each pair first, then the odd one.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_widened<const R: usize>(
    a: *const u32,
    Right { panel: b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    for half in 0..2 {
        // SAFETY: the reads stay in the packed buffers that the caller describes.
        unsafe {
            let (mut a, mut b) = (a.cast::<f32>(), b.add(half * 16));
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            for _ in 0..groups {
                for j in 0..GROUP / 2 {
                    let b0 = _mm256_load_si256(b.add(j * PANEL).cast());
                    let b1 = _mm256_load_si256(b.add(j * PANEL + 8).cast());
                    let even = [b0, b1].map(|pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(r * GROUP + 2 * j));
                        sum[0] = _mm256_fmadd_ps(x, even[0], sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, even[1], sum[1]);
                    }
                    let odd = [b0, b1].map(|pairs| _mm256_castsi256_ps(_mm256_and_si256(pairs, high)));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(r * GROUP + 2 * j + 1));
                        sum[0] = _mm256_fmadd_ps(x, odd[0], sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, odd[1], sum[1]);
                    }
                }
                a = a.add(GROUP * R);
                b = b.add(GROUP / 2 * PANEL);
            }
            store(&sums, c.add(half * 16), c_stride, add);
        }
    }
}

/// Writes or adds the sums of a half block.
///
/// # Safety
/// AVX2; `c` holds `R` rows of 16 at its stride.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store<const R: usize>(sums: &[[__m256; 2]; R], c: *mut f32, c_stride: usize, add: bool) {
    for (r, sum) in sums.iter().enumerate() {
        for (v, &value) in sum.iter().enumerate() {
            // SAFETY: inside the block.
            unsafe {
                let place = c.add(r * c_stride + v * 8);
                let value = if add { _mm256_add_ps(_mm256_loadu_ps(place), value) } else { value };
                _mm256_storeu_ps(place, value);
            }
        }
    }
}
