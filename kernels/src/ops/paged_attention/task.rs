//! The attention of some queries and one key head.

use std::marker::PhantomData;

use super::cell::Cell;
use super::product::PageProduct;
use super::{KeyValuePages, PAGE_POSITIONS};
use crate::InstructionSet;
use crate::buffer::{Scratch, with_scratch};
use crate::gemm::round_row;
use crate::ops::AttentionShape;
use crate::ops::simd::{MAX_WIDTH, Operation, Simd, dispatch, exp2};
use crate::values::SharedValues;

/// Rows whose scores are held at a time.
const BLOCK_ROWS: usize = 48;

/// Queries of one sequence whose own positions lie in one page.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// Pages from the first that any of them sees to their own.
    pub(super) pages: &'a [u32],
    /// Which page of the sequence the first of them is.
    pub(super) first_page: usize,
    /// Position of the first query.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Row of the first query.
    pub(super) row: usize,
}

impl Run<'_> {
    /// The page with positions from `index * PAGE_POSITIONS` on, if a query sees it.
    #[inline(always)]
    fn page(&self, index: usize) -> Option<u32> {
        self.pages.get(index.checked_sub(self.first_page)?).copied()
    }
}

/// Some runs and one key head.
pub(super) struct Task<'a, W> {
    shape: &'a AttentionShape,
    pages: &'a KeyValuePages,
    layer: usize,
    kv_head: usize,
    rows: &'a [f32],
    stride: usize,
    runs: &'a [Run<'a>],
    out: SharedValues,
    cell: PhantomData<W>,
}

impl<'a, W: Cell> Task<'a, W> {
    #[allow(clippy::too_many_arguments, reason = "its fields")]
    pub(super) fn new(
        shape: &'a AttentionShape,
        pages: &'a KeyValuePages,
        layer: usize,
        kv_head: usize,
        rows: &'a [f32],
        stride: usize,
        runs: &'a [Run<'a>],
        out: SharedValues,
    ) -> Self {
        Self { shape, pages, layer, kv_head, rows, stride, runs, out, cell: PhantomData }
    }

    /// For each row of the task, that is each query and head of the group, the batch's row and the head.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (group, first_head) = (self.shape.group(), self.kv_head * self.shape.group());
        let queries = self.runs.iter().flat_map(|run| run.row..run.row + run.count);
        queries.flat_map(move |row| (first_head..first_head + group).map(move |head| (row, head)))
    }
}

/// What is known of the rows of a task so far.
struct State<'a> {
    /// Queries, packed.
    queries: &'a [f32],
    query_words: usize,
    /// Sums of values, not yet divided.
    outputs: &'a mut [f32],
    output_stride: usize,
    largest: &'a mut [f32],
    sums: &'a mut [f32],
    /// Of a block of rows.
    scores: &'a mut [f32],
    probabilities: &'a mut [f32],
    factors: &'a mut [f32],
}

impl<W: Cell> Task<'_, W> {
    /// Does the task on an instruction set.
    pub(super) fn execute(&self, isa: InstructionSet) {
        let shape = self.shape;
        let rows = self.runs.iter().map(|run| run.count).sum::<usize>() * shape.group();
        let output_stride = shape.head_dim.next_multiple_of(MAX_WIDTH);
        let query_words = shape.head_dim.div_ceil(W::INPUTS).next_multiple_of(MAX_WIDTH);
        let lengths = [
            rows * query_words,
            rows * output_stride,
            rows.next_multiple_of(MAX_WIDTH),
            rows.next_multiple_of(MAX_WIDTH),
            BLOCK_ROWS * PAGE_POSITIONS,
            BLOCK_ROWS * PAGE_POSITIONS,
            BLOCK_ROWS.next_multiple_of(MAX_WIDTH),
        ];
        with_scratch(Scratch::Activations, lengths.iter().sum::<usize>() / MAX_WIDTH, |lines| {
            let mut rest: &mut [f32] = bytemuck::cast_slice_mut(lines);
            let [queries, outputs, largest, sums, scores, probabilities, factors] = lengths.map(|length| {
                let (buffer, others) = std::mem::take(&mut rest).split_at_mut(length);
                rest = others;
                buffer
            });
            for ((row, head), words) in self.places().zip(queries.chunks_exact_mut(query_words)) {
                W::pack_short(&self.rows[row * self.stride + head * shape.head_dim..][..shape.head_dim], words);
            }
            outputs.fill(0.0);
            largest.fill(f32::NEG_INFINITY);
            sums.fill(0.0);
            let mut state =
                State { queries, query_words, outputs, output_stride, largest, sums, scores, probabilities, factors };
            dispatch(isa, Walk { task: self, state: &mut state });
            self.write(&mut state);
        });
    }

    /// Divides and writes the results.
    fn write(&self, state: &mut State<'_>) {
        let head_dim = self.shape.head_dim;
        for (index, (row, head)) in self.places().enumerate() {
            let output = &mut state.outputs[index * state.output_stride..][..head_dim];
            let factor = 1.0 / state.sums[index];
            for value in output.iter_mut() {
                *value *= factor;
            }
            let at = row * self.shape.query_width() + head * head_dim;
            // SAFETY: the row is one of the output's by the assertions of the call, and no other task has this row and head.
            unsafe {
                match self.out {
                    SharedValues::F32(out) => {
                        std::slice::from_raw_parts_mut(out.at(at), head_dim).copy_from_slice(output);
                    }
                    SharedValues::Bf16(out) => {
                        let out = std::slice::from_raw_parts_mut(out.at(at), head_dim);
                        round_row(output, bytemuck::cast_slice_mut(out));
                    }
                }
            }
        }
    }
}

/// The way of a task over its pages.
struct Walk<'a, 'b, W> {
    task: &'a Task<'a, W>,
    state: &'a mut State<'b>,
}

impl<W: Cell> Operation for Walk<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.task.walk(simd, self.state);
    }
}

impl<W: Cell> Task<'_, W> {
    /// All pages in the order of positions; runs side by side that have one in common meet it together.
    #[inline(always)]
    fn walk<S: Simd>(&self, simd: S, state: &mut State<'_>) {
        let group = self.shape.group();
        let first = self.runs.iter().map(|run| run.first_page).min().unwrap_or(0);
        let end = self.runs.iter().map(|run| run.first_page + run.pages.len()).max().unwrap_or(0);
        for index in first..end {
            let (mut from, mut from_row) = (0, 0);
            while from < self.runs.len() {
                let (page, mut to_row) = (self.runs[from].page(index), from_row + self.runs[from].count * group);
                let mut to = from + 1;
                while to < self.runs.len() && self.runs[to].page(index) == page {
                    to_row += self.runs[to].count * group;
                    to += 1;
                }
                if let Some(page) = page {
                    self.meet(simd, state, page, index, &self.runs[from..to], from_row);
                }
                (from, from_row) = (to, to_row);
            }
        }
    }

    /// Some runs and a page that they have in common, a block of rows at a time.
    #[inline(always)]
    fn meet<S: Simd>(
        &self,
        simd: S,
        state: &mut State<'_>,
        page: u32,
        index: usize,
        runs: &[Run<'_>],
        first_row: usize,
    ) {
        let group = self.shape.group();
        // The keys that each row sees, in the page.
        let mut seen = [(0, 0); BLOCK_ROWS];
        let (mut row, mut count) = (first_row, 0);
        for run in runs {
            for position in run.first..run.first + run.count {
                let first = index * PAGE_POSITIONS;
                let visible = (position + 1 - first).min(PAGE_POSITIONS);
                let behind = self.shape.first_key(position).saturating_sub(first).min(visible);
                for _ in 0..group {
                    seen[count] = (behind, visible);
                    count += 1;
                    if count == BLOCK_ROWS {
                        self.block(simd, state, page, row, &seen);
                        (row, count) = (row + BLOCK_ROWS, 0);
                    }
                }
            }
        }
        if count > 0 {
            self.block(simd, state, page, row, &seen[..count]);
        }
    }

    /// Rows `row..row + seen.len()` and a page of which each sees some keys.
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, state: &mut State<'_>, page: u32, row: usize, seen: &[(usize, usize)]) {
        let rows = seen.len();
        let (keys, values) = self.pages.head(page, self.layer, self.kv_head);
        let active = seen.iter().map(|&(_, visible)| visible).max().unwrap_or(0);
        let columns = active.next_multiple_of(S::WIDTH);
        simd.call(PageProduct::<W> {
            rows,
            depth: self.shape.head_dim.div_ceil(W::INPUTS),
            columns,
            a: &state.queries[row * state.query_words..],
            a_stride: state.query_words,
            b: keys,
            b_stride: PAGE_POSITIONS,
            c: state.scores,
            c_stride: PAGE_POSITIONS,
            factors: None,
            cell: PhantomData,
        });
        let scale = self.shape.scale * std::f32::consts::LOG2_E;
        for (index, &(behind, visible)) in seen.iter().enumerate() {
            let scores = &mut state.scores[index * PAGE_POSITIONS..][..columns];
            let words = &mut state.probabilities[index * PAGE_POSITIONS / W::INPUTS..][..columns / W::INPUTS];
            if behind >= visible {
                // The window of this query begins behind the page: nothing is added to it.
                words.fill(0.0);
                state.factors[index] = 1.0;
                continue;
            }
            scores[..behind].fill(f32::NEG_INFINITY);
            scores[visible..].fill(f32::NEG_INFINITY);
            let (largest, sum) = probabilities(simd, scores, scale, state.largest[row + index]);
            W::pack(simd, scores, words);
            let shift = simd.splat(state.largest[row + index] - largest);
            let factor = simd.maximum(exp2(simd, shift));
            state.factors[index] = factor;
            state.sums[row + index] = state.sums[row + index] * factor + sum;
            state.largest[row + index] = largest;
        }
        simd.call(PageProduct::<W> {
            rows,
            depth: active.div_ceil(W::INPUTS),
            columns: self.shape.head_dim.next_multiple_of(S::WIDTH),
            a: state.probabilities,
            a_stride: PAGE_POSITIONS / W::INPUTS,
            b: values,
            b_stride: state.output_stride,
            c: &mut state.outputs[row * state.output_stride..],
            c_stride: state.output_stride,
            factors: Some(state.factors),
            cell: PhantomData,
        });
    }
}

/// Replaces scores by `2^(scale s - m)`, with `m` the larger of `old` and their maximum; gives `m` and the sum.
#[inline(always)]
fn probabilities<S: Simd>(simd: S, scores: &mut [f32], scale: f32, old: f32) -> (f32, f32) {
    let scale = simd.splat(scale);
    let mut lanes = simd.splat(old);
    for scores in scores.chunks_exact_mut(S::WIDTH) {
        let scaled = simd.mul(simd.load(scores), scale);
        simd.store(scores, scaled);
        lanes = simd.max(lanes, scaled);
    }
    let largest = simd.maximum(lanes);
    let shift = simd.splat(largest);
    let mut sum = simd.splat(0.0);
    for scores in scores.chunks_exact_mut(S::WIDTH) {
        let value = exp2(simd, simd.sub(simd.load(scores), shift));
        simd.store(scores, value);
        sum = simd.add(sum, value);
    }
    (largest, simd.sum(sum))
}
