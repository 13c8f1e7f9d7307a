//! The forward pass of one chunk of queries and one key head.

use super::block_product::{BlockProduct, Start};
use super::memory::{Scratch, SharedOutput};
use super::packing::{HeadRows, copy_scaled, right_factor, transpose_tile};
use super::{AttentionShape, KEY_TILE};
use crate::ops::simd::{MAX_WIDTH, Operation, Simd, exp2};

/// Queries `first..first + count` of a sequence, between two tile boundaries.
#[derive(Clone, Copy)]
pub(super) struct ForwardTask<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) kv_head: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    /// `[count, heads * head_dim]`.
    pub(super) q: &'a [f32],
    /// `[first + count, kv_heads * head_dim]`.
    pub(super) keys: &'a [f32],
    /// As the keys.
    pub(super) values: &'a [f32],
    /// Row of the first query in the outputs.
    pub(super) row: usize,
    pub(super) out: SharedOutput<'a>,
    pub(super) lse: Option<SharedOutput<'a>>,
}

impl Operation for ForwardTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { shape, count, first, .. } = self;
        let (head_dim, group) = (shape.head_dim, shape.group());
        let stride = head_dim.next_multiple_of(MAX_WIDTH);
        let head_columns = head_dim.next_multiple_of(S::WIDTH);
        let (rows, block_queries) = (count * group, shape.queries_per_block());
        let block_rows = block_queries * group;
        let mut scratch = Scratch::take();
        let [q, keys, values, scores, outputs, largest, sums, factors, new_sums] = scratch.buffers([
            rows * stride,
            head_dim * KEY_TILE,
            KEY_TILE * stride,
            block_rows * KEY_TILE,
            rows * stride,
            rows,
            rows,
            block_rows,
            block_rows,
        ]);
        let offset = self.kv_head * head_dim;
        let query_heads = HeadRows { array: self.q, width: head_dim, offset: 0, head_dim };
        for row in 0..rows {
            let head = row / group * shape.heads + self.kv_head * group + row % group;
            let scale = shape.scale * std::f32::consts::LOG2_E;
            copy_scaled(simd, query_heads.row(head), scale, &mut q[row * stride..(row + 1) * stride]);
        }
        outputs.fill(0.0);
        largest.fill(f32::NEG_INFINITY);
        sums.fill(0.0);

        let key_rows = HeadRows { array: self.keys, width: shape.key_width(), offset, head_dim };
        let value_rows = HeadRows { array: self.values, ..key_rows };
        let first_tile = shape.first_key(first) / KEY_TILE * KEY_TILE;
        for tile in (first_tile..first + count).step_by(KEY_TILE) {
            let available = (first + count - tile).min(KEY_TILE);
            transpose_tile(simd, key_rows, tile, available, keys);
            let (values, value_stride) = right_factor(simd, value_rows, tile, available, values, stride);
            for block in (0..count).step_by(block_queries) {
                let queries = block_queries.min(count - block);
                if shape.first_key(first + block) >= tile + KEY_TILE {
                    continue;
                }
                let block_range = block * group..(block + queries) * group;
                // Keys that the last query of the block sees; those before it mask their own.
                let active = (first + block + queries - tile).min(KEY_TILE);
                let columns = active.next_multiple_of(S::WIDTH);
                simd.call(BlockProduct {
                    rows: block_range.len(),
                    depth: head_dim,
                    columns,
                    a: &q[block_range.start * stride..],
                    a_row: stride,
                    a_depth: 1,
                    b: keys,
                    b_stride: KEY_TILE,
                    c: scores,
                    c_stride: KEY_TILE,
                    start: Start::Zero,
                });
                let largest = &mut largest[block_range.clone()];
                for row in 0..block_range.len() {
                    let position = first + block + row / group;
                    let visible = (position + 1 - tile).min(KEY_TILE);
                    let scores = &mut scores[row * KEY_TILE..row * KEY_TILE + columns];
                    let behind = shape.first_key(position).saturating_sub(tile);
                    if behind >= visible {
                        // The window of this query begins behind the tile: nothing is added to it.
                        scores.fill(0.0);
                        (factors[row], new_sums[row]) = (0.0, 0.0);
                        continue;
                    }
                    mask(simd, scores, visible);
                    mask_before(simd, scores, behind);
                    (largest[row], factors[row], new_sums[row]) = probabilities(simd, scores, largest[row]);
                }
                advance_sums(simd, &mut sums[block_range.clone()], factors, new_sums);
                simd.call(BlockProduct {
                    rows: block_range.len(),
                    depth: active,
                    columns: head_columns,
                    a: scores,
                    a_row: KEY_TILE,
                    a_depth: 1,
                    b: values,
                    b_stride: value_stride,
                    c: &mut outputs[block_range.start * stride..],
                    c_stride: stride,
                    start: Start::Scale(factors),
                });
            }
        }

        for row in 0..rows {
            let head = (self.row + row / group) * shape.heads + self.kv_head * group + row % group;
            // SAFETY: no other task has this query and head.
            let out = unsafe { self.out.range(head * head_dim, head_dim) };
            copy_scaled(simd, &outputs[row * stride..row * stride + head_dim], 1.0 / sums[row], out);
            if let Some(lse) = self.lse {
                // SAFETY: as above.
                let lse = unsafe { lse.range(head, 1) };
                lse[0] = (largest[row] + sums[row].log2()) * std::f32::consts::LN_2;
            }
        }
    }
}

/// Sets the scores from `visible` on to negative infinity.
#[inline(always)]
pub(in crate::ops) fn mask<S: Simd>(simd: S, scores: &mut [f32], visible: usize) {
    if visible >= scores.len() {
        return;
    }
    let first = visible / S::WIDTH * S::WIDTH;
    let (partial, hidden) = scores[first..].split_at_mut(S::WIDTH);
    let lowest = simd.splat(f32::NEG_INFINITY);
    simd.store(partial, simd.select_first(visible - first, simd.load(partial), lowest));
    hidden.fill(f32::NEG_INFINITY);
}

/// Sets the scores before `first` to negative infinity.
#[inline(always)]
pub(in crate::ops) fn mask_before<S: Simd>(simd: S, scores: &mut [f32], first: usize) {
    if first == 0 {
        return;
    }
    let whole = first / S::WIDTH * S::WIDTH;
    let lowest = simd.splat(f32::NEG_INFINITY);
    scores[..whole].fill(f32::NEG_INFINITY);
    if whole < first {
        let partial = &mut scores[whole..whole + S::WIDTH];
        simd.store(partial, simd.select_first(first - whole, lowest, simd.load(partial)));
    }
}

/// Replaces scores by `2^(s - m)` with the new maximum `m`; returns `m`, the factor's exponent `m_old - m` and the sum.
#[inline(always)]
pub(in crate::ops) fn probabilities<S: Simd>(simd: S, scores: &mut [f32], old: f32) -> (f32, f32, f32) {
    let mut lanes = simd.splat(old);
    for scores in scores.chunks_exact(S::WIDTH) {
        lanes = simd.max(lanes, simd.load(scores));
    }
    let largest = simd.maximum(lanes);
    let shift = simd.splat(largest);
    let mut sum = simd.splat(0.0);
    for scores in scores.chunks_exact_mut(S::WIDTH) {
        let value = exp2(simd, simd.sub(simd.load(scores), shift));
        simd.store(scores, value);
        sum = simd.add(sum, value);
    }
    (largest, old - largest, simd.sum(sum))
}

/// Turns exponents into factors, and scales and extends the sums of the rows.
#[inline(always)]
pub(in crate::ops) fn advance_sums<S: Simd>(simd: S, sums: &mut [f32], factors: &mut [f32], new_sums: &[f32]) {
    let rows = sums.len();
    let mut sums = sums.chunks_exact_mut(S::WIDTH);
    let mut factors = factors[..rows].chunks_exact_mut(S::WIDTH);
    let mut new_sums = new_sums[..rows].chunks_exact(S::WIDTH);
    for ((sum, factor), new) in (&mut sums).zip(&mut factors).zip(&mut new_sums) {
        let power = exp2(simd, simd.load(factor));
        simd.store(factor, power);
        simd.store(sum, simd.mul_add(simd.load(sum), power, simd.load(new)));
    }
    let (sum, factor, new) = (sums.into_remainder(), factors.into_remainder(), new_sums.remainder());
    let power = exp2(simd, simd.load_short(factor, 0.0));
    simd.store_short(factor, power);
    simd.store_short(sum, simd.mul_add(simd.load_short(sum, 0.0), power, simd.load_short(new, 0.0)));
}
