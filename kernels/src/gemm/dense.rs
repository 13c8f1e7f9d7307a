//! Small dense f32 products, for low-rank branches: one side is packed for the call, the f32 kernels do the rest.

use super::Accumulate;
use super::drive::{Panels, Product, Target, chunk_depth};
use super::kernel::{GROUP, Order, Panel, dense};
use super::pack::{Part, pack_rows, prefetch_row};
use crate::buffer::{Line, Scratch, with_scratch};
use crate::transpose::transpose;
use crate::values::{Values, ValuesMut};
use crate::{InstructionSet, parallel};

/// Right sides of fewer lines are packed by the calling thread alone.
const PARALLEL_PACK_LINES: usize = 8192;

/// `y[m, n] (=|+=) alpha * a[m, k] b[n, k]^T`, row-major f32.
///
/// `alpha` multiplies `b` before the product. The order of additions of an element depends on `k` alone.
///
/// # Panics
/// If a slice's length is not the product of its dimensions.
#[allow(clippy::too_many_arguments)]
pub fn matmul_nt(
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    multiply(InstructionSet::detect(), Form::Nt, a, b, [m, n, k], alpha, y, accumulate);
}

/// `y[m, n] (=|+=) alpha * a[m, k] b[k, n]`; see [`matmul_nt`].
///
/// # Panics
/// If a slice's length is not the product of its dimensions.
#[allow(clippy::too_many_arguments)]
pub fn matmul_nn(
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    multiply(InstructionSet::detect(), Form::Nn, a, b, [m, n, k], alpha, y, accumulate);
}

/// `y[m, n] (=|+=) alpha * a[k, m]^T b[k, n]`; see [`matmul_nt`].
///
/// # Panics
/// If a slice's length is not the product of its dimensions.
#[allow(clippy::too_many_arguments)]
pub fn matmul_tn(
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    multiply(InstructionSet::detect(), Form::Tn, a, b, [m, n, k], alpha, y, accumulate);
}

/// A result of `matmul_tn` of at most this many rows, and more columns, is computed transposed.
const TRANSPOSED_RESULT_ROWS: usize = 64;

/// Which sides are stored with the inner dimension first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `a[m, k] b[n, k]^T`
    Nt,
    /// `a[m, k] b[k, n]`
    Nn,
    /// `a[k, m]^T b[k, n]`
    Tn,
}

/// The three products on a named instruction set.
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply(
    isa: InstructionSet,
    form: Form,
    a: &[f32],
    b: &[f32],
    [m, n, k]: [usize; 3],
    alpha: f32,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    assert_eq!(a.len(), m * k, "the left side has the wrong length for {m} x {k}");
    assert_eq!(b.len(), n * k, "the right side has the wrong length for {n} x {k}");
    if form == Form::Tn && m < n && (1..=TRANSPOSED_RESULT_ROWS).contains(&m) {
        multiply_swapped(isa, a, b, [m, n, k], alpha, y, accumulate);
        return;
    }
    let panel = if n <= 16 || (33..=48).contains(&n) { Panel::Narrow } else { Panel::Wide };
    let order = if form == Form::Tn { Order::Interleaved } else { Order::Grouped };
    let kernels = dense(isa, panel, order);
    let (width, groups) = (kernels.width, k.div_ceil(GROUP));
    let panel_lines = groups * width;
    with_scratch(Scratch::RightSide, n.div_ceil(width) * panel_lines, |lines| {
        if panel_lines > 0 {
            let pack = |index: usize, lines: &mut [Line]| {
                let words: &mut [f32] = bytemuck::cast_slice_mut(lines);
                let first = index * width;
                pack_panel(form, b, [n, k], first..n.min(first + width), alpha, width, words);
            };
            if lines.len() < PARALLEL_PACK_LINES {
                lines.chunks_mut(panel_lines).enumerate().for_each(|(index, lines)| pack(index, lines));
            } else {
                parallel::for_each_chunk(lines, panel_lines, pack);
            }
        }
        let add = accumulate == Accumulate::Add;
        let panels = Panels::of_floats(lines);
        let (groups, depth) = (0..groups, chunk_depth(kernels, groups));
        let y = Target { values: ValuesMut::F32(y), stride: n, first: 0 };
        if form == Form::Tn {
            let pack = |part: Part, lines: &mut [Line]| pack_interleaved(a, m, k, &part, lines);
            Product { kernels, panels, groups, depth, m, n, pack, beside: None }.run(y, add);
        } else {
            let pack = |part: Part, lines: &mut [Line]| pack_rows(kernels, Values::F32(a), k, &part, lines);
            Product { kernels, panels, groups, depth, m, n, pack, beside: None }.run(y, add);
        }
    });
}

/// `a^T b` of few rows as the transposition of `b^T a`: the large side streams through as the left one then.
fn multiply_swapped(
    isa: InstructionSet,
    a: &[f32],
    b: &[f32],
    [m, n, k]: [usize; 3],
    alpha: f32,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    assert_eq!(y.len(), m * n, "the result has the wrong length for {m} x {n}");
    let mut swapped = vec![0.0; m * n];
    multiply(isa, Form::Tn, b, a, [n, m, k], alpha, &mut swapped, Accumulate::Overwrite);
    match accumulate {
        Accumulate::Overwrite => {
            transpose(bytemuck::cast_slice(&swapped), m, n, m, bytemuck::cast_slice_mut(y), n);
        }
        Accumulate::Add => {
            for (i, row) in y.chunks_exact_mut(n).enumerate() {
                for (value, column) in row.iter_mut().zip(swapped.chunks_exact(m)) {
                    *value += column[i];
                }
            }
        }
    }
}

/// Packs the outputs `range` of the right side as one panel, zeros around them.
fn pack_panel(
    form: Form,
    b: &[f32],
    [n, k]: [usize; 2],
    range: std::ops::Range<usize>,
    alpha: f32,
    width: usize,
    panel: &mut [f32],
) {
    let count = range.len();
    if form == Form::Nt {
        let rows: &[u32] = bytemuck::cast_slice(&b[range.start * k..range.end * k]);
        if count < width {
            panel.fill(0.0);
        } else {
            panel[k * width..].fill(0.0);
        }
        transpose(rows, k, count, k, bytemuck::cast_slice_mut(panel), width);
    } else {
        for (row, values) in panel.chunks_exact_mut(width).zip(b.chunks_exact(n)) {
            row[..count].copy_from_slice(&values[range.clone()]);
            row[count..].fill(0.0);
        }
        panel[k * width..].fill(0.0);
    }
    // 1 is the common case of everything but the last product of a branch.
    if alpha.to_bits() != 1.0_f32.to_bits() {
        for value in panel {
            *value *= alpha;
        }
    }
}

/// Packs columns `part.rows` of `a[k, m]`: `[input][row]`, zeros after the last input.
fn pack_interleaved(a: &[f32], m: usize, k: usize, part: &Part, lines: &mut [Line]) {
    let values: &mut [f32] = bytemuck::cast_slice_mut(lines);
    let first = part.groups.start * GROUP;
    let last = k.min(part.groups.end * GROUP);
    let source = &a[first * m + part.rows.start..];
    let count = last - first;
    // Lengths known when compiling make each copy a few moves.
    match part.padded {
        12 => copy_pieces::<12>(source, m, count, values),
        11 => copy_pieces::<11>(source, m, count, values),
        10 => copy_pieces::<10>(source, m, count, values),
        9 => copy_pieces::<9>(source, m, count, values),
        8 => copy_pieces::<8>(source, m, count, values),
        6 => copy_pieces::<6>(source, m, count, values),
        5 => copy_pieces::<5>(source, m, count, values),
        4 => copy_pieces::<4>(source, m, count, values),
        rows => {
            for (input, target) in values.chunks_exact_mut(rows).take(count).enumerate() {
                target.copy_from_slice(&source[input * m..][..rows]);
            }
        }
    }
    values[count * part.padded..].fill(0.0);
}

/// Copies `count` pieces of `R` values at a stride of `m` one after another.
fn copy_pieces<const R: usize>(source: &[f32], m: usize, count: usize, target: &mut [f32]) {
    for (input, piece) in target.as_chunks_mut::<R>().0.iter_mut().take(count).enumerate() {
        prefetch_row(source.as_ptr().wrapping_add((input + GROUP) * m), 1);
        piece.copy_from_slice(&source[input * m..][..R]);
    }
}
