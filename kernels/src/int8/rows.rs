//! Rows of activations as numbers of eight bits, in groups as the microkernels take them.

use std::ops::Range;

use super::kernel::{BLOCK, Factor, MOST_ROWS, OFFSET, WORDS, group_words};
use crate::block_product::round_block;
use crate::buffer::SharedMut;
use crate::{Values, parallel};

/// Groups that one task rounds.
const GROUPS_A_TASK: usize = 2;

/// Rows of activations, rounded to 8 bits with a scale for each 32 values: `q = round(x 127 / max |x|)`, nearest even.
///
/// The bits are the same on every instruction set. A block with a NaN or an infinity gives NaN in every product.
#[derive(Clone, Default)]
pub struct Int8Rows {
    rows: usize,
    columns: usize,
    words: Vec<u32>,
}

impl std::fmt::Debug for Int8Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Rows({} x {})", self.rows, self.columns)
    }
}

impl Int8Rows {
    /// Takes other rows; the memory is used again.
    ///
    /// # Panics
    /// If `columns` is not a multiple of 32, or the values are not `rows * columns`.
    pub fn quantize(&mut self, x: Values<'_>, rows: usize, columns: usize) {
        assert!(columns.is_multiple_of(BLOCK), "quantize: {columns} columns are not whole blocks of {BLOCK}");
        assert_eq!(x.len(), rows * columns, "quantize: the values are not {rows} x {columns}");
        (self.rows, self.columns) = (rows, columns);
        self.words.resize(rows * group_words(1) * self.blocks(), 0);
        let words = SharedMut::new(&mut self.words);
        let this = &*self;
        let task = |task: usize| {
            let mut wide = Vec::new();
            for group in task * GROUPS_A_TASK..this.groups().min((task + 1) * GROUPS_A_TASK) {
                let rows = this.group_rows(group);
                let place = this.group_place(&rows);
                // SAFETY: groups lie inside the words and share none; each is in one task.
                let words = unsafe { std::slice::from_raw_parts_mut(words.at(place.start), place.len()) };
                let own = rows.start * columns..rows.end * columns;
                match x {
                    Values::F32(x) => round_group(&x[own], columns, words),
                    Values::Bf16(x) => {
                        wide.clear();
                        wide.extend(x[own].iter().map(|value| value.to_f32()));
                        round_group(&wide, columns, words);
                    }
                }
            }
        };
        parallel::for_each(this.groups().div_ceil(GROUPS_A_TASK), task);
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Blocks of a row.
    pub(super) fn blocks(&self) -> usize {
        self.columns / BLOCK
    }

    /// Groups of rows, of nearly one size.
    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(MOST_ROWS)
    }

    /// The rows of a group and their words.
    pub(super) fn group(&self, group: usize) -> (Range<usize>, &[u32]) {
        let rows = self.group_rows(group);
        let place = self.group_place(&rows);
        (rows, &self.words[place])
    }

    fn group_rows(&self, group: usize) -> Range<usize> {
        self.rows * group / self.groups()..self.rows * (group + 1) / self.groups()
    }

    fn group_place(&self, rows: &Range<usize>) -> Range<usize> {
        let row = group_words(1) * self.blocks();
        rows.start * row..rows.end * row
    }
}

/// Rounds the rows of a group.
fn round_group(x: &[f32], columns: usize, words: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the CPU has the features.
            unsafe { round_group_avx512(x, columns, words) };
            return;
        }
        if has!("avx2") {
            // SAFETY: the CPU has the feature.
            unsafe { round_group_avx2(x, columns, words) };
            return;
        }
    }
    round_group_plain(x, columns, words);
}

/// [`round_group_plain`] with registers of 512 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn round_group_avx512(x: &[f32], columns: usize, words: &mut [u32]) {
    // SAFETY: the features are those of this function.
    round_rows(x, columns, words, |x| unsafe { wide::round_block_avx512(x) });
}

/// [`round_group_plain`] compiled for registers of 256 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn round_group_avx2(x: &[f32], columns: usize, words: &mut [u32]) {
    round_group_plain(x, columns, words);
}

#[inline(always)]
fn round_group_plain(x: &[f32], columns: usize, words: &mut [u32]) {
    round_rows(x, columns, words, |x| {
        let (scale, numbers) = round_block(x);
        let sum = |numbers: &[i8]| numbers.iter().map(|&number| i32::from(number)).sum::<i32>();
        let sums = [sum(&numbers[..BLOCK / 2]), sum(&numbers[BLOCK / 2..])];
        Rounded { scale, numbers, sums }
    });
}

/// 32 values.
struct Rounded {
    scale: f32,
    numbers: [i8; BLOCK],
    /// Of the first and the last sixteen numbers.
    sums: [i32; 2],
}

/// Writes the words of a group.
#[inline(always)]
fn round_rows(x: &[f32], columns: usize, words: &mut [u32], round: impl Fn(&[f32; BLOCK]) -> Rounded) {
    let rows = x.len() / columns.max(1);
    for (r, x) in x.chunks_exact(columns.max(1)).enumerate() {
        for (x, words) in x.as_chunks::<BLOCK>().0.iter().zip(words.chunks_exact_mut(group_words(rows))) {
            let Rounded { scale, numbers, sums: [first, last] } = round(x);
            let (places, factors) = words.split_at_mut(WORDS * rows);
            places[r * WORDS..(r + 1) * WORDS].copy_from_slice(&bytemuck::cast::<_, [u32; WORDS]>(numbers));
            let mut put = |factor: Factor, bits: u32| factors[factor as usize * rows + r] = bits;
            put(Factor::Scale, scale.to_bits());
            put(Factor::ScaledSum, ((first + last) as f32 * scale).to_bits());
            put(Factor::Start, (-OFFSET * (first + last)) as u32);
            put(Factor::FirstStart, (-OFFSET * first) as u32);
            put(Factor::LastStart, (-OFFSET * last) as u32);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m512i, _mm_cvtsi128_si32, _mm_storeu_si128, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
        _mm512_cvtepi32_epi8, _mm512_loadu_si512, _mm512_max_epu32, _mm512_mul_ps, _mm512_reduce_max_epu32,
        _mm512_set1_epi32, _mm512_set1_ps,
    };

    use super::{BLOCK, Rounded};
    use crate::block_product::{ROUNDING, scales_of};

    /// What [`round_block`](crate::block_product::round_block) does, with the sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
    pub(super) unsafe fn round_block_avx512(x: &[f32; BLOCK]) -> Rounded {
        // SAFETY: 32 values are read, 32 numbers written.
        unsafe {
            let halves: [__m512i; 2] = [0, 16].map(|at| _mm512_loadu_si512(x.as_ptr().add(at).cast()));
            let magnitude = _mm512_set1_epi32(0x7FFF_FFFF);
            let [first, last] = halves.map(|half| _mm512_and_si512(half, magnitude));
            let (scale, inverse) = scales_of(_mm512_reduce_max_epu32(_mm512_max_epu32(first, last)));
            let mut numbers = [0_i8; BLOCK];
            for (half, numbers) in halves.into_iter().zip(numbers.as_chunks_mut::<16>().0) {
                let scaled = _mm512_mul_ps(_mm512_castsi512_ps(half), _mm512_set1_ps(inverse));
                let rounded = _mm512_castps_si512(_mm512_add_ps(scaled, _mm512_set1_ps(ROUNDING)));
                _mm_storeu_si128(numbers.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded));
            }
            let all = _mm256_loadu_si256(numbers.as_ptr().cast());
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), all);
            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            let eights = _mm256_hadd_epi32(fours, fours);
            let sums = _mm256_hadd_epi32(eights, eights);
            let first = _mm_cvtsi128_si32(_mm256_castsi256_si128(sums));
            let last = _mm_cvtsi128_si32(_mm256_extracti128_si256::<1>(sums));
            Rounded { scale, numbers, sums: [first, last] }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_registers_change_no_bit() {
        let mut x: Vec<f32> =
            (0..6 * 256_u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761) & 0xBFFF_FFFF)).collect();
        x[..32].fill(0.0);
        let mut plain = vec![0; group_words(6) * 8];
        round_group_plain(&x, 256, &mut plain);
        let mut fast = vec![1; plain.len()];
        round_group(&x, 256, &mut fast);
        assert!(plain == fast);
        // The first block of the first row, and its factors.
        assert_eq!(plain[..WORDS], [0; WORDS]);
        assert_eq!(plain[6 * WORDS], 0);
    }

    #[test]
    fn a_block_that_is_no_number_says_so() {
        for strange in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 64];
            x[40] = strange;
            let mut words = vec![0; group_words(1) * 2];
            round_group(&x, 64, &mut words);
            let scale = |block: usize| f32::from_bits(words[group_words(1) * block + WORDS]);
            assert!(scale(0).is_finite() && !scale(1).is_finite());
        }
    }
}
