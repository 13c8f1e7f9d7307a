//! The attention of some queries and one key head.

use std::ops::Range;

use super::integers::{Integers, largest_integer, largest_score, round_row, round_weighed, weigh_scores};
use super::pair_product::{PairProduct, Target};
use super::{PAGE_POSITIONS, PageElement, PagedAttention};
use crate::InstructionSet;
use crate::buffer::{Scratch, with_scratch};
use crate::gemm::round_row as round_to_bf16;
use crate::ops::attention::{BlockProduct, Start, advance_sums, copy_scaled, mask, mask_before, probabilities};
use crate::ops::simd::{MAX_WIDTH, Operation, Simd, dispatch};
use crate::values::SharedValues;

/// Rows whose scores are held at a time.
const BLOCK_ROWS: usize = 48;
/// Words of a row of probabilities in pairs.
const PAIR_STRIDE: usize = PAGE_POSITIONS / 2;

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
pub(super) struct Task<'a> {
    pub(super) call: &'a PagedAttention<'a>,
    pub(super) kv_head: usize,
    pub(super) runs: &'a [Run<'a>],
    pub(super) out: SharedValues,
}

impl Task<'_> {
    /// For each row of the task, that is each query and head of the group, the batch's row and the head.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let group = self.call.shape.group();
        let first_head = self.kv_head * group;
        let queries = self.runs.iter().flat_map(|run| run.row..run.row + run.count);
        queries.flat_map(move |row| (first_head..first_head + group).map(move |head| (row, head)))
    }
}

/// What is known of the rows of a task so far.
struct State<'a> {
    /// Queries times the scale, in units of `ln 2`.
    queries: &'a mut [f32],
    /// The same as integers, in pairs, and their factors.
    query_pairs: &'a mut [u32],
    query_factors: &'a mut [f32],
    /// Sums of values, not yet divided.
    outputs: &'a mut [f32],
    /// Elements between rows of queries and of outputs.
    stride: usize,
    largest: &'a mut [f32],
    sums: &'a mut [f32],
    /// Of a block of rows.
    scores: &'a mut [f32],
    /// Probabilities times the factors of the values as integers, in pairs, and their factors.
    pairs: &'a mut [u32],
    pair_factors: &'a mut [f32],
    factors: &'a mut [f32],
    new_sums: &'a mut [f32],
}

impl Task<'_> {
    /// Does the task on an instruction set.
    pub(super) fn execute(&self, isa: InstructionSet) {
        let shape = self.call.shape;
        let rows = self.runs.iter().map(|run| run.count).sum::<usize>() * shape.group();
        let stride = shape.head_dim.next_multiple_of(MAX_WIDTH);
        let row_values = rows.next_multiple_of(MAX_WIDTH);
        let block_values = BLOCK_ROWS.next_multiple_of(MAX_WIDTH);
        let pairs = if self.call.pages.shape().element == PageElement::I16 { rows } else { 0 };
        let lengths = [
            rows * stride,
            rows * stride,
            row_values,
            row_values,
            BLOCK_ROWS * PAGE_POSITIONS,
            block_values,
            block_values,
            pairs * stride / 2,
            row_values,
            BLOCK_ROWS * PAIR_STRIDE,
            block_values,
        ];
        let words = lengths.iter().sum::<usize>();
        with_scratch(Scratch::Activations, words.div_ceil(MAX_WIDTH), |lines| {
            let mut rest: &mut [f32] = bytemuck::cast_slice_mut(lines);
            let [
                queries,
                outputs,
                largest,
                sums,
                scores,
                factors,
                new_sums,
                query_pairs,
                query_factors,
                pairs,
                pair_factors,
            ] = lengths.map(|length| {
                let (buffer, others) = std::mem::take(&mut rest).split_at_mut(length);
                rest = others;
                buffer
            });
            let [query_pairs, pairs] = [query_pairs, pairs].map(bytemuck::cast_slice_mut);
            outputs.fill(0.0);
            largest.fill(f32::NEG_INFINITY);
            sums.fill(0.0);
            let mut state = State {
                queries,
                query_pairs,
                query_factors,
                outputs,
                stride,
                largest,
                sums,
                scores,
                pairs,
                pair_factors,
                factors,
                new_sums,
            };
            dispatch(isa, Walk { task: self, state: &mut state });
        });
    }
}

/// The way of a task over its pages.
struct Walk<'a, 'b> {
    task: &'a Task<'a>,
    state: &'a mut State<'b>,
}

impl Operation for Walk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.task.read(simd, self.state);
        self.task.walk(simd, self.state);
        self.task.write(simd, self.state);
    }
}

impl Task<'_> {
    /// Takes the queries.
    #[inline(always)]
    fn read<S: Simd>(&self, simd: S, state: &mut State<'_>) {
        let PagedAttention { shape, rows, stride, .. } = *self.call;
        let scale = shape.scale * std::f32::consts::LOG2_E;
        for ((row, head), query) in self.places().zip(state.queries.chunks_exact_mut(state.stride)) {
            copy_scaled(simd, &rows[row * stride + head * shape.head_dim..][..shape.head_dim], scale, query);
        }
        if self.call.pages.shape().element == PageElement::I16 {
            let (words, most) = (state.stride / 2, largest_integer(shape.head_dim));
            let pairs = state.query_pairs.chunks_exact_mut(words).zip(&mut *state.query_factors);
            for (query, (pairs, factor)) in state.queries.chunks_exact(state.stride).zip(pairs) {
                *factor = round_row(simd, query, most, bytemuck::cast_slice_mut(pairs));
            }
        }
    }

    /// Divides and writes the results.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, state: &mut State<'_>) {
        let shape = self.call.shape;
        for (index, (row, head)) in self.places().enumerate() {
            let output = &state.outputs[index * state.stride..][..state.stride];
            // The queries are not needed any more.
            let result = &mut state.queries[index * state.stride..][..state.stride];
            copy_scaled(simd, output, 1.0 / state.sums[index], result);
            let (result, at) = (&result[..shape.head_dim], row * shape.query_width() + head * shape.head_dim);
            // SAFETY: the row is one of the output's by the assertions of the call, and no other task has this row and head.
            unsafe {
                match self.out {
                    SharedValues::F32(out) => {
                        std::slice::from_raw_parts_mut(out.at(at), shape.head_dim).copy_from_slice(result);
                    }
                    SharedValues::Bf16(out) => {
                        let out = std::slice::from_raw_parts_mut(out.at(at), shape.head_dim);
                        round_to_bf16(result, bytemuck::cast_slice_mut(out));
                    }
                }
            }
        }
    }

    /// All pages in the order of positions; runs side by side that have one in common meet it together.
    #[inline(always)]
    fn walk<S: Simd>(&self, simd: S, state: &mut State<'_>) {
        let group = self.call.shape.group();
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
        let group = self.call.shape.group();
        // The keys that each row sees, in the page.
        let mut seen = [(0, 0); BLOCK_ROWS];
        let (mut row, mut count) = (first_row, 0);
        for run in runs {
            for position in run.first..run.first + run.count {
                let first = index * PAGE_POSITIONS;
                let visible = (position + 1 - first).min(PAGE_POSITIONS);
                let behind = self.call.shape.first_key(position).saturating_sub(first).min(visible);
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
        let active = seen.iter().map(|&(_, visible)| visible).max().unwrap_or(0);
        let columns = active.next_multiple_of(S::WIDTH);
        let (keys, values) = self.call.pages.head(page, self.call.layer, self.kv_head);
        match self.call.pages.shape().element {
            PageElement::F32 => {
                self.score(simd, state, bytemuck::cast_slice(keys), row..row + seen.len(), columns);
                Self::weigh(simd, state, row, columns, seen);
                self.add(simd, state, bytemuck::cast_slice(values), row..row + seen.len(), active);
            }
            PageElement::I16 => {
                let values = Integers::of(values);
                self.score_integers(simd, state, Integers::of(keys), row..row + seen.len(), columns);
                Self::weigh_integers(simd, state, row, values.factors, seen);
                self.add_integers(simd, state, values, row..row + seen.len(), active);
            }
        }
    }

    /// The scores of some rows and the first `columns` keys of a page.
    #[inline(always)]
    fn score<S: Simd>(&self, simd: S, state: &mut State<'_>, keys: &[f32], rows: Range<usize>, columns: usize) {
        simd.call(BlockProduct {
            rows: rows.len(),
            depth: self.call.shape.head_dim,
            columns,
            a: &state.queries[rows.start * state.stride..],
            a_row: state.stride,
            a_depth: 1,
            b: keys,
            b_stride: PAGE_POSITIONS,
            c: state.scores,
            c_stride: PAGE_POSITIONS,
            start: Start::Zero,
        });
    }

    /// [`score`](Self::score) of integers.
    #[inline(always)]
    fn score_integers<S: Simd>(
        &self,
        simd: S,
        state: &mut State<'_>,
        keys: Integers<'_>,
        rows: Range<usize>,
        columns: usize,
    ) {
        simd.call(PairProduct {
            rows: rows.len(),
            pairs: self.call.shape.head_dim.div_ceil(2),
            columns,
            a: &state.query_pairs[rows.start * (state.stride / 2)..],
            a_row: state.stride / 2,
            row_factors: &state.query_factors[rows],
            b: keys.words,
            b_stride: PAGE_POSITIONS,
            c: state.scores,
            c_stride: PAGE_POSITIONS,
            target: Target::Scores(keys.factors),
        });
    }

    /// Turns scores into probabilities, which are not yet divided by their sum.
    #[inline(always)]
    fn weigh<S: Simd>(simd: S, state: &mut State<'_>, row: usize, columns: usize, seen: &[(usize, usize)]) {
        let rows = row..row + seen.len();
        let largest = &mut state.largest[rows.clone()];
        for (index, &(behind, visible)) in seen.iter().enumerate() {
            let scores = &mut state.scores[index * PAGE_POSITIONS..][..columns];
            if behind >= visible {
                // The window of this query begins behind the page: nothing is added to it.
                scores.fill(0.0);
                (state.factors[index], state.new_sums[index]) = (0.0, 0.0);
                continue;
            }
            mask(simd, scores, visible);
            mask_before(simd, scores, behind);
            (largest[index], state.factors[index], state.new_sums[index]) = probabilities(simd, scores, largest[index]);
        }
        advance_sums(simd, &mut state.sums[rows], state.factors, state.new_sums);
    }

    /// [`weigh`](Self::weigh), times the factors of the values, as integers.
    #[inline(always)]
    fn weigh_integers<S: Simd>(
        simd: S,
        state: &mut State<'_>,
        row: usize,
        value_factors: &[f32],
        seen: &[(usize, usize)],
    ) {
        let rows = row..row + seen.len();
        let (scores, _) = state.scores.as_chunks_mut::<PAGE_POSITIONS>();
        let (integers, _) = bytemuck::cast_slice_mut::<u32, i16>(state.pairs).as_chunks_mut::<PAGE_POSITIONS>();
        let Some((factors, _)) = value_factors.split_first_chunk::<PAGE_POSITIONS>() else { return };
        // Step by step for all rows: what a row waits for, others have meanwhile.
        for ((largest, exponent), (scores, &(behind, visible))) in
            state.largest[rows.clone()].iter_mut().zip(&mut *state.factors).zip(scores.iter().zip(seen))
        {
            let old = *largest;
            *largest = largest_score(simd, scores, &(behind..visible), old);
            // A window may begin behind all pages so far: nothing is to be kept then.
            *exponent = if *largest == f32::NEG_INFINITY { 0.0 } else { old - *largest };
        }
        for (index, (scores, &(behind, visible))) in scores.iter_mut().zip(seen).enumerate() {
            let largest = state.largest[row + index];
            (state.new_sums[index], state.pair_factors[index]) =
                weigh_scores(simd, scores, &(behind..visible), largest, factors);
        }
        for (index, (scores, integers)) in scores.iter().zip(integers).enumerate().take(seen.len()) {
            state.pair_factors[index] = round_weighed(simd, scores, state.pair_factors[index], integers);
        }
        advance_sums(simd, &mut state.sums[rows], state.factors, state.new_sums);
    }

    /// Adds the values of the first `active` positions of a page to the outputs of some rows.
    #[inline(always)]
    fn add<S: Simd>(&self, simd: S, state: &mut State<'_>, values: &[f32], rows: Range<usize>, active: usize) {
        simd.call(BlockProduct {
            rows: rows.len(),
            depth: active,
            columns: self.call.shape.head_dim.next_multiple_of(S::WIDTH),
            a: state.scores,
            a_row: PAGE_POSITIONS,
            a_depth: 1,
            b: values,
            b_stride: state.stride,
            c: &mut state.outputs[rows.start * state.stride..],
            c_stride: state.stride,
            start: Start::Scale(state.factors),
        });
    }

    /// [`add`](Self::add) of integers.
    #[inline(always)]
    fn add_integers<S: Simd>(
        &self,
        simd: S,
        state: &mut State<'_>,
        values: Integers<'_>,
        rows: Range<usize>,
        active: usize,
    ) {
        simd.call(PairProduct {
            rows: rows.len(),
            pairs: active.div_ceil(2),
            columns: self.call.shape.head_dim.next_multiple_of(S::WIDTH),
            a: state.pairs,
            a_row: PAIR_STRIDE,
            row_factors: state.pair_factors,
            b: values.words,
            b_stride: state.stride,
            c: &mut state.outputs[rows.start * state.stride..],
            c_stride: state.stride,
            target: Target::Outputs(state.factors),
        });
    }
}
