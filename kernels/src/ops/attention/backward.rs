//! The backward pass of one sequence and one key head.

use super::block_product::{BlockProduct, Start};
use super::forward::{mask, mask_before};
use super::memory::{Scratch, SharedOutput};
use super::packing::{HeadRows, copy_scaled, right_factor, transpose_tile};
use super::{AttentionShape, KEY_TILE};
use crate::Element;
use crate::ops::simd::{MAX_WIDTH, Operation, Simd, exp2};

/// A whole sequence of `count` rows.
#[derive(Clone, Copy)]
pub(super) struct BackwardTask<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) kv_head: usize,
    pub(super) count: usize,
    /// `[count, heads * head_dim]`, as `out` and `dout`.
    pub(super) q: &'a [f32],
    /// `[count, kv_heads * head_dim]`, as `values`.
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    pub(super) out: &'a [f32],
    /// `[count, heads]`.
    pub(super) lse: &'a [f32],
    pub(super) dout: &'a [f32],
    /// Row of the first query in the gradients.
    pub(super) row: usize,
    pub(super) dq: SharedOutput<'a>,
    pub(super) dk: SharedOutput<'a>,
    pub(super) dv: SharedOutput<'a>,
}

impl Operation for BackwardTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { shape, count, .. } = self;
        let (head_dim, group) = (shape.head_dim, shape.group());
        let stride = head_dim.next_multiple_of(MAX_WIDTH);
        let head_columns = head_dim.next_multiple_of(S::WIDTH);
        let (rows, block_queries) = (count * group, shape.queries_per_block());
        let block_rows = block_queries * group;
        let mut scratch = Scratch::take();
        let [keys, keys_transposed, values_transposed, q, dout, p, ds, dk, dv, dq, lse, delta] = scratch.buffers([
            KEY_TILE * stride,
            head_dim * KEY_TILE,
            head_dim * KEY_TILE,
            block_rows * stride,
            block_rows * stride,
            block_rows * KEY_TILE,
            block_rows * KEY_TILE,
            KEY_TILE * stride,
            KEY_TILE * stride,
            rows * stride,
            rows,
            rows,
        ]);
        let query_heads = HeadRows { array: self.q, width: head_dim, offset: 0, head_dim };
        let out_heads = HeadRows { array: self.out, ..query_heads };
        let dout_heads = HeadRows { array: self.dout, ..query_heads };
        let key_rows =
            HeadRows { array: self.keys, width: shape.key_width(), offset: self.kv_head * head_dim, head_dim };
        let value_rows = HeadRows { array: self.values, ..key_rows };

        for row in 0..rows {
            let head = row / group * shape.heads + self.kv_head * group + row % group;
            lse[row] = self.lse[head] * std::f32::consts::LOG2_E;
            delta[row] = dot(simd, out_heads.row(head), dout_heads.row(head));
        }
        dq.fill(0.0);

        for tile in (0..count).step_by(KEY_TILE) {
            let available = (count - tile).min(KEY_TILE);
            transpose_tile(simd, key_rows, tile, available, keys_transposed);
            transpose_tile(simd, value_rows, tile, available, values_transposed);
            let (keys, key_stride) = right_factor(simd, key_rows, tile, available, keys, stride);
            dk.fill(0.0);
            dv.fill(0.0);
            // Blocks divide tiles, so the first block that sees the tile starts with it.
            for block in (tile..count).step_by(block_queries) {
                let queries = block_queries.min(count - block);
                if shape.first_key(block) >= tile + KEY_TILE {
                    // The windows of this block and of all behind it begin behind the tile.
                    break;
                }
                let block_range = block * group..(block + queries) * group;
                let active = (block + queries - tile).min(KEY_TILE);
                let columns = active.next_multiple_of(S::WIDTH);
                for (index, row) in block_range.clone().enumerate() {
                    let head = row / group * shape.heads + self.kv_head * group + row % group;
                    let scale = shape.scale * std::f32::consts::LOG2_E;
                    let range = index * stride..(index + 1) * stride;
                    copy_scaled(simd, query_heads.row(head), scale, &mut q[range.clone()]);
                    copy_scaled(simd, dout_heads.row(head), 1.0, &mut dout[range]);
                }
                let rows = block_range.len();
                for (a, b, c) in [(&*q, &*keys_transposed, &mut *p), (&*dout, &*values_transposed, &mut *ds)] {
                    simd.call(BlockProduct {
                        rows,
                        depth: head_dim,
                        columns,
                        a,
                        a_row: stride,
                        a_depth: 1,
                        b,
                        b_stride: KEY_TILE,
                        c,
                        c_stride: KEY_TILE,
                        start: Start::Zero,
                    });
                }
                for (index, row) in block_range.clone().enumerate() {
                    let visible = (row / group + 1 - tile).min(KEY_TILE);
                    let behind = shape.first_key(row / group).saturating_sub(tile).min(columns);
                    let range = index * KEY_TILE..index * KEY_TILE + columns;
                    mask_before(simd, &mut p[range.clone()], behind);
                    score_gradients(simd, &mut p[range.clone()], &mut ds[range], visible, lse[row], delta[row]);
                }
                for (a, b, c) in [(&*p, &*dout, &mut *dv), (&*ds, &*q, &mut *dk)] {
                    simd.call(BlockProduct {
                        rows: active,
                        depth: rows,
                        columns: head_columns,
                        a,
                        a_row: 1,
                        a_depth: KEY_TILE,
                        b,
                        b_stride: stride,
                        c,
                        c_stride: stride,
                        start: Start::Keep,
                    });
                }
                simd.call(BlockProduct {
                    rows,
                    depth: active,
                    columns: head_columns,
                    a: ds,
                    a_row: KEY_TILE,
                    a_depth: 1,
                    b: keys,
                    b_stride: key_stride,
                    c: &mut dq[block_range.start * stride..],
                    c_stride: stride,
                    start: Start::Keep,
                });
            }
            for index in 0..available {
                let from = (self.row + tile + index) * shape.key_width() + self.kv_head * head_dim;
                let range = index * stride..index * stride + head_dim;
                // SAFETY: no other task has this row and key head.
                let (to_dk, to_dv) = unsafe { (self.dk.range(from, head_dim), self.dv.range(from, head_dim)) };
                // The queries in the sums carry the scale and log2 e; the latter goes again.
                copy_scaled(simd, &dk[range.clone()], std::f32::consts::LN_2, to_dk);
                copy_scaled(simd, &dv[range], 1.0, to_dv);
            }
        }
        for row in 0..rows {
            let head = (self.row + row / group) * shape.heads + self.kv_head * group + row % group;
            // SAFETY: no other task has this query and head.
            let to = unsafe { self.dq.range(head * head_dim, head_dim) };
            copy_scaled(simd, &dq[row * stride..row * stride + head_dim], shape.scale, to);
        }
    }
}

/// Turns a row of scores into probabilities `p = 2^(s - lse)` and a row of `dP` into `dS = p (dP - D)`.
#[inline(always)]
fn score_gradients<S: Simd>(simd: S, p: &mut [f32], ds: &mut [f32], visible: usize, lse: f32, delta: f32) {
    mask(simd, p, visible);
    let (lse, delta) = (simd.splat(lse), simd.splat(delta));
    for (p, ds) in p.chunks_exact_mut(S::WIDTH).zip(ds.chunks_exact_mut(S::WIDTH)) {
        let value = exp2(simd, simd.sub(simd.load(p), lse));
        simd.store(p, value);
        simd.store(ds, simd.mul(value, simd.sub(simd.load(ds), delta)));
    }
}

/// The inner product, in an order that depends on the length only.
#[inline(always)]
pub(super) fn dot<S: Simd, T: Element>(simd: S, a: &[T], b: &[T]) -> f32 {
    let mut sum = simd.splat(0.0);
    let (mut a, mut b) = (a.chunks_exact(S::WIDTH), b.chunks_exact(S::WIDTH));
    for (a, b) in (&mut a).zip(&mut b) {
        sum = simd.mul_add(simd.read(a), simd.read(b), sum);
    }
    simd.sum(simd.mul_add(simd.read_short(a.remainder()), simd.read_short(b.remainder()), sum))
}
