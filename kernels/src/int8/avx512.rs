//! 512 bits with `VPDPBUSD`: 6 rows x 32 outputs, in 12 sums of a block and 12 of all.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_load_ps, _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srav_epi32,
};

use super::kernel::{Factor, Kernels, Kind, Right, WORDS, block_lines, group_words, kernels};
use crate::block_product::Second;
use crate::buffer::Line;
use crate::gemm::{ask_for_avx512, store_avx512};

/// 1 to 6 rows by 32 outputs.
pub(super) static KERNELS: Kernels = kernels!(multiply);

/// How far ahead a panel is asked for, in lines: two blocks.
const AHEAD: usize = 40;

/// See [`Micro`](super::kernel::Micro).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply<K: Kind, const R: usize>(
    mut rows: *const u32,
    right: Right,
    blocks: usize,
    y: *mut f32,
    stride: usize,
    add: bool,
) {
    let Right { mut panel, mut next, shift } = right;
    // A shift by a vector is one instruction where one by a single count may be two.
    let shift = _mm512_set1_epi32(shift.cast_signed());
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the reads stay in the group and the panel that the caller describes, prefetches never fault, and `y` is read
    // and written inside the block.
    unsafe {
        ask_for_avx512::<R, 2>(y, stride);
        for _ in 0..blocks {
            let factor = |factor: Factor, r: usize| rows.add((WORDS + factor as usize) * R + r);
            let start = |which: Factor| -> [[__m512i; 2]; R] {
                std::array::from_fn(|r| {
                    let own = _mm512_set1_epi32(factor(which, r).cast::<i32>().read());
                    [_mm512_srav_epi32(own, shift); 2]
                })
            };
            let scales =
                |line: usize| [_mm512_load_ps(panel.add(line).cast()), _mm512_load_ps(panel.add(line + 1).cast())];
            let scale_of = |r: usize| _mm512_set1_ps(factor(Factor::Scale, r).cast::<f32>().read());
            let (first, last) = (scales(2 * WORDS), 2 * WORDS + 2);
            match K::SECOND {
                Second::None => {
                    let found = dot::<R>(rows, panel, next, 0..WORDS, start(Factor::Start));
                    scaled(&mut sums, found, first, scale_of);
                }
                Second::Addend => {
                    let found = dot::<R>(rows, panel, next, 0..WORDS, [[_mm512_setzero_si512(); 2]; R]);
                    scaled(&mut sums, found, first, scale_of);
                    let minima = scales(last);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let sum = _mm512_set1_ps(factor(Factor::ScaledSum, r).cast::<f32>().read());
                        *sums = [0, 1].map(|v| _mm512_fmadd_ps(minima[v], sum, sums[v]));
                    }
                }
                Second::Scale => {
                    let found = dot::<R>(rows, panel, next, 0..WORDS / 2, start(Factor::FirstStart));
                    scaled(&mut sums, found, first, scale_of);
                    let found = dot::<R>(rows, panel, next, WORDS / 2..WORDS, start(Factor::LastStart));
                    scaled(&mut sums, found, scales(last), scale_of);
                }
            }
            rows = rows.add(group_words(R));
            panel = panel.add(block_lines(K::SECOND));
            next = next.wrapping_add(WORDS);
        }
        store_avx512(&sums, y, stride, add);
    }
}

/// Adds the products of some words of a block.
///
/// # Safety
/// The instructions are there, and `rows` and `panel` hold a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn dot<const R: usize>(
    rows: *const u32,
    panel: *const Line,
    next: *const Line,
    words: std::ops::Range<usize>,
    mut sums: [[__m512i; 2]; R],
) -> [[__m512i; 2]; R] {
    for word in words {
        // SAFETY: inside the block; prefetches never fault.
        unsafe {
            let line = panel.add(2 * word);
            let weights = [_mm512_load_si512(line.cast()), _mm512_load_si512(line.add(1).cast())];
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD + 1).cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(word).cast());
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(rows.add(r * WORDS + word).cast::<i32>().read());
                *sums = [0, 1].map(|v| _mm512_dpbusd_epi32(sums[v], weights[v], x));
            }
        }
    }
    sums
}

/// Adds sums of a block times both scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scaled<const R: usize>(
    sums: &mut [[__m512; 2]; R],
    found: [[__m512i; 2]; R],
    scales: [__m512; 2],
    scale_of: impl Fn(usize) -> __m512,
) {
    for (r, (sums, found)) in sums.iter_mut().zip(found).enumerate() {
        let own = scale_of(r);
        *sums = [0, 1].map(|v| _mm512_fmadd_ps(_mm512_cvtepi32_ps(found[v]), _mm512_mul_ps(scales[v], own), sums[v]));
    }
}
