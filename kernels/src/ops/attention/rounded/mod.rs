//! Attention of bf16 values: every factor of a product is rounded to bf16, sums and the softmax are f32.
//!
//! Scores are held transposed, `S^T [key, query]`, in tiles of [`KEY_TILE`] keys by about 64 rows, a row being a query of
//! one of the heads that share the key. Maxima, sums and `lse` then are vectors over the columns, and each of the seven
//! products finds its factors packed without a transposition of the probabilities:
//!
//! ```text
//! forward    S^T = K Q^T    O^T += V^T P^T
//! backward   S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q    dQ^T += K^T dS^T
//! ```
//!
//! What is rounded on the way: `P` (not its sum) and `dS`. Keys are packed once for a task, queries once for a block. A
//! forward task takes some blocks of one sequence and key head, a backward task all of them: blocks and tiles start at
//! fixed places, so that neither threads nor neighbours change the order of additions.

mod backward;
mod forward;
mod packing;

use half::bf16;
use rayon::prelude::*;

use self::backward::BackwardTask;
use self::forward::ForwardTask;
use super::memory::SharedOutput;
use super::{AttentionShape, KEY_TILE, SMALL_WORK, Saved, check_backward, check_forward};
use crate::InstructionSet;
use crate::gemm::TileKernels;
use crate::ops::simd::{Operation, dispatch};
use crate::panels::PANEL;

/// Columns of a tile of scores, as far as one query has no more heads.
const BLOCK_COLUMNS: usize = 64;
/// Forward tasks for each thread, where there are blocks enough.
const TASKS_A_THREAD: usize = 4;

/// The extents of the tiles of a layer.
#[derive(Clone, Copy)]
struct Extents {
    head_dim: usize,
    /// `head_dim` in whole inputs of the microkernels.
    depth: usize,
    group: usize,
    /// Queries of a block.
    queries: usize,
}

impl Extents {
    fn of(shape: &AttentionShape) -> Self {
        let group = shape.group();
        Self {
            head_dim: shape.head_dim,
            depth: shape.head_dim.next_multiple_of(PANEL),
            group,
            queries: (BLOCK_COLUMNS / group).max(1),
        }
    }

    /// Columns of the scores of so many queries.
    #[inline(always)]
    fn columns(self, queries: usize) -> usize {
        (queries * self.group).next_multiple_of(PANEL)
    }
}

/// A block of queries.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    end: usize,
    /// Columns of the scores.
    columns: usize,
    /// Those of them that are a query and head.
    used: usize,
}

impl Block {
    /// The block that starts with a query, of a sequence of `count`.
    fn of(extents: Extents, first: usize, count: usize) -> Self {
        let end = count.min(first + extents.queries);
        Self { first, end, columns: extents.columns(end - first), used: (end - first) * extents.group }
    }
}

/// Where the computation runs.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    pub(super) isa: InstructionSet,
    pub(super) kernels: TileKernels,
}

impl Machine {
    pub(super) fn detect() -> Self {
        Self::of(InstructionSet::detect())
    }

    pub(super) fn of(isa: InstructionSet) -> Self {
        Self { isa, kernels: TileKernels::of(isa) }
    }
}

/// [`segmented_attention`](super::segmented_attention) of bf16.
pub(super) fn forward(
    machine: Machine,
    shape: &AttentionShape,
    [q, k, v]: [&[bf16]; 3],
    segments: &[usize],
    out: &mut [bf16],
    lse: &mut [f32],
) {
    check_forward(shape, q, k, v, segments, out, lse);
    assert!(shape.scale > 0.0, "attention: the factor of the scores is {}", shape.scale);
    let (out, lse) = (SharedOutput::new(out), SharedOutput::new(lse));
    let block = Extents::of(shape).queries;
    let heads = segments.iter().filter(|length| **length > 0).count() * shape.kv_heads;
    let most_chunks = (TASKS_A_THREAD * rayon::current_num_threads()).div_ceil(heads.max(1));
    let mut tasks = Vec::new();
    for part in parts(shape, [q, k, v], segments) {
        let blocks = part.count.div_ceil(block);
        let chunks = most_chunks.min(blocks);
        tasks.extend((0..chunks).map(|chunk| ForwardTask {
            shape,
            kernels: machine.kernels,
            part,
            blocks: chunk * blocks / chunks..(chunk + 1) * blocks / chunks,
            out,
            lse,
        }));
    }
    // The longest first.
    tasks.sort_by_key(|task| std::cmp::Reverse(task.blocks.len() * (task.blocks.start + task.blocks.end)));
    run(machine, tasks, work(shape, segments));
}

/// [`segmented_attention_backward`](super::segmented_attention_backward) of bf16.
pub(super) fn backward(
    machine: Machine,
    shape: &AttentionShape,
    saved: Saved<'_, bf16>,
    dout: &[bf16],
    segments: &[usize],
    [dq, dk, dv]: [&mut [bf16]; 3],
) {
    check_backward(shape, saved, dout, segments, [dq, dk, dv]);
    let Saved { q, k, v, out, lse } = saved;
    let [dq, dk, dv] = [dq, dk, dv].map(SharedOutput::new);
    let mut tasks: Vec<_> = parts(shape, [q, k, v], segments)
        .map(|part| BackwardTask { shape, kernels: machine.kernels, part, out, lse, dout, dq, dk, dv })
        .collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.part.count));
    run(machine, tasks, work(shape, segments));
}

/// One sequence and one key head.
#[derive(Clone, Copy)]
struct Part<'a> {
    kv_head: usize,
    /// First row of the sequence in all arrays.
    row: usize,
    /// Its length.
    count: usize,
    /// The rows of the whole batch.
    q: &'a [bf16],
    k: &'a [bf16],
    v: &'a [bf16],
}

impl Part<'_> {
    /// The head's place, counted in heads, of a column of a block of queries.
    #[inline(always)]
    fn head(self, shape: &AttentionShape, first: usize, column: usize) -> usize {
        let group = shape.group();
        (self.row + first + column / group) * shape.heads + self.kv_head * group + column % group
    }
}

/// All sequences by all key heads.
fn parts<'a>(shape: &AttentionShape, [q, k, v]: [&'a [bf16]; 3], segments: &[usize]) -> impl Iterator<Item = Part<'a>> {
    let kv_heads = shape.kv_heads;
    let starts = segments.iter().scan(0, |row, &count| {
        let start = *row;
        *row += count;
        Some((start, count))
    });
    starts.flat_map(move |(row, count)| (0..kv_heads).map(move |kv_head| Part { kv_head, row, count, q, k, v }))
}

/// About how many multiplications a product takes.
fn work(shape: &AttentionShape, segments: &[usize]) -> usize {
    segments.iter().map(|length| length * length * shape.query_width()).sum()
}

fn run<T: Operation<Output = ()> + Send>(machine: Machine, tasks: Vec<T>, work: usize) {
    let run = |task: T| machine.kernels.session(|| dispatch(machine.isa, task));
    if work < SMALL_WORK {
        tasks.into_iter().for_each(run);
    } else {
        tasks.into_par_iter().with_max_len(1).for_each(run);
    }
}

#[cfg(test)]
mod tests;
