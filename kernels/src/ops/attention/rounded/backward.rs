//! The backward pass of one sequence and one key head.

use half::bf16;

use super::super::memory::{Scratch, SharedOutput};
use super::forward::hide;
use super::packing::{
    Rows, gather, head, pack_tile, pack_tile_across, right_across, right_along, turn_back, write_row,
};
use super::{AttentionShape, Extents, KEY_TILE, Part};
use crate::buffer::Line;
use crate::gemm::{LINE_WORDS, TileKernels, TileProduct, right_lines};
use crate::ops::attention::backward::dot;
use crate::ops::simd::{Operation, Simd, exp2};
use crate::panels::{INPUT_BLOCK, PANEL};
use crate::values::Element;

pub(super) struct BackwardTask<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) kernels: TileKernels,
    pub(super) part: Part<'a>,
    /// The forward pass's results and the gradient of its output, of the whole batch.
    pub(super) out: &'a [bf16],
    pub(super) lse: &'a [f32],
    pub(super) dout: &'a [bf16],
    pub(super) dq: SharedOutput<'a, bf16>,
    pub(super) dk: SharedOutput<'a, bf16>,
    pub(super) dv: SharedOutput<'a, bf16>,
}

impl Operation for BackwardTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { shape, kernels, part, .. } = self;
        let extents = Extents::of(shape);
        let Extents { head_dim, depth, group, queries: block_queries } = extents;
        let most = extents.columns(block_queries);
        let tiles = part.count.div_ceil(KEY_TILE);
        let [row_lines, across_lines] = [kernels.left_lines(KEY_TILE, depth), kernels.left_lines(head_dim, KEY_TILE)];
        let [query_lines, score_lines] = [right_lines(depth, most), kernels.left_lines(KEY_TILE, most)];

        let mut scratch = Scratch::take();
        let [
            keys,
            values,
            keys_across,
            q,
            dout,
            q_across,
            dout_across,
            q_along,
            dout_along,
            scores,
            gradients,
            p_tile,
            ds_tile,
            ds_right,
            dk,
            dv,
            dq,
            turned,
            lse,
            delta,
            factors,
        ] = scratch.buffers([
            tiles * row_lines * LINE_WORDS,
            tiles * row_lines * LINE_WORDS,
            tiles * across_lines * LINE_WORDS,
            most * depth / 2,
            most * depth / 2,
            query_lines * LINE_WORDS,
            query_lines * LINE_WORDS,
            query_lines * LINE_WORDS,
            query_lines * LINE_WORDS,
            KEY_TILE * most.max(depth),
            KEY_TILE * most,
            score_lines * LINE_WORDS,
            score_lines * LINE_WORDS,
            right_lines(KEY_TILE, most) * LINE_WORDS,
            tiles * KEY_TILE * depth,
            tiles * KEY_TILE * depth,
            depth * most,
            most.max(KEY_TILE) * depth,
            most,
            most,
            most,
        ]);
        let [keys, values, keys_across, q_across, dout_across, q_along, dout_along, p_tile, ds_tile, ds_right] =
            [keys, values, keys_across, q_across, dout_across, q_along, dout_along, p_tile, ds_tile, ds_right]
                .map(bytemuck::cast_slice_mut::<f32, Line>);
        let [q, dout] = [q, dout].map(bytemuck::cast_slice_mut::<f32, bf16>);

        let key_rows = Rows { array: part.k, width: shape.key_width(), offset: part.kv_head * head_dim };
        let value_rows = Rows { array: part.v, ..key_rows };
        for tile in 0..tiles {
            let (from, count) = (part.row + tile * KEY_TILE, (part.count - tile * KEY_TILE).min(KEY_TILE));
            pack_tile(kernels, extents, key_rows, from, count, &mut keys[tile * row_lines..][..row_lines]);
            pack_tile(kernels, extents, value_rows, from, count, &mut values[tile * row_lines..][..row_lines]);
            let across = &mut keys_across[tile * across_lines..][..across_lines];
            pack_tile_across(simd, kernels, extents, key_rows, from, count, scores, turned, across);
        }
        dk.fill(0.0);
        dv.fill(0.0);
        factors.fill(shape.scale);

        for first in (0..part.count).step_by(block_queries) {
            let queries = block_queries.min(part.count - first);
            let (columns, used, end) = (extents.columns(queries), queries * group, first + queries);
            gather(shape, part, first, (used, columns), part.q, q);
            gather(shape, part, first, (used, columns), self.dout, dout);
            self.row_values(simd, first, used, lse, delta);
            right_across(simd, extents, q, columns, q_across);
            right_across(simd, extents, dout, columns, dout_across);
            right_along(simd, extents, q, columns, q_along);
            right_along(simd, extents, dout, columns, dout_along);
            let seen = shape.first_key(first) / KEY_TILE;
            for tile in seen..end.div_ceil(KEY_TILE) {
                let start = tile * KEY_TILE;
                let active = (end - start).min(KEY_TILE);
                for (left, right, c) in [(&*keys, &*q_across, &mut *scores), (&*values, &*dout_across, &mut *gradients)]
                {
                    kernels.multiply(TileProduct {
                        left: &left[tile * row_lines..],
                        left_rows: KEY_TILE,
                        left_inputs: depth,
                        right,
                        right_inputs: depth,
                        rows: active,
                        inputs: depth,
                        columns,
                        c,
                        c_stride: columns,
                        add: false,
                    });
                }
                // Rows up to whole blocks of the products take part in them, and none of these queries sees them.
                let reach = kernels.reach(KEY_TILE, active);
                hide(shape, scores, start..start + reach, first, columns);
                simd.call(ScoreGradients {
                    kernels,
                    scores,
                    gradients,
                    keys: reach,
                    inputs: active.next_multiple_of(INPUT_BLOCK),
                    columns,
                    scale: shape.scale * std::f32::consts::LOG2_E,
                    lse,
                    delta,
                    p: p_tile,
                    ds: ds_tile,
                    ds_right,
                });
                for (left, right, c) in [(&*p_tile, &*dout_along, &mut *dv), (&*ds_tile, &*q_along, &mut *dk)] {
                    kernels.multiply(TileProduct {
                        left,
                        left_rows: KEY_TILE,
                        left_inputs: columns,
                        right,
                        right_inputs: columns,
                        rows: active,
                        inputs: columns,
                        columns: depth,
                        c: &mut c[start * depth..],
                        c_stride: depth,
                        add: true,
                    });
                }
                kernels.multiply(TileProduct {
                    left: &keys_across[tile * across_lines..],
                    left_rows: head_dim,
                    left_inputs: KEY_TILE,
                    right: ds_right,
                    right_inputs: KEY_TILE,
                    rows: head_dim,
                    inputs: active.next_multiple_of(INPUT_BLOCK),
                    columns,
                    c: dq,
                    c_stride: columns,
                    add: tile > seen,
                });
            }
            turn_back(simd, depth, columns, factors, dq, turned);
            for column in 0..used {
                let from = part.head(shape, first, column) * head_dim;
                // SAFETY: no other task has this query and head.
                write_row(simd, &turned[column * depth..], 1.0, unsafe { self.dq.range(from, head_dim) });
            }
        }
        self.write_keys(simd, depth, dk, dv);
    }
}

impl BackwardTask<'_> {
    /// `lse` in units of `ln 2`, and `D`, of each column; 0 behind the last.
    #[inline(always)]
    fn row_values<S: Simd>(&self, simd: S, first: usize, used: usize, lse: &mut [f32], delta: &mut [f32]) {
        let head_dim = self.shape.head_dim;
        lse.fill(0.0);
        delta.fill(0.0);
        for column in 0..used {
            let index = self.part.head(self.shape, first, column);
            let from = index * head_dim;
            lse[column] = self.lse[index] * std::f32::consts::LOG2_E;
            delta[column] = dot(simd, head(self.out, from, head_dim), head(self.dout, from, head_dim));
        }
    }

    /// Rounds the sums `[keys, depth]` into the gradients of keys and values.
    #[inline(always)]
    fn write_keys<S: Simd>(&self, simd: S, depth: usize, dk: &[f32], dv: &[f32]) {
        let Self { shape, part, .. } = self;
        let head_dim = shape.head_dim;
        for key in 0..part.count {
            let from = (part.row + key) * shape.key_width() + part.kv_head * head_dim;
            // SAFETY: no other task has this row and key head.
            let (to_dk, to_dv) = unsafe { (self.dk.range(from, head_dim), self.dv.range(from, head_dim)) };
            write_row(simd, &dk[key * depth..], shape.scale, to_dk);
            write_row(simd, &dv[key * depth..], 1.0, to_dv);
        }
    }
}

/// Turns scores and `dP` into `P = 2^(s - lse)` and `dS = P (dP - D)`, packed for the products behind.
struct ScoreGradients<'a> {
    kernels: TileKernels,
    /// `[keys, columns]`, as `gradients`.
    scores: &'a [f32],
    /// `dP`.
    gradients: &'a [f32],
    keys: usize,
    /// Keys that the product with `ds_right` reads.
    inputs: usize,
    columns: usize,
    /// Factor of the scores.
    scale: f32,
    lse: &'a [f32],
    delta: &'a [f32],
    /// Left tiles of [`KEY_TILE`] rows by `columns` inputs.
    p: &'a mut [Line],
    ds: &'a mut [Line],
    /// Right tile `[KEY_TILE inputs, columns]`.
    ds_right: &'a mut [Line],
}

impl Operation for ScoreGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { kernels, scores, gradients, keys, inputs, columns, .. } = self;
        assert!(columns.is_multiple_of(PANEL) && keys <= KEY_TILE && inputs <= KEY_TILE);
        assert!(scores.len() >= keys * columns && gradients.len() >= keys * columns);
        assert!(self.p.len() >= kernels.left_lines(KEY_TILE, columns) && self.ds.len() >= self.p.len());
        assert!(self.ds_right.len() >= right_lines(KEY_TILE, columns));
        let right: &mut [u32] = bytemuck::cast_slice_mut(self.ds_right);
        let scale = simd.splat(self.scale);
        for key in (0..keys.max(inputs)).step_by(2) {
            let rows = [key, key + 1].map(|key| (key < keys).then(|| kernels.left_row(KEY_TILE, columns, key)));
            for column in (0..columns).step_by(S::WIDTH) {
                let (lse, delta) = (simd.load(&self.lse[column..]), simd.load(&self.delta[column..]));
                let mut pair = [simd.splat(0.0); 2];
                for (odd, row) in rows.into_iter().enumerate() {
                    let Some(row) = row else { continue };
                    let at = (key + odd) * columns + column;
                    let p = exp2(simd, simd.sub(simd.mul(simd.load(&scores[at..]), scale), lse));
                    let ds = simd.mul(p, simd.sub(simd.load(&gradients[at..]), delta));
                    pair[odd] = ds;
                    write_left(simd, kernels, self.p, row, column, p);
                    write_left(simd, kernels, self.ds, row, column, ds);
                }
                if key < inputs {
                    let at = (column / PANEL * (KEY_TILE / 2) + key / 2) * PANEL + column % PANEL;
                    let target = &mut right[at..at + S::WIDTH];
                    // SAFETY: the slice is as long as a vector.
                    unsafe { simd.store_pairs_at(target.as_mut_ptr(), pair[0], pair[1]) };
                }
            }
        }
    }
}

/// Rounds a vector into its place in a row of a left tile.
#[inline(always)]
fn write_left<S: Simd>(
    simd: S,
    kernels: TileKernels,
    tile: &mut [Line],
    (first, step): (usize, usize),
    input: usize,
    vector: S::Vector,
) {
    if kernels.pairs() {
        let line = &mut tile[first + input / (2 * LINE_WORDS) * step].0;
        let halves: &mut [bf16] = bytemuck::cast_slice_mut(line);
        simd.write(&mut halves[input % (2 * LINE_WORDS)..], vector);
    } else {
        let line = &mut tile[first + input / LINE_WORDS * step].0;
        let mut buffer = [bf16::ZERO; crate::ops::simd::MAX_WIDTH];
        simd.write(&mut buffer, vector);
        for (word, value) in line[input % LINE_WORDS..].iter_mut().zip(buffer).take(S::WIDTH) {
            *word = value.widen().to_bits();
        }
    }
}
