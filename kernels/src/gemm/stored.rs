//! Products with a matrix that stays in the blocks of its file.
//!
//! A window of the matrix is decoded into panels by all threads, then it is a packed matrix like any other: all rows of
//! the activations meet it while it lies in the caches, and the next window takes its place. Windows end where chunks of
//! inputs do, so that every element has the additions of the packed matrix in the same order.

use std::ops::Range;

use super::Accumulate;
use super::drive::{Panels, Product, Target, chunk_depth};
use super::integers::{factor_lines_of, find_factors_of};
use super::kernel::{Kernels, packed};
use super::pack::{Part, pack_rows};
use crate::blocks::K_BLOCK;
use crate::buffer::{Line, Scratch, with_scratch};
use crate::panels::{INPUT_BLOCK, PANEL, inputs_per_word, panel_lines};
use crate::{InstructionSet, Precision, StoredMatrix, Values, ValuesMut};

/// Lines of a window's panels: they stay in the third-level cache, and in a large second-level one.
const WINDOW_LINES: usize = (4 << 20) / size_of::<Line>();

/// `y[m, rows] (=|+=) x[m, columns] W^T`, bit-equal to [`matmul`](super::matmul) with [`StoredMatrix::pack`].
///
/// # Panics
/// If the length of `x` is not `m * w.columns()` or that of `y` is not `m * w.rows()`.
pub fn matmul_stored(x: Values<'_>, m: usize, w: &StoredMatrix, y: &mut [f32], accumulate: Accumulate) {
    multiply(packed(InstructionSet::detect(), w.precision()), WINDOW_LINES, x, m, w, y, accumulate);
}

/// `dx[m, columns] (=|+=) dy[m, rows] W`, bit-equal to [`matmul`](super::matmul) with [`StoredMatrix::pack_transposed`].
///
/// # Panics
/// If the length of `dy` is not `m * w.rows()` or that of `dx` is not `m * w.columns()`.
pub fn matmul_stored_transposed(dy: Values<'_>, m: usize, w: &StoredMatrix, dx: &mut [f32], accumulate: Accumulate) {
    multiply_transposed(packed(InstructionSet::detect(), w.precision()), WINDOW_LINES, dy, m, w, dx, accumulate);
}

/// [`matmul_stored`] with the microkernels and the lines of a window given: windows of whole rows.
pub(super) fn multiply(
    kernels: &'static Kernels,
    window_lines: usize,
    x: Values<'_>,
    m: usize,
    w: &StoredMatrix,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    let (rows, columns) = (w.rows(), w.columns());
    assert_eq!(x.len(), m * columns, "the activations have the wrong length for {m} x {columns}");
    assert_eq!(y.len(), m * rows, "the result has the wrong length for {m} x {rows}");
    let inputs = columns.next_multiple_of(INPUT_BLOCK);
    let groups = inputs / kernels.activation.group_inputs();
    let pack = |part: Part, lines: &mut [Line]| pack_rows(kernels, x, columns, &part, lines);
    for rows in equal_parts(rows, PANEL, window_lines / panel_lines(w.precision(), 1, inputs).max(1)) {
        w.with_window(rows.clone(), 0..columns, |window| {
            let (depth, n) = (chunk_depth(kernels, groups), rows.len());
            let fill = |lines: &mut [Line]| window.pack(lines);
            with_panels(kernels, w.precision(), [n, inputs], depth, fill, |panels| {
                let y = Target { values: ValuesMut::F32(y), stride: w.rows(), first: rows.start };
                Product { kernels, panels, groups: 0..groups, depth, m, n, pack, beside: None }
                    .run(y, accumulate == Accumulate::Add);
            });
        });
    }
}

/// [`matmul_stored_transposed`] with the microkernels and the lines of a window given: windows of some chunks of rows, and
/// of some columns.
pub(super) fn multiply_transposed(
    kernels: &'static Kernels,
    window_lines: usize,
    dy: Values<'_>,
    m: usize,
    w: &StoredMatrix,
    dx: &mut [f32],
    accumulate: Accumulate,
) {
    let (rows, columns) = (w.rows(), w.columns());
    assert_eq!(dy.len(), m * rows, "the activations have the wrong length for {m} x {rows}");
    assert_eq!(dx.len(), m * columns, "the result has the wrong length for {m} x {columns}");
    let group_inputs = kernels.activation.group_inputs();
    let groups = rows.next_multiple_of(INPUT_BLOCK) / group_inputs;
    let depth = chunk_depth(kernels, groups);
    if groups == 0 && accumulate == Accumulate::Overwrite {
        dx.fill(0.0);
    }
    let pack = |part: Part, lines: &mut [Line]| pack_rows(kernels, dy, rows, &part, lines);
    let [window_groups, window_columns] = transposed_window(w, window_lines, group_inputs, groups, depth);
    for first in (0..groups).step_by(window_groups.max(1)) {
        let groups = first..groups.min(first + window_groups);
        let inputs = groups.start * group_inputs..groups.end * group_inputs;
        for columns in equal_parts(columns, K_BLOCK, window_columns / K_BLOCK) {
            w.with_window(inputs.start..rows.min(inputs.end), columns.clone(), |window| {
                let (groups, n) = (groups.clone(), columns.len());
                let fill = |lines: &mut [Line]| window.pack_transposed(inputs.len(), lines);
                with_panels(kernels, w.precision(), [n, inputs.len()], depth, fill, |panels| {
                    let dx = Target { values: ValuesMut::F32(dx), stride: w.columns(), first: columns.start };
                    let add = accumulate == Accumulate::Add || groups.start > 0;
                    Product { kernels, panels, groups, depth, m, n, pack, beside: None }.run(dx, add);
                });
            });
        }
    }
}

/// Runs `work` with the panels of so many outputs and inputs, which `fill` writes, and their factors where the kernels want
/// them.
fn with_panels(
    kernels: &'static Kernels,
    precision: Precision,
    [outputs, inputs]: [usize; 2],
    depth: usize,
    fill: impl FnOnce(&mut [Line]),
    work: impl FnOnce(Panels<'_>),
) {
    let lines = panel_lines(precision, outputs, inputs);
    let words = inputs / inputs_per_word(precision);
    let factor_lines = match kernels.integers {
        None => 0,
        Some(_) => outputs.div_ceil(PANEL) * factor_lines_of(words, depth),
    };
    with_scratch(Scratch::RightSide, lines + factor_lines, |scratch| {
        let (lines, factors) = scratch.split_at_mut(lines);
        fill(lines);
        find_factors_of(lines, words, depth, factors);
        work(Panels { lines, factors });
    });
}

/// Groups and columns of a window of `dy W`: the pair that moves the least. Each window of columns reads the activations
/// again (`groups` values a row), each one of groups reads and writes the result (`columns` values a row).
fn transposed_window(
    w: &StoredMatrix,
    window_lines: usize,
    group_inputs: usize,
    groups: usize,
    depth: usize,
) -> [usize; 2] {
    let columns = w.columns();
    let pairs = (1..=groups.div_ceil(depth.max(1))).map(|chunks| {
        let window_groups = groups.min(chunks * depth);
        let lines = panel_lines(w.precision(), K_BLOCK, window_groups * group_inputs);
        let window_columns = (window_lines / lines.max(1)).max(1) * K_BLOCK;
        let (down, across) = (groups.div_ceil(window_groups), columns.div_ceil(window_columns));
        (across * w.rows() + 2 * down * columns, [window_groups, window_columns])
    });
    pairs.min_by_key(|(moved, _)| *moved).map_or([groups, K_BLOCK], |(_, pair)| pair)
}

/// `0..count` in parts of nearly one size: multiples of `unit`, at most `most` of them in a part (1 at least).
fn equal_parts(count: usize, unit: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let units = count.div_ceil(unit);
    let parts = units.div_ceil(most.max(1));
    (0..parts).map(move |part| part * units / parts * unit..count.min((part + 1) * units / parts * unit))
}
