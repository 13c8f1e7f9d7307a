//! `VPDPWSSD` itself: the compiler takes its intrinsics apart into a product and an addition.

use std::arch::asm;
use std::arch::x86_64::{__m256i, __m512i};

/// Adds the products of both pairs of 16 bits in each word of `a` and `b` to the word of `sum`.
///
/// # Safety
/// The CPU has AVX-512 VNNI.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(crate) unsafe fn dot_pairs_avx512(a: __m512i, b: __m512i, mut sum: __m512i) -> __m512i {
    // SAFETY: the caller's promise; registers alone.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// [`dot_pairs_avx512`] with 256 bits.
///
/// # Safety
/// The CPU has AVX-VNNI.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
pub(crate) unsafe fn dot_pairs_avx(a: __m256i, b: __m256i, mut sum: __m256i) -> __m256i {
    // SAFETY: the caller's promise; registers alone.
    unsafe {
        asm!(
            "{{vex}} vpdpwssd {sum}, {a}, {b}",
            sum = inout(ymm_reg) sum,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
