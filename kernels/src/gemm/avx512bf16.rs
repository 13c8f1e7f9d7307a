//! bf16 kernels with `VDPBF16PS`: 12 rows x 32 outputs in 24 accumulators.
//!
//! A step takes one pair of inputs: two registers of 16 pairs from the panel, each row's pair broadcast. The
//! instruction flushes subnormals and adds the two products of a pair in its own order, so results differ in the last
//! bits from the widened kernels.

use std::arch::x86_64::{
    __m512bh, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_set1_epi32,
    _mm512_setzero_ps,
};

use super::avx512::{ask_for, store};
use super::kernel::{Activation, Ahead, GROUP, Kernels, Micro, Order, Right};
use crate::panels::PANEL;

/// 1 to 12 rows by 32 outputs.
pub(super) static PAIRS: Kernels = Kernels {
    activation: Activation::Pairs,
    width: PANEL,
    row_step: 1,
    micro: &MICRO,
    depth: 32,
    order: Order::Grouped,
    session: None,
    integers: None,
};

static MICRO: [Micro; 12] = [
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
];

#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 plain bits.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

/// See [`Micro`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply<const R: usize>(
    mut a: *const u32,
    Right { panel: mut b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    ahead: Ahead,
) {
    let (mut next, half) = (ahead.next, ahead.step / 2);
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: the reads of `a` and `b` stay in the packed buffers that the caller describes, prefetches never fault,
    // and `c` is read and written inside the block.
    unsafe {
        ask_for::<R, 2>(c, c_stride);
        for _ in 0..groups {
            for j in 0..GROUP {
                let b0 = pairs(_mm512_load_si512(b.add(j * PANEL).cast()));
                let b1 = pairs(_mm512_load_si512(b.add(j * PANEL + 16).cast()));
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(half).cast());
                next = next.wrapping_add(ahead.step);
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = pairs(_mm512_set1_epi32(a.add(r * GROUP + j).read() as i32));
                    sum[0] = _mm512_dpbf16_ps(sum[0], x, b0);
                    sum[1] = _mm512_dpbf16_ps(sum[1], x, b1);
                }
            }
            a = a.add(GROUP * R);
            b = b.add(GROUP * PANEL);
        }
        store(&sums, c, c_stride, add);
    }
}
