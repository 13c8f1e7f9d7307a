//! The forward pass of some blocks of queries of one sequence and key head.

use std::ops::Range;

use half::bf16;

use super::super::memory::{Scratch, SharedOutput};
use super::packing::{Rows, gather, pack_tile, pack_tile_across, right_across, turn_back, write_row};
use super::{AttentionShape, Extents, KEY_TILE, Part};
use crate::buffer::Line;
use crate::gemm::{LINE_WORDS, TileKernels, TileProduct, right_lines};
use crate::ops::simd::{Operation, Simd, exp2};
use crate::panels::{INPUT_BLOCK, PANEL};

/// Below every score: the maximum of no scores, whose difference from another is no NaN.
const LOWEST: f32 = f32::MIN / 4.0;

pub(super) struct ForwardTask<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) kernels: TileKernels,
    pub(super) part: Part<'a>,
    pub(super) blocks: Range<usize>,
    pub(super) out: SharedOutput<'a, bf16>,
    pub(super) lse: SharedOutput<'a>,
}

impl Operation for ForwardTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { shape, kernels, part, .. } = self;
        let extents = Extents::of(shape);
        let Extents { head_dim, depth, group, queries: block_queries } = extents;
        let most = extents.columns(block_queries);
        let keys_end = (self.blocks.end * block_queries).min(part.count);
        let first_tile = shape.first_key(self.blocks.start * block_queries) / KEY_TILE;
        let tiles = first_tile..keys_end.div_ceil(KEY_TILE);
        let [key_lines, value_lines] = [kernels.left_lines(KEY_TILE, depth), kernels.left_lines(head_dim, KEY_TILE)];

        let mut scratch = Scratch::take();
        let [keys, values, q, q_tile, scores, p_tile, outputs, turned, largest, sums, factors] = scratch.buffers([
            tiles.len() * key_lines * LINE_WORDS,
            tiles.len() * value_lines * LINE_WORDS,
            most * depth / 2,
            right_lines(depth, most) * LINE_WORDS,
            KEY_TILE * most.max(depth),
            right_lines(KEY_TILE, most) * LINE_WORDS,
            depth * most,
            most.max(KEY_TILE) * depth,
            most,
            most,
            most,
        ]);
        let (keys, values): (&mut [Line], &mut [Line]) =
            (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
        let (q_tile, p_tile): (&mut [Line], &mut [Line]) =
            (bytemuck::cast_slice_mut(q_tile), bytemuck::cast_slice_mut(p_tile));
        let q: &mut [bf16] = bytemuck::cast_slice_mut(q);

        let key_rows = Rows { array: part.k, width: shape.key_width(), offset: part.kv_head * head_dim };
        let value_rows = Rows { array: part.v, ..key_rows };
        for (index, tile) in tiles.clone().enumerate() {
            let (from, count) = (part.row + tile * KEY_TILE, (part.count - tile * KEY_TILE).min(KEY_TILE));
            pack_tile(kernels, extents, key_rows, from, count, &mut keys[index * key_lines..][..key_lines]);
            let tile = &mut values[index * value_lines..][..value_lines];
            pack_tile_across(simd, kernels, extents, value_rows, from, count, scores, turned, tile);
        }

        for block in self.blocks.clone() {
            let first = block * block_queries;
            let queries = block_queries.min(part.count - first);
            let (columns, used) = (extents.columns(queries), queries * group);
            gather(shape, part, first, (used, columns), part.q, q);
            right_across(simd, extents, q, columns, q_tile);
            largest.fill(LOWEST);
            sums.fill(0.0);
            let end = first + queries;
            let seen = shape.first_key(first) / KEY_TILE;
            for tile in seen..end.div_ceil(KEY_TILE) {
                let (index, start) = (tile - tiles.start, tile * KEY_TILE);
                let active = (end - start).min(KEY_TILE);
                kernels.multiply(TileProduct {
                    left: &keys[index * key_lines..],
                    left_rows: KEY_TILE,
                    left_inputs: depth,
                    right: q_tile,
                    right_inputs: depth,
                    rows: active,
                    inputs: depth,
                    columns,
                    c: scores,
                    c_stride: columns,
                    add: false,
                });
                hide(shape, scores, start..start + active, first, columns);
                let rescaled = simd.call(Probabilities {
                    scores,
                    keys: active,
                    columns,
                    scale: shape.scale * std::f32::consts::LOG2_E,
                    largest,
                    sums,
                    factors,
                    tile: p_tile,
                });
                if rescaled && tile > seen {
                    rescale(simd, outputs, head_dim, columns, factors);
                }
                kernels.multiply(TileProduct {
                    left: &values[index * value_lines..],
                    left_rows: head_dim,
                    left_inputs: KEY_TILE,
                    right: p_tile,
                    right_inputs: KEY_TILE,
                    rows: head_dim,
                    inputs: active.next_multiple_of(INPUT_BLOCK),
                    columns,
                    c: outputs,
                    c_stride: columns,
                    add: tile > seen,
                });
            }
            for (factor, sum) in factors.iter_mut().zip(&*sums) {
                *factor = 1.0 / sum;
            }
            turn_back(simd, depth, columns, factors, outputs, turned);
            for column in 0..used {
                let head = part.head(shape, first, column);
                // SAFETY: no other task has this query and head.
                let (out, lse) = unsafe { (self.out.range(head * head_dim, head_dim), self.lse.range(head, 1)) };
                write_row(simd, &turned[column * depth..], 1.0, out);
                lse[0] = (largest[column] + sums[column].log2()) * std::f32::consts::LN_2;
            }
        }
    }
}

/// Sets the scores `[key, column]` of keys that a query does not see to negative infinity.
#[inline(always)]
pub(super) fn hide(shape: &AttentionShape, scores: &mut [f32], keys: Range<usize>, first: usize, columns: usize) {
    let group = shape.group();
    let last = first + (columns - 1) / group;
    if keys.end <= first + 1 && shape.first_key(last) <= keys.start {
        return;
    }
    for (key, scores) in keys.zip(scores.chunks_exact_mut(columns)) {
        let before = (key.saturating_sub(first) * group).min(columns);
        scores[..before].fill(f32::NEG_INFINITY);
        if let Some(window) = shape.window {
            let behind = ((key + window).saturating_sub(first) * group).min(columns);
            scores[behind..].fill(f32::NEG_INFINITY);
        }
    }
}

/// Multiplies each column of the first rows by its factor.
#[inline(always)]
fn rescale<S: Simd>(simd: S, values: &mut [f32], rows: usize, columns: usize, factors: &[f32]) {
    for values in values.chunks_exact_mut(columns).take(rows) {
        for (values, factor) in values.chunks_exact_mut(S::WIDTH).zip(factors.chunks_exact(S::WIDTH)) {
            simd.store(values, simd.mul(simd.load(values), simd.load(factor)));
        }
    }
}

/// Turns the scores of a tile into the right tile of `2^(s - m)` with the new maxima `m` of the columns.
struct Probabilities<'a> {
    /// `[keys, columns]`.
    scores: &'a [f32],
    keys: usize,
    columns: usize,
    /// Factor of the scores.
    scale: f32,
    largest: &'a mut [f32],
    sums: &'a mut [f32],
    /// What came before is to be multiplied by these.
    factors: &'a mut [f32],
    /// `[KEY_TILE inputs, columns]`, zero up to the next whole inputs of a product.
    tile: &'a mut [Line],
}

impl Operation for Probabilities<'_> {
    /// Whether a maximum grew.
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let Self { scores, keys, columns, .. } = self;
        let tile: &mut [u32] = bytemuck::cast_slice_mut(self.tile);
        assert!(columns.is_multiple_of(PANEL) && keys <= KEY_TILE && scores.len() >= keys * columns);
        assert!(tile.len() >= KEY_TILE / 2 * columns);
        let scale = simd.splat(self.scale);
        let mut grew = false;
        for column in (0..columns).step_by(2 * S::WIDTH) {
            let second = column + S::WIDTH;
            // SAFETY: keys and columns lie inside the scores, pairs of keys and columns inside the tile.
            unsafe {
                let at = |key: usize, column: usize| scores.as_ptr().wrapping_add(key * columns + column);
                let old = [simd.load(&self.largest[column..]), simd.load(&self.largest[second..])];
                let mut new = old;
                for key in 0..keys {
                    new[0] = simd.max(new[0], simd.mul(simd.load_at(at(key, column)), scale));
                    new[1] = simd.max(new[1], simd.mul(simd.load_at(at(key, second)), scale));
                }
                let shift = [simd.sub(simd.splat(0.0), new[0]), simd.sub(simd.splat(0.0), new[1])];
                let mut sums = [simd.splat(0.0); 2];
                let mut target = tile.as_mut_ptr().add(column / PANEL * (KEY_TILE / 2) * PANEL + column % PANEL);
                for key in (0..keys).step_by(2) {
                    for (half, sum) in sums.iter_mut().enumerate() {
                        let column = column + half * S::WIDTH;
                        let even = exp2(simd, simd.mul_add(simd.load_at(at(key, column)), scale, shift[half]));
                        *sum = simd.add(*sum, even);
                        let odd = if key + 1 < keys {
                            exp2(simd, simd.mul_add(simd.load_at(at(key + 1, column)), scale, shift[half]))
                        } else {
                            simd.splat(0.0)
                        };
                        *sum = simd.add(*sum, odd);
                        simd.store_pairs_at(target.add(half * S::WIDTH), even, odd);
                    }
                    target = target.add(PANEL);
                }
                for _ in keys.div_ceil(2)..keys.next_multiple_of(INPUT_BLOCK) / 2 {
                    for half in 0..2 {
                        simd.store_pairs_at(target.add(half * S::WIDTH), simd.splat(0.0), simd.splat(0.0));
                    }
                    target = target.add(PANEL);
                }
                for half in 0..2 {
                    let column = column + half * S::WIDTH;
                    let growth = simd.sub(old[half], new[half]);
                    grew |= simd.maximum(simd.sub(simd.splat(0.0), growth)) > 0.0;
                    let factor = exp2(simd, growth);
                    simd.store(&mut self.factors[column..], factor);
                    simd.store(&mut self.largest[column..], new[half]);
                    let sum = simd.mul_add(simd.load(&self.sums[column..]), factor, sums[half]);
                    simd.store(&mut self.sums[column..], sum);
                }
            }
        }
        grew
    }
}
