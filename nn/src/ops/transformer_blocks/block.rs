//! One transformer block: forward, and backward from what it kept.

use std::ops::Range;
use std::sync::Arc;

use espalier_kernels::ops::{
    GatedActivation, rms_norm, rms_norm_backward, rms_norm_backward_beside, segmented_attention,
    segmented_attention_backward,
};
use espalier_kernels::{Accumulate, Element, Precision, Values, ValuesMut, bf16};
use rayon::prelude::*;

use crate::ops::frozen_linear::FrozenLinear;
use crate::ops::gated_activation::{activation_rows, activation_rows_backward};
use crate::ops::lora_linear::LoraGroup;
use crate::ops::self_attention::{AttentionPlan, Layout};
use crate::pool::{Buffer, Pool, Rows};
use crate::profile::{Cost, Operation, timed};

/// Values that one thread adds at a time.
const ADD_CHUNK: usize = 1 << 14;

/// A frozen product of a block, with the low-rank updates beside it if there are any.
#[derive(Debug)]
pub struct BlockProjection {
    /// The frozen product.
    pub frozen: Arc<FrozenLinear>,
    /// Its updates.
    pub adapted: Option<Adapted>,
}

/// Low-rank updates and their place among the parameters of the block.
#[derive(Debug)]
pub struct Adapted {
    /// The updates.
    pub group: Arc<LoraGroup>,
    /// Their parameters.
    pub parameters: Range<usize>,
}

impl BlockProjection {
    /// Values that the forward pass keeps for the backward pass.
    fn saved_count(&self, t: usize) -> usize {
        self.adapted.as_ref().map_or(0, |adapted| adapted.group.saved_count(t))
    }

    fn forward(
        &self,
        x: Values<'_>,
        all: &[f32],
        t: usize,
        saved: &mut [f32],
        mut y: ValuesMut<'_>,
        accumulate: Accumulate,
    ) {
        if let Some(Adapted { group, parameters }) = &self.adapted {
            group.forward(x, &all[parameters.clone()], t, saved, y, accumulate);
        } else {
            self.frozen.product(x, t, y.reborrow(), accumulate);
            self.frozen.add_bias(y);
        }
    }

    /// Overwrites `dx` and this projection's part of `gradient`.
    fn backward(
        &self,
        dy: Values<'_>,
        (x, saved): (Values<'_>, &[f32]),
        (all, gradient): (&[f32], &mut [f32]),
        t: usize,
        dx: Option<ValuesMut<'_>>,
        pool: &Pool,
    ) {
        match (&self.adapted, dx) {
            (Some(Adapted { group, parameters }), dx) => {
                let place = parameters.clone();
                group.backward(dy, (x, saved), &all[place.clone()], t, &mut gradient[place], dx, pool);
            }
            (None, Some(dx)) => self.frozen.product_transposed(dy, t, dx),
            (None, None) => {}
        }
    }
}

/// What stays the same in every call of [`transformer_blocks`](super::transformer_blocks) on one layer.
#[derive(Debug)]
pub struct Block {
    /// Weight of the norm before attention.
    pub attention_norm: Arc<Vec<f32>>,
    /// Weight of the norm before the feed-forward part.
    pub feed_forward_norm: Arc<Vec<f32>>,
    /// Weights of norms behind attention and behind the feed-forward part, before the residual stream is added.
    pub norms_behind: Option<[Arc<Vec<f32>>; 2]>,
    /// Added to the mean square in all norms.
    pub epsilon: f32,
    /// What the gate goes through.
    pub activation: GatedActivation,
    /// What the feed-forward part is multiplied by; that of attention stands in its plan.
    pub residual_scale: f32,
    /// q k v side by side; the projection behind attention; gate and up side by side; the projection back.
    pub projections: [BlockProjection; 4],
    /// Heads and rotation.
    pub attention: Arc<AttentionPlan>,
    /// The block's updates among the parameters of all blocks.
    pub parameters: Range<usize>,
}

/// What the backward pass of a block needs besides the parameters.
#[derive(Debug)]
pub(super) struct Activations {
    x: Buffer,
    /// Where the attention's plan keeps it.
    qkv: Option<Buffer>,
    /// In the precision of the products, as the three below.
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    lse: Buffer,
    middle: Buffer,
    /// In the precision of the products.
    gate_up: Buffer,
    /// What attention and the feed-forward part give to the norms behind them.
    added: Option<[Buffer; 2]>,
    u: [Buffer; 4],
}

fn norm<T: Element>(x: &[f32], weight: &[f32], epsilon: f32, pool: &Pool) -> Rows<T> {
    let mut out = pool.rows(x.len());
    timed(Operation::Norms, Cost::values(x.len() + T::words(x.len())), || rms_norm(x, weight, epsilon, &mut out));
    out
}

/// The gradient of [`norm`], added to that of the residual stream beside it.
fn norm_backward<T: Element>(x: &[f32], weight: &[f32], epsilon: f32, dy: &[T], beside: &[f32], pool: &Pool) -> Buffer {
    let mut dx = pool.take(x.len());
    timed(Operation::Norms, Cost::values(3 * x.len() + T::words(x.len())), || {
        rms_norm_backward_beside(x, weight, epsilon, dy, beside, &mut dx);
    });
    dx
}

fn sum(one: &[f32], other: &[f32], pool: &Pool) -> Buffer {
    let mut sum = pool.take(one.len());
    timed(Operation::Additions, Cost::values(3 * sum.len()), || {
        let both = one.par_chunks(ADD_CHUNK).zip(other.par_chunks(ADD_CHUNK));
        sum.par_chunks_mut(ADD_CHUNK).zip(both).for_each(|(sum, (one, other))| {
            for (sum, (one, other)) in sum.iter_mut().zip(one.iter().zip(other)) {
                *sum = one + other;
            }
        });
    });
    sum
}

fn scale_all<T: Element>(values: &mut [T], factor: f32) {
    if factor.to_bits() != 1.0_f32.to_bits() {
        values.par_chunks_mut(ADD_CHUNK).for_each(|values| {
            for value in values {
                *value = T::round(value.widen() * factor);
            }
        });
    }
}

pub(super) fn copy(from: &[f32], pool: &Pool) -> Buffer {
    let mut out = pool.take(from.len());
    timed(Operation::Additions, Cost::values(2 * from.len()), || {
        out.par_chunks_mut(ADD_CHUNK).zip(from.par_chunks(ADD_CHUNK)).for_each(|(out, from)| out.copy_from_slice(from));
    });
    out
}

impl Block {
    /// The output, and what its backward pass needs. What lies between two products has their precision.
    pub(super) fn forward(&self, x: Buffer, parameters: &[f32], layout: &Layout, pool: &Pool) -> (Buffer, Activations) {
        match self.precision() {
            Precision::F32 => self.forward_as::<f32>(x, parameters, layout, pool),
            Precision::Bf16 => self.forward_as::<bf16>(x, parameters, layout, pool),
        }
    }

    /// The gradient of the parameters into `gradient`, and that of `x` when it is wanted.
    pub(super) fn backward(
        &self,
        dy: &[f32],
        saved: &Activations,
        both: (&[f32], &mut [f32]),
        layout: &Layout,
        want_dx: bool,
        pool: &Pool,
    ) -> Option<Buffer> {
        match self.precision() {
            Precision::F32 => self.backward_as::<f32>(dy, saved, both, layout, want_dx, pool),
            Precision::Bf16 => self.backward_as::<bf16>(dy, saved, both, layout, want_dx, pool),
        }
    }

    fn precision(&self) -> Precision {
        self.projections[2].frozen.precision()
    }

    fn forward_as<T: Element>(
        &self,
        x: Buffer,
        parameters: &[f32],
        layout: &Layout,
        pool: &Pool,
    ) -> (Buffer, Activations) {
        let (t, plan) = (layout.positions.len(), &self.attention);
        let (query, key) = (plan.query_width(), plan.key_width());
        let [qkv_projection, out_projection, gate_up_projection, down_projection] = &self.projections;
        let mut u = self.projections.each_ref().map(|projection| pool.take(projection.saved_count(t)));

        let normed: Rows<T> = norm(&x, &self.attention_norm, self.epsilon, pool);
        let mut qkv = pool.take(t * (query + 2 * key));
        let (from, into) = (T::values(&normed), ValuesMut::F32(&mut qkv));
        qkv_projection.forward(from, parameters, t, &mut u[0], into, Accumulate::Overwrite);
        drop(normed);
        let [mut q, mut k, mut v]: [Rows<T>; 3] = [query, key, key].map(|width| pool.rows(t * width));
        timed(Operation::Rotation, Cost::values(qkv.len() + T::words(qkv.len())), || {
            plan.split(&qkv, layout, &mut q, &mut k, &mut v);
        });
        let qkv = plan.keeps_input().then_some(qkv);
        let (mut attended, mut lse): (Rows<T>, _) = (pool.rows(t * query), pool.take(t * plan.shape.heads));
        timed(Operation::AttentionForward, self.attention_cost::<T>(layout, 2), || {
            segmented_attention(&plan.shape, &q, &k, &v, &layout.segments, &mut attended, &mut lse);
        });
        let (middle, added_by_attention) = self.add_to_stream(0, &x, pool, |y, accumulate| {
            let (from, into) = (T::values(&attended), ValuesMut::F32(y));
            out_projection.forward(from, parameters, t, &mut u[1], into, accumulate);
        });

        let normed: Rows<T> = norm(&middle, &self.feed_forward_norm, self.epsilon, pool);
        let mut gate_up: Rows<T> = pool.rows(t * gate_up_projection.frozen.outputs());
        let (from, into) = (T::values(&normed), T::values_mut(&mut gate_up));
        gate_up_projection.forward(from, parameters, t, &mut u[2], into, Accumulate::Overwrite);
        drop(normed);
        let width = down_projection.frozen.inputs();
        let mut activated: Rows<T> = pool.rows(t * width);
        self.activate(&gate_up, &mut activated);
        let (y, added) = self.add_to_stream(1, &middle, pool, |y, accumulate| {
            let (from, into) = (T::values(&activated), ValuesMut::F32(y));
            down_projection.forward(from, parameters, t, &mut u[3], into, accumulate);
        });
        let added = added_by_attention.zip(added).map(|(attention, feed_forward)| [attention, feed_forward]);
        let [q, k, v, attended, gate_up] = [q, k, v, attended, gate_up].map(Rows::into_buffer);
        (y, Activations { x, qkv, q, k, v, attended, lse, middle, gate_up, added, u })
    }

    /// The stream with what `project` gives, through the norm behind it if there is one; then also what it gave.
    fn add_to_stream(
        &self,
        part: usize,
        stream: &[f32],
        pool: &Pool,
        mut project: impl FnMut(&mut [f32], Accumulate),
    ) -> (Buffer, Option<Buffer>) {
        let Some(norms) = &self.norms_behind else {
            let mut sum = copy(stream, pool);
            project(&mut sum, Accumulate::Add);
            return (sum, None);
        };
        let mut added = pool.take(stream.len());
        project(&mut added, Accumulate::Overwrite);
        let normed: Rows<f32> = norm(&added, &norms[part], self.epsilon, pool);
        (sum(&normed, stream, pool), Some(added))
    }

    /// The gradient of what was given to the norm behind a part; `None` where there is none, and it is `dy` itself.
    fn through_norm_behind(&self, part: usize, dy: &[f32], saved: &Activations, pool: &Pool) -> Option<Buffer> {
        let (norms, added) = (self.norms_behind.as_ref()?, saved.added.as_ref()?);
        let mut dx = pool.take(dy.len());
        timed(Operation::Norms, Cost::values(3 * dy.len()), || {
            rms_norm_backward(&added[part], &norms[part], self.epsilon, dy, &mut dx);
        });
        Some(dx)
    }

    fn backward_as<T: Element>(
        &self,
        dy: &[f32],
        saved: &Activations,
        (parameters, gradient): (&[f32], &mut [f32]),
        layout: &Layout,
        want_dx: bool,
        pool: &Pool,
    ) -> Option<Buffer> {
        let (t, plan, x) = (layout.positions.len(), &self.attention, &*saved.x);
        let (query, key) = (plan.query_width(), plan.key_width());
        let [qkv_projection, out_projection, gate_up_projection, down_projection] = &self.projections;
        let width = down_projection.frozen.inputs();

        let gate_up = T::view(&saved.gate_up, t * 2 * width);
        let mut activated: Rows<T> = pool.rows(t * width);
        self.activate(gate_up, &mut activated);
        let mut dactivated: Rows<T> = pool.rows(t * width);
        let io = (T::values(&activated), &*saved.u[3]);
        let dadded = self.through_norm_behind(1, dy, saved, pool);
        let dout = Values::F32(dadded.as_deref().unwrap_or(dy));
        let wanted = Some(T::values_mut(&mut dactivated));
        down_projection.backward(dout, io, (parameters, gradient), t, wanted, pool);
        drop((activated, dadded));
        let mut dgate_up: Rows<T> = pool.rows(t * 2 * width);
        timed(Operation::GatedActivation, Cost::values(T::words(5 * dactivated.len())), || {
            scale_all(&mut dactivated, self.residual_scale);
            activation_rows_backward(self.activation, gate_up, &dactivated, width, &mut dgate_up);
        });
        drop(dactivated);
        let normed: Rows<T> = norm(&saved.middle, &self.feed_forward_norm, self.epsilon, pool);
        let mut dnormed: Rows<T> = pool.rows(x.len());
        let io = (T::values(&normed), &*saved.u[2]);
        let wanted = Some(T::values_mut(&mut dnormed));
        gate_up_projection.backward(T::values(&dgate_up), io, (parameters, gradient), t, wanted, pool);
        drop((dgate_up, normed));
        let dmiddle = norm_backward(&saved.middle, &self.feed_forward_norm, self.epsilon, &dnormed, dy, pool);

        let mut dattended: Rows<T> = pool.rows(t * query);
        let attended = T::view(&saved.attended, t * query);
        let io = (T::values(attended), &*saved.u[1]);
        let dadded = self.through_norm_behind(0, &dmiddle, saved, pool);
        let dout = Values::F32(dadded.as_deref().unwrap_or(&dmiddle));
        let wanted = Some(T::values_mut(&mut dattended));
        out_projection.backward(dout, io, (parameters, gradient), t, wanted, pool);
        drop(dadded);
        let [mut dq, mut dk, mut dv]: [Rows<T>; 3] = [query, key, key].map(|width| pool.rows(t * width));
        timed(Operation::AttentionBackward, self.attention_cost::<T>(layout, 5), || {
            segmented_attention_backward(
                &plan.shape,
                T::view(&saved.q, t * query),
                T::view(&saved.k, t * key),
                T::view(&saved.v, t * key),
                attended,
                &saved.lse,
                &dattended,
                &layout.segments,
                &mut dq,
                &mut dk,
                &mut dv,
            );
        });
        let mut dqkv: Rows<T> = pool.rows(t * (query + 2 * key));
        timed(Operation::Rotation, Cost::values(T::words(2 * dqkv.len())), || {
            let qkv = saved.qkv.as_deref().unwrap_or_default();
            plan.join(qkv, [&*dq, &*dk, &*dv], &layout.positions, &mut dqkv);
        });
        drop((dattended, dq, dk, dv));
        let normed: Rows<T> = norm(x, &self.attention_norm, self.epsilon, pool);
        let io = (T::values(&normed), &*saved.u[0]);
        let wanted = want_dx.then(|| T::values_mut(&mut dnormed));
        qkv_projection.backward(T::values(&dqkv), io, (parameters, gradient), t, wanted, pool);
        want_dx.then(|| norm_backward(x, &self.attention_norm, self.epsilon, &dnormed, &dmiddle, pool))
    }

    fn activate<T: Element>(&self, gate_up: &[T], activated: &mut [T]) {
        timed(Operation::GatedActivation, Cost::values(T::words(3 * activated.len())), || {
            activation_rows(self.activation, gate_up, self.projections[3].frozen.inputs(), activated);
            scale_all(activated, self.residual_scale);
        });
    }

    /// What `products` of queries with the keys before them cost.
    fn attention_cost<T: Element>(&self, layout: &Layout, products: usize) -> Cost {
        let (query, key) = (self.attention.query_width(), self.attention.key_width());
        let pairs: usize = layout.segments.iter().map(|length| length * (length + 1) / 2).sum();
        let moved = products * (query + key) * layout.positions.len();
        Cost::product(pairs, query, products, size_of::<T>() * moved)
    }
}
