//! Causal attention over keys and values in pages that sequences may share.
//!
//! Scores, running maximum and sum are those of [`attention`](super::attention), a page being a tile: the additions of a
//! query go page by page in the order of positions and, inside a page, in that of a block product. Which queries share a
//! call, a task or a page changes none of them.
//!
//! A task walks over the pages of some queries and one key head. Neighbours whose tables name the same page there are the
//! rows of one product, so that a prefix is read once for all sequences of the task that begin with it. Nothing is
//! transposed: a page holds its keys by depth and its values by position, as the two products read them.
//!
//! With pages of bf16, queries and probabilities are rounded to bf16 before the products; sums are f32.

mod cell;
mod pages;
mod product;
mod task;

use std::ops::Range;

use rayon::prelude::*;

use self::cell::{Pair, Single};
use self::task::{Run, Task};
use super::AttentionShape;
use crate::values::SharedValues;
use crate::{InstructionSet, Precision, ValuesMut};

pub use self::pages::{FusedRows, KeyValuePages, PAGE_POSITIONS, PageFork, PageShape, PageSlot};

/// Multiplications below which a call stays on its thread.
const SMALL_WORK: usize = 1 << 18;
/// Rows, that is queries times heads of a group, of a task that is large enough.
const TASK_ROWS: usize = 48;
/// Rows below which a task is not cut.
const LEAST_ROWS: usize = 12;
/// Tasks for each thread, where there are queries enough.
const TASKS_A_THREAD: usize = 4;

/// Queries at consecutive positions of one sequence.
#[derive(Clone, Debug)]
pub struct PagedQueries<'a> {
    /// The sequence's pages from `first_page` to that of the last query.
    pub pages: &'a [u32],
    /// Pages of the sequence that are left out because no query sees them.
    pub first_page: usize,
    /// Position of the first query.
    pub start: usize,
    /// Its rows in the batch.
    pub rows: Range<usize>,
}

/// Causal attention of the queries of many sequences; their own keys and values are in the pages already.
///
/// `rows` holds a query of `heads * head_dim` at the beginning of every `stride` values; `out` is
/// `[rows, heads * head_dim]`. Neighbours with common pages should stand side by side in `sequences`.
///
/// # Panics
/// When lengths do not fit together, or a table names a page that does not exist or lacks one that is needed.
pub fn paged_attention(
    shape: &AttentionShape,
    pages: &KeyValuePages,
    layer: usize,
    rows: &[f32],
    stride: usize,
    sequences: &[PagedQueries<'_>],
    out: ValuesMut<'_>,
) {
    paged_attention_with(InstructionSet::detect(), shape, pages, layer, rows, stride, sequences, out);
}

#[allow(clippy::too_many_arguments, reason = "the public signature and the instruction set")]
fn paged_attention_with(
    isa: InstructionSet,
    shape: &AttentionShape,
    pages: &KeyValuePages,
    layer: usize,
    rows: &[f32],
    stride: usize,
    sequences: &[PagedQueries<'_>],
    out: ValuesMut<'_>,
) {
    shape.check();
    pages.check(shape, layer);
    let count = rows.len() / stride.max(1);
    assert!(stride >= shape.query_width() && rows.len() == count * stride, "paged_attention: rows of another length");
    assert_eq!(out.len(), count * shape.query_width(), "paged_attention: the output is not one for each query");
    let runs = runs(shape, pages, sequences, count);
    let work: usize = runs.iter().map(|run| run.count * (run.first + run.count)).sum::<usize>() * shape.query_width();
    let group = shape.group();
    let all_rows: usize = runs.iter().map(|run| run.count * group).sum();
    let wanted = (TASKS_A_THREAD * rayon::current_num_threads()).div_ceil(shape.kv_heads);
    let most = (all_rows / wanted.max(1)).clamp(LEAST_ROWS, TASK_ROWS);
    let mut tasks: Vec<&[Run<'_>]> = Vec::new();
    let mut from = 0;
    while from < runs.len() {
        let (mut to, mut rows) = (from + 1, runs[from].count * group);
        while to < runs.len() && rows + runs[to].count * group <= most {
            rows += runs[to].count * group;
            to += 1;
        }
        tasks.push(&runs[from..to]);
        from = to;
    }
    let out = SharedValues::new(out, 0);
    let run_task = |index: usize| {
        let (runs, kv_head) = (tasks[index / shape.kv_heads], index % shape.kv_heads);
        match pages.shape().precision {
            Precision::F32 => Task::<Single>::new(shape, pages, layer, kv_head, rows, stride, runs, out).execute(isa),
            Precision::Bf16 => Task::<Pair>::new(shape, pages, layer, kv_head, rows, stride, runs, out).execute(isa),
        }
    };
    let indices = 0..tasks.len() * shape.kv_heads;
    if work < SMALL_WORK {
        indices.for_each(run_task);
    } else {
        indices.into_par_iter().with_max_len(1).for_each(run_task);
    }
}

/// The queries of each sequence cut where pages end.
fn runs<'a>(
    shape: &AttentionShape,
    pages: &KeyValuePages,
    sequences: &[PagedQueries<'a>],
    rows: usize,
) -> Vec<Run<'a>> {
    let mut runs = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        assert!(sequence.rows.end <= rows, "paged_attention: queries beyond the rows");
        assert!(sequence.pages.iter().all(|&page| pages.has(page)), "paged_attention: a page that does not exist");
        let end = sequence.start + sequence.rows.len();
        let mut first = sequence.start;
        while first < end {
            let next = ((first / PAGE_POSITIONS + 1) * PAGE_POSITIONS).min(end);
            let seen = shape.first_key(first) / PAGE_POSITIONS;
            let held = sequence.first_page..sequence.first_page + sequence.pages.len();
            assert!(held.start <= seen && first / PAGE_POSITIONS < held.end, "paged_attention: a page is missing");
            runs.push(Run {
                pages: &sequence.pages[seen - held.start..=first / PAGE_POSITIONS - held.start],
                first_page: seen,
                first,
                count: next - first,
                row: sequence.rows.start + first - sequence.start,
            });
            first = next;
        }
    }
    runs
}

#[cfg(test)]
mod tests;
