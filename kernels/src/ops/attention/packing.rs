//! Copies of tiles of keys, values and queries in the layouts that the block products read.

use super::KEY_TILE;
use crate::ops::simd::Simd;

/// Rows of one head in an array of wider rows.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    /// The array from its first row.
    pub(super) array: &'a [f32],
    /// Elements of a row of the array.
    pub(super) width: usize,
    /// Where the head starts in a row.
    pub(super) offset: usize,
    /// Elements of the head.
    pub(super) head_dim: usize,
}

impl<'a> HeadRows<'a> {
    /// One row of the head.
    #[inline(always)]
    pub(super) fn row(self, index: usize) -> &'a [f32] {
        &self.array[index * self.width + self.offset..][..self.head_dim]
    }
}

/// Writes rows `from..from + count` transposed, `[head_dim, KEY_TILE]`; columns up to the next full vector are zero.
#[inline(always)]
pub(super) fn transpose_tile<S: Simd>(simd: S, rows: HeadRows<'_>, from: usize, count: usize, tile: &mut [f32]) {
    let head_dim = rows.head_dim;
    assert!(count <= KEY_TILE && tile.len() >= head_dim * KEY_TILE);
    assert!(count == 0 || rows.array.len() >= (from + count - 1) * rows.width + rows.offset + head_dim);
    let (whole_rows, whole_columns) = (count / S::WIDTH * S::WIDTH, head_dim / S::WIDTH * S::WIDTH);
    for row in (0..whole_rows).step_by(S::WIDTH) {
        for column in (0..whole_columns).step_by(S::WIDTH) {
            // SAFETY: rows and columns of the square lie inside both arrays by the assertions above.
            unsafe {
                let source = rows.array.as_ptr().add((from + row) * rows.width + rows.offset + column);
                let target = tile.as_mut_ptr().add(column * KEY_TILE + row);
                simd.transpose_at(source, rows.width, target, KEY_TILE);
            }
        }
    }
    for row in 0..count {
        let first = if row < whole_rows { whole_columns } else { 0 };
        let source = rows.row(from + row);
        for column in first..head_dim {
            tile[column * KEY_TILE + row] = source[column];
        }
    }
    for column in 0..head_dim {
        tile[column * KEY_TILE + count..column * KEY_TILE + count.next_multiple_of(S::WIDTH)].fill(0.0);
    }
}

/// Rows `from..from + count` of a head as the right factor of a product: the array itself where whole vectors make up the
/// head, otherwise a copy `[count, stride]` filled up with zeros. Returns the elements and the distance of rows.
#[inline(always)]
pub(super) fn right_factor<'a, S: Simd>(
    simd: S,
    rows: HeadRows<'a>,
    from: usize,
    count: usize,
    copy: &'a mut [f32],
    stride: usize,
) -> (&'a [f32], usize) {
    if rows.head_dim.is_multiple_of(S::WIDTH) {
        return (&rows.array[from * rows.width + rows.offset..], rows.width);
    }
    for index in 0..count {
        copy_scaled(simd, rows.row(from + index), 1.0, &mut copy[index * stride..(index + 1) * stride]);
    }
    (copy, stride)
}

/// Copies one row of a head, times `factor`, and fills it up with zeros.
#[inline(always)]
pub(in crate::ops) fn copy_scaled<S: Simd>(simd: S, source: &[f32], factor: f32, target: &mut [f32]) {
    let factor = simd.splat(factor);
    let (values, padding) = target.split_at_mut(source.len());
    let mut from = source.chunks_exact(S::WIDTH);
    let mut to = values.chunks_exact_mut(S::WIDTH);
    for (source, target) in (&mut from).zip(&mut to) {
        simd.store(target, simd.mul(simd.load(source), factor));
    }
    let (source, target) = (from.remainder(), to.into_remainder());
    simd.store_short(target, simd.mul(simd.load_short(source, 0.0), factor));
    padding.fill(0.0);
}
