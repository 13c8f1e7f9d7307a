//! 256 bits: two blocks of 32 at a time, unpacked by the plain loops.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_load_ps,
    _mm256_load_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_set1_epi16, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps,
};

use super::plain::{Format, Second, Weights, total};
use super::rows::{LANES, Quad};
use super::{Body, Piece, Rows};
use crate::BlockType;
use crate::blocks::{BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0};

/// The product of a type, if there is one, with `VPDPBUSD` or without.
pub(super) fn body<const VNNI: bool>(block_type: BlockType) -> Option<Body> {
    Some(match block_type {
        BlockType::Q4_0 => chosen::<BlockQ4_0, VNNI>(),
        BlockType::Q4_1 => chosen::<BlockQ4_1, VNNI>(),
        BlockType::Q5_0 => chosen::<BlockQ5_0, VNNI>(),
        BlockType::Q5_1 => chosen::<BlockQ5_1, VNNI>(),
        BlockType::Q8_0 => chosen::<BlockQ8_0, VNNI>(),
        BlockType::Q4K => chosen::<BlockQ4K, VNNI>(),
        BlockType::Q5K => chosen::<BlockQ5K, VNNI>(),
        BlockType::Q6K => chosen::<BlockQ6K, VNNI>(),
        // All others are decoded first.
        _ => return None,
    })
}

fn chosen<F: Format, const VNNI: bool>() -> Body {
    if VNNI { product_vnni::<F> } else { product_avx2::<F> }
}

#[target_feature(enable = "avx2,f16c")]
fn product_avx2<F: Format>(rows: &Rows<'_>, piece: &Piece<'_>) {
    product::<F>(rows, piece, |weights, x| {
        // The first factor must not have a sign: the second takes it. Two products of at most 128 * 127 fit in 16 bits.
        let (magnitude, x) = (_mm256_sign_epi8(weights, weights), _mm256_sign_epi8(x, weights));
        _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, x), _mm256_set1_epi16(1))
    });
}

#[target_feature(enable = "avx2,f16c,avxvnni")]
fn product_vnni<F: Format>(rows: &Rows<'_>, piece: &Piece<'_>) {
    product::<F>(rows, piece, |weights, x| {
        let (magnitude, x) = (_mm256_sign_epi8(weights, weights), _mm256_sign_epi8(x, weights));
        _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), magnitude, x)
    });
}

/// The product, with what sums four products of bytes in each of eight lanes.
#[inline(always)]
fn product<F: Format>(rows: &Rows<'_>, piece: &Piece<'_>, dot: impl Fn(__m256i, __m256i) -> __m256i) {
    let from = several::<F, 4>(rows, piece, 0, &dot);
    several::<F, 1>(rows, piece, from, &dot);
}

#[inline(always)]
fn several<F: Format, const M: usize>(
    rows: &Rows<'_>,
    piece: &Piece<'_>,
    from: usize,
    dot: &impl Fn(__m256i, __m256i) -> __m256i,
) -> usize {
    rows.each(piece, from, |row, activations: [&[Quad]; M]| {
        // SAFETY: the callers have the instructions.
        let mut sums = [[[unsafe { _mm256_setzero_ps() }; 2]; 2]; M];
        for quad in 0..activations[0].len() {
            let weights = F::unpack(row, quad);
            for (x, sums) in activations.iter().zip(&mut sums) {
                add::<F>(&weights, &x[quad], sums, dot);
            }
        }
        sums.map(|sums| {
            let mut lanes = [0.0; LANES];
            for (half, lanes) in lanes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                // SAFETY: eight lanes.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(sums[0][half], sums[1][half])) };
            }
            total(lanes)
        })
    })
}

/// Adds a quad to the sums, which are halves of the lanes, for each of the two factors.
#[inline(always)]
fn add<F: Format>(
    weights: &Weights,
    x: &Quad,
    sums: &mut [[__m256; 2]; 2],
    dot: &impl Fn(__m256i, __m256i) -> __m256i,
) {
    // SAFETY: the callers have the instructions; loads stay inside the fields, and a quad begins on a multiple of 64.
    unsafe {
        for half in 0..2 {
            let scaled = |sum: __m256i, factors: &[f32; LANES]| {
                let factor = _mm256_mul_ps(
                    _mm256_loadu_ps(factors.as_ptr().add(8 * half)),
                    _mm256_load_ps(x.scales.as_ptr().add(8 * half)),
                );
                _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor)
            };
            let of = |weights: &[i8; 64], x: &[i8; 64]| {
                dot(
                    _mm256_loadu_si256(weights.as_ptr().add(32 * half).cast()),
                    _mm256_load_si256(x.as_ptr().add(32 * half).cast()),
                )
            };
            let (first, second) = (of(&weights.first, &x.first), of(&weights.second, &x.second));
            let [one, other] = sums;
            match F::SECOND {
                Second::None | Second::Addend => {
                    let sum = _mm256_add_epi32(first, second);
                    one[half] = _mm256_add_ps(one[half], scaled(sum, &weights.scales));
                    if F::SECOND == Second::Addend {
                        let addend = _mm256_mul_ps(
                            _mm256_loadu_ps(weights.others.as_ptr().add(8 * half)),
                            _mm256_load_ps(x.scaled_sums.as_ptr().add(8 * half)),
                        );
                        other[half] = _mm256_add_ps(other[half], addend);
                    }
                }
                Second::Scale => {
                    one[half] = _mm256_add_ps(one[half], scaled(first, &weights.scales));
                    other[half] = _mm256_add_ps(other[half], scaled(second, &weights.others));
                }
            }
        }
    }
}
