//! Keys, values, queries and gradients of the output as the tiles that the products read, and results back from theirs.

use half::bf16;

use super::super::packing::{HeadRows, transpose_tile};
use super::{AttentionShape, Extents, KEY_TILE, PANEL, Part};
use crate::buffer::Line;
use crate::gemm::TileKernels;
use crate::ops::simd::{MAX_WIDTH, Simd};
use crate::values::Element;

/// The head that starts at element `from` of an array.
#[inline(always)]
pub(super) fn head(array: &[bf16], from: usize, head_dim: usize) -> &[bf16] {
    &array[from..from + head_dim]
}

/// Rows of one head among wider rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) array: &'a [bf16],
    pub(super) width: usize,
    pub(super) offset: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(self, index: usize, head_dim: usize) -> &'a [bf16] {
        head(self.array, index * self.width + self.offset, head_dim)
    }
}

/// Rows `from..from + count` as a left tile of [`KEY_TILE`] rows by their elements.
pub(super) fn pack_tile(
    kernels: TileKernels,
    extents: Extents,
    rows: Rows<'_>,
    from: usize,
    count: usize,
    tile: &mut [Line],
) {
    for row in 0..KEY_TILE {
        let values = if row < count { rows.row(from + row, extents.head_dim) } else { &[] };
        kernels.pack_left(values, tile, KEY_TILE, extents.depth, row);
    }
}

/// Rows `from..from + count` as a left tile of `head_dim` rows by [`KEY_TILE`] inputs.
///
/// `wide` and `turned` hold `KEY_TILE` rows of `depth` f32 each.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "two of them are scratch")]
pub(super) fn pack_tile_across<S: Simd>(
    simd: S,
    kernels: TileKernels,
    extents: Extents,
    rows: Rows<'_>,
    from: usize,
    count: usize,
    wide: &mut [f32],
    turned: &mut [f32],
    tile: &mut [Line],
) {
    let Extents { head_dim, depth, .. } = extents;
    for (index, wide) in wide.chunks_exact_mut(depth).take(KEY_TILE).enumerate() {
        if index < count {
            widen(simd, rows.row(from + index, head_dim), wide);
        } else {
            wide.fill(0.0);
        }
    }
    transpose_tile(simd, HeadRows { array: wide, width: depth, offset: 0, head_dim }, 0, KEY_TILE, turned);
    for row in 0..head_dim {
        kernels.round_left(&turned[row * KEY_TILE..(row + 1) * KEY_TILE], tile, head_dim, KEY_TILE, row);
    }
}

#[inline(always)]
fn widen<S: Simd>(simd: S, values: &[bf16], wide: &mut [f32]) {
    let (wide, padding) = wide.split_at_mut(values.len());
    padding.fill(0.0);
    let mut from = values.chunks_exact(S::WIDTH);
    let mut to = wide.chunks_exact_mut(S::WIDTH);
    for (values, wide) in (&mut from).zip(&mut to) {
        simd.store(wide, simd.read(values));
    }
    for (wide, value) in to.into_remainder().iter_mut().zip(from.remainder()) {
        *wide = value.widen();
    }
}

/// Copies the heads of a block of queries from `[rows, heads * head_dim]` into `columns` rows of `depth`, zeros around them.
pub(super) fn gather(
    shape: &AttentionShape,
    part: Part<'_>,
    first: usize,
    (used, columns): (usize, usize),
    array: &[bf16],
    rows: &mut [bf16],
) {
    let Extents { head_dim, depth, .. } = Extents::of(shape);
    for (column, row) in rows.chunks_exact_mut(depth).take(columns).enumerate() {
        row.fill(bf16::ZERO);
        if column < used {
            row[..head_dim].copy_from_slice(head(array, part.head(shape, first, column) * head_dim, head_dim));
        }
    }
}

/// Makes the right tile `[depth inputs, columns]` from `columns` rows of `depth` bf16.
#[inline(always)]
pub(super) fn right_across<S: Simd>(simd: S, extents: Extents, rows: &[bf16], columns: usize, tile: &mut [Line]) {
    let words = extents.depth / 2;
    let rows: &[f32] = bytemuck::cast_slice(rows);
    let tile: &mut [f32] = bytemuck::cast_slice_mut(tile);
    assert!(rows.len() >= columns * words && tile.len() >= columns * words);
    for column in (0..columns).step_by(S::WIDTH) {
        for word in (0..words).step_by(S::WIDTH) {
            let target = (column / PANEL * words + word) * PANEL + column % PANEL;
            // SAFETY: `words` and `columns` are multiples of the largest width, so that each square lies inside both.
            unsafe {
                let source = rows.as_ptr().add(column * words + word);
                simd.transpose_at(source, words, tile.as_mut_ptr().add(target), PANEL);
            }
        }
    }
}

/// Makes the right tile `[columns inputs, depth]` from `columns` rows of `depth` bf16.
#[inline(always)]
pub(super) fn right_along<S: Simd>(simd: S, extents: Extents, rows: &[bf16], columns: usize, tile: &mut [Line]) {
    let Extents { depth, .. } = extents;
    let tile: &mut [u32] = bytemuck::cast_slice_mut(tile);
    assert!(rows.len() >= columns * depth && tile.len() >= columns / 2 * depth);
    for pair in 0..columns / 2 {
        for at in (0..depth).step_by(S::WIDTH) {
            let target = (at / PANEL * (columns / 2) + pair) * PANEL + at % PANEL;
            // SAFETY: inside both by the assertion; `depth` is a multiple of the width.
            unsafe {
                let even = rows.as_ptr().add(2 * pair * depth + at);
                let (even, odd) = (simd.load_bf16_at(even), simd.load_bf16_at(even.add(depth)));
                simd.store_pairs_at(tile.as_mut_ptr().add(target), even, odd);
            }
        }
    }
}

/// Turns `[depth, columns]` into `[columns, depth]`, each column times its factor.
#[inline(always)]
pub(super) fn turn_back<S: Simd>(
    simd: S,
    depth: usize,
    columns: usize,
    factors: &[f32],
    from: &mut [f32],
    to: &mut [f32],
) {
    assert!(from.len() >= depth * columns && to.len() >= depth * columns && factors.len() >= columns);
    assert!(depth.is_multiple_of(MAX_WIDTH) && columns.is_multiple_of(MAX_WIDTH));
    for column in (0..columns).step_by(S::WIDTH) {
        let factor = simd.load(&factors[column..]);
        for row in 0..depth {
            let values = &mut from[row * columns + column..][..S::WIDTH];
            simd.store(values, simd.mul(simd.load(values), factor));
        }
        for row in (0..depth).step_by(S::WIDTH) {
            // SAFETY: whole squares inside both by the assertions.
            unsafe {
                let source = from.as_ptr().add(row * columns + column);
                simd.transpose_at(source, columns, to.as_mut_ptr().add(column * depth + row), depth);
            }
        }
    }
}

/// Rounds a row, times `factor`.
#[inline(always)]
pub(super) fn write_row<S: Simd>(simd: S, from: &[f32], factor: f32, to: &mut [bf16]) {
    let factor = simd.splat(factor);
    let mut from = from[..to.len()].chunks_exact(S::WIDTH);
    let mut to = to.chunks_exact_mut(S::WIDTH);
    for (from, to) in (&mut from).zip(&mut to) {
        simd.write(to, simd.mul(simd.load(from), factor));
    }
    simd.write_short(to.into_remainder(), simd.mul(simd.read_short(from.remainder()), factor));
}
