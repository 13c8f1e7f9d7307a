//! Keys and values as integers of 16 bits.
//!
//! A row of a head is rounded to integers with a factor of its own, its largest value being the largest integer. Two
//! integers that are multiplied with two others and added lie in one word: keys are `[pair of depths][position]`, values
//! `[pair of positions][element]`, and behind each come the factors of the 64 positions. The other side of a product is
//! rounded in the same way, row by row: queries, and probabilities times the factors of the values. Sums of products are
//! exact; half the multiplications of f32 do them.

use std::ops::Range;

use super::PAGE_POSITIONS;
use crate::ops::simd::{MAX_WIDTH, Operation, Simd, exp2};

/// Below this a row counts as zeros: its factor would have no inverse.
const LEAST: f32 = 1e-30;

/// The largest integer of both sides of a product of so many terms, so that no sum leaves 32 bits.
pub(super) fn largest_integer(terms: usize) -> i32 {
    (i32::MAX as usize / terms).isqrt().min(i16::MAX as usize) as i32
}

/// Rounds a row to integers up to `largest_integer` and tells the factor that they are to be multiplied with: not a number
/// where a value is not finite. What `integers` has more becomes zero.
///
/// # Panics
/// If `integers` is shorter than the row, or not whole vectors.
#[inline(always)]
pub(super) fn round_row<S: Simd>(simd: S, row: &[f32], largest_integer: i32, integers: &mut [i16]) -> f32 {
    assert!(integers.len() >= row.len() && integers.len().is_multiple_of(MAX_WIDTH));
    let zero = simd.splat(0.0);
    // Zeros, or not a number: the difference of a value that is not finite with itself.
    let (mut largest, mut differences) = (zero, zero);
    let vectors = row.chunks_exact(S::WIDTH);
    let rest = simd.load_short(vectors.remainder(), 0.0);
    for values in vectors.clone() {
        let values = simd.load(values);
        largest = simd.max(largest, simd.max(values, simd.sub(zero, values)));
        differences = simd.add(differences, simd.sub(values, values));
    }
    largest = simd.max(largest, simd.max(rest, simd.sub(zero, rest)));
    differences = simd.add(differences, simd.sub(rest, rest));
    let (largest, difference) = (simd.maximum(largest), simd.sum(differences));
    if largest < LEAST {
        integers.fill(0);
        return difference;
    }
    let inverse = simd.splat(largest_integer as f32 / largest);
    let mut target = integers.chunks_exact_mut(S::WIDTH);
    for (values, target) in vectors.zip(&mut target) {
        // SAFETY: a target is as long as a vector.
        unsafe { simd.store_i16_at(target.as_mut_ptr(), simd.mul(simd.load(values), inverse)) };
    }
    if !row.len().is_multiple_of(S::WIDTH)
        && let Some(target) = target.next()
    {
        // SAFETY: as above.
        unsafe { simd.store_i16_at(target.as_mut_ptr(), simd.mul(rest, inverse)) };
    }
    for target in target {
        target.fill(0);
    }
    largest / largest_integer as f32 + difference
}

/// The largest of a row's scores of a page and of `old`. Keys `seen` are seen; behind them `scores` may hold anything.
#[inline(always)]
pub(super) fn largest_score<S: Simd>(simd: S, scores: &[f32; PAGE_POSITIONS], seen: &Range<usize>, old: f32) -> f32 {
    let mut largest = simd.splat(old);
    for (index, scores) in scores.chunks_exact(S::WIDTH).enumerate() {
        largest = simd.max(largest, only_seen(simd, simd.load(scores), seen, index * S::WIDTH, f32::NEG_INFINITY));
    }
    simd.maximum(largest)
}

/// Turns a row's scores of a page into probabilities, which are not yet divided by their sum, times the factors of the values;
/// gives the sum of the probabilities and the largest result. Behind the keys `seen` both may hold anything.
#[inline(always)]
pub(super) fn weigh_scores<S: Simd>(
    simd: S,
    scores: &mut [f32; PAGE_POSITIONS],
    seen: &Range<usize>,
    largest: f32,
    factors: &[f32; PAGE_POSITIONS],
) -> (f32, f32) {
    let shift = simd.splat(largest);
    let (mut sum, mut most) = (simd.splat(0.0), simd.splat(0.0));
    let vectors = scores.chunks_exact_mut(S::WIDTH).zip(factors.chunks_exact(S::WIDTH));
    for (index, (scores, factors)) in vectors.enumerate() {
        let first = index * S::WIDTH;
        let power = exp2(simd, simd.sub(simd.load(scores), shift));
        let probability = only_seen(simd, power, seen, first, 0.0);
        sum = simd.add(sum, probability);
        let weighed = only_seen(simd, simd.mul(probability, simd.load(factors)), seen, first, 0.0);
        most = simd.max(most, weighed);
        simd.store(scores, weighed);
    }
    (simd.sum(sum), simd.maximum(most))
}

/// A vector of a row that begins with key `first`, with `other` where a key is not seen.
#[inline(always)]
fn only_seen<S: Simd>(simd: S, values: S::Vector, seen: &Range<usize>, first: usize, other: f32) -> S::Vector {
    let values = simd.select_first(seen.end.saturating_sub(first), values, simd.splat(other));
    if seen.start <= first {
        return values;
    }
    simd.select_first(seen.start - first, simd.splat(other), values)
}

/// Rounds weighed probabilities, of which the largest is `most`, to integers, and tells their factor.
#[inline(always)]
pub(super) fn round_weighed<S: Simd>(
    simd: S,
    weighed: &[f32; PAGE_POSITIONS],
    most: f32,
    integers: &mut [i16; PAGE_POSITIONS],
) -> f32 {
    let range = largest_integer(PAGE_POSITIONS) as f32;
    let (inverse, factor) = if most < LEAST { (0.0, 0.0) } else { (range / most, most / range) };
    let inverse = simd.splat(inverse);
    for (weighed, integers) in weighed.chunks_exact(S::WIDTH).zip(integers.chunks_exact_mut(S::WIDTH)) {
        // SAFETY: the target is as long as a vector.
        unsafe { simd.store_i16_at(integers.as_mut_ptr(), simd.mul(simd.load(weighed), inverse)) };
    }
    factor
}

/// Keys or values of a head in a page.
#[derive(Clone, Copy)]
pub(super) struct Integers<'a> {
    /// Pairs.
    pub(super) words: &'a [u32],
    /// Of each position.
    pub(super) factors: &'a [f32],
}

impl<'a> Integers<'a> {
    /// From the words of a page.
    #[inline(always)]
    pub(super) fn of(words: &'a [u32]) -> Self {
        let (words, factors) = words.split_at(words.len() - PAGE_POSITIONS);
        Self { words, factors: bytemuck::cast_slice(factors) }
    }
}

/// Rows of keys or values on their way into pages.
pub(super) struct PutRows<'a, I> {
    /// Words of a page, slot in it and the row.
    pub(super) rows: I,
    /// Whether the rows are values.
    pub(super) are_values: bool,
    /// As much as a row in whole vectors.
    pub(super) integers: &'a mut [i16],
}

impl<'a, I: Iterator<Item = (&'a mut [u32], usize, &'a [f32])>> Operation for PutRows<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let integers = self.integers;
        for (words, slot, row) in self.rows {
            let terms = if self.are_values { PAGE_POSITIONS } else { row.len() };
            let factor = round_row(simd, row, largest_integer(terms), integers);
            let factors = words.len() - PAGE_POSITIONS;
            words[factors + slot] = factor.to_bits();
            if self.are_values {
                let halves: &mut [[u16; 2]] = bytemuck::cast_slice_mut(&mut words[..factors]);
                let stride = halves.len() / (PAGE_POSITIONS / 2);
                let line = &mut halves[slot / 2 * stride..][..stride];
                for (pair, integer) in line.iter_mut().zip(&*integers) {
                    pair[slot % 2] = integer.cast_unsigned();
                }
            } else {
                let pairs: &[u32] = bytemuck::cast_slice(integers);
                for (words, pair) in words[..factors].chunks_exact_mut(PAGE_POSITIONS).zip(pairs) {
                    words[slot] = *pair;
                }
            }
        }
    }
}

/// Copies the first positions of a page of keys.
pub(super) fn copy_keys(from: &[u32], to: &mut [u32], positions: usize) {
    // The factors are one more line.
    for (from, to) in from.chunks_exact(PAGE_POSITIONS).zip(to.chunks_exact_mut(PAGE_POSITIONS)) {
        to[..positions].copy_from_slice(&from[..positions]);
    }
}

/// Copies the first positions of a page of values; what the last pair has of the next position stays.
pub(super) fn copy_values(from: &[u32], to: &mut [u32], positions: usize) {
    let factors = from.len() - PAGE_POSITIONS;
    let stride = factors / (PAGE_POSITIONS / 2);
    to[factors..][..positions].copy_from_slice(&from[factors..][..positions]);
    let whole = positions / 2 * stride;
    to[..whole].copy_from_slice(&from[..whole]);
    if !positions.is_multiple_of(2) {
        let from: &[[u16; 2]] = bytemuck::cast_slice(&from[whole..][..stride]);
        let to: &mut [[u16; 2]] = bytemuck::cast_slice_mut(&mut to[whole..][..stride]);
        for (to, from) in to.iter_mut().zip(from) {
            to[0] = from[0];
        }
    }
}
