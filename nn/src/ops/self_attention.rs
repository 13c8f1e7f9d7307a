//! Rotary positions and block-diagonal causal attention of packed sequences, as one operation.
//!
//! The input row is the product of the q, k and v projections side by side. q and k are rotated to their positions, then
//! for query `i` and keys `j <= i` of the same sequence `P_ij = exp(scale q_i k_j - lse_i)`, `o_i = sum_j P_ij v_j`.
//! Backward: `D_i = o_i do_i`, `dS_ij = P_ij (do_i v_j - D_i)`, `dq_i = scale sum_j dS_ij k_j`,
//! `dk_j = scale sum_i dS_ij q_i`, `dv_j = sum_i P_ij do_i`, then the rotation is turned back. Saves the rotated q and k,
//! v, the output and `lse`: nothing of size `t x t`.

mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::ops::{
    AttentionShape, Direction, RopeStyle, RopeTable, rms_norm, rms_norm_backward, rope, segmented_attention,
    segmented_attention_backward,
};
use espalier_kernels::{Element, Values};
use rayon::prelude::*;

pub use self::plain::self_attention_plain;
pub(crate) use self::plain::{
    HeadWeights, QUERIES, QueryBlock, Rotation, attend, attend_backward, query_blocks, side_by_side, split,
};
use crate::storage::{rows, tensor, values};

/// The attention of a layer.
pub struct AttentionPlan {
    /// Heads, the scale of the scores and the window.
    pub shape: AttentionShape,
    /// Norms of the heads of q and k before they are rotated.
    pub head_norms: Option<HeadNorms>,
    /// Angles by position, in a layer that is rotated.
    pub rope: Option<Arc<RopeTable>>,
    /// Which elements of a head turn together.
    pub style: RopeStyle,
    /// What the values are multiplied by.
    pub value_scale: f32,
}

/// Weights of the norms of each head.
#[derive(Debug)]
pub struct HeadNorms {
    /// Of the queries `[d]`.
    pub query: Vec<f32>,
    /// Of the keys `[d]`.
    pub key: Vec<f32>,
    /// Added to the mean square.
    pub epsilon: f32,
}

impl std::fmt::Debug for AttentionPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttentionPlan").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl AttentionPlan {
    /// Width of a row of queries.
    pub(crate) fn query_width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// Width of a row of keys, and of values.
    pub(crate) fn key_width(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }

    /// Whether the gradient needs q and k as they were before their norms.
    pub(crate) fn keeps_input(&self) -> bool {
        self.head_norms.is_some()
    }

    /// Parts the rows of `qkv`, normalises the heads of q and k and turns them to their positions; rounds at the end.
    ///
    /// Where it rounds, the mean key of a sequence goes from its keys first: attention is the same without it, and what
    /// the keys share (a large bias, in some models) would else take the bits that tell them apart.
    pub(crate) fn split<T: Element>(&self, qkv: &[f32], layout: &Layout, q: &mut [T], k: &mut [T], v: &mut [T]) {
        let (query, key) = (self.query_width(), self.key_width());
        let rounds = matches!(T::values(&[]), Values::Bf16(_));
        let means = if rounds { self.mean_keys(qkv, layout) } else { Vec::new() };
        let counted = layout.segments.iter().enumerate();
        let sequences: Vec<usize> = counted.flat_map(|(index, &length)| std::iter::repeat_n(index, length)).collect();
        qkv.par_chunks(ROWS * (query + 2 * key))
            .zip(layout.positions.par_chunks(ROWS).zip(sequences.par_chunks(ROWS)))
            .zip(q.par_chunks_mut(ROWS * query))
            .zip(k.par_chunks_mut(ROWS * key).zip(v.par_chunks_mut(ROWS * key)))
            .for_each_init(
                || vec![0.0; ROWS * query.max(key)],
                |part, (((qkv, (positions, sequences)), q), (k, v))| {
                    let part_of_q = &mut part[..q.len()];
                    self.turned_part(qkv, 0, positions, part_of_q);
                    T::round_all(part_of_q, q);
                    let part_of_k = &mut part[..k.len()];
                    self.turned_part(qkv, query, positions, part_of_k);
                    if rounds {
                        for (part, sequence) in part_of_k.chunks_exact_mut(key).zip(sequences) {
                            let mean = &means[sequence * key..][..key];
                            part.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
                        }
                    }
                    T::round_all(part_of_k, k);
                    for (row, v) in qkv.chunks_exact(query + 2 * key).zip(v.chunks_exact_mut(key)) {
                        let part = &mut part[..key];
                        part.copy_from_slice(&row[query + key..]);
                        scale(part, self.value_scale);
                        T::round_all(part, v);
                    }
                },
            );
    }

    /// The mean of the turned keys of each sequence `[sequences, key width]`, summed from its first row to its last.
    fn mean_keys(&self, qkv: &[f32], layout: &Layout) -> Vec<f32> {
        let (query, key, head_dim) = (self.query_width(), self.key_width(), self.shape.head_dim);
        let all = query + 2 * key;
        let starts: Vec<usize> =
            layout.segments.iter().scan(0, |next, &length| Some(std::mem::replace(next, *next + length))).collect();
        let mut means = vec![0.0; layout.segments.len() * key];
        means.par_chunks_exact_mut(head_dim).enumerate().for_each_init(
            || vec![0.0; ROWS * head_dim],
            |part, (index, mean)| {
                let (sequence, head) = (index * head_dim / key, index % self.shape.kv_heads);
                let (start, length) = (starts[sequence], layout.segments[sequence]);
                for first in (start..start + length).step_by(ROWS) {
                    let rows = first..(first + ROWS).min(start + length);
                    let part = &mut part[..rows.len() * head_dim];
                    let qkv = &qkv[rows.start * all..rows.end * all];
                    self.turned_part(qkv, query + head * head_dim, &layout.positions[rows], part);
                    for row in part.chunks_exact(head_dim) {
                        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                    }
                }
                scale(mean, 1.0 / length.max(1) as f32);
            },
        );
        means
    }

    /// Whole heads of some rows, from a column of q or of k on: normalised and turned.
    fn turned_part(&self, qkv: &[f32], column: usize, positions: &[u32], part: &mut [f32]) {
        let (all, width) = (self.query_width() + 2 * self.key_width(), part.len() / positions.len());
        for (row, part) in qkv.chunks_exact(all).zip(part.chunks_exact_mut(width)) {
            let row = &row[column..column + width];
            match &self.head_norms {
                Some(norms) => {
                    let weight = if column < self.query_width() { &norms.query } else { &norms.key };
                    rms_norm(row, weight, norms.epsilon, part);
                }
                None => part.copy_from_slice(row),
            }
        }
        self.turn(part, positions, Direction::Forward);
    }

    /// Turns rows of whole heads to their positions or back.
    fn turn(&self, x: &mut [f32], positions: &[u32], direction: Direction) {
        if let Some(table) = &self.rope {
            let head_dim = self.shape.head_dim;
            rope(x, x.len() / (positions.len() * head_dim), head_dim, positions, table, self.style, direction);
        }
    }

    /// The gradient of [`Self::split`]: turns `dq` and `dk` back and puts the rows together. `qkv` is what was parted, and
    /// is looked at only if the plan [keeps it](Self::keeps_input).
    pub(crate) fn join<T: Element>(&self, qkv: &[f32], [dq, dk, dv]: [&[T]; 3], positions: &[u32], dqkv: &mut [T]) {
        let (query, key) = (self.query_width(), self.key_width());
        let all = query + 2 * key;
        dqkv.par_chunks_mut(ROWS * all)
            .zip(positions.par_chunks(ROWS))
            .zip(dq.par_chunks(ROWS * query))
            .zip(dk.par_chunks(ROWS * key).zip(dv.par_chunks(ROWS * key)))
            .enumerate()
            .for_each_init(
                || [vec![0.0; ROWS * query.max(key)], vec![0.0; all]],
                |[part, row], (index, (((rows, positions), dq), (dk, dv)))| {
                    let qkv = if self.keeps_input() { &qkv[index * ROWS * all..][..rows.len()] } else { &[] };
                    let norms = self.head_norms.as_ref();
                    for (column, from, weight) in
                        [(0, dq, norms.map(|norms| &norms.query)), (query, dk, norms.map(|norms| &norms.key))]
                    {
                        let (part, width) = (&mut part[..from.len()], from.len() / positions.len());
                        T::widen_all(from, part);
                        self.turn(part, positions, Direction::Backward);
                        for (index, part) in part.chunks_exact(width).enumerate() {
                            let to = &mut rows[index * all + column..][..width];
                            match (weight, norms) {
                                (Some(weight), Some(norms)) => {
                                    let x = &qkv[index * all + column..][..width];
                                    rms_norm_backward(x, weight, norms.epsilon, part, &mut row[..width]);
                                    T::round_all(&row[..width], to);
                                }
                                _ => T::round_all(part, to),
                            }
                        }
                    }
                    for (rows, dv) in rows.chunks_exact_mut(all).zip(dv.chunks_exact(key)) {
                        let part = &mut part[..key];
                        T::widen_all(dv, part);
                        scale(part, self.value_scale);
                        T::round_all(part, &mut rows[query + key..]);
                    }
                },
            );
    }
}

/// Rows that are parted or put together at a time: they stay in the first-level cache.
const ROWS: usize = 8;

/// Multiplies all values; a factor of 1 leaves them alone.
pub(crate) fn scale(values: &mut [f32], factor: f32) {
    if factor.to_bits() != 1.0_f32.to_bits() {
        for value in values {
            *value *= factor;
        }
    }
}

/// Where packed rows stand: sequences one after another.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Position of each row in its sequence.
    pub positions: Arc<Vec<u32>>,
    /// Lengths of the sequences; they sum to the number of rows.
    pub segments: Arc<Vec<usize>>,
}

impl Layout {
    /// Sequences of the given lengths, each from position 0.
    pub fn of_segments(segments: Vec<usize>) -> Self {
        let positions = segments.iter().flat_map(|&length| 0..length as u32).collect();
        Self { positions: Arc::new(positions), segments: Arc::new(segments) }
    }
}

/// The operation for burn's backends; call [`self_attention`].
#[backend_extension(Autodiff, Flex)]
pub trait SelfAttentionOperation: Backend {
    /// `qkv [t, (heads + 2 kv_heads) d]` to `[t, heads d]`.
    fn self_attention(qkv: FloatTensor<Self>, layout: Layout, plan: Arc<AttentionPlan>) -> FloatTensor<Self>;
}

/// Attention of packed rows `qkv [t, (heads + 2 kv_heads) d]` to `[t, heads d]`.
pub fn self_attention(qkv: Tensor<2>, layout: &Layout, plan: &Arc<AttentionPlan>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as SelfAttentionOperation>::self_attention(
        qkv.into_dispatch(),
        layout.clone(),
        Arc::clone(plan),
    ))
}

#[derive(Clone, Debug)]
struct Saved {
    /// Where the plan keeps it.
    qkv: Option<FlexTensor>,
    q: Arc<Vec<f32>>,
    k: Arc<Vec<f32>>,
    v: Arc<Vec<f32>>,
    out: FlexTensor,
    lse: Arc<Vec<f32>>,
    layout: Layout,
    plan: Arc<AttentionPlan>,
}

fn forward(qkv: FlexTensor, layout: Layout, plan: Arc<AttentionPlan>) -> Saved {
    let (t, query, key) = (rows(&qkv), plan.query_width(), plan.key_width());
    let (mut q, mut k, mut v) = (vec![0.0; t * query], vec![0.0; t * key], vec![0.0; t * key]);
    plan.split(&values(&qkv), &layout, &mut q, &mut k, &mut v);
    let (mut out, mut lse) = (vec![0.0; t * query], vec![0.0; t * plan.shape.heads]);
    segmented_attention(&plan.shape, &q, &k, &v, &layout.segments, &mut out, &mut lse);
    Saved {
        qkv: plan.keeps_input().then_some(qkv),
        q: Arc::new(q),
        k: Arc::new(k),
        v: Arc::new(v),
        out: tensor(out, [t, query]),
        lse: Arc::new(lse),
        layout,
        plan,
    }
}

impl SelfAttentionOperation for Flex {
    fn self_attention(qkv: FloatTensor<Self>, layout: Layout, plan: Arc<AttentionPlan>) -> FloatTensor<Self> {
        forward(qkv, layout, plan).out
    }
}

#[derive(Debug)]
struct SelfAttentionBackward;

impl Backward<Flex, 1> for SelfAttentionBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dout = gradients.consume::<Flex>(&ops.node);
        let Saved { qkv, q, k, v, out, lse, layout, plan } = ops.state;
        let [Some(parent)] = ops.parents else { return };
        let (t, query, key) = (rows(&out), plan.query_width(), plan.key_width());
        let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|values| vec![0.0; values.len()]);
        segmented_attention_backward(
            &plan.shape,
            &q,
            &k,
            &v,
            &values(&out),
            &lse,
            &values(&dout),
            &layout.segments,
            &mut dq,
            &mut dk,
            &mut dv,
        );
        let mut gradient = vec![0.0; t * (query + 2 * key)];
        let qkv = qkv.as_ref().map(values);
        plan.join(qkv.as_deref().unwrap_or_default(), [&dq, &dk, &dv], &layout.positions, &mut gradient);
        gradients.register::<Flex>(parent.id, tensor(gradient, [t, query + 2 * key]));
    }
}

impl<C: CheckpointStrategy> SelfAttentionOperation for Autodiff<Flex, C> {
    fn self_attention(qkv: FloatTensor<Self>, layout: Layout, plan: Arc<AttentionPlan>) -> FloatTensor<Self> {
        let node = qkv.node();
        let saved = forward(qkv.into_primitive(), layout, plan);
        let out = saved.out.clone();
        match SelfAttentionBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(saved, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, noise};
    use espalier_kernels::bf16;

    #[test]
    fn equals_the_plain_operations_and_finite_differences() {
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 8, scale: 0.35, window: None };
            let rope = Some(Arc::new(RopeTable::new(8, 8, 1e4, None, 16)));
            check(AttentionPlan { shape, head_norms: None, rope, style, value_scale: 1.0 });
        }
    }

    #[test]
    fn so_do_norms_of_heads_windows_and_layers_without_positions() {
        let weight = |seed| noise(seed, 8).iter().map(|x| 1.0 + 0.3 * x).collect();
        for (window, turned, value_scale) in [(Some(2), true, 1.0), (Some(1), false, 0.22), (None, true, 0.5)] {
            let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 8, scale: 0.35, window };
            let head_norms = Some(HeadNorms { query: weight(13), key: weight(14), epsilon: 1e-5 });
            let rope = turned.then(|| Arc::new(RopeTable::new(8, 8, 1e4, None, 16)));
            check(AttentionPlan { shape, head_norms, rope, style: RopeStyle::Halves, value_scale });
        }
    }

    /// Keys with a large bias in common, as those of Qwen2 have, lose no more to the rounding than others.
    #[test]
    fn what_keys_share_costs_no_bits() {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16, scale: 0.25, window: None };
        let rope = Some(Arc::new(RopeTable::new(16, 16, 1e6, None, 32)));
        let plan = AttentionPlan { shape, head_norms: None, rope, style: RopeStyle::Halves, value_scale: 1.0 };
        let layout = Layout::of_segments(vec![19, 0, 30, 1]);
        let attended = |qkv: &[f32]| {
            let (mut exact, mut lse) = (vec![0.0; 50 * 64], vec![0.0; 50 * 4]);
            let [mut q, mut k, mut v] = [64, 32, 32].map(|width| vec![0.0; 50 * width]);
            plan.split(qkv, &layout, &mut q, &mut k, &mut v);
            segmented_attention(&shape, &q, &k, &v, &layout.segments, &mut exact, &mut lse);
            let mut rounded = vec![bf16::ZERO; 50 * 64];
            let [mut q, mut k, mut v] = [64, 32, 32].map(|width| vec![bf16::ZERO; 50 * width]);
            plan.split(qkv, &layout, &mut q, &mut k, &mut v);
            segmented_attention(&shape, &q, &k, &v, &layout.segments, &mut rounded, &mut lse);
            let squares = exact.iter().zip(&rounded).map(|(exact, rounded)| (exact - rounded.widen()).powi(2));
            (squares.sum::<f32>() / exact.iter().map(|value| value * value).sum::<f32>()).sqrt()
        };
        let mut qkv = noise(15, 50 * 128);
        let alone = attended(&qkv);
        // The slow pairs of a head hardly turn.
        for row in qkv.chunks_exact_mut(128) {
            for head in [64, 80] {
                row[head + 7] += 60.0;
                row[head + 14] -= 90.0;
            }
        }
        let biased = attended(&qkv);
        assert!(alone < 0.005 && biased < 0.01, "{alone} of the norm without the bias, {biased} with it");
    }

    fn check(plan: AttentionPlan) {
        let (plan, layout) = (Arc::new(plan), Layout::of_segments(vec![3, 1, 5]));
        check_against_plain(
            &[(noise(12, 9 * 64), [9, 64])],
            |inputs| self_attention(inputs[0].clone(), &layout, &plan),
            |inputs| self_attention_plain(&inputs[0], &layout, &plan),
        );
    }
}
