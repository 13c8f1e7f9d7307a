//! The backward pass of one sequence and one key head.

use half::bf16;

use super::super::memory::{Scratch, SharedOutput};
use super::forward::hide;
use super::packing::{
    Rows, gather, head, pack_tile, pack_tile_across, right_across, right_along, turn_back, write_row,
};
use super::{AttentionShape, Block, Extents, KEY_TILE, Part};
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
        let mut scratch = Scratch::take();
        let mut working = Working::of(&mut scratch, &self);
        self.pack_keys(simd, &mut working);
        let (shape, count) = (self.shape, self.part.count);
        let extents = Extents::of(shape);
        for first in (0..count).step_by(extents.queries) {
            let block = Block::of(extents, first, count);
            self.pack_queries(simd, block, &mut working);
            let seen = shape.first_key(first) / KEY_TILE;
            for tile in seen..block.end.div_ceil(KEY_TILE) {
                self.tile_gradients(simd, block, tile, tile > seen, &mut working);
            }
            self.write_queries(simd, block, &mut working);
        }
        self.write_keys(simd, extents.depth, working.dk, working.dv);
    }
}

/// What a task computes with.
struct Working<'s> {
    /// Left tiles of all keys and values by their elements.
    keys: &'s mut [Line],
    values: &'s mut [Line],
    /// Left tiles of the elements of all keys by the keys.
    keys_across: &'s mut [Line],
    /// Queries of a block and gradients of their outputs, `[columns, depth]`.
    q: &'s mut [bf16],
    dout: &'s mut [bf16],
    /// The same as right tiles `[depth, columns]`.
    q_across: &'s mut [Line],
    dout_across: &'s mut [Line],
    /// The same as right tiles `[columns, depth]`.
    q_along: &'s mut [Line],
    dout_along: &'s mut [Line],
    /// `S^T` and `dP^T`, `[KEY_TILE, columns]`; the first also serves to turn keys.
    scores: &'s mut [f32],
    gradients: &'s mut [f32],
    /// `P^T` and `dS^T` as left tiles, `dS^T` as right tile too.
    p: &'s mut [Line],
    ds: &'s mut [Line],
    ds_right: &'s mut [Line],
    /// Sums `[keys, depth]`.
    dk: &'s mut [f32],
    dv: &'s mut [f32],
    /// Sums `[depth, columns]` of a block, and the other way round.
    dq: &'s mut [f32],
    turned: &'s mut [f32],
    /// Of each column: `lse` in units of `ln 2`, `D`, and the factor of `dq`.
    lse: &'s mut [f32],
    delta: &'s mut [f32],
    factors: &'s mut [f32],
}

impl<'s> Working<'s> {
    /// Buffers for all keys of the task and a block of its queries; sums of keys are zero.
    fn of(scratch: &'s mut Scratch, task: &BackwardTask<'_>) -> Self {
        let BackwardTask { shape, kernels, part, .. } = task;
        let extents = Extents::of(shape);
        let depth = extents.depth;
        let most = extents.columns(extents.queries);
        let tiles = part.count.div_ceil(KEY_TILE);
        let [row_lines, across_lines] = task.key_lines();
        let lines = [
            tiles * row_lines,
            tiles * row_lines,
            tiles * across_lines,
            right_lines(depth, most),
            right_lines(depth, most),
            right_lines(most, depth),
            right_lines(most, depth),
            kernels.left_lines(KEY_TILE, most),
            kernels.left_lines(KEY_TILE, most),
            right_lines(KEY_TILE, most),
            most * depth / 2 / LINE_WORDS,
            most * depth / 2 / LINE_WORDS,
        ]
        .map(|lines| lines * LINE_WORDS);
        let floats = [
            KEY_TILE * most.max(depth),
            KEY_TILE * most,
            tiles * KEY_TILE * depth,
            tiles * KEY_TILE * depth,
            depth * most,
            most.max(KEY_TILE) * depth,
            most,
            most,
            most,
        ];
        let mut lengths = [0; 21];
        lengths[..12].copy_from_slice(&lines);
        lengths[12..].copy_from_slice(&floats);
        let [packed @ .., scores, gradients, dk, dv, dq, turned, lse, delta, factors] = scratch.buffers(lengths);
        let [keys, values, keys_across, q_across, dout_across, q_along, dout_along, p, ds, ds_right, q, dout] =
            packed.map(bytemuck::cast_slice_mut::<f32, Line>);
        let [q, dout] = [q, dout].map(bytemuck::cast_slice_mut::<Line, bf16>);
        dk.fill(0.0);
        dv.fill(0.0);
        factors.fill(shape.scale);
        Self {
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
            p,
            ds,
            ds_right,
            dk,
            dv,
            dq,
            turned,
            lse,
            delta,
            factors,
        }
    }
}

impl BackwardTask<'_> {
    /// Lines of a left tile of keys by their elements, and of elements by the keys.
    fn key_lines(&self) -> [usize; 2] {
        let Extents { head_dim, depth, .. } = Extents::of(self.shape);
        [self.kernels.left_lines(KEY_TILE, depth), self.kernels.left_lines(head_dim, KEY_TILE)]
    }

    /// Packs all keys and values.
    #[inline(always)]
    fn pack_keys<S: Simd>(&self, simd: S, working: &mut Working<'_>) {
        let Self { shape, kernels, part, .. } = *self;
        let extents = Extents::of(shape);
        let [row_lines, across_lines] = self.key_lines();
        let keys = Rows { array: part.k, width: shape.key_width(), offset: part.kv_head * extents.head_dim };
        let values = Rows { array: part.v, ..keys };
        for tile in 0..part.count.div_ceil(KEY_TILE) {
            let (from, count) = (part.row + tile * KEY_TILE, (part.count - tile * KEY_TILE).min(KEY_TILE));
            let place = tile * row_lines..(tile + 1) * row_lines;
            pack_tile(kernels, extents, keys, from, count, &mut working.keys[place.clone()]);
            pack_tile(kernels, extents, values, from, count, &mut working.values[place]);
            let across = &mut working.keys_across[tile * across_lines..][..across_lines];
            let (wide, turned) = (&mut *working.scores, &mut *working.turned);
            pack_tile_across(simd, kernels, extents, keys, from, count, wide, turned, across);
        }
    }

    /// Packs the queries of a block and the gradients of their outputs.
    #[inline(always)]
    fn pack_queries<S: Simd>(&self, simd: S, block: Block, working: &mut Working<'_>) {
        let Self { shape, part, .. } = *self;
        let Block { first, columns, used, .. } = block;
        let extents = Extents::of(shape);
        gather(shape, part, first, (used, columns), part.q, working.q);
        gather(shape, part, first, (used, columns), self.dout, working.dout);
        self.row_values(simd, first, used, working.lse, working.delta);
        right_across(simd, extents, working.q, columns, working.q_across);
        right_across(simd, extents, working.dout, columns, working.dout_across);
        right_along(simd, extents, working.q, columns, working.q_along);
        right_along(simd, extents, working.dout, columns, working.dout_along);
    }

    /// What a block of queries and a tile of keys give to each other's gradients; `add` to what `dq` holds.
    #[inline(always)]
    fn tile_gradients<S: Simd>(&self, simd: S, block: Block, tile: usize, add: bool, working: &mut Working<'_>) {
        let Self { shape, kernels, .. } = *self;
        let Extents { head_dim, depth, .. } = Extents::of(shape);
        let [row_lines, across_lines] = self.key_lines();
        let Block { first, end, columns, .. } = block;
        let start = tile * KEY_TILE;
        let active = (end - start).min(KEY_TILE);
        let inputs = active.next_multiple_of(INPUT_BLOCK);
        let scores = [
            (&*working.keys, &*working.q_across, &mut *working.scores),
            (&*working.values, &*working.dout_across, &mut *working.gradients),
        ];
        for (left, right, c) in scores {
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
        hide(shape, working.scores, start..start + reach, first, columns);
        simd.call(ScoreGradients {
            kernels,
            scores: working.scores,
            gradients: working.gradients,
            keys: reach,
            inputs,
            columns,
            scale: shape.scale * std::f32::consts::LOG2_E,
            lse: working.lse,
            delta: working.delta,
            p: working.p,
            ds: working.ds,
            ds_right: working.ds_right,
        });
        let sums = [
            (&*working.p, &*working.dout_along, &mut *working.dv),
            (&*working.ds, &*working.q_along, &mut *working.dk),
        ];
        for (left, right, c) in sums {
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
            left: &working.keys_across[tile * across_lines..],
            left_rows: head_dim,
            left_inputs: KEY_TILE,
            right: working.ds_right,
            right_inputs: KEY_TILE,
            rows: head_dim,
            inputs,
            columns,
            c: working.dq,
            c_stride: columns,
            add,
        });
    }

    /// Rounds the sums of a block into the gradient of its queries.
    #[inline(always)]
    fn write_queries<S: Simd>(&self, simd: S, block: Block, working: &mut Working<'_>) {
        let Extents { head_dim, depth, .. } = Extents::of(self.shape);
        turn_back(simd, depth, block.columns, working.factors, working.dq, working.turned);
        for column in 0..block.used {
            let from = self.part.head(self.shape, block.first, column) * head_dim;
            // SAFETY: no other task has this query and head.
            write_row(simd, &working.turned[column * depth..], 1.0, unsafe { self.dq.range(from, head_dim) });
        }
    }

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
