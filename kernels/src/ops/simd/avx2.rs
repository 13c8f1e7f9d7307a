//! AVX2 with FMA and F16C: eight floats.

// SAFETY of all blocks here: a value of `Avx2` exists only after the detection of AVX2, FMA and F16C, and the intrinsics
// need nothing else; those that touch memory pass on the promise of their caller.

use std::arch::x86_64::{
    __m128, __m256, __m256i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_loadu_ps, _mm_max_ps, _mm_max_ss, _mm_movehl_ps, _mm_packs_epi32, _mm_shuffle_ps, _mm_storeu_si128,
    _mm256_add_epi32, _mm256_add_ps, _mm256_blendv_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castps128_ps256,
    _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_insertf128_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps, _mm256_unpackhi_pd, _mm256_unpackhi_ps,
    _mm256_unpacklo_pd, _mm256_unpacklo_ps,
};

use super::{Operation, Simd};

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The proof, if this CPU has the instructions.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"))
            .then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn compiled_for_avx2<O: Operation>(simd: Avx2, operation: O) -> O::Output {
    operation.run(simd)
}

#[inline(always)]
fn half_sum(halves: __m128) -> f32 {
    // SAFETY: SSE is part of x86-64.
    unsafe {
        let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
        _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
    }
}

#[inline(always)]
fn half_maximum(halves: __m128) -> f32 {
    // SAFETY: SSE is part of x86-64.
    unsafe {
        let pairs = _mm_max_ps(halves, _mm_movehl_ps(halves, halves));
        _mm_cvtss_f32(_mm_max_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
    }
}

impl Simd for Avx2 {
    type Vector = __m256;
    type Integers = __m256i;

    const WIDTH: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_at(self, source: *const f32) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn store_at(self, target: *mut f32, vector: Self::Vector) {
        // SAFETY: see the head of the file.
        unsafe { _mm256_storeu_ps(target, vector) }
    }

    #[inline(always)]
    fn splat_integer(self, value: u32) -> Self::Integers {
        // SAFETY: see the head of the file.
        unsafe { _mm256_set1_epi32(value.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load_integers_at(self, source: *const u32) -> Self::Integers {
        // SAFETY: see the head of the file.
        unsafe { _mm256_loadu_si256(source.cast()) }
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Integers, b: Self::Integers, sum: Self::Integers) -> Self::Integers {
        // SAFETY: see the head of the file.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Integers) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn store_i16_at(self, target: *mut i16, vector: Self::Vector) {
        // SAFETY: see the head of the file.
        unsafe {
            let integers = _mm256_cvtps_epi32(vector);
            let (low, high) = (_mm256_castsi256_si128(integers), _mm256_extracti128_si256::<1>(integers));
            _mm_storeu_si128(target.cast(), _mm_packs_epi32(low, high));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale_by_power(self, a: Self::Vector, n: Self::Vector) -> Self::Vector {
        // Two factors, because 2^-150 and 2^128 have no bit pattern of their own.
        // SAFETY: see the head of the file.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let second = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(a, first), second)
        }
    }

    #[inline(always)]
    fn select_first(self, count: usize, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe {
            let indices = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(Self::WIDTH) as i32), indices);
            _mm256_blendv_ps(b, a, _mm256_castsi256_ps(mask))
        }
    }

    #[inline(always)]
    fn sum(self, a: Self::Vector) -> f32 {
        // SAFETY: see the head of the file.
        half_sum(unsafe { _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)) })
    }

    #[inline(always)]
    fn maximum(self, a: Self::Vector) -> f32 {
        // SAFETY: see the head of the file.
        half_maximum(unsafe { _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)) })
    }

    #[inline(always)]
    unsafe fn transpose_at(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        // Each vector holds four columns of rows `i` and `4 + i`; a 4 x 4 transposition inside the halves then
        // gives whole columns.
        for group in 0..2 {
            // SAFETY: see the head of the file.
            unsafe {
                let mut rows = [_mm256_set1_ps(0.0); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let from = source.add(i * source_stride + 4 * group);
                    *row = _mm256_insertf128_ps::<1>(
                        _mm256_castps128_ps256(_mm_loadu_ps(from)),
                        _mm_loadu_ps(from.add(4 * source_stride)),
                    );
                }
                let low01 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1]));
                let high01 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1]));
                let low23 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3]));
                let high23 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
                let to = target.add(4 * group * target_stride);
                _mm256_storeu_ps(to, _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23)));
                _mm256_storeu_ps(to.add(target_stride), _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23)));
                _mm256_storeu_ps(to.add(2 * target_stride), _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23)));
                _mm256_storeu_ps(to.add(3 * target_stride), _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23)));
            }
        }
    }

    #[inline(always)]
    fn call<O: Operation>(self, operation: O) -> O::Output {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { compiled_for_avx2(self, operation) }
    }
}
