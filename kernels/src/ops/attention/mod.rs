//! Causal attention with grouped heads, forward and backward, without a matrix of all scores.
//!
//! For query `i` of a sequence and one head, with `s_ij = scale q_i . k_j` over the keys `j <= i`:
//!
//! ```text
//! lse_i = ln sum_j e^s_ij      P_ij = e^(s_ij - lse_i)      o_i = sum_j P_ij v_j
//! ```
//!
//! The forward pass visits the keys in tiles of [`KEY_TILE`] and keeps a running maximum `m`, sum `l` and output; when
//! the maximum grows, sum and output are scaled by `e^(m_old - m_new)` (Milakov and Gimelshein 2018, Dao et al. 2022).
//! Only `lse` is kept for the backward pass, which computes `P` again:
//!
//! ```text
//! D_i  = o_i . do_i                 dP_ij = do_i . v_j           dS_ij = P_ij (dP_ij - D_i)
//! dq_i = scale sum_j dS_ij k_j      dk_j = scale sum_i dS_ij q_i      dv_j = sum_i P_ij do_i
//! ```
//!
//! where the sums over `i` run over all query heads that share the key and value head. Scores are kept in units of
//! `ln 2`, so that powers of two replace exponentials.
//!
//! With a window of `w`, only the keys `j > i - w` take part; tiles that no query of a block sees are left out.
//!
//! Tiles start at multiples of [`KEY_TILE`] of the position in the sequence, and masked scores add exact zeros, so the
//! additions of a query have one order, however the queries are divided among calls. A thread takes a (sequence, key
//! head, chunk of queries) forward and a (sequence, key head) backward.
//!
//! That is the path of f32, on which tests hold the one of bf16 (`rounded`): packed sequences only, on the tile kernels of
//! the weight products.

mod backward;
mod block_product;
mod forward;
mod memory;
mod packing;
mod rounded;
mod tiling;

use self::backward::BackwardTask;
pub(super) use self::block_product::{BlockProduct, Start};
use self::forward::ForwardTask;
pub(super) use self::forward::{advance_sums, mask, mask_before, probabilities};
use self::memory::SharedOutput;
pub(super) use self::packing::copy_scaled;
pub(super) use self::tiling::{Tiles, each_tile};
use super::simd::dispatch;
use crate::{Element, InstructionSet, Values, parallel};

/// Keys that are visited at a time.
const KEY_TILE: usize = 64;

/// Multiplications below which a call stays on its thread.
const SMALL_WORK: usize = 1 << 18;

/// Heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads, neighbours in order.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Keys that a query sees, itself included; all of those before it where there is no window.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// The first key that the query at a position sees.
    #[inline(always)]
    pub(super) fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// Elements of a row of queries.
    pub(super) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of a row of keys or values.
    pub(super) fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads for each key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Queries that are worked on together: a power of two, with about 64 rows over the group.
    fn queries_per_block(&self) -> usize {
        let most = (KEY_TILE / self.group()).clamp(1, KEY_TILE / 2);
        1 << most.ilog2()
    }

    #[track_caller]
    pub(super) fn check(&self) {
        assert!(
            self.head_dim > 0 && self.kv_heads > 0 && self.heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "attention: {} heads of {} do not share {} key heads evenly",
            self.heads,
            self.head_dim,
            self.kv_heads
        );
        assert!(self.window != Some(0), "attention: a window of no keys");
    }
}

/// Causal attention of new queries of one sequence.
///
/// `q [t, heads * head_dim]` are the queries at positions `start..start + t`; `keys` and `values`
/// `[start + t, kv_heads * head_dim]` those of all positions so far. Writes `out [t, heads * head_dim]` and, when
/// asked, `lse [t, heads]`. The result for a query has the same bits whatever queries share the call.
///
/// # Panics
///
/// When the lengths do not fit together.
pub fn causal_attention(
    shape: &AttentionShape,
    q: &[f32],
    start: usize,
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    causal_attention_with(InstructionSet::detect(), shape, q, start, keys, values, out, lse);
}

#[allow(clippy::too_many_arguments, reason = "the public signature and the instruction set")]
pub(super) fn causal_attention_with(
    isa: InstructionSet,
    shape: &AttentionShape,
    q: &[f32],
    start: usize,
    keys: &[f32],
    values: &[f32],
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    shape.check();
    let queries = q.len() / shape.query_width();
    assert_eq!(q.len(), queries * shape.query_width(), "causal_attention: q is not whole rows");
    assert_eq!(keys.len(), (start + queries) * shape.key_width(), "causal_attention: keys are not start + t rows");
    assert_eq!(values.len(), keys.len(), "causal_attention: keys and values differ in length");
    assert_eq!(out.len(), q.len(), "causal_attention: q and out differ in length");
    if let Some(lse) = &lse {
        assert_eq!(lse.len(), queries * shape.heads, "causal_attention: lse is not one for each query and head");
    }
    let sequence = Sequence { q, start, keys, values, row: 0 };
    run_forward(isa, shape, &[sequence], SharedOutput::new(out), lse.map(SharedOutput::new));
}

/// Causal attention over the sequences of a packed batch, each attending to itself only.
///
/// `segments` are the lengths of the sequences, which lie one after another in `q [t, heads * head_dim]`, `k` and `v`
/// `[t, kv_heads * head_dim]`. Writes `out [t, heads * head_dim]` and `lse [t, heads]`: of f32 with the same bits as
/// [`causal_attention`] of each sequence, of bf16 with all factors of the products rounded to bf16.
///
/// # Panics
///
/// When the lengths do not fit together.
pub fn segmented_attention<T: Element>(
    shape: &AttentionShape,
    q: &[T],
    k: &[T],
    v: &[T],
    segments: &[usize],
    out: &mut [T],
    lse: &mut [f32],
) {
    if let Values::F32(q) = T::values(q) {
        let [k, v] = [k, v].map(bytemuck::cast_slice);
        segmented_attention_with(
            InstructionSet::detect(),
            shape,
            q,
            k,
            v,
            segments,
            bytemuck::cast_slice_mut(out),
            lse,
        );
        return;
    }
    let [q, k, v] = [q, k, v].map(bytemuck::cast_slice);
    rounded::forward(rounded::Machine::detect(), shape, [q, k, v], segments, bytemuck::cast_slice_mut(out), lse);
}

#[allow(clippy::too_many_arguments, reason = "the public signature and the instruction set")]
fn segmented_attention_with(
    isa: InstructionSet,
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segments: &[usize],
    out: &mut [f32],
    lse: &mut [f32],
) {
    check_forward(shape, q, k, v, segments, out, lse);
    let (query_width, key_width) = (shape.query_width(), shape.key_width());
    let mut row = 0;
    let sequences: Vec<Sequence<'_>> = segments
        .iter()
        .map(|length| {
            let rows = row..row + length;
            row = rows.end;
            Sequence {
                q: &q[rows.start * query_width..rows.end * query_width],
                start: 0,
                keys: &k[rows.start * key_width..rows.end * key_width],
                values: &v[rows.start * key_width..rows.end * key_width],
                row: rows.start,
            }
        })
        .collect();
    run_forward(isa, shape, &sequences, SharedOutput::new(out), Some(SharedOutput::new(lse)));
}

#[track_caller]
fn check_forward<T>(shape: &AttentionShape, q: &[T], k: &[T], v: &[T], segments: &[usize], out: &[T], lse: &[f32]) {
    shape.check();
    check_packed(shape, q, k, v, segments);
    assert_eq!(out.len(), q.len(), "segmented_attention: q and out differ in length");
    assert_eq!(lse.len() * shape.head_dim, q.len(), "segmented_attention: lse is not one for each query and head");
}

#[track_caller]
fn check_packed<T>(shape: &AttentionShape, q: &[T], k: &[T], v: &[T], segments: &[usize]) {
    let rows: usize = segments.iter().sum();
    assert_eq!(q.len(), rows * shape.query_width(), "attention: q is not the sum of the segments in rows");
    assert_eq!(k.len(), rows * shape.key_width(), "attention: k is not the sum of the segments in rows");
    assert_eq!(v.len(), k.len(), "attention: k and v differ in length");
}

/// Queries at the end of one sequence, with all its keys.
struct Sequence<'a> {
    q: &'a [f32],
    start: usize,
    keys: &'a [f32],
    values: &'a [f32],
    /// Row of the first query in the outputs.
    row: usize,
}

fn run_forward(
    isa: InstructionSet,
    shape: &AttentionShape,
    sequences: &[Sequence<'_>],
    out: SharedOutput<'_>,
    lse: Option<SharedOutput<'_>>,
) {
    let mut tasks = Vec::new();
    let mut work = 0;
    for sequence in sequences {
        let end = sequence.start + sequence.q.len() / shape.query_width();
        work += sequence.q.len() * end;
        let mut first = sequence.start;
        while first < end {
            // Chunks end at tile boundaries, so that all queries of a chunk visit the same tiles.
            let next = (first / KEY_TILE * KEY_TILE + KEY_TILE).min(end);
            for kv_head in 0..shape.kv_heads {
                let from = (first - sequence.start) * shape.query_width();
                tasks.push(ForwardTask {
                    shape,
                    kv_head,
                    first,
                    count: next - first,
                    q: &sequence.q[from..from + (next - first) * shape.query_width()],
                    keys: &sequence.keys[..next * shape.key_width()],
                    values: &sequence.values[..next * shape.key_width()],
                    row: sequence.row + first - sequence.start,
                    out,
                    lse,
                });
            }
            first = next;
        }
    }
    if work < SMALL_WORK {
        for task in tasks {
            dispatch(isa, task);
        }
    } else {
        // The last chunks are the longest: they go first.
        parallel::for_each(tasks.len(), |index| dispatch(isa, tasks[tasks.len() - 1 - index]));
    }
}

/// The gradients of [`segmented_attention`] from its inputs, its results and the gradient `dout` of its output.
///
/// Overwrites `dq`, `dk` and `dv`, which have the shapes of `q`, `k` and `v`.
///
/// # Panics
///
/// When the lengths do not fit together.
#[allow(clippy::too_many_arguments, reason = "a function of eight arrays has eight arrays")]
pub fn segmented_attention_backward<T: Element>(
    shape: &AttentionShape,
    q: &[T],
    k: &[T],
    v: &[T],
    out: &[T],
    lse: &[f32],
    dout: &[T],
    segments: &[usize],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
) {
    let isa = InstructionSet::detect();
    if let Values::F32(q) = T::values(q) {
        let ([k, v, out, dout], [dq, dk, dv]) =
            ([k, v, out, dout].map(bytemuck::cast_slice), [dq, dk, dv].map(bytemuck::cast_slice_mut));
        let forward = Saved { q, k, v, out, lse };
        segmented_attention_backward_with(isa, shape, forward, dout, segments, dq, dk, dv);
        return;
    }
    let ([q, k, v, out, dout], gradients) =
        ([q, k, v, out, dout].map(bytemuck::cast_slice), [dq, dk, dv].map(bytemuck::cast_slice_mut));
    let forward = Saved { q, k, v, out, lse };
    rounded::backward(rounded::Machine::detect(), shape, forward, dout, segments, gradients);
}

/// Inputs and results of the forward pass.
#[derive(Clone, Copy)]
struct Saved<'a, T = f32> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    out: &'a [T],
    lse: &'a [f32],
}

#[track_caller]
fn check_backward<T>(
    shape: &AttentionShape,
    forward: Saved<'_, T>,
    dout: &[T],
    segments: &[usize],
    [dq, dk, dv]: [&[T]; 3],
) {
    shape.check();
    let Saved { q, k, v, out, lse } = forward;
    check_packed(shape, q, k, v, segments);
    for (name, length) in [("out", out.len()), ("dout", dout.len()), ("dq", dq.len())] {
        assert_eq!(length, q.len(), "segmented_attention_backward: q and {name} differ in length");
    }
    for (name, length) in [("dk", dk.len()), ("dv", dv.len())] {
        assert_eq!(length, k.len(), "segmented_attention_backward: k and {name} differ in length");
    }
    assert_eq!(lse.len() * shape.head_dim, q.len(), "segmented_attention_backward: lse is not one for each head");
}

#[allow(clippy::too_many_arguments, reason = "a function of eight arrays has eight arrays")]
fn segmented_attention_backward_with(
    isa: InstructionSet,
    shape: &AttentionShape,
    forward: Saved<'_>,
    dout: &[f32],
    segments: &[usize],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    check_backward(shape, forward, dout, segments, [dq, dk, dv]);
    let Saved { q, k, v, out, lse } = forward;
    let (query_width, key_width) = (shape.query_width(), shape.key_width());
    let (dq, dk, dv) = (SharedOutput::new(dq), SharedOutput::new(dk), SharedOutput::new(dv));
    let mut tasks = Vec::with_capacity(segments.len() * shape.kv_heads);
    let (mut row, mut work) = (0, 0);
    for length in segments {
        let end = row + length;
        work += length * length * query_width;
        for kv_head in 0..shape.kv_heads {
            tasks.push(BackwardTask {
                shape,
                kv_head,
                count: *length,
                q: &q[row * query_width..end * query_width],
                keys: &k[row * key_width..end * key_width],
                values: &v[row * key_width..end * key_width],
                out: &out[row * query_width..end * query_width],
                lse: &lse[row * shape.heads..end * shape.heads],
                dout: &dout[row * query_width..end * query_width],
                row,
                dq,
                dk,
                dv,
            });
        }
        row = end;
    }
    if work < SMALL_WORK {
        for task in tasks {
            dispatch(isa, task);
        }
    } else {
        parallel::for_each(tasks.len(), |index| dispatch(isa, tasks[index]));
    }
}

#[cfg(test)]
mod tests;
