//! 512 bits: four blocks of 32 at a time.
//!
//! Two loads hold the blocks of a quad, permutations of bytes put their numbers into the order of [`Quad`] and their scales
//! beside the sums. `VPDPBUSD` multiplies numbers without a sign by those of the activations; the offset of a type goes off
//! as its product with the sums of the activations.

use std::arch::x86_64::{
    __m128i, __m512, __m512i, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si64,
    _mm_loadu_si128, _mm_movehl_ps, _mm_prefetch, _mm_shuffle_epi8, _mm_shuffle_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_loadu_si256, _mm256_maskz_loadu_epi8, _mm256_set1_epi16,
    _mm512_add_ps, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_castps512_ps256, _mm512_castsi256_si512,
    _mm512_castsi512_si256, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_extractf32x8_ps, _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_load_ps,
    _mm512_load_si512, _mm512_loadu_si512, _mm512_mask_add_epi8, _mm512_maskz_loadu_epi8, _mm512_mul_ps,
    _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_permutex2var_epi16, _mm512_permutex2var_epi64, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi16,
    _mm512_sllv_epi32, _mm512_srli_epi16, _mm512_srlv_epi16, _mm512_sub_epi32, _mm512_test_epi8_mask, _mm512_xor_si512,
};

use super::plain::Second;
use super::rows::Quad;
use super::{Body, Piece, Rows};
use crate::BlockType;

/// How far ahead blocks are asked for.
const AHEAD: usize = 2048;

/// The product of a type, if there is one.
pub(super) fn body(block_type: BlockType) -> Option<Body> {
    Some(match block_type {
        BlockType::Q4_0 => product::<Q4_0>,
        BlockType::Q4_1 => product::<Q4_1>,
        BlockType::Q5_0 => product::<Q5_0>,
        BlockType::Q5_1 => product::<Q5_1>,
        BlockType::Q8_0 => product::<Q8_0>,
        BlockType::Q4K => product::<Q4K>,
        BlockType::Q5K => product::<Q5K>,
        BlockType::Q6K => product::<Q6K>,
        // All others are decoded first.
        _ => return None,
    })
}

/// Four blocks in the order of [`Quad`].
struct Weights {
    first: __m512i,
    second: __m512i,
    scales: __m512,
    /// See [`Second`].
    others: __m512,
}

/// A type of blocks.
trait Format {
    const SECOND: Second;
    /// What is taken off every number, as a power of two.
    const OFFSET: Option<u32>;

    /// The quad number `quad` of a row; without `WHOLE` it may have less than four blocks, and the rest is zero.
    ///
    /// # Safety
    /// The row has the quad, all of it with `WHOLE`.
    unsafe fn unpack<const WHOLE: bool>(row: &[u8], quad: usize) -> Weights;

    /// Quads of a row that are whole.
    fn whole(row_bytes: usize) -> usize;
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn product<F: Format>(rows: &Rows<'_>, piece: &Piece<'_>) {
    // SAFETY: the features are those of this function.
    let from = rows.each(piece, 0, |row, activations| unsafe { dot::<F, 4>(row, activations) });
    // SAFETY: as above.
    let from = rows.each(piece, from, |row, activations| unsafe { dot::<F, 2>(row, activations) });
    // SAFETY: as above.
    rows.each(piece, from, |row, activations| unsafe { dot::<F, 1>(row, activations) });
}

/// A row of blocks times `M` rows of activations.
///
/// # Safety
/// The CPU has the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn dot<F: Format, const M: usize>(row: &[u8], activations: [&[Quad]; M]) -> [f32; M] {
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    let count = activations[0].len();
    let whole = F::whole(row.len()).min(count);
    for quad in 0..whole {
        let ahead = row.as_ptr().wrapping_add(quad * (row.len() / count) + AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        // SAFETY: the quad is whole.
        let weights = unsafe { F::unpack::<true>(row, quad) };
        for (x, sums) in activations.iter().zip(&mut sums) {
            // SAFETY: every row of activations has `count` quads.
            unsafe { add::<F>(&weights, x.get_unchecked(quad), sums) };
        }
    }
    if whole < count {
        // SAFETY: the row ends in this quad.
        let weights = unsafe { F::unpack::<false>(row, whole) };
        for (x, sums) in activations.iter().zip(&mut sums) {
            add::<F>(&weights, &x[whole], sums);
        }
    }
    sums.map(|[first, second]| total(_mm512_add_ps(first, second)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn add<F: Format>(weights: &Weights, x: &Quad, sums: &mut [__m512; 2]) {
    // SAFETY: the fields of a quad are of 64 bytes and lie on multiples of 64.
    let (first, second, scales) = unsafe {
        (
            _mm512_load_si512(x.first.as_ptr().cast()),
            _mm512_load_si512(x.second.as_ptr().cast()),
            _mm512_load_ps(x.scales.as_ptr()),
        )
    };
    let zero = _mm512_setzero_si512();
    let scaled = |sum: __m512i, factor: __m512| _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(factor, scales));
    match F::SECOND {
        Second::None | Second::Addend => {
            let start = match F::OFFSET {
                None => zero,
                // SAFETY: as above.
                Some(bits) => unsafe {
                    let own = _mm512_load_si512(x.sums.as_ptr().cast());
                    _mm512_sub_epi32(zero, _mm512_sllv_epi32(own, _mm512_set1_epi32(bits as i32)))
                },
            };
            let sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(start, weights.first, first), weights.second, second);
            sums[0] = _mm512_add_ps(sums[0], scaled(sum, weights.scales));
            if F::SECOND == Second::Addend {
                // SAFETY: as above.
                let own = unsafe { _mm512_load_ps(x.scaled_sums.as_ptr()) };
                sums[1] = _mm512_add_ps(sums[1], _mm512_mul_ps(weights.others, own));
            }
        }
        Second::Scale => {
            let offset = _mm512_set1_epi8(F::OFFSET.map_or(0, |bits| 1 << bits));
            let of = |weights: __m512i, x: __m512i| {
                _mm512_sub_epi32(_mm512_dpbusd_epi32(zero, weights, x), _mm512_dpbusd_epi32(zero, offset, x))
            };
            sums[0] = _mm512_add_ps(sums[0], scaled(of(weights.first, first), weights.scales));
            sums[1] = _mm512_add_ps(sums[1], scaled(of(weights.second, second), weights.others));
        }
    }
}

/// The sum of the lanes, halves on halves.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
fn total(lanes: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// The 64 bytes at `at` of a quad of which `bytes` exist; without `WHOLE` the others are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load<const WHOLE: bool>(quad: &[u8], at: usize) -> __m512i {
    // SAFETY: the caller says that 64 bytes exist, or only those that do are read.
    unsafe {
        let place = quad.as_ptr().wrapping_add(at);
        if WHOLE {
            _mm512_loadu_si512(place.cast())
        } else {
            let exist = quad.len().saturating_sub(at).min(64) as u32;
            _mm512_maskz_loadu_epi8(u64::MAX.checked_shr(64 - exist).unwrap_or(0), place.cast())
        }
    }
}

/// [`load`] of 32 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_half<const WHOLE: bool>(quad: &[u8], at: usize) -> __m512i {
    // SAFETY: as in `load`.
    unsafe {
        let place = quad.as_ptr().wrapping_add(at);
        _mm512_castsi256_si512(if WHOLE {
            _mm256_loadu_si256(place.cast())
        } else {
            let exist = quad.len().saturating_sub(at).min(32) as u32;
            _mm256_maskz_loadu_epi8(u32::MAX.checked_shr(32 - exist).unwrap_or(0), place.cast())
        })
    }
}

/// Where the second load of a quad of four blocks begins: it ends with the quad.
const fn second_load(block: usize) -> usize {
    4 * block - 64
}

/// For each byte of a register the place of byte `at + byte / 8` (`bits`) or `at + byte` of its block in the two loads.
const fn byte_places(block: usize, at: usize, bits: bool) -> [u8; 64] {
    let mut places = [0; 64];
    let mut byte = 0;
    while byte < 64 {
        let inside = if bits { byte % 16 / 8 } else { byte % 16 };
        let place = byte / 16 * block + at + inside;
        places[byte] = if place < 64 { place } else { place - second_load(block) + 64 } as u8;
        byte += 1;
    }
    places
}

/// For each of 16 lanes the place of the word at `first` of its block, then of that at `second`; in loads at 0 and at
/// `loaded`.
const fn word_places(block: usize, first: usize, second: usize, loaded: usize) -> [u16; 32] {
    let mut places = [0; 32];
    let mut lane = 0;
    while lane < 32 {
        let place = lane % 16 / 4 * block + if lane < 16 { first } else { second };
        places[lane] = if place < 64 { place / 2 } else { (place - loaded) / 2 + 32 } as u16;
        lane += 1;
    }
    places
}

#[inline]
#[target_feature(enable = "avx512f")]
fn table<T, const N: usize>(places: &'static [T; N]) -> __m512i {
    const { assert!(size_of::<T>() * N == 64) };
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
}

/// The types with blocks of 32 elements and nibbles.
trait Nibbles {
    const SECOND: Second;
    const OFFSET: Option<u32>;
    const BLOCK: usize;
    /// Where the fifth bits are.
    const QH: Option<usize>;
    /// Places of the nibbles, of the scales and the second factors, and of the bytes of fifth bits.
    const NIBBLES: &'static [u8; 64];
    const FACTORS: &'static [u16; 32];
    const FIFTH: &'static [[u8; 64]; 2];
}

macro_rules! nibbles {
    ($name:ident, $second:expr, $offset:expr, $block:literal, $qs:literal, $qh:expr) => {
        #[allow(non_camel_case_types, reason = "the names of the formats carry the underscore")]
        struct $name;

        impl Nibbles for $name {
            const SECOND: Second = $second;
            const OFFSET: Option<u32> = $offset;
            const BLOCK: usize = $block;
            const QH: Option<usize> = $qh;
            const NIBBLES: &'static [u8; 64] = &byte_places($block, $qs, false);
            const FACTORS: &'static [u16; 32] = &word_places($block, 0, 2, second_load($block));
            const FIFTH: &'static [[u8; 64]; 2] = &match $qh {
                Some(at) => [byte_places($block, at, true), byte_places($block, at + 2, true)],
                None => [[0; 64]; 2],
            };
        }
    };
}

nibbles!(Q4_0, Second::None, Some(3), 18, 2, None::<usize>);
nibbles!(Q4_1, Second::Addend, None, 20, 4, None::<usize>);
nibbles!(Q5_0, Second::None, Some(4), 22, 6, Some(2));
nibbles!(Q5_1, Second::Addend, None, 24, 8, Some(4));

/// One bit of each byte, bit `i % 8` of byte `i`.
static BITS: [u8; 64] = {
    let mut bits = [0; 64];
    let mut byte = 0;
    while byte < 64 {
        bits[byte] = 1 << (byte % 8);
        byte += 1;
    }
    bits
};

impl<N: Nibbles> Format for N {
    const SECOND: Second = N::SECOND;
    const OFFSET: Option<u32> = N::OFFSET;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
    unsafe fn unpack<const WHOLE: bool>(row: &[u8], quad: usize) -> Weights {
        // SAFETY: with `WHOLE` the quad is inside the row; without it only what exists is read.
        let (low, high) = unsafe {
            let quad = row.get_unchecked(4 * N::BLOCK * quad..);
            (load::<WHOLE>(quad, 0), load::<WHOLE>(quad, second_load(N::BLOCK)))
        };
        let both = _mm512_permutex2var_epi8(low, table(N::NIBBLES), high);
        let nibble = _mm512_set1_epi8(0x0F);
        let mut first = _mm512_and_si512(both, nibble);
        let mut second = _mm512_and_si512(_mm512_srli_epi16::<4>(both), nibble);
        if N::QH.is_some() {
            let sixteen = _mm512_set1_epi8(16);
            let set = |places| _mm512_test_epi8_mask(_mm512_permutex2var_epi8(low, table(places), high), table(&BITS));
            first = _mm512_mask_add_epi8(first, set(&N::FIFTH[0]), first, sixteen);
            second = _mm512_mask_add_epi8(second, set(&N::FIFTH[1]), second, sixteen);
        }
        let factors = _mm512_permutex2var_epi16(low, table(N::FACTORS), high);
        let others = match N::SECOND {
            Second::None => _mm512_setzero_ps(),
            Second::Addend | Second::Scale => _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(factors)),
        };
        Weights { first, second, scales: _mm512_cvtph_ps(_mm512_castsi512_si256(factors)), others }
    }

    fn whole(row_bytes: usize) -> usize {
        row_bytes / (4 * N::BLOCK)
    }
}

/// Bytes, made unsigned by 128 more.
#[allow(non_camel_case_types, reason = "the names of the formats carry the underscore")]
struct Q8_0;

impl Format for Q8_0 {
    const SECOND: Second = Second::None;
    const OFFSET: Option<u32> = Some(7);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
    unsafe fn unpack<const WHOLE: bool>(row: &[u8], quad: usize) -> Weights {
        static FACTORS: [u16; 32] = word_places(34, 0, 0, 64);
        static FIRST: [u64; 8] = [0, 1, 4, 5, 8, 9, 12, 13];
        static SECOND: [u64; 8] = [2, 3, 6, 7, 10, 11, 14, 15];
        // SAFETY: with `WHOLE` the quad is inside the row; without it only what exists is read.
        let (low, high, blocks) = unsafe {
            let quad = row.get_unchecked(4 * 34 * quad..);
            let block = |index: usize| load_half::<WHOLE>(quad, 34 * index + 2);
            let pair = |index: usize| _mm512_inserti64x4::<1>(block(index), _mm512_castsi512_si256(block(index + 1)));
            (load::<WHOLE>(quad, 0), load::<WHOLE>(quad, 64), [pair(0), pair(2)])
        };
        let sign = _mm512_set1_epi8(-128);
        let half = |places| _mm512_xor_si512(_mm512_permutex2var_epi64(blocks[0], table(places), blocks[1]), sign);
        let factors = _mm512_permutex2var_epi16(low, table(&FACTORS), high);
        Weights {
            first: half(&FIRST),
            second: half(&SECOND),
            scales: _mm512_cvtph_ps(_mm512_castsi512_si256(factors)),
            others: _mm512_setzero_ps(),
        }
    }

    fn whole(row_bytes: usize) -> usize {
        row_bytes / (4 * 34)
    }
}

/// One of four bytes for each lane, in the order of the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
fn by_lane(bytes: u32) -> __m128i {
    // SAFETY: sixteen bytes.
    let places = unsafe { _mm_loadu_si128([0_u8, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3].as_ptr().cast()) };
    _mm_shuffle_epi8(_mm_cvtsi32_si128(bytes.cast_signed()), places)
}

/// A half-precision number in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c,avx2")]
fn half_everywhere(bytes: [u8; 2]) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(bytes)))
}

/// Nibbles of 64 bytes, in which groups of 32 lie low and high in turn, as the halves of a quad.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn turned_nibbles(both: __m512i) -> [__m512i; 2] {
    static FIRST: [u64; 8] = [0, 1, 8, 9, 4, 5, 12, 13];
    static SECOND: [u64; 8] = [2, 3, 10, 11, 6, 7, 14, 15];
    let nibble = _mm512_set1_epi8(0x0F);
    let (low, high) = (_mm512_and_si512(both, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(both), nibble));
    [&FIRST, &SECOND].map(|places| _mm512_permutex2var_epi64(low, table(places), high))
}

/// Scales, and minima with a minus, of half a block of `Q4_K` or `Q5_K`: see
/// [`scale_and_minimum`](crate::blocks::scale_and_minimum), here for four groups at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
fn scales_and_minima(head: &[u8; 16], half: usize) -> [__m512; 2] {
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (a, b, c) = (word(4), word(8), word(12));
    let packed = if half == 0 {
        [a & 0x3F3F_3F3F, b & 0x3F3F_3F3F]
    } else {
        [(c & 0x0F0F_0F0F) | ((a >> 2) & 0x3030_3030), ((c >> 4) & 0x0F0F_0F0F) | ((b >> 2) & 0x3030_3030)]
    };
    let [scales, minima] = packed.map(|bytes| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(by_lane(bytes))));
    let minus = half_everywhere([head[2], head[3] ^ 0x80]);
    [_mm512_mul_ps(half_everywhere([head[0], head[1]]), scales), _mm512_mul_ps(minus, minima)]
}

struct Q4K;

impl Format for Q4K {
    const SECOND: Second = Second::Addend;
    const OFFSET: Option<u32> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
    unsafe fn unpack<const WHOLE: bool>(row: &[u8], quad: usize) -> Weights {
        // SAFETY: rows are whole blocks of 256 elements.
        unsafe {
            let block = row.as_ptr().add(quad / 2 * 144);
            let [first, second] = turned_nibbles(_mm512_loadu_si512(block.add(16 + 64 * (quad % 2)).cast()));
            let [scales, others] = scales_and_minima(&*block.cast(), quad % 2);
            Weights { first, second, scales, others }
        }
    }

    fn whole(row_bytes: usize) -> usize {
        2 * (row_bytes / 144)
    }
}

struct Q5K;

impl Format for Q5K {
    const SECOND: Second = Second::Addend;
    const OFFSET: Option<u32> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
    unsafe fn unpack<const WHOLE: bool>(row: &[u8], quad: usize) -> Weights {
        /// Bit `i` for group `i` of a quad, and the same for the second quad of a block.
        static GROUP_BITS: [[u8; 64]; 2] = {
            let mut bits = [[0; 64]; 2];
            let mut byte = 0;
            while byte < 64 {
                bits[0][byte] = 1 << (byte / 16);
                bits[1][byte] = 16 << (byte / 16);
                byte += 1;
            }
            bits
        };
        // SAFETY: rows are whole blocks of 256 elements.
        unsafe {
            let block = row.as_ptr().add(quad / 2 * 176);
            let [first, second] = turned_nibbles(_mm512_loadu_si512(block.add(48 + 64 * (quad % 2)).cast()));
            let bits = table(&GROUP_BITS[quad % 2]);
            let set = |at: usize| {
                let fifth = _mm512_broadcast_i32x4(_mm_loadu_si128(block.add(at).cast()));
                _mm512_test_epi8_mask(fifth, bits)
            };
            let sixteen = _mm512_set1_epi8(16);
            let [scales, others] = scales_and_minima(&*block.cast(), quad % 2);
            Weights {
                first: _mm512_mask_add_epi8(first, set(16), first, sixteen),
                second: _mm512_mask_add_epi8(second, set(32), second, sixteen),
                scales,
                others,
            }
        }
    }

    fn whole(row_bytes: usize) -> usize {
        2 * (row_bytes / 176)
    }
}

struct Q6K;

impl Format for Q6K {
    const SECOND: Second = Second::Scale;
    const OFFSET: Option<u32> = Some(5);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
    unsafe fn unpack<const WHOLE: bool>(row: &[u8], quad: usize) -> Weights {
        /// For each word the shift that brings the high bits of its group down.
        static SHIFTS: [u16; 32] = {
            let mut shifts = [0; 32];
            let mut word = 0;
            while word < 32 {
                shifts[word] = (word / 8 * 2) as u16;
                word += 1;
            }
            shifts
        };
        static SCALES: [[u8; 16]; 2] =
            [[0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6], [1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7]];
        // SAFETY: rows are whole blocks of 256 elements.
        unsafe {
            let block = row.as_ptr().add(quad / 2 * 210);
            let half = quad % 2;
            let (nibble, pair) = (_mm512_set1_epi8(0x0F), _mm512_set1_epi8(3));
            let both = _mm512_loadu_si512(block.add(64 * half).cast());
            let (low, high) = (_mm512_and_si512(both, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(both), nibble));
            let with_high = |low: __m512i, at: usize| {
                let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(block.add(128 + 32 * half + at).cast()));
                let high = _mm512_and_si512(_mm512_srlv_epi16(bytes, table(&SHIFTS)), pair);
                _mm512_or_si512(low, _mm512_slli_epi16::<4>(high))
            };
            let packed = _mm_loadu_si64(block.add(192 + 8 * half));
            let d = half_everywhere(*block.add(208).cast());
            let scales = |side: usize| {
                let bytes = _mm_shuffle_epi8(packed, _mm_loadu_si128(SCALES[side].as_ptr().cast()));
                _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
            };
            Weights {
                first: with_high(_mm512_shuffle_i32x4::<0b10_00_10_00>(low, high), 0),
                second: with_high(_mm512_shuffle_i32x4::<0b11_01_11_01>(low, high), 16),
                scales: scales(0),
                others: scales(1),
            }
        }
    }

    fn whole(row_bytes: usize) -> usize {
        2 * (row_bytes / 210)
    }
}
