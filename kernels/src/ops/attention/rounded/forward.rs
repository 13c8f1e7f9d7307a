//! The forward pass of some blocks of queries of one sequence and key head.

use std::ops::Range;

use half::bf16;

use super::super::memory::{Scratch, SharedOutput};
use super::packing::{Rows, gather, pack_tile, pack_tile_across, right_across, turn_back, write_row};
use super::{AttentionShape, Block, Extents, KEY_TILE, Part};
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
        let mut scratch = Scratch::take();
        let mut working = Working::of(&mut scratch, &self);
        self.pack_keys(simd, &mut working);
        let extents = Extents::of(self.shape);
        for block in self.blocks.clone() {
            let block = Block::of(extents, block * extents.queries, self.part.count);
            gather(self.shape, self.part, block.first, (block.used, block.columns), self.part.q, working.q);
            right_across(simd, extents, working.q, block.columns, working.q_tile);
            working.largest.fill(LOWEST);
            working.sums.fill(0.0);
            let seen = self.shape.first_key(block.first) / KEY_TILE;
            for tile in seen..block.end.div_ceil(KEY_TILE) {
                self.attend(simd, block, tile, tile > seen, &mut working);
            }
            self.write(simd, block, &mut working);
        }
    }
}

/// What a task computes with.
struct Working<'s> {
    /// Left tiles of the keys by their elements, and of the elements of the values by the keys.
    keys: &'s mut [Line],
    values: &'s mut [Line],
    /// Queries of a block, `[columns, depth]`, and as right tile `[depth, columns]`.
    q: &'s mut [bf16],
    q_tile: &'s mut [Line],
    /// `S^T`, `[KEY_TILE, columns]`; also serves to turn values.
    scores: &'s mut [f32],
    /// `P^T` as right tile.
    p: &'s mut [Line],
    /// Sums `[depth, columns]` of a block, and the other way round.
    outputs: &'s mut [f32],
    turned: &'s mut [f32],
    /// Of each column: largest score, sum of its powers, factor of its output.
    largest: &'s mut [f32],
    sums: &'s mut [f32],
    factors: &'s mut [f32],
}

impl<'s> Working<'s> {
    /// Buffers for the keys that the task sees and a block of its queries.
    fn of(scratch: &'s mut Scratch, task: &ForwardTask<'_>) -> Self {
        let extents = Extents::of(task.shape);
        let depth = extents.depth;
        let most = extents.columns(extents.queries);
        let tiles = task.tiles().len();
        let [key_lines, value_lines] = task.tile_lines();
        let [keys, values, q, q_tile, scores, p, outputs, turned, largest, sums, factors] = scratch.buffers([
            tiles * key_lines * LINE_WORDS,
            tiles * value_lines * LINE_WORDS,
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
        let [keys, values, q_tile, p] = [keys, values, q_tile, p].map(bytemuck::cast_slice_mut::<f32, Line>);
        let q = bytemuck::cast_slice_mut(q);
        Self { keys, values, q, q_tile, scores, p, outputs, turned, largest, sums, factors }
    }
}

impl ForwardTask<'_> {
    /// Tiles of keys that the queries see.
    fn tiles(&self) -> Range<usize> {
        let block_queries = Extents::of(self.shape).queries;
        let end = (self.blocks.end * block_queries).min(self.part.count);
        self.shape.first_key(self.blocks.start * block_queries) / KEY_TILE..end.div_ceil(KEY_TILE)
    }

    /// Lines of a left tile of keys, and of one of values.
    fn tile_lines(&self) -> [usize; 2] {
        let Extents { head_dim, depth, .. } = Extents::of(self.shape);
        [self.kernels.left_lines(KEY_TILE, depth), self.kernels.left_lines(head_dim, KEY_TILE)]
    }

    /// Packs the keys and values that the queries see.
    #[inline(always)]
    fn pack_keys<S: Simd>(&self, simd: S, working: &mut Working<'_>) {
        let Self { shape, kernels, part, .. } = *self;
        let extents = Extents::of(shape);
        let [key_lines, value_lines] = self.tile_lines();
        let keys = Rows { array: part.k, width: shape.key_width(), offset: part.kv_head * extents.head_dim };
        let values = Rows { array: part.v, ..keys };
        for (index, tile) in self.tiles().enumerate() {
            let (from, count) = (part.row + tile * KEY_TILE, (part.count - tile * KEY_TILE).min(KEY_TILE));
            let tile = &mut working.keys[index * key_lines..][..key_lines];
            pack_tile(kernels, extents, keys, from, count, tile);
            let tile = &mut working.values[index * value_lines..][..value_lines];
            let (wide, turned) = (&mut *working.scores, &mut *working.turned);
            pack_tile_across(simd, kernels, extents, values, from, count, wide, turned, tile);
        }
    }

    /// What a tile of keys gives to the outputs of a block; `add` to those that are there.
    #[inline(always)]
    fn attend<S: Simd>(&self, simd: S, block: Block, tile: usize, add: bool, working: &mut Working<'_>) {
        let Self { shape, kernels, .. } = *self;
        let Extents { head_dim, depth, .. } = Extents::of(shape);
        let [key_lines, value_lines] = self.tile_lines();
        let Block { first, end, columns, .. } = block;
        let (index, start) = (tile - self.tiles().start, tile * KEY_TILE);
        let active = (end - start).min(KEY_TILE);
        kernels.multiply(TileProduct {
            left: &working.keys[index * key_lines..],
            left_rows: KEY_TILE,
            left_inputs: depth,
            right: working.q_tile,
            right_inputs: depth,
            rows: active,
            inputs: depth,
            columns,
            c: working.scores,
            c_stride: columns,
            add: false,
        });
        hide(shape, working.scores, start..start + active, first, columns);
        let rescaled = simd.call(Probabilities {
            scores: working.scores,
            keys: active,
            columns,
            scale: shape.scale * std::f32::consts::LOG2_E,
            largest: working.largest,
            sums: working.sums,
            factors: working.factors,
            tile: working.p,
        });
        if rescaled && add {
            rescale(simd, working.outputs, head_dim, columns, working.factors);
        }
        kernels.multiply(TileProduct {
            left: &working.values[index * value_lines..],
            left_rows: head_dim,
            left_inputs: KEY_TILE,
            right: working.p,
            right_inputs: KEY_TILE,
            rows: head_dim,
            inputs: active.next_multiple_of(INPUT_BLOCK),
            columns,
            c: working.outputs,
            c_stride: columns,
            add,
        });
    }

    /// Divides the outputs of a block by their sums, rounds them, and tells `lse`.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, block: Block, working: &mut Working<'_>) {
        let Extents { head_dim, depth, .. } = Extents::of(self.shape);
        let Working { outputs, turned, largest, sums, factors, .. } = working;
        for (factor, sum) in factors.iter_mut().zip(&**sums) {
            *factor = 1.0 / sum;
        }
        turn_back(simd, depth, block.columns, factors, outputs, turned);
        for column in 0..block.used {
            let head = self.part.head(self.shape, block.first, column);
            // SAFETY: no other task has this query and head.
            let (out, lse) = unsafe { (self.out.range(head * head_dim, head_dim), self.lse.range(head, 1)) };
            write_row(simd, &turned[column * depth..], 1.0, out);
            lse[0] = (largest[column] + sums[column].log2()) * std::f32::consts::LN_2;
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
