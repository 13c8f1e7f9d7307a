//! Causal attention over keys and values in pages that sequences may share.
//!
//! Scores, running maximum and sum are those of [`attention`](super::attention), a page being a tile: the additions of a
//! query go page by page in the order of positions and, inside a page, in that of a block product, or are exact. Which
//! queries share a call, a task or a page changes none of them.
//!
//! A task walks over the pages of some queries and one key head. Neighbours whose tables name the same page there are the
//! rows of one product, so that a prefix is read once for all sequences of the task that begin with it. Nothing is
//! transposed: a page holds its keys by depth and its values by position, as the two products read them.

mod floats;
mod integers;
mod pages;
mod pair_product;
mod task;

use std::ops::Range;

use self::task::{Run, Task};
use super::AttentionShape;
use crate::values::SharedValues;
use crate::{InstructionSet, ValuesMut, parallel};

pub use self::pages::{FusedRows, KeyValuePages, PAGE_POSITIONS, PageElement, PageFork, PageShape, PageSlot};

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
#[derive(Clone, Copy, Debug)]
pub struct PagedAttention<'a> {
    /// Heads, scale and window.
    pub shape: &'a AttentionShape,
    /// Keys and values.
    pub pages: &'a KeyValuePages,
    /// Which layer of the pages.
    pub layer: usize,
    /// A query of `heads * head_dim` at the beginning of every `stride` values.
    pub rows: &'a [f32],
    /// Values from one query to the next.
    pub stride: usize,
    /// Neighbours with common pages should stand side by side.
    pub sequences: &'a [PagedQueries<'a>],
}

impl PagedAttention<'_> {
    /// Writes `[rows, heads * head_dim]` to `out`.
    ///
    /// # Panics
    /// When lengths do not fit together, or a table names a page that does not exist or lacks one that is needed.
    pub fn run(&self, out: ValuesMut<'_>) {
        self.run_with(InstructionSet::detect(), out);
    }

    fn run_with(&self, isa: InstructionSet, out: ValuesMut<'_>) {
        let Self { shape, pages, layer, rows, stride, sequences } = *self;
        shape.check();
        pages.check(shape, layer);
        let count = rows.len() / stride.max(1);
        assert!(
            stride >= shape.query_width() && rows.len() == count * stride,
            "paged_attention: rows of another length"
        );
        assert_eq!(out.len(), count * shape.query_width(), "paged_attention: the output is not one for each query");
        let runs: Vec<Run<'_>> = sequences.iter().flat_map(|sequence| self.runs(sequence, count)).collect();
        let seen: usize = runs.iter().map(|run| run.count * (run.first + run.count)).sum();
        let tasks = self.tasks(&runs);
        let out = SharedValues::new(out, 0);
        let run_task = |index: usize| {
            let (runs, kv_head) = (tasks[index / shape.kv_heads], index % shape.kv_heads);
            Task { call: self, kv_head, runs, out }.execute(isa);
        };
        let count = tasks.len() * shape.kv_heads;
        if seen * shape.query_width() < SMALL_WORK {
            (0..count).for_each(run_task);
        } else {
            parallel::for_each(count, run_task);
        }
    }

    /// The queries of a sequence cut where pages end; `rows` are the rows that exist.
    fn runs<'a>(&self, sequence: &PagedQueries<'a>, rows: usize) -> impl Iterator<Item = Run<'a>> {
        assert!(sequence.rows.end <= rows, "paged_attention: queries beyond the rows");
        assert!(sequence.pages.iter().all(|&page| self.pages.has(page)), "paged_attention: a page that does not exist");
        let &PagedQueries { pages, first_page, start, rows: Range { start: row, end } } = sequence;
        let (shape, end) = (*self.shape, start + end - row);
        let mut next = start;
        std::iter::from_fn(move || {
            let first = next;
            if first >= end {
                return None;
            }
            next = ((first / PAGE_POSITIONS + 1) * PAGE_POSITIONS).min(end);
            let (seen, own) = (shape.first_key(first) / PAGE_POSITIONS, first / PAGE_POSITIONS);
            assert!(first_page <= seen && own < first_page + pages.len(), "paged_attention: a page is missing");
            let pages = &pages[seen - first_page..=own - first_page];
            Some(Run { pages, first_page: seen, first, count: next - first, row: row + first - start })
        })
    }

    /// Neighbours that one task takes together.
    fn tasks<'a>(&self, runs: &'a [Run<'a>]) -> Vec<&'a [Run<'a>]> {
        let group = self.shape.group();
        let rows: usize = runs.iter().map(|run| run.count * group).sum();
        let wanted = (TASKS_A_THREAD * rayon::current_num_threads()).div_ceil(self.shape.kv_heads);
        let most = (rows / wanted.max(1)).clamp(LEAST_ROWS, TASK_ROWS);
        let mut tasks = Vec::new();
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
        tasks
    }
}

#[cfg(test)]
mod tests;
