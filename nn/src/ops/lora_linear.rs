//! One frozen linear map with low-rank updates beside it, as one operation.
//!
//! Several modules that read the same input (q, k and v; gate and up) share one frozen product of all their outputs.
//! With `x [t, in]`, the stacked `A [sum of ranks, in]` and, for module `i`, its outputs `range_i`, its `B_i [out_i, r_i]`
//! and its scale `s_i`:
//!
//! forward: `u = x A^T`; `y = x W^T + bias`; `y[:, range_i] += s_i u_i B_i^T`.
//! backward: `v_i = s_i dy[:, range_i] B_i`; `dB_i = s_i dy[:, range_i]^T u_i`; `dA = v^T x`; `dx = dy W + v A`.
//!
//! `dW` is never formed; `u` is all that is saved beside `x` (formulas: Hu et al., 2021; the order of the products
//! keeps every one of them skinny). `u` and `v` come out of the same pass over the activations as the frozen product, whose
//! precision all of them share; the `s_i B_i` stand in it as one block-diagonal matrix `[outputs, sum of ranks]`. With
//! magnitudes, the rows are scaled to learned lengths: see [`super::dora`].

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use espalier_kernels::{
    Accumulate, Columns, Element, LowRank, LowRankFactors, ResultRows, Values, ValuesMut, outer_products,
};
use rayon::prelude::*;

use super::dora::RowLengths;
use super::frozen_linear::{FrozenLinear, PackedUpdate, frozen_linear_plain};
use crate::pool::Pool;
use crate::profile::{Cost, Operation, timed};
use crate::storage::{rows, tensor, values};

/// The update of one module of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupModule {
    /// Its outputs in the product of the group.
    pub outputs: Range<usize>,
    /// Rows of its `A`.
    pub rank: usize,
    /// `s`: `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scale: f32,
}

/// The shape of a group of modules that read the same input, and the order of its parameters: the stacked `A`, the stacked
/// `B`, the magnitudes.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    /// Width of the input.
    pub inputs: usize,
    /// The adapted modules, in the order of their outputs and without overlap.
    pub modules: Vec<GroupModule>,
    /// Whether the rows have magnitudes (`DoRA`).
    pub dora: bool,
}

impl GroupPlan {
    /// Rows of the stacked `A`.
    pub fn stacked_rank(&self) -> usize {
        self.modules.iter().map(|module| module.rank).sum()
    }

    /// Lengths of the stacked `A`, the stacked `B` and the magnitudes: so they follow each other in the parameters.
    pub fn parameter_lengths(&self) -> [usize; 3] {
        let b = self.modules.iter().map(|module| module.outputs.len() * module.rank).sum();
        let adapted: usize = self.modules.iter().map(|module| module.outputs.len()).sum();
        [self.stacked_rank() * self.inputs, b, if self.dora { adapted } else { 0 }]
    }

    /// Parameters of the group.
    pub fn parameter_count(&self) -> usize {
        self.parameter_lengths().iter().sum()
    }

    /// Each module, its columns of the stack, and where its values begin in the stacked `B`.
    fn placed(&self) -> impl Iterator<Item = (&GroupModule, Range<usize>, usize)> {
        let (mut column, mut value) = (0, 0);
        self.modules.iter().map(move |module| {
            let place = (module, column..column + module.rank, value);
            (column, value) = (column + module.rank, value + module.outputs.len() * module.rank);
            place
        })
    }
}

/// What stays the same in every call of [`lora_linear`] on one group of modules.
#[derive(Debug)]
pub struct LoraGroup {
    pub(crate) frozen: Arc<FrozenLinear>,
    pub(crate) plan: GroupPlan,
    /// The lengths of the frozen rows where the plan is `DoRA`.
    pub(crate) lengths: Option<RowLengths>,
}

/// The parameters of a group, apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupParameters<'a> {
    /// `[stacked rank, inputs]`.
    pub(crate) a: &'a [f32],
    /// The `B_i [out_i, r_i]`, one behind the other.
    pub(crate) b: &'a [f32],
    /// The magnitudes of the adapted outputs; none without `DoRA`.
    pub(crate) magnitudes: &'a [f32],
}

impl LoraGroup {
    /// The modules of `plan` beside the frozen product of all outputs of the group.
    pub fn new(frozen: Arc<FrozenLinear>, plan: GroupPlan) -> Self {
        let lengths = plan.dora.then(|| RowLengths::of(&frozen));
        Self { frozen, plan, lengths }
    }

    pub(crate) fn parts<'a>(&self, parameters: &'a [f32]) -> GroupParameters<'a> {
        let [a, b, _] = self.plan.parameter_lengths();
        let (a, rest) = parameters.split_at(a);
        let (b, magnitudes) = rest.split_at(b);
        GroupParameters { a, b, magnitudes }
    }

    /// Values that the forward pass over `t` rows keeps for the backward pass: `u`, and for `DoRA` the unscaled product and
    /// the lengths of its rows.
    pub(crate) fn saved_count(&self, t: usize) -> usize {
        let outputs = self.frozen.outputs();
        t * self.plan.stacked_rank() + if self.plan.dora { (t + 1) * outputs } else { 0 }
    }

    /// `A` and `s B` as the products want them: rounded to the precision of the frozen weight, `B` block-diagonal.
    fn pack(&self, parts: GroupParameters<'_>, transposed: bool) -> PackedUpdate {
        let parameters = parts.a.len() + parts.b.len();
        let factors =
            timed(Operation::LowRankUpdates, Cost::values(2 * parameters), || self.factors(parts, transposed));
        PackedUpdate { factors, parameters }
    }

    fn factors(&self, parts: GroupParameters<'_>, transposed: bool) -> LowRank {
        let (inputs, placed) = (self.frozen.inputs(), self.plan.placed().collect::<Vec<_>>());
        let fill_b = |output: usize, row: &mut [f32]| {
            row.fill(0.0);
            if let Some((module, columns, first)) = placed.iter().find(|(module, ..)| module.outputs.contains(&output))
            {
                let source = &parts.b[first + (output - module.outputs.start) * module.rank..][..module.rank];
                for (to, value) in row[columns.clone()].iter_mut().zip(source) {
                    *to = module.scale * value;
                }
            }
        };
        let blocks: Vec<_> =
            placed.iter().map(|(module, columns, _)| (module.outputs.clone(), columns.clone())).collect();
        let factors = LowRankFactors {
            rank: self.plan.stacked_rank(),
            inputs,
            outputs: self.frozen.outputs(),
            a: &|index, row| row.copy_from_slice(&parts.a[index * inputs..][..inputs]),
            b: &fill_b,
            blocks: &blocks,
        };
        let precision = self.frozen.precision();
        if transposed { LowRank::pack_transposed(precision, &factors) } else { LowRank::pack(precision, &factors) }
    }

    /// `y (=|+=)` the product of the group with its updates; fills `saved` ([`LoraGroup::saved_count`]).
    pub(crate) fn forward(
        &self,
        x: Values<'_>,
        parameters: &[f32],
        t: usize,
        saved: &mut [f32],
        mut y: ValuesMut<'_>,
        accumulate: Accumulate,
    ) {
        let parts = self.parts(parameters);
        let (u, kept) = saved.split_at_mut(t * self.plan.stacked_rank());
        let update = self.pack(parts, false);
        let Some(lengths) = &self.lengths else {
            self.frozen.product_with(x, t, &update, u, y.reborrow(), accumulate);
            self.frozen.add_bias(y);
            return;
        };
        let (raw, norms) = kept.split_at_mut(t * self.frozen.outputs());
        self.frozen.product_with(x, t, &update, u, ValuesMut::F32(&mut *raw), Accumulate::Overwrite);
        timed(Operation::LowRankUpdates, Cost::values(2 * raw.len()), || {
            lengths.norms(self, parts, norms);
            self.scale_rows(raw, parts.magnitudes, norms, y.reborrow(), accumulate);
        });
    }

    /// The gradient of the parameters and, where wanted, `dx`; both are overwritten.
    #[expect(clippy::too_many_arguments, reason = "gradient in, what was kept, parameters, gradients out")]
    pub(crate) fn backward(
        &self,
        dy: Values<'_>,
        (x, saved): (Values<'_>, &[f32]),
        parameters: &[f32],
        t: usize,
        gradient: &mut [f32],
        dx: Option<ValuesMut<'_>>,
        pool: &Pool,
    ) {
        let parts = self.parts(parameters);
        let [a, b, _] = self.plan.parameter_lengths();
        let (da, rest) = gradient.split_at_mut(a);
        let (db, dmagnitudes) = rest.split_at_mut(b);
        let (u, kept) = saved.split_at(t * self.plan.stacked_rank());
        if self.lengths.is_none() {
            self.updates_backward(dy, (x, u), parts, t, [da, db], dx, pool);
            return;
        }
        let (raw, norms) = kept.split_at(t * self.frozen.outputs());
        let mut scaled = pool.take(dy.len());
        timed(Operation::LowRankUpdates, Cost::values(3 * dy.len()), || {
            let mut back =
                |dy: &[f32]| self.scale_rows_backward(dy, [raw, norms], parts.magnitudes, dmagnitudes, &mut scaled);
            match dy {
                Values::F32(dy) => back(dy),
                Values::Bf16(dy) => {
                    let mut wide = pool.take(dy.len());
                    wide.par_iter_mut().zip(dy).for_each(|(to, value)| *to = value.widen());
                    back(&wide);
                }
            }
        });
        self.updates_backward(Values::F32(&scaled), (x, u), parts, t, [da, db], dx, pool);
    }

    /// `dA`, `dB` and, where wanted, `dx` of the unscaled product.
    #[expect(clippy::too_many_arguments, reason = "gradient in, what was kept, parameters, gradients out")]
    fn updates_backward(
        &self,
        dy: Values<'_>,
        (x, u): (Values<'_>, &[f32]),
        parts: GroupParameters<'_>,
        t: usize,
        [da, db]: [&mut [f32]; 2],
        dx: Option<ValuesMut<'_>>,
        pool: &Pool,
    ) {
        let (inputs, outputs, width) = (self.frozen.inputs(), self.frozen.outputs(), self.plan.stacked_rank());
        let precision = self.frozen.precision();
        // v holds the scales: v = dy (s B).
        let (update, mut v) = (self.pack(parts, true), pool.take(t * width));
        if let Some(dx) = dx {
            self.frozen.apply_transposed_with(dy, t, &update, &mut v, dx);
        } else {
            let cost = Cost::product(t, 1, parts.b.len(), value_bytes(&dy));
            timed(Operation::LowRankUpdates, cost, || update.factors.narrow(dy, t, &mut v));
        }
        let cost = Cost::product(t, 1, da.len() + db.len(), value_bytes(&dy) + value_bytes(&x));
        timed(Operation::LowRankUpdates, cost, || {
            let mut rest = &mut *db;
            for (module, columns, _) in self.plan.placed() {
                let (own, others) = rest.split_at_mut(module.outputs.len() * module.rank);
                let narrow = Columns { values: u, stride: width, range: columns };
                let wide = Columns { values: dy, stride: outputs, range: module.outputs.clone() };
                outer_products(precision, &narrow, &wide, module.scale, own, ResultRows::Wide);
                rest = others;
            }
            let v = Columns { values: &*v, stride: width, range: 0..width };
            let x = Columns { values: x, stride: inputs, range: 0..inputs };
            outer_products(precision, &v, &x, 1.0, da, ResultRows::Narrow);
        });
    }
}

fn value_bytes(values: &Values<'_>) -> usize {
    match values {
        Values::F32(values) => size_of_val(*values),
        Values::Bf16(values) => size_of_val(*values),
    }
}

/// The operation for burn's backends; call [`lora_linear`].
#[backend_extension(Autodiff, Flex)]
pub trait LoraLinearOperation: Backend {
    /// `x [t, in]` and the parameters of the group `[1, p]` to `[t, outputs]`.
    fn lora_linear(x: FloatTensor<Self>, parameters: FloatTensor<Self>, group: Arc<LoraGroup>) -> FloatTensor<Self>;
}

/// `x W^T + bias` with the updates of the group for `x [t, in]` and its parameters `[1, p]` (the stacked `A`, the stacked
/// `B`, the magnitudes).
pub fn lora_linear(x: Tensor<2>, parameters: Tensor<2>, group: &Arc<LoraGroup>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as LoraLinearOperation>::lora_linear(
        x.into_dispatch(),
        parameters.into_dispatch(),
        Arc::clone(group),
    ))
}

/// The same in plain burn operations for a dense `weight [outputs, inputs]`, in whose type all products are computed; the
/// norms of `DoRA` come from the whole `W + s B A`, in f32 and without gradient.
pub fn lora_linear_plain(
    x: &Tensor<2>,
    parameters: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    plan: &GroupPlan,
) -> Tensor<2> {
    let ([stacked_a, stacked_b, _], [t, _], [outputs, _]) = (plan.parameter_lengths(), x.dims(), weight.dims());
    let (device, dtype) = (weight.device(), weight.dtype());
    let part = |first: usize, rows: usize, columns: usize| {
        parameters.clone().slice([0..1, first..first + rows * columns]).reshape([rows, columns])
    };
    let a = part(0, plan.stacked_rank(), plan.inputs);
    let u = x.clone().cast(dtype).matmul(a.clone().cast(dtype).transpose());
    // Side by side: the updates of the modules, and rows of zeros and ones where outputs stay frozen.
    let (mut updates, mut factors) = (Vec::new(), Vec::new());
    let gap = |updates: &mut Vec<Tensor<2>>, factors: &mut Vec<Tensor<2>>, width: usize| {
        if width > 0 {
            updates.push(Tensor::zeros([t, width], &device));
            factors.push(Tensor::ones([1, width], &device));
        }
    };
    let (mut output, mut magnitude) = (0, stacked_a + stacked_b);
    for (module, columns, first) in plan.placed() {
        let own = module.outputs.clone();
        gap(&mut updates, &mut factors, own.start - output);
        let b = part(stacked_a + first, own.len(), module.rank);
        let narrow = u.clone().slice([0..t, columns.clone()]);
        updates.push(narrow.matmul(b.clone().cast(dtype).transpose()).cast(DType::F32) * module.scale);
        if plan.dora {
            let (a, b) = (a.clone().without_autodiff().slice([columns, 0..plan.inputs]), b.without_autodiff());
            let frozen = weight.clone().slice([own.clone(), 0..plan.inputs]).cast(DType::F32);
            let merged = frozen + b.matmul(a) * module.scale;
            let norms = (merged.clone() * merged).sum_dim(1).sqrt().clamp_min(f32::MIN_POSITIVE).transpose();
            factors.push(part(magnitude, 1, own.len()) / norms);
        }
        (output, magnitude) = (own.end, magnitude + own.len());
    }
    gap(&mut updates, &mut factors, outputs - output);
    let mut y = frozen_linear_plain(x.clone(), weight, None) + Tensor::cat(updates, 1);
    if plan.dora {
        y = y * Tensor::cat(factors, 1);
    }
    match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    }
}

/// `y`, and what the backward pass needs.
fn forward(x: &FlexTensor, parameters: &FlexTensor, group: &LoraGroup) -> (FlexTensor, Vec<f32>) {
    let (t, outputs) = (rows(x), group.frozen.outputs());
    let (mut saved, mut y) = (vec![0.0; group.saved_count(t)], vec![0.0; t * outputs]);
    let (from, into) = (values(x), ValuesMut::F32(&mut y));
    group.forward(Values::F32(&from), &values(parameters), t, &mut saved, into, Accumulate::Overwrite);
    (tensor(y, [t, outputs]), saved)
}

impl LoraLinearOperation for Flex {
    fn lora_linear(x: FloatTensor<Self>, parameters: FloatTensor<Self>, group: Arc<LoraGroup>) -> FloatTensor<Self> {
        forward(&x, &parameters, &group).0
    }
}

#[derive(Debug)]
struct LoraLinearBackward;

#[derive(Clone, Debug)]
struct Saved {
    x: FlexTensor,
    parameters: FlexTensor,
    kept: Arc<Vec<f32>>,
    group: Arc<LoraGroup>,
}

impl Backward<Flex, 2> for LoraLinearBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let [parent_x, parent_parameters] = ops.parents;
        let Saved { x, parameters, kept, group } = ops.state;
        let (t, inputs, count) = (rows(&x), group.frozen.inputs(), group.plan.parameter_count());
        let mut gradient = vec![0.0; count];
        let mut dx = parent_x.as_ref().map(|_| vec![0.0; t * inputs]);
        group.backward(
            Values::F32(&values(&dy)),
            (Values::F32(&values(&x)), &kept),
            &values(&parameters),
            t,
            &mut gradient,
            dx.as_deref_mut().map(ValuesMut::F32),
            &Pool::default(),
        );
        if let Some(parent) = parent_parameters {
            gradients.register::<Flex>(parent.id, tensor(gradient, [1, count]));
        }
        if let (Some(parent), Some(dx)) = (parent_x, dx) {
            gradients.register::<Flex>(parent.id, tensor(dx, [t, inputs]));
        }
    }
}

impl<C: CheckpointStrategy> LoraLinearOperation for Autodiff<Flex, C> {
    fn lora_linear(x: FloatTensor<Self>, parameters: FloatTensor<Self>, group: Arc<LoraGroup>) -> FloatTensor<Self> {
        let nodes = [x.node(), parameters.node()];
        let (x, parameters) = (x.into_primitive(), parameters.into_primitive());
        let (y, kept) = forward(&x, &parameters, &group);
        match LoraLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { x, parameters, kept: Arc::new(kept), group }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, check_gradients, matrix, noise, vector};
    use espalier_kernels::Precision;

    const INPUTS: usize = 9;
    const OUTPUTS: usize = 14;
    const T: usize = 5;

    /// Modules by their first and last output, rank and scale.
    fn check(modules: &[(usize, usize, usize, f32)], dora: bool) {
        let (weight, bias) = (noise(7, OUTPUTS * INPUTS), noise(8, OUTPUTS));
        let frozen = FrozenLinear::pack(Precision::F32, OUTPUTS, INPUTS, Some(bias.clone()), &|row, out| {
            out.copy_from_slice(&weight[row * INPUTS..(row + 1) * INPUTS]);
        });
        let modules =
            modules.iter().map(|&(first, end, rank, scale)| GroupModule { outputs: first..end, rank, scale }).collect();
        let group = Arc::new(LoraGroup::new(Arc::new(frozen), GroupPlan { inputs: INPUTS, modules, dora }));
        let dense_bias = vector(&bias);
        let dense = matrix(&weight, [OUTPUTS, INPUTS]);
        let count = group.plan.parameter_count();
        let inputs = [(noise(9, T * INPUTS), [T, INPUTS]), (noise(10, count), [1, count])];
        let fused = |i: &[Tensor<2>]| lora_linear(i[0].clone(), i[1].clone(), &group);
        let plain = |i: &[Tensor<2>]| lora_linear_plain(&i[0], &i[1], &dense, Some(&dense_bias), &group.plan);
        if !group.plan.dora {
            check_against_plain(&inputs, fused, plain);
            return;
        }
        // The norms have no gradient: differences are taken with those of the point where the gradient is.
        let mut norms = vec![0.0; OUTPUTS];
        let lengths = RowLengths::of(&group.frozen);
        lengths.norms(&group, group.parts(&inputs[1].0), &mut norms);
        let [a, b, _] = group.plan.parameter_lengths();
        let held = |i: &[Tensor<2>]| {
            let without = GroupPlan { dora: false, ..group.plan.clone() };
            let factors = i[1].clone().slice([0..1, 0..a + b]);
            let raw = lora_linear_plain(&i[0], &factors, &dense, None, &without);
            let mut scales = matrix(&[1.0; OUTPUTS], [1, OUTPUTS]);
            let mut first = a + b;
            for module in &group.plan.modules {
                let outputs = module.outputs.clone();
                let own = i[1].clone().slice([0..1, first..first + outputs.len()]);
                let norms = matrix(&norms[outputs.clone()], [1, outputs.len()]);
                scales = scales.slice_assign([0..1, outputs.clone()], own / norms);
                first += outputs.len();
            }
            raw * scales + matrix(&bias, [1, OUTPUTS])
        };
        check_gradients(&inputs, fused, plain, held);
    }

    #[test]
    fn one_module_equals_the_plain_operations_and_finite_differences() {
        check(&[(0, 14, 3, 1.5)], false);
    }

    #[test]
    fn three_modules_share_their_input_with_ranks_and_scales_of_their_own() {
        check(&[(0, 6, 3, 1.5), (6, 10, 1, 0.7), (10, 14, 2, 3.0)], false);
    }

    #[test]
    fn a_module_may_stay_frozen() {
        check(&[(0, 6, 3, 1.5), (10, 14, 3, 1.5)], false);
    }

    #[test]
    fn dora_equals_the_plain_operations_and_differences_with_its_norms_held() {
        check(&[(0, 14, 3, 1.5)], true);
        check(&[(0, 6, 3, 1.5), (6, 10, 1, 0.7), (10, 14, 2, 3.0)], true);
        check(&[(0, 6, 3, 1.5), (10, 14, 2, 0.3)], true);
    }
}
