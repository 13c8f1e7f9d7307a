//! Attention of packed rows in plain burn operations: the reference in tests, and the body for devices without our kernels.
//!
//! A block of queries looks at the rows from the first that one of them sees to its own last, so that scores take memory
//! for one block alone; what another sequence or the window hides among them is masked. Blocks begin and end at multiples
//! of [`QUERIES`] and [`KEYS`]: few shapes, for which a device tunes its kernels once. All of it is in f32.

use std::ops::Range;

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use espalier_kernels::ops::{RopeStyle, RopeTable};

use super::{AttentionPlan, HeadNorms, Layout};
use crate::ops::rms_norm::rms_norm_plain;

/// Queries of a block.
pub(crate) const QUERIES: usize = 512;
/// The keys of a block begin at a multiple of so many.
const KEYS: usize = 256;
/// Added to a score that does not count: its probability becomes 0 exactly.
const HIDDEN: f32 = -1e30;

/// Weights of the norms of the heads of q and k, on a device.
#[derive(Clone, Debug)]
pub(crate) struct HeadWeights {
    query: Tensor<1>,
    key: Tensor<1>,
    epsilon: f32,
}

impl HeadWeights {
    pub(crate) fn of(norms: &HeadNorms, device: &Device) -> Self {
        let [query, key] = [&norms.query, &norms.key].map(|weight| Tensor::from_floats(weight.as_slice(), device));
        Self { query, key, epsilon: norms.epsilon }
    }
}

/// Cosines and sines `[1, t, pairs]` of some rows, on a device.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    cosines: Tensor<3>,
    sines: Tensor<3>,
    style: RopeStyle,
}

impl Rotation {
    /// Of rows at the given positions.
    pub(crate) fn of(table: &RopeTable, style: RopeStyle, positions: &[u32], device: &Device) -> Self {
        let (cosines, sines) = table.angles();
        let (t, pairs) = (positions.len(), table.pairs());
        let rows = |angles: &[f32]| {
            let rows = positions.iter().flat_map(|&position| &angles[position as usize * pairs..][..pairs]);
            Tensor::from_data(TensorData::new(rows.copied().collect::<Vec<f32>>(), [1, t, pairs]), device)
        };
        Self { cosines: rows(cosines), sines: rows(sines), style }
    }

    /// Turns the pairs of `x [heads, t, d]`; what lies beyond them stays.
    fn turn(&self, x: Tensor<3>) -> Tensor<3> {
        let ([heads, t, d], pairs) = (x.dims(), self.cosines.dims()[2]);
        let part = |from: usize, to: usize| x.clone().slice([0..heads, 0..t, from..to]);
        let neighbour = |index: usize| {
            let both = part(0, 2 * pairs).reshape([heads, t, pairs, 2]);
            both.slice([0..heads, 0..t, 0..pairs, index..index + 1]).reshape([heads, t, pairs])
        };
        let (a, b) = match self.style {
            RopeStyle::Halves => (part(0, pairs), part(pairs, 2 * pairs)),
            RopeStyle::Interleaved => (neighbour(0), neighbour(1)),
        };
        let (cosines, sines) = (&self.cosines, &self.sines);
        let first = a.clone() * cosines.clone() - b.clone() * sines.clone();
        let second = a * sines.clone() + b * cosines.clone();
        let turned = match self.style {
            RopeStyle::Halves => Tensor::cat(vec![first, second], 2),
            RopeStyle::Interleaved => {
                let pair = [first, second].map(|x| x.reshape([heads, t, pairs, 1]));
                Tensor::cat(pair.to_vec(), 3).reshape([heads, t, 2 * pairs])
            }
        };
        if 2 * pairs == d { turned } else { Tensor::cat(vec![turned, part(2 * pairs, d)], 2) }
    }
}

/// q `[heads, t, d]`, k and v `[kv_heads, t, d]` of `qkv [t, (heads + 2 kv_heads) d]`: q and k normalised and turned.
pub(crate) fn split(
    qkv: &Tensor<2>,
    plan: &AttentionPlan,
    norms: Option<&HeadWeights>,
    rotation: Option<&Rotation>,
) -> [Tensor<3>; 3] {
    let (shape, [t, _]) = (&plan.shape, qkv.dims());
    let (query, key) = (plan.query_width(), plan.key_width());
    let heads = |from: usize, width: usize| {
        let part = qkv.clone().slice([0..t, from..from + width]);
        part.reshape([t, width / shape.head_dim, shape.head_dim]).swap_dims(0, 1)
    };
    let turned = |x: Tensor<3>, weight: fn(&HeadWeights) -> &Tensor<1>| {
        let x = match norms {
            Some(norms) => rms_norm_plain(x, weight(norms), norms.epsilon),
            None => x,
        };
        match rotation {
            Some(rotation) => rotation.turn(x),
            None => x,
        }
    };
    let q = turned(heads(0, query), |norms| &norms.query);
    let k = turned(heads(query, key), |norms| &norms.key);
    [q, k, heads(query + key, key) * plan.value_scale]
}

/// `[heads, t, d]` to `[t, heads d]`.
pub(crate) fn side_by_side(x: Tensor<3>) -> Tensor<2> {
    let [heads, t, d] = x.dims();
    x.swap_dims(0, 1).reshape([t, heads * d])
}

/// Queries that are looked at together.
#[derive(Clone, Debug)]
pub(crate) struct QueryBlock {
    /// Their rows.
    pub(crate) queries: Range<usize>,
    /// The rows of the keys that they may see.
    pub(crate) keys: Range<usize>,
    /// 0 where a query sees a key, [`HIDDEN`] elsewhere: `[1, 1, queries, keys]`.
    mask: Tensor<4>,
}

/// The blocks of packed rows: query `i` sees the keys `j <= i` of its own sequence, with a window those of its last rows.
pub(crate) fn query_blocks(layout: &Layout, window: Option<usize>, device: &Device) -> Vec<QueryBlock> {
    let t = layout.positions.len();
    // The first row that each query sees.
    let seen = |row: usize| {
        let back = (layout.positions[row] as usize).min(window.map_or(usize::MAX, |window| window.saturating_sub(1)));
        row - back
    };
    let block = |first: usize| {
        let queries = first..(first + QUERIES).min(t);
        let lowest = queries.clone().map(seen).min().unwrap_or(first);
        let keys = lowest / KEYS * KEYS..queries.end;
        let hidden: Vec<bool> =
            queries.clone().flat_map(|row| keys.clone().map(move |key| key > row || key < seen(row))).collect();
        let shape = [1, 1, queries.len(), keys.len()];
        let mask = Tensor::<4, Bool>::from_data(TensorData::new(hidden, shape), device).float() * HIDDEN;
        QueryBlock { queries, keys, mask }
    };
    (0..t).step_by(QUERIES).map(block).collect()
}

/// `P [kv_heads, groups queries, keys]` and the parts of q, k and v that it is of.
fn probabilities(qkv: &[Tensor<3>; 3], block: &QueryBlock, scale: f32) -> (Tensor<3>, [Tensor<3>; 3]) {
    let ([heads, _, d], [kv_heads, _, _]) = (qkv[0].dims(), qkv[1].dims());
    let (rows, keys) = (block.queries.len(), block.keys.len());
    let q = qkv[0].clone().slice([0..heads, block.queries.clone(), 0..d]);
    // The heads that share a key lie side by side, so that no key is repeated.
    let q = q.reshape([kv_heads, heads / kv_heads * rows, d]);
    let [k, v] = [&qkv[1], &qkv[2]].map(|x| x.clone().slice([0..kv_heads, block.keys.clone(), 0..d]));
    let scores = q.clone().matmul(k.clone().transpose()) * scale;
    let scores = scores.reshape([kv_heads, heads / kv_heads, rows, keys]) + block.mask.clone();
    (softmax(scores, 3).reshape([kv_heads, heads / kv_heads * rows, keys]), [q, k, v])
}

/// What the queries of one block take from the values, `[heads, queries, d]`.
pub(crate) fn attend(qkv: &[Tensor<3>; 3], block: &QueryBlock, scale: f32) -> Tensor<3> {
    let [heads, _, d] = qkv[0].dims();
    let (p, [_, _, v]) = probabilities(qkv, block, scale);
    p.matmul(v).reshape([heads, block.queries.len(), d])
}

/// The gradients of the block's q, k and v from that of its output: `dq [heads, queries, d]`, `dk` and `dv [kv_heads, keys, d]`.
/// The probabilities are computed again: nothing of their size is kept.
pub(crate) fn attend_backward(qkv: &[Tensor<3>; 3], dout: Tensor<3>, block: &QueryBlock, scale: f32) -> [Tensor<3>; 3] {
    let ([heads, _, d], [kv_heads, _, _]) = (qkv[0].dims(), qkv[1].dims());
    let rows = block.queries.len();
    let (p, [q, k, v]) = probabilities(qkv, block, scale);
    let dout = dout.reshape([kv_heads, heads / kv_heads * rows, d]);
    let dp = dout.clone().matmul(v.transpose());
    let mean = (dp.clone() * p.clone()).sum_dim(2);
    let ds = (dp - mean) * p.clone() * scale;
    let dq = ds.clone().matmul(k).reshape([heads, rows, d]);
    [dq, ds.transpose().matmul(q), p.transpose().matmul(dout)]
}

/// The operation in plain burn operations.
pub fn self_attention_plain(qkv: &Tensor<2>, layout: &Layout, plan: &AttentionPlan) -> Tensor<2> {
    // Constants belong to no tape.
    let device = qkv.clone().without_autodiff().device();
    let norms = plan.head_norms.as_ref().map(|norms| HeadWeights::of(norms, &device));
    let rotation = plan.rope.as_ref().map(|table| Rotation::of(table, plan.style, &layout.positions, &device));
    let parts = split(qkv, plan, norms.as_ref(), rotation.as_ref());
    let blocks = query_blocks(layout, plan.shape.window, &device);
    side_by_side(Tensor::cat(blocks.iter().map(|block| attend(&parts, block, plan.shape.scale)).collect(), 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};

    /// More rows than a block has, in sequences that begin within blocks, and the gradient by formula beside that of the tape.
    #[test]
    fn blocks_have_the_gradient_of_the_tape() {
        let layout = Layout::of_segments(vec![700, 5, 1, 340, 38]);
        let (t, device) = (1084, Device::flex());
        for window in [None, Some(33)] {
            let shape = |heads: usize| [heads, t, 4];
            let make = |seed: u64, heads: usize| {
                Tensor::<3>::from_data(TensorData::new(noise(seed, heads * t * 4), shape(heads)), &device)
            };
            let (qkv, dout) = ([make(1, 4), make(2, 2), make(3, 2)], make(4, 4));
            let taped = qkv.clone().map(|x| x.autodiff().require_grad());
            let blocks = query_blocks(&layout, window, &device);
            assert_eq!(blocks.len(), 3);
            let last = blocks.last().unwrap();
            assert_eq!(last.keys, if window.is_some() { 768..1084 } else { 512..1084 });
            for block in &blocks {
                let dout = dout.clone().slice([0..4, block.queries.clone(), 0..4]);
                let found = attend_backward(&qkv, dout.clone(), block, 0.5);
                let gradients = (attend(&taped, block, 0.5) * dout).sum().backward();
                let parts = [&block.queries, &block.keys, &block.keys];
                for ((found, taped), rows) in found.into_iter().zip(&taped).zip(parts) {
                    let [heads, ..] = found.dims();
                    let expected = taped.grad(&gradients).unwrap().slice([0..heads, rows.clone(), 0..4]);
                    let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
                    assert_close(&values(found), &values(expected), 1e-5, "gradient");
                }
            }
        }
    }
}
