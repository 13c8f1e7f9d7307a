//! Rotary positions and block-diagonal causal attention of packed sequences, as one operation.
//!
//! The input row is the product of the q, k and v projections side by side. q and k are rotated to their positions, then
//! for query `i` and keys `j <= i` of the same sequence `P_ij = exp(scale q_i k_j - lse_i)`, `o_i = sum_j P_ij v_j`.
//! Backward: `D_i = o_i do_i`, `dS_ij = P_ij (do_i v_j - D_i)`, `dq_i = scale sum_j dS_ij k_j`,
//! `dk_j = scale sum_i dS_ij q_i`, `dv_j = sum_i P_ij do_i`, then the rotation is turned back. Saves the rotated q and k,
//! v, the output and `lse`: nothing of size `t x t`.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Bool, Tensor, TensorData};
use burn_flex::FlexTensor;
use espalier_kernels::Element;
use espalier_kernels::ops::{
    AttentionShape, Direction, RopeStyle, RopeTable, rms_norm, rms_norm_backward, rope, segmented_attention,
    segmented_attention_backward,
};
use rayon::prelude::*;

use super::rms_norm::rms_norm_plain;
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
    pub(crate) fn split<T: Element>(&self, qkv: &[f32], positions: &[u32], q: &mut [T], k: &mut [T], v: &mut [T]) {
        let (query, key) = (self.query_width(), self.key_width());
        qkv.par_chunks(ROWS * (query + 2 * key))
            .zip(positions.par_chunks(ROWS))
            .zip(q.par_chunks_mut(ROWS * query))
            .zip(k.par_chunks_mut(ROWS * key).zip(v.par_chunks_mut(ROWS * key)))
            .for_each_init(
                || vec![0.0; ROWS * query.max(key)],
                |part, (((qkv, positions), q), (k, v))| {
                    let norms = self.head_norms.as_ref();
                    self.turned_part(qkv, 0, positions, norms.map(|norms| &*norms.query), part, q);
                    self.turned_part(qkv, query, positions, norms.map(|norms| &*norms.key), part, k);
                    for (row, v) in qkv.chunks_exact(query + 2 * key).zip(v.chunks_exact_mut(key)) {
                        let part = &mut part[..key];
                        part.copy_from_slice(&row[query + key..]);
                        scale(part, self.value_scale);
                        T::round_all(part, v);
                    }
                },
            );
    }

    /// The part of some rows that begins at a column: normalised by heads, turned, rounded. `part` is scratch.
    fn turned_part<T: Element>(
        &self,
        qkv: &[f32],
        column: usize,
        positions: &[u32],
        norm: Option<&[f32]>,
        part: &mut [f32],
        to: &mut [T],
    ) {
        let (all, width) = (self.query_width() + 2 * self.key_width(), to.len() / positions.len());
        let part = &mut part[..to.len()];
        for (row, part) in qkv.chunks_exact(all).zip(part.chunks_exact_mut(width)) {
            let row = &row[column..column + width];
            match (norm, &self.head_norms) {
                (Some(weight), Some(norms)) => rms_norm(row, weight, norms.epsilon, part),
                _ => part.copy_from_slice(row),
            }
        }
        self.turn(part, positions, Direction::Forward);
        T::round_all(part, to);
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

/// Rotation in plain burn operations, `x [t, heads d]`: `x cos + partner(x) sin`, the partner signed and found by a
/// fixed matrix.
fn rope_plain(x: Tensor<2>, heads: usize, layout: &Layout, plan: &AttentionPlan) -> Tensor<2> {
    let Some(table) = &plan.rope else { return x };
    let (d, t, device) = (plan.shape.head_dim, layout.positions.len(), x.device());
    // The kernel itself turns the unit vectors, so that angles have one definition: row p of `turned` holds R_p.
    let mut unit = vec![0.0; t * d * d];
    for row in unit.chunks_exact_mut(d * d) {
        for i in 0..d {
            row[i * d + i] = 1.0;
        }
    }
    rope(&mut unit, d, d, &layout.positions, table, plan.style, Direction::Forward);
    let turned = Tensor::<3>::from_data(TensorData::new(unit, [t, d, d]), &device);
    x.reshape([t, heads, d]).matmul(turned).reshape([t, heads * d])
}

/// The same in plain burn operations, with all scores: for tests, and for devices without our kernels.
pub fn self_attention_plain(qkv: &Tensor<2>, layout: &Layout, plan: &AttentionPlan) -> Tensor<2> {
    let (shape, t, device) = (&plan.shape, layout.positions.len(), qkv.device());
    let (d, groups) = (shape.head_dim, shape.heads / shape.kv_heads);
    let (query, key) = (plan.query_width(), plan.key_width());
    let part = |from: usize, width: usize| qkv.clone().slice([0..t, from..from + width]);
    let by_head = |x: Tensor<2>, heads: usize| x.reshape([t, heads, d]).swap_dims(0, 1);
    let repeated = |x: Tensor<2>| {
        let x = by_head(x, shape.kv_heads).reshape([shape.kv_heads, 1, t, d]);
        x.repeat_dim(1, groups).reshape([shape.heads, t, d])
    };
    let normed = |x: Tensor<2>, weight: fn(&HeadNorms) -> &[f32]| match &plan.head_norms {
        Some(norms) => {
            let [rows, width] = x.dims();
            rms_norm_plain(x.reshape([rows * width / d, d]), weight(norms), norms.epsilon).reshape([rows, width])
        }
        None => x,
    };
    let (q, k) = (normed(part(0, query), |norms| &norms.query), normed(part(query, key), |norms| &norms.key));
    let q = by_head(rope_plain(q, shape.heads, layout, plan), shape.heads);
    let k = repeated(rope_plain(k, shape.kv_heads, layout, plan));
    let v = repeated(part(query + key, key) * plan.value_scale);
    let window = shape.window.unwrap_or(t);
    let sequence: Vec<usize> =
        layout.segments.iter().enumerate().flat_map(|(index, &length)| std::iter::repeat_n(index, length)).collect();
    let hidden: Vec<bool> = (0..t * t)
        .map(|at| at % t > at / t || at % t + window <= at / t || sequence[at % t] != sequence[at / t])
        .collect();
    let mask = Tensor::<3, Bool>::from_data(TensorData::new(hidden, [1, t, t]), &device).repeat_dim(0, shape.heads);
    let scores = (q.matmul(k.transpose()) * shape.scale).mask_fill(mask, -1e30);
    let out = burn::tensor::activation::softmax(scores, 2).matmul(v);
    out.swap_dims(0, 1).reshape([t, query])
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
    plan.split(&values(&qkv), &layout.positions, &mut q, &mut k, &mut v);
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

    fn check(plan: AttentionPlan) {
        let (plan, layout) = (Arc::new(plan), Layout::of_segments(vec![3, 1, 5]));
        check_against_plain(
            &[(noise(12, 9 * 64), [9, 64])],
            |inputs| self_attention(inputs[0].clone(), &layout, &plan),
            |inputs| self_attention_plain(&inputs[0], &layout, &plan),
        );
    }
}
