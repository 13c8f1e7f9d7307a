//! Sums of outer products with a narrow side: the gradients of low-rank factors.
//!
//! `y [n, m] = alpha sum_t narrow_t^T wide_t`. The wide side streams through once, a strip of columns a task, packed on the
//! way as panels whose inputs are its rows; the narrow side is packed for the call. Sums go over pieces of
//! [`PIECE_ROWS`] rows in order, so that they depend on the rows alone.

use std::ops::Range;

use half::bf16;

use super::kernel::{Activation, Ahead, GROUP, Kernels, Right, floats};
use super::round::{join_rows, round_row, round_row_widened};
use super::row_blocks::Blocks;
use crate::buffer::{Line, Scratch, SharedMut, with_scratch};
use crate::panels::{PANEL, inputs_per_word, write_inputs};
use crate::parallel;
use crate::transpose::transpose;
use crate::{InstructionSet, Precision, Values};

/// Rows between two visits of the sums: a multiple of every group.
const PIECE_ROWS: usize = 128;
/// Panels of a task: 96 columns divide the widths of many models, and are a few lines of each row.
const STRIP_PANELS: usize = 3;

/// Some columns of a row-major matrix, whose values are a slice or [`Values`].
#[derive(Clone, Debug)]
pub struct Columns<V> {
    /// The whole matrix.
    pub values: V,
    /// Its columns.
    pub stride: usize,
    /// Those that are meant.
    pub range: Range<usize>,
}

impl<'a> Columns<&'a [f32]> {
    /// The meant part of a row.
    fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..][self.range.clone()]
    }
}

/// Which side gives the rows of the result of [`outer_products`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultRows {
    /// `[narrow, wide]`.
    Narrow,
    /// `[wide, narrow]`.
    Wide,
}

/// `y = alpha sum_t narrow_t^T wide_t` over the rows of both; overwrites `y`.
///
/// In bf16 both sides are rounded first, sums are f32. Made for a narrow side of some tens of columns.
///
/// # Panics
/// If the two have different numbers of rows, or `y` is not a value for each pair of columns.
pub fn outer_products(
    precision: Precision,
    narrow: &Columns<&[f32]>,
    wide: &Columns<Values<'_>>,
    alpha: f32,
    y: &mut [f32],
    order: ResultRows,
) {
    multiply(floats(InstructionSet::detect(), precision), precision, narrow, wide, alpha, y, order);
}

/// [`outer_products`] with the microkernels given.
pub(super) fn multiply(
    kernels: &'static Kernels,
    precision: Precision,
    narrow: &Columns<&[f32]>,
    wide: &Columns<Values<'_>>,
    alpha: f32,
    y: &mut [f32],
    order: ResultRows,
) {
    let (n, m) = (narrow.range.len(), wide.range.len());
    let rows = wide.values.len() / wide.stride.max(1);
    assert_eq!(rows, narrow.values.len() / narrow.stride.max(1), "the two sides have different numbers of rows");
    assert_eq!(y.len(), n * m, "the result has the wrong length for {n} x {m}");
    if n == 0 || m == 0 {
        return;
    }
    let blocks = Blocks::new(0..n, kernels.most_rows(), kernels.row_step);
    let piece_lines = blocks.padded() * (PIECE_ROWS / kernels.activation.group_inputs());
    let pieces = rows.div_ceil(PIECE_ROWS);
    let y = SharedMut::new(y);
    with_scratch(Scratch::RightSide, pieces * piece_lines, |left| {
        parallel::for_each_chunk(left, piece_lines.max(1), |piece, lines| {
            let rows = piece * PIECE_ROWS..rows.min((piece + 1) * PIECE_ROWS);
            pack_narrow(kernels.activation, narrow, rows, &blocks, lines);
        });
        let left = &*left;
        parallel::for_each(m.div_ceil(STRIP_PANELS * PANEL), |strip| {
            let columns = strip * STRIP_PANELS * PANEL..m.min((strip + 1) * STRIP_PANELS * PANEL);
            strip_sums(kernels, precision, wide, columns.clone(), &blocks, left, |r, sums| {
                for (column, value) in columns.clone().zip(sums) {
                    let place = match order {
                        ResultRows::Narrow => r * m + column,
                        ResultRows::Wide => column * n + r,
                    };
                    // SAFETY: a place of the result by the assertion above; these columns belong to this task alone.
                    unsafe { y.at(place).write(alpha * value) };
                }
            });
        });
    });
}

/// All sums of some columns, handed to `take` narrow column by narrow column.
fn strip_sums(
    kernels: &'static Kernels,
    precision: Precision,
    wide: &Columns<Values<'_>>,
    columns: Range<usize>,
    blocks: &Blocks,
    left: &[Line],
    take: impl Fn(usize, &[f32]),
) {
    const WIDTH: usize = STRIP_PANELS * PANEL;
    let (rows, group_inputs) = (wide.values.len() / wide.stride, kernels.activation.group_inputs());
    let per_word = inputs_per_word(precision);
    let panel_words = PIECE_ROWS / per_word * PANEL;
    let panel_lines = panel_words / GROUP;
    let sum_lines = blocks.padded() * WIDTH / GROUP;
    with_scratch(Scratch::Activations, panel_lines + sum_lines, |lines| {
        let (panel, sums) = lines.split_at_mut(panel_lines);
        let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
        sums.fill(0.0);
        if let Some(session) = &kernels.session {
            // SAFETY: the instruction set was detected before its kernels were chosen.
            unsafe { (session.enter)() };
        }
        for (piece, first) in (0..rows).step_by(PIECE_ROWS).enumerate() {
            let rows = first..rows.min(first + PIECE_ROWS);
            let groups = rows.len().div_ceil(group_inputs);
            let left = &left[piece * blocks.padded() * (PIECE_ROWS / group_inputs)..];
            for (index, start) in columns.clone().step_by(PANEL).enumerate() {
                let columns = start..columns.end.min(start + PANEL);
                pack_wide(precision, wide, &rows, &columns, groups * group_inputs, bytemuck::cast_slice_mut(panel));
                for block in blocks.iter() {
                    let micro = kernels.micro[block.padded / kernels.row_step - 1];
                    let a = &left[block.packed_before * groups..][..block.padded * groups];
                    let c = &mut sums[block.packed_before * WIDTH + index * PANEL..];
                    assert!(c.len() >= (block.padded - 1) * WIDTH + PANEL);
                    let ahead = Ahead { next: a.as_ptr().cast(), step: 0 };
                    // SAFETY: the instruction set was detected before its kernels were chosen; both sides are packed for
                    // this kernel with `groups` groups, and the block lies inside the sums.
                    unsafe {
                        micro(
                            a.as_ptr().cast(),
                            Right::of_floats(panel.as_ptr().cast()),
                            groups,
                            c.as_mut_ptr(),
                            WIDTH,
                            true,
                            ahead,
                        );
                    };
                }
            }
        }
        if let Some(session) = &kernels.session {
            // SAFETY: entered above.
            unsafe { (session.leave)() };
        }
        for block in blocks.iter() {
            for (index, r) in block.rows.enumerate() {
                take(r, &sums[(block.packed_before + index) * WIDTH..][..columns.len()]);
            }
        }
    });
}

/// Packs some rows of the wide side, padded to `inputs`, as a panel of up to 32 columns.
fn pack_wide(
    precision: Precision,
    wide: &Columns<Values<'_>>,
    rows: &Range<usize>,
    columns: &Range<usize>,
    inputs: usize,
    words: &mut [u32],
) {
    let per_word = inputs_per_word(precision);
    let (panel, _) = words[..inputs / per_word * PANEL].as_chunks_mut();
    let whole = rows.len() / per_word;
    let (filled, rest) = panel.split_at_mut(whole);
    let from = wide.range.start + columns.start;
    let place = from..from + columns.len();
    let own = rows.start * wide.stride..rows.end * wide.stride;
    match wide.values {
        Values::F32(values) => write_inputs(precision, &values[own], wide.stride, place.clone(), filled),
        Values::Bf16(values) => write_rounded(precision, &values[own], wide.stride, place.clone(), filled),
    }
    rest.as_flattened_mut().fill(0);
    if whole * per_word < rows.len() {
        let mut last = [[0.0; PANEL]; 2];
        let at = (rows.end - 1) * wide.stride;
        match wide.values {
            Values::F32(values) => last[0][..place.len()].copy_from_slice(&values[at..][place]),
            Values::Bf16(values) => {
                for (to, value) in last[0].iter_mut().zip(&values[at..][place]) {
                    *to = value.to_f32();
                }
            }
        }
        write_inputs(precision, last.as_flattened(), PANEL, 0..PANEL, &mut rest[..1]);
    }
}

/// [`write_inputs`] of values that are rounded already.
fn write_rounded(
    precision: Precision,
    inputs: &[bf16],
    columns: usize,
    outputs: Range<usize>,
    words: &mut [[u32; PANEL]],
) {
    if precision == Precision::Bf16 && outputs.len() == PANEL {
        join_rows(inputs, columns, outputs.start, words);
        return;
    }
    for (words, inputs) in words.iter_mut().zip(inputs.chunks_exact(inputs_per_word(precision) * columns)) {
        let even = &inputs[outputs.clone()];
        match precision {
            Precision::F32 => {
                for (word, value) in words.iter_mut().zip(even) {
                    *word = u32::from(value.to_bits()) << 16;
                }
            }
            Precision::Bf16 => {
                let odd = &inputs[columns..][outputs.clone()];
                for (word, (even, odd)) in words.iter_mut().zip(even.iter().zip(odd)) {
                    *word = u32::from(even.to_bits()) | u32::from(odd.to_bits()) << 16;
                }
            }
        }
        words[outputs.len()..].fill(0);
    }
}

/// Packs some rows of the narrow side as the left side of the product: its columns are rows there, its rows inputs.
fn pack_narrow(
    activation: Activation,
    narrow: &Columns<&[f32]>,
    rows: Range<usize>,
    blocks: &Blocks,
    lines: &mut [Line],
) {
    let (n, inputs) = (narrow.range.len(), activation.group_inputs());
    let groups = rows.len().div_ceil(inputs);
    let mut words = vec![0_u32; GROUP * n];
    let mut halves = vec![0_u16; 2 * n];
    lines.fill(Line([0; GROUP]));
    for group in 0..groups {
        let first = rows.start + group * inputs;
        let own = first..rows.end.min(first + inputs);
        words.fill(0);
        match activation {
            Activation::F32 => {
                for (row, words) in own.zip(words.chunks_exact_mut(n)) {
                    words.copy_from_slice(bytemuck::cast_slice(narrow.row(row)));
                }
            }
            Activation::Widened => {
                for (row, words) in own.zip(words.chunks_exact_mut(n)) {
                    round_row_widened(narrow.row(row), bytemuck::cast_slice_mut(words));
                }
            }
            Activation::Pairs => {
                for (pair, words) in own.clone().step_by(2).zip(words.chunks_exact_mut(n)) {
                    let (even, odd) = halves.split_at_mut(n);
                    round_row(narrow.row(pair), even);
                    if pair + 1 < own.end {
                        round_row(narrow.row(pair + 1), odd);
                    } else {
                        odd.fill(0);
                    }
                    for (word, (even, odd)) in words.iter_mut().zip(even.iter().zip(&*odd)) {
                        *word = u32::from(*even) | u32::from(*odd) << 16;
                    }
                }
            }
        }
        for block in blocks.iter() {
            let target = &mut lines[block.packed_before * groups + group * block.padded..][..block.rows.len()];
            transpose(&words[block.rows.start..], n, GROUP, block.rows.len(), bytemuck::cast_slice_mut(target), GROUP);
        }
    }
}
