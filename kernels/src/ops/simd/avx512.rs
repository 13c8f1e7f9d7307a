//! AVX-512: sixteen floats. Where the CPU rounds to bf16 by itself, it does; the bits are those of the integer form.

// SAFETY of all blocks here: a value of `Avx512` exists only after the detection of its features, and the intrinsics
// need nothing else; those that touch memory pass on the promise of their caller.

use half::bf16;

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm_loadu_ps, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512, _mm512_castps128_ps512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cmplt_epi32_mask, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_cvtsepi32_epi16, _mm512_div_ps,
    _mm512_fmadd_ps, _mm512_insertf32x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mask_and_epi32,
    _mm512_mask_blend_ps, _mm512_mask_or_epi32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutexvar_epi16, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

use super::{Operation, Simd};
use crate::dot_pairs::dot_pairs_avx512;

/// Proof of AVX-512 F, BW, DQ and VL, and of its BF16 and VNNI where that is said; all CPUs with the first have the other.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const BF16: bool>(());

impl<const BF16: bool> Avx512<BF16> {
    /// The proof, if this CPU has the instructions.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
            && (!BF16 || is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni")))
        .then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn compiled_for_avx512<O: Operation>(simd: Avx512<false>, operation: O) -> O::Output {
    operation.run(simd)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma")]
fn compiled_for_bf16<O: Operation>(simd: Avx512<true>, operation: O) -> O::Output {
    operation.run(simd)
}

/// The 16-bit places 0, 16, 1, 17 and so on: two halves side by side become pairs.
static PAIRS: [u16; 32] = {
    let mut places = [0; 32];
    let mut place = 0;
    while place < 32 {
        places[place] = (place / 2 + place % 2 * 16) as u16;
        place += 1;
    }
    places
};

/// The integer form of the rounding in `gemm::round`, in the low halves: subnormals become zeros of their sign, NaN stays
/// quiet.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW.
#[inline(always)]
unsafe fn rounded(vector: __m512) -> __m512i {
    // SAFETY: see the head of the file.
    unsafe {
        let bits = _mm512_castps_si512(vector);
        let high = _mm512_srli_epi32::<16>(bits);
        let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd));
        let rounded = _mm512_srli_epi32::<16>(rounded);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(vector, vector);
        let chosen = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
        let magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fff_ffff));
        let tiny = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(0x0080_0000));
        _mm512_mask_and_epi32(chosen, tiny, high, _mm512_set1_epi32(0x8000))
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type Vector = __m512;
    type Integers = __m512i;

    const WIDTH: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_at(self, source: *const f32) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn store_at(self, target: *mut f32, vector: Self::Vector) {
        // SAFETY: see the head of the file.
        unsafe { _mm512_storeu_ps(target, vector) }
    }

    #[inline(always)]
    fn splat_integer(self, value: u32) -> Self::Integers {
        // SAFETY: see the head of the file.
        unsafe { _mm512_set1_epi32(value.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load_integers_at(self, source: *const u32) -> Self::Integers {
        // SAFETY: see the head of the file.
        unsafe { _mm512_loadu_si512(source.cast()) }
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Integers, b: Self::Integers, sum: Self::Integers) -> Self::Integers {
        // SAFETY: see the head of the file; with `BF16` the CPU has VNNI.
        unsafe {
            if !BF16 {
                return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
            }
            dot_pairs_avx512(a, b, sum)
        }
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Integers) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn store_i16_at(self, target: *mut i16, vector: Self::Vector) {
        // SAFETY: see the head of the file.
        unsafe { _mm256_storeu_si256(target.cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(vector))) }
    }

    #[inline(always)]
    unsafe fn load_bf16_at(self, source: *const bf16) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(source.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16_at(self, target: *mut bf16, vector: Self::Vector) {
        // SAFETY: see the head of the file; with `BF16` the CPU has the conversion, whose result is 256 plain bits.
        unsafe {
            let halves = if BF16 {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(vector))
            } else {
                _mm512_cvtepi32_epi16(rounded(vector))
            };
            _mm256_storeu_si256(target.cast(), halves);
        }
    }

    #[inline(always)]
    unsafe fn store_pairs_at(self, target: *mut u32, even: Self::Vector, odd: Self::Vector) {
        // SAFETY: as above, of 512 bits.
        unsafe {
            let pairs = if BF16 {
                let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                _mm512_permutexvar_epi16(_mm512_loadu_si512(PAIRS.as_ptr().cast()), halves)
            } else {
                _mm512_or_si512(rounded(even), _mm512_slli_epi32::<16>(rounded(odd)))
            };
            _mm512_storeu_si512(target.cast(), pairs);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale_by_power(self, a: Self::Vector, n: Self::Vector) -> Self::Vector {
        // SAFETY: see the head of the file.
        unsafe { _mm512_scalef_ps(a, n) }
    }

    #[inline(always)]
    fn select_first(self, count: usize, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let mask = ((1_u32 << count.min(Self::WIDTH)) - 1) as u16;
        // SAFETY: see the head of the file.
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }

    #[inline(always)]
    fn sum(self, a: Self::Vector) -> f32 {
        // SAFETY: see the head of the file.
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn maximum(self, a: Self::Vector) -> f32 {
        // SAFETY: see the head of the file.
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    unsafe fn transpose_at(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        // Each vector holds four columns of rows `i`, `4 + i`, `8 + i` and `12 + i`; a 4 x 4 transposition inside
        // the quarters then gives whole columns.
        for group in 0..4 {
            // SAFETY: see the head of the file.
            unsafe {
                let mut rows = [_mm512_set1_ps(0.0); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let from = source.add(i * source_stride + 4 * group);
                    let vector = _mm512_castps128_ps512(_mm_loadu_ps(from));
                    let vector = _mm512_insertf32x4::<1>(vector, _mm_loadu_ps(from.add(4 * source_stride)));
                    let vector = _mm512_insertf32x4::<2>(vector, _mm_loadu_ps(from.add(8 * source_stride)));
                    *row = _mm512_insertf32x4::<3>(vector, _mm_loadu_ps(from.add(12 * source_stride)));
                }
                let low01 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
                let high01 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
                let low23 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
                let high23 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
                let to = target.add(4 * group * target_stride);
                _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23)));
                _mm512_storeu_ps(to.add(target_stride), _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23)));
                _mm512_storeu_ps(to.add(2 * target_stride), _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23)));
                _mm512_storeu_ps(to.add(3 * target_stride), _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23)));
            }
        }
    }

    #[inline(always)]
    fn call<O: Operation>(self, operation: O) -> O::Output {
        // SAFETY: `self` proves the features.
        if BF16 {
            unsafe { compiled_for_bf16(Avx512(()), operation) }
        } else {
            unsafe { compiled_for_avx512(Avx512(()), operation) }
        }
    }
}
