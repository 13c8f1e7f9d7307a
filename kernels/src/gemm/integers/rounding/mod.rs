//! Rounding of both sides to integers, in plain loops for registers of any width.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{inverses as inverses_avx512, round_pairs as round_pairs_avx512};

use super::super::pack::{Part, ROWS_AHEAD, prefetch_row};
use super::{GROUP, LEAST_SQUARES, NORM, PANEL_FACTOR_LINES, ROUNDING, ROW_FACTOR_LINES};
#[cfg(target_arch = "x86_64")]
use crate::InstructionSet;
use crate::buffer::Line;
use crate::panels::PANEL;
use crate::values::{Element, Values};
use crate::widest::{PlainWork, run_widest};

/// Inputs of a group.
const INPUTS: usize = 2 * GROUP;

/// Whether the form with registers of 512 bits is to be used: AVX-512 F, BW, DQ and VL are there.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    InstructionSet::detect() >= InstructionSet::Avx512
}

/// What an integer is multiplied with to become the value: from the sum of the squares of a piece.
#[inline(always)]
fn factor(squares: f32) -> f32 {
    let factor = if squares < LEAST_SQUARES { 0.0 } else { squares.sqrt() / NORM };
    if squares <= f32::MAX { factor } else { f32::NAN }
}

/// What a value is multiplied with to become an integer.
#[inline(always)]
fn inverse(factor: f32) -> f32 {
    if factor > 0.0 { 1.0 / factor } else { 0.0 }
}

/// The nearest integer in the low 16 bits; what is above them is to be cut off.
#[inline(always)]
fn integer(value: f32, inverse: f32) -> u32 {
    value.mul_add(inverse, ROUNDING).to_bits()
}

#[inline(always)]
fn even(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn odd(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

/// The factors of a piece of a panel of bf16 pairs.
///
/// # Panics
/// If `factors` is not two lines.
pub(super) fn panel_factors(piece: &[Line], factors: &mut [Line]) {
    run_widest(PanelFactors { piece, factors });
}

struct PanelFactors<'a> {
    piece: &'a [Line],
    factors: &'a mut [Line],
}

impl PlainWork for PanelFactors<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let pairs: &[[u32; PANEL]] = bytemuck::cast_slice(self.piece);
        assert_eq!(self.factors.len(), PANEL_FACTOR_LINES, "panel_factors: lines of another piece");
        let mut squares = [[0.0_f32; PANEL]; 2];
        for pairs in pairs {
            for (output, &pair) in pairs.iter().enumerate() {
                squares[0][output] = even(pair).mul_add(even(pair), squares[0][output]);
                squares[1][output] = odd(pair).mul_add(odd(pair), squares[1][output]);
            }
        }
        let factors: &mut [f32] = bytemuck::cast_slice_mut(self.factors);
        for (output, target) in factors.iter_mut().enumerate() {
            *target = factor(squares[0][output] + squares[1][output]);
        }
    }
}

/// Rounds a piece of a panel of bf16 pairs to as many lines of integer pairs.
///
/// # Panics
/// If `factors` is not two lines or `target` has another length.
pub(in crate::gemm) fn round_panel(piece: &[Line], factors: &[Line], target: &mut [Line]) {
    assert_eq!(target.len(), piece.len(), "round_panel: lines of another piece");
    let factors: &[[f32; PANEL]] = bytemuck::cast_slice(factors);
    let [factors] = factors else { panic!("round_panel: factors of another piece") };
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the CPU has the features.
        unsafe { avx512::round_panel(piece, factors, target) };
        return;
    }
    run_widest(RoundPanel { piece, factors, target });
}

struct RoundPanel<'a> {
    piece: &'a [Line],
    factors: &'a [f32; PANEL],
    target: &'a mut [Line],
}

impl PlainWork for RoundPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let pairs: &[[u32; PANEL]] = bytemuck::cast_slice(self.piece);
        let words: &mut [[u32; PANEL]] = bytemuck::cast_slice_mut(self.target);
        let mut inverses = [0.0; PANEL];
        for (target, &factor) in inverses.iter_mut().zip(self.factors) {
            *target = inverse(factor);
        }
        for (words, pairs) in words.iter_mut().zip(pairs) {
            for ((word, &pair), &inverse) in words.iter_mut().zip(pairs).zip(&inverses) {
                *word = integer(even(pair), inverse) & 0xffff | integer(odd(pair), inverse) << 16;
            }
        }
    }
}

/// Packs a piece of the rows of a block as [`pack_rows`](super::super::pack::pack_rows) does, as integers, with their factors
/// behind.
///
/// # Panics
/// If the part has other than [`ROW_FACTOR_LINES`] more lines than its rows and groups make.
pub(in crate::gemm) fn pack_rows(x: Values<'_>, columns: usize, part: &Part, lines: &mut [Line]) {
    assert_eq!(lines.len(), part.padded * part.groups.len() + ROW_FACTOR_LINES, "pack_rows: lines of another piece");
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the CPU has the features.
        unsafe {
            match x {
                Values::F32(x) => avx512::pack_rows(x, columns, part, lines),
                Values::Bf16(x) => avx512::pack_rows(x, columns, part, lines),
            }
        }
        return;
    }
    match x {
        Values::F32(x) => run_widest(PackRows { x, columns, part, lines }),
        Values::Bf16(x) => run_widest(PackRows { x, columns, part, lines }),
    }
}

/// The rows of a part, each with its first line and the place of its factor, after everything else was made zero.
#[inline(always)]
fn each_row<T: Element>(
    x: &[T],
    columns: usize,
    part: &Part,
    lines: &mut [Line],
    mut pack: impl FnMut(&[T], &mut [Line], usize) -> f32,
) {
    let (padded, groups) = (part.padded, part.groups.clone());
    let (lines, last) = lines.split_at_mut(padded * groups.len());
    last.fill(Line([0; GROUP]));
    let inputs = groups.start * INPUTS..columns.min(groups.end * INPUTS);
    for (r, row) in part.rows.clone().enumerate() {
        let ahead = x.as_ptr().wrapping_add((row + ROWS_AHEAD) * columns + inputs.start);
        prefetch_row(ahead.cast(), inputs.len() * size_of::<T>() / size_of::<f32>());
        let factor = pack(&x[row * columns..][inputs.clone()], &mut lines[r..], padded);
        last[0].0[r] = factor.to_bits();
    }
    let empty = Line([0; GROUP]);
    for r in part.rows.len()..padded {
        lines[r..].iter_mut().step_by(padded).for_each(|line| *line = empty);
    }
}

struct PackRows<'a, T> {
    x: &'a [T],
    columns: usize,
    part: &'a Part,
    lines: &'a mut [Line],
}

impl<T: Element> PlainWork for PackRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        each_row(self.x, self.columns, self.part, self.lines, |row, lines, step| pack_row(row, lines, step));
    }
}

/// Rounds a row into every `step`-th of `lines` and tells its factor.
#[inline(always)]
fn pack_row<T: Element>(row: &[T], lines: &mut [Line], step: usize) -> f32 {
    let factor = factor(sum_of_squares(row));
    let inverse = inverse(factor);
    let (chunks, rest) = row.as_chunks::<INPUTS>();
    let mut targets = lines.iter_mut().step_by(step);
    for (values, line) in chunks.iter().zip(&mut targets) {
        write_integers(values, inverse, line);
    }
    for (index, line) in targets.enumerate() {
        line.0 = [0; GROUP];
        if index == 0 {
            write_integers(rest, inverse, line);
        }
    }
    factor
}

/// 32 sums in turn; then each with its neighbour, and the halves of what is left again and again.
#[inline(always)]
fn sum_of_squares<T: Element>(row: &[T]) -> f32 {
    let mut sums = [0.0_f32; INPUTS];
    let (chunks, rest) = row.as_chunks::<INPUTS>();
    for values in chunks {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = value.widen().mul_add(value.widen(), *sum);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum = value.widen().mul_add(value.widen(), *sum);
    }
    let mut pairs = [0.0; GROUP];
    for (target, pair) in pairs.iter_mut().zip(sums.as_chunks::<2>().0) {
        *target = pair[0] + pair[1];
    }
    let mut count = GROUP / 2;
    while count > 0 {
        for lane in 0..count {
            pairs[lane] += pairs[lane + count];
        }
        count /= 2;
    }
    pairs[0]
}

#[inline(always)]
fn write_integers<T: Element>(values: &[T], inverse: f32, line: &mut Line) {
    let integers: &mut [u16; INPUTS] = bytemuck::cast_mut(&mut line.0);
    for (target, value) in integers.iter_mut().zip(values) {
        *target = integer(value.widen(), inverse) as u16;
    }
}
