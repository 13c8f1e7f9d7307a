//! One frozen linear map with low-rank updates beside it, as one operation.
//!
//! Several modules that read the same input (q, k and v; gate and up) share one frozen product of all their outputs.
//! With `x [t, in]`, the stacked `A [n r, in]` and the outputs of module `i` at `range_i`, its `B_i [out_i, r]`:
//!
//! forward: `u = x A^T`; `y = x W^T + bias`; `y[:, range_i] += s u_i B_i^T`.
//! backward: `v_i = s dy[:, range_i] B_i`; `dB_i = s dy[:, range_i]^T u_i`; `dA = v^T x`; `dx = dy W + v A`.
//!
//! `dW` is never formed; `x` and `u` are all that is saved (formulas: Hu et al., 2021; the order of the products
//! keeps every one of them skinny). `u` and `v` come out of the same pass over the activations as the frozen product, whose
//! precision all of them share; the `B_i` stand in it as one block-diagonal matrix `[outputs, n r]`.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::{Accumulate, Columns, LowRank, LowRankFactors, ResultRows, outer_products};

use super::frozen_linear::FrozenLinear;
use crate::pool::Pool;
use crate::profile::{Cost, Operation, timed};
use crate::storage::{rows, tensor, values};

/// What stays the same in every call of [`lora_linear`] on one group of modules.
#[derive(Debug)]
pub struct LoraGroup {
    /// The frozen product of all outputs of the group.
    pub frozen: Arc<FrozenLinear>,
    /// Outputs of each adapted module, in order and without overlap.
    pub ranges: Vec<Range<usize>>,
    /// Rank of every module.
    pub rank: usize,
    /// `s`: `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scale: f32,
}

impl LoraGroup {
    /// Rows of the stacked `A`.
    pub fn stacked_rank(&self) -> usize {
        self.ranges.len() * self.rank
    }

    /// Rows of the stacked `B`: the outputs of the adapted modules.
    pub fn adapted_outputs(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Each module's outputs, its columns of the stack, and where its rows begin in the stacked `B`.
    fn modules(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>, usize)> + '_ {
        let mut first_row = 0;
        self.ranges.iter().enumerate().map(move |(module, outputs)| {
            first_row += outputs.len();
            (outputs.clone(), module * self.rank..(module + 1) * self.rank, first_row - outputs.len())
        })
    }

    /// `A` and `s B` as the products want them: rounded to the precision of the frozen weight, `B` block-diagonal.
    fn pack(&self, [a, b]: [&[f32]; 2], transposed: bool) -> LowRank {
        let (inputs, modules) = (self.frozen.inputs(), self.modules().collect::<Vec<_>>());
        let fill_b = |output: usize, row: &mut [f32]| {
            row.fill(0.0);
            if let Some((outputs, columns, first)) = modules.iter().find(|(outputs, ..)| outputs.contains(&output)) {
                let source = &b[(first + output - outputs.start) * self.rank..][..self.rank];
                for (to, value) in row[columns.clone()].iter_mut().zip(source) {
                    *to = self.scale * value;
                }
            }
        };
        let blocks: Vec<_> = modules.iter().map(|(outputs, columns, _)| (outputs.clone(), columns.clone())).collect();
        let factors = LowRankFactors {
            rank: self.stacked_rank(),
            inputs,
            outputs: self.frozen.outputs(),
            a: &|index, row| row.copy_from_slice(&a[index * inputs..][..inputs]),
            b: &fill_b,
            blocks: &blocks,
        };
        let precision = self.frozen.precision();
        if transposed { LowRank::pack_transposed(precision, &factors) } else { LowRank::pack(precision, &factors) }
    }

    /// `u = x A^T` and `y (=|+=) x W^T + bias + s u B^T`.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        ab: [&[f32]; 2],
        t: usize,
        u: &mut [f32],
        y: &mut [f32],
        accumulate: Accumulate,
    ) {
        timed(Operation::LowRankProducts, self.cost(t, 1), || {
            self.frozen.apply_with(x, t, &self.pack(ab, false), u, y, accumulate);
        });
    }

    /// The cost of `products` with each of `A` and `B`; every large side is read once for each.
    fn cost(&self, t: usize, products: usize) -> Cost {
        let narrow = self.stacked_rank() * self.frozen.inputs() + self.rank * self.adapted_outputs();
        let moved = t * (self.frozen.inputs() + self.adapted_outputs());
        Cost::product(t, products, narrow, size_of::<f32>() * products.saturating_sub(1) * moved)
    }

    /// `dA`, `dB` and, where wanted, `dx`; all are overwritten.
    #[expect(clippy::too_many_arguments, reason = "three pairs of matrices, and where they go")]
    pub(crate) fn backward(
        &self,
        dy: &[f32],
        [x, u]: [&[f32]; 2],
        ab: [&[f32]; 2],
        t: usize,
        [da, db]: [&mut [f32]; 2],
        dx: Option<&mut [f32]>,
        pool: &Pool,
    ) {
        let (inputs, outputs, width) = (self.frozen.inputs(), self.frozen.outputs(), self.stacked_rank());
        let precision = self.frozen.precision();
        timed(Operation::LowRankProducts, self.cost(t, 2), || {
            // v holds the scale: v = s dy B.
            let (update, mut v) = (self.pack(ab, true), pool.take(t * width));
            match dx {
                Some(dx) => self.frozen.apply_transposed_with(dy, t, &update, &mut v, dx),
                None => update.narrow(dy, t, &mut v),
            }
            let mut rest = db;
            for (range, columns, _) in self.modules() {
                let (own, others) = rest.split_at_mut(range.len() * self.rank);
                let narrow = Columns { values: u, stride: width, range: columns };
                let wide = Columns { values: dy, stride: outputs, range };
                outer_products(precision, &narrow, &wide, self.scale, own, ResultRows::Wide);
                rest = others;
            }
            let (v, x) = (Columns::all(&v, width), Columns::all(x, inputs));
            outer_products(precision, &v, &x, 1.0, da, ResultRows::Narrow);
        });
    }
}

/// The operation for burn's backends; call [`lora_linear`].
#[backend_extension(Autodiff, Flex)]
pub trait LoraLinearOperation: Backend {
    /// `x [t, in]`, `a [n r, in]`, `b [adapted outputs, r]` to `[t, outputs]`.
    fn lora_linear(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        group: Arc<LoraGroup>,
    ) -> FloatTensor<Self>;
}

/// `y = x W^T + bias + s (x A^T) B^T` for `x [t, in]`, the stacked `a [n r, in]` and `b [adapted outputs, r]`.
pub fn lora_linear(x: Tensor<2>, a: Tensor<2>, b: Tensor<2>, group: &Arc<LoraGroup>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as LoraLinearOperation>::lora_linear(
        x.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        Arc::clone(group),
    ))
}

/// The same in plain burn operations for a dense `weight [outputs, inputs]`.
pub fn lora_linear_plain(
    x: Tensor<2>,
    a: Tensor<2>,
    b: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&[f32]>,
    group: &LoraGroup,
) -> Tensor<2> {
    let mut y = super::frozen_linear::frozen_linear_plain(x.clone(), weight, bias);
    let [t, _] = x.dims();
    let u = x.matmul(a.transpose());
    let mut first = 0;
    for (module, range) in group.ranges.iter().enumerate() {
        let rows = b.clone().slice([first..first + range.len(), 0..group.rank]);
        let u = u.clone().slice([0..t, module * group.rank..(module + 1) * group.rank]);
        let here = [0..t, range.clone()];
        let sum = y.clone().slice(here.clone()) + u.matmul(rows.transpose()) * group.scale;
        y = y.slice_assign(here, sum);
        first += range.len();
    }
    y
}

/// `(y, u)`.
fn forward(x: &FlexTensor, a: &FlexTensor, b: &FlexTensor, group: &LoraGroup) -> (FlexTensor, Vec<f32>) {
    let (t, outputs) = (rows(x), group.frozen.outputs());
    let (mut u, mut y) = (vec![0.0; t * group.stacked_rank()], vec![0.0; t * outputs]);
    group.forward(&values(x), [&values(a), &values(b)], t, &mut u, &mut y, Accumulate::Overwrite);
    (tensor(y, [t, outputs]), u)
}

impl LoraLinearOperation for Flex {
    fn lora_linear(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        group: Arc<LoraGroup>,
    ) -> FloatTensor<Self> {
        forward(&x, &a, &b, &group).0
    }
}

#[derive(Debug)]
struct LoraLinearBackward;

#[derive(Clone, Debug)]
struct Saved {
    x: FlexTensor,
    u: Arc<Vec<f32>>,
    a: FlexTensor,
    b: FlexTensor,
    group: Arc<LoraGroup>,
}

impl Backward<Flex, 3> for LoraLinearBackward {
    type State = Saved;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let [parent_x, parent_a, parent_b] = ops.parents;
        let Saved { x, u, a, b, group } = ops.state;
        let (t, inputs, width) = (rows(&x), group.frozen.inputs(), group.stacked_rank());
        let (mut da, mut db) = (vec![0.0; width * inputs], vec![0.0; group.adapted_outputs() * group.rank]);
        let mut dx = parent_x.as_ref().map(|_| vec![0.0; t * inputs]);
        group.backward(
            &values(&dy),
            [&values(&x), &u],
            [&values(&a), &values(&b)],
            t,
            [&mut da, &mut db],
            dx.as_deref_mut(),
            &Pool::default(),
        );
        if let Some(parent) = parent_a {
            gradients.register::<Flex>(parent.id, tensor(da, [width, inputs]));
        }
        if let Some(parent) = parent_b {
            gradients.register::<Flex>(parent.id, tensor(db, [group.adapted_outputs(), group.rank]));
        }
        if let (Some(parent), Some(dx)) = (parent_x, dx) {
            gradients.register::<Flex>(parent.id, tensor(dx, [t, inputs]));
        }
    }
}

impl<C: CheckpointStrategy> LoraLinearOperation for Autodiff<Flex, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        group: Arc<LoraGroup>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), a.node(), b.node()];
        let (x, a, b) = (x.into_primitive(), a.into_primitive(), b.into_primitive());
        let (y, u) = forward(&x, &a, &b, &group);
        match LoraLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { x, u: Arc::new(u), a, b, group }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, matrix, noise};
    use espalier_kernels::Precision;

    fn check(ranges: &[(usize, usize)]) {
        let (inputs, outputs, rank, t) = (9, 14, 3, 5);
        let (weight, bias) = (noise(7, outputs * inputs), noise(8, outputs));
        let frozen = FrozenLinear::pack(Precision::F32, outputs, inputs, Some(bias.clone()), &|row, out| {
            out.copy_from_slice(&weight[row * inputs..(row + 1) * inputs]);
        });
        let group = Arc::new(LoraGroup {
            frozen: Arc::new(frozen),
            ranges: ranges.iter().map(|&(first, end)| first..end).collect(),
            rank,
            scale: 1.5,
        });
        let dense = matrix(&weight, [outputs, inputs]);
        check_against_plain(
            &[
                (noise(9, t * inputs), [t, inputs]),
                (noise(10, group.stacked_rank() * inputs), [group.stacked_rank(), inputs]),
                (noise(11, group.adapted_outputs() * rank), [group.adapted_outputs(), rank]),
            ],
            |i| lora_linear(i[0].clone(), i[1].clone(), i[2].clone(), &group),
            |i| lora_linear_plain(i[0].clone(), i[1].clone(), &i[2], &dense, Some(&bias), &group),
        );
    }

    #[test]
    fn one_module_equals_the_plain_operations_and_finite_differences() {
        check(&[(0, 14)]);
    }

    #[test]
    fn three_modules_share_their_input() {
        check(&[(0, 6), (6, 10), (10, 14)]);
    }

    #[test]
    fn a_module_may_stay_frozen() {
        check(&[(0, 6), (10, 14)]);
    }
}
