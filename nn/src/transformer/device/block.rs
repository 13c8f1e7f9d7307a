//! One transformer block on a device: forward, and the part of the tape that its backward pass goes through.
//!
//! ```text
//! q k v    = split(QKV(norm(x)))                           before attention, on a tape
//! attended = attention of each block of queries            without a tape: its gradient is a formula
//! y        = a + D(activation(GU(norm(a)))), a = x + O(attended)     behind it, on another
//! ```
//!
//! A block keeps either both tapes for its backward pass, or its input alone and runs again. The bits are the same.

use burn::tensor::{DType, Tensor};

use super::{DeviceLayer, DeviceTransformer};
use crate::ops::frozen_linear::frozen_linear_plain;
use crate::ops::gated_activation::gated_activation_plain;
use crate::ops::lora_linear::{GroupPlan, lora_linear_plain};
use crate::ops::rms_norm::rms_norm_plain;
use crate::ops::self_attention::{
    Layout, QueryBlock, Rotation, attend, attend_backward, query_blocks, side_by_side, split,
};

/// The parameters `[1, p]` of each group of a layer that has updates.
pub(super) type GroupParameters = [Option<Tensor<2>>; 4];

/// Where the rows of a batch stand, on the device: the same for all layers.
#[derive(Debug)]
pub(super) struct Rows {
    rotations: Vec<Rotation>,
    /// For each window of the model.
    queries: Vec<Vec<QueryBlock>>,
}

impl Rows {
    pub(super) fn of(base: &DeviceTransformer, layout: &Layout) -> Self {
        let (style, device) = (base.config.rope_style(), &base.device);
        let rotation = |table| Rotation::of(table, style, &layout.positions, device);
        Self {
            rotations: base.tables.iter().map(|table| rotation(table)).collect(),
            queries: base.windows.iter().map(|window| query_blocks(layout, *window, device)).collect(),
        }
    }
}

/// A layer with the shapes of its updates and the rows at hand.
#[derive(Clone, Copy)]
pub(super) struct BlockPass<'a> {
    pub(super) base: &'a DeviceTransformer,
    pub(super) layer: &'a DeviceLayer,
    pub(super) groups: &'a [Option<GroupPlan>; 4],
    pub(super) rows: &'a Rows,
    pub(super) products: Products,
}

/// How the products with frozen weights come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Products {
    /// Rounded to the type of the weights, as a device does it fastest.
    Rounded,
    /// In f32 from the same rounded factors, as the CPU's kernels do it.
    Wide,
}

/// What the backward pass of a block goes through.
#[derive(Debug)]
pub(super) struct Tape {
    /// The input, once for each of the two tapes; leaves where its gradient is wanted.
    x: [Tensor<2>; 2],
    parameters: GroupParameters,
    qkv: [Tensor<3>; 3],
    attended: Tensor<2>,
    y: Tensor<2>,
}

impl BlockPass<'_> {
    fn project(&self, x: Tensor<2>, at: usize, parameters: &GroupParameters) -> Tensor<2> {
        let product = &self.layer.products[at];
        let (x, weight) = match self.products {
            Products::Rounded => (x, product.weight.clone()),
            Products::Wide => {
                (x.cast(product.weight.dtype()).cast(DType::F32), product.weight.clone().cast(DType::F32))
            }
        };
        match (&self.groups[at], &parameters[at]) {
            (Some(plan), Some(own)) => lora_linear_plain(&x, own, &weight, product.bias.as_ref(), plan),
            _ => frozen_linear_plain(x, &weight, product.bias.as_ref()),
        }
    }

    fn norm(&self, x: Tensor<2>, weight: &Tensor<1>) -> Tensor<2> {
        rms_norm_plain(x, weight, self.base.config.rms_epsilon)
    }

    fn before(&self, x: Tensor<2>, parameters: &GroupParameters) -> [Tensor<3>; 3] {
        let layer = self.layer;
        let qkv = self.project(self.norm(x, &layer.attention_norm), 0, parameters);
        let rotation = layer.table.map(|table| &self.rows.rotations[table]);
        split(&qkv, &layer.attention, layer.head_norms.as_ref(), rotation)
    }

    fn attention(&self, qkv: &[Tensor<3>; 3]) -> Tensor<2> {
        let scale = self.layer.attention.shape.scale;
        let blocks = self.queries().iter().map(|block| attend(qkv, block, scale));
        side_by_side(Tensor::cat(blocks.collect(), 1))
    }

    fn queries(&self) -> &[QueryBlock] {
        &self.rows.queries[self.layer.window]
    }

    fn behind(&self, x: Tensor<2>, attended: Tensor<2>, parameters: &GroupParameters) -> Tensor<2> {
        let (layer, config) = (self.layer, &self.base.config);
        let behind = |x: Tensor<2>, part: usize| match &layer.norms_behind {
            Some(norms) => self.norm(x, &norms[part]),
            None => x,
        };
        let a = x + behind(self.project(attended, 1, parameters), 0);
        let gate_up = self.project(self.norm(a.clone(), &layer.feed_forward_norm), 2, parameters);
        let activated = gated_activation_plain(gate_up, config.activation) * config.scales.residual;
        a + behind(self.project(activated, 3, parameters), 1)
    }

    /// The output, with nothing kept.
    pub(super) fn forward(&self, x: Tensor<2>, parameters: &GroupParameters) -> Tensor<2> {
        let attended = self.attention(&self.before(x.clone(), parameters));
        self.behind(x, attended, parameters)
    }

    /// The output, and what the backward pass needs; `want_dx`: the gradient of `x` too.
    pub(super) fn tape(&self, x: Tensor<2>, parameters: &GroupParameters, want_dx: bool) -> (Tensor<2>, Tape) {
        // Leaves of their own: the two tapes are gone back through one after the other.
        let leaf = || if want_dx { x.clone().autodiff().require_grad() } else { x.clone() };
        let x = [leaf(), leaf()];
        let parameters = parameters.clone().map(|own| own.map(|own| own.autodiff().require_grad()));
        let qkv = self.before(x[0].clone(), &parameters);
        let attended = self.attention(&qkv.clone().map(Tensor::without_autodiff));
        let tracked = qkv.iter().any(Tensor::is_tracked);
        let attended = if tracked { attended.autodiff().require_grad() } else { attended };
        let y = self.behind(x[1].clone(), attended.clone(), &parameters);
        (y.clone().without_autodiff(), Tape { x, parameters, qkv, attended, y })
    }

    /// The gradients of `x`, where it is wanted, and of the parameters.
    pub(super) fn backward(&self, tape: Tape, dy: Tensor<2>) -> (Option<Tensor<2>>, GroupParameters) {
        let Tape { x: [before, behind], parameters, qkv, attended, y } = tape;
        let gradients = (y * dy).sum().backward();
        let mut found: GroupParameters = Default::default();
        for (found, leaf) in found.iter_mut().zip(&parameters).skip(1) {
            *found = leaf.as_ref().and_then(|leaf| leaf.grad(&gradients));
        }
        let beside = behind.grad(&gradients);
        let Some(dattended) = attended.grad(&gradients) else { return (beside, found) };
        drop((gradients, attended));
        let dqkv = self.attention_backward(&qkv.clone().map(Tensor::without_autodiff), dattended);
        let parts = qkv.into_iter().zip(dqkv).filter(|(part, _)| part.is_tracked());
        let Some(sum) = parts.map(|(part, gradient)| (part * gradient).sum()).reduce(|one, other| one + other) else {
            return (beside, found);
        };
        let gradients = sum.backward();
        found[0] = parameters[0].as_ref().and_then(|leaf| leaf.grad(&gradients));
        let dx = match (beside, before.grad(&gradients)) {
            (Some(beside), Some(through)) => Some(beside + through),
            (one, other) => one.or(other),
        };
        (dx, found)
    }

    fn attention_backward(&self, qkv: &[Tensor<3>; 3], dattended: Tensor<2>) -> [Tensor<3>; 3] {
        let ([heads, t, d], [kv_heads, _, _]) = (qkv[0].dims(), qkv[1].dims());
        let dattended = dattended.reshape([t, heads, d]).swap_dims(0, 1);
        let [mut dk, mut dv] = [&qkv[1], &qkv[2]].map(Tensor::zeros_like);
        let mut dq = Vec::new();
        for block in self.queries() {
            let dout = dattended.clone().slice([0..heads, block.queries.clone(), 0..d]);
            let [own_q, own_k, own_v] = attend_backward(qkv, dout, block, self.layer.attention.shape.scale);
            dq.push(own_q);
            let keys = [0..kv_heads, block.keys.clone(), 0..d];
            for (all, own) in [(&mut dk, own_k), (&mut dv, own_v)] {
                let sum = all.clone().slice(keys.clone()) + own;
                *all = all.clone().slice_assign(keys.clone(), sum);
            }
        }
        [Tensor::cat(dq, 1), dk, dv]
    }
}
