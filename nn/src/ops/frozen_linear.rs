//! A linear map whose weight is frozen.
//!
//! `y = x W^T + bias`; `dx = dy W`. The weight has no gradient, so `x` is not saved and `dW` is never formed. Both `W` and
//! `W^T` are packed once.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::{Accumulate, LowRank, PackedMatrix, Precision, matmul, matmul_low_rank};
use rayon::prelude::*;

use crate::profile::{Cost, Operation, timed};
use crate::storage::{rows, tensor, values};

/// A frozen weight `W [outputs, inputs]`, packed for the product with `W^T` and with `W`, and its bias.
#[derive(Debug)]
pub struct FrozenLinear {
    forward: PackedMatrix,
    backward: PackedMatrix,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl FrozenLinear {
    /// Packs the weight; `fill_row(r, buffer)` writes row `r` of `W` (`inputs` values).
    pub fn pack(
        precision: Precision,
        outputs: usize,
        inputs: usize,
        bias: Option<Vec<f32>>,
        fill_row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        Self {
            forward: PackedMatrix::pack(precision, outputs, inputs, fill_row),
            backward: PackedMatrix::pack_transposed(precision, outputs, inputs, fill_row),
            bias,
            inputs,
            outputs,
        }
    }

    /// Width of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Memory of both packings.
    pub fn bytes(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }

    /// `y (=|+=) x W^T + bias` for `x [t, inputs]`, `y [t, outputs]`.
    pub(crate) fn apply(&self, x: &[f32], t: usize, y: &mut [f32], accumulate: Accumulate) {
        self.product(x, t, y, accumulate);
        self.add_bias(y);
    }

    /// `y (=|+=) x W^T`.
    pub(crate) fn product(&self, x: &[f32], t: usize, y: &mut [f32], accumulate: Accumulate) {
        let cost = self.cost(t, self.forward.bytes());
        timed(Operation::WeightProducts, cost, || matmul(x, t, &self.forward, y, accumulate));
    }

    /// What the products compute in.
    pub(crate) fn precision(&self) -> Precision {
        self.forward.precision()
    }

    /// `u = x A^T` and `y (=|+=) x W^T + u B^T`.
    pub(crate) fn product_with(
        &self,
        x: &[f32],
        t: usize,
        update: &LowRank,
        u: &mut [f32],
        y: &mut [f32],
        accumulate: Accumulate,
    ) {
        let cost = self.cost(t, self.forward.bytes());
        timed(Operation::WeightProducts, cost, || matmul_low_rank(x, t, &self.forward, update, u, y, accumulate));
    }

    /// `v = dy B` and `dx = dy W + v A`.
    pub(crate) fn apply_transposed_with(&self, dy: &[f32], t: usize, update: &LowRank, v: &mut [f32], dx: &mut [f32]) {
        let cost = self.cost(t, self.backward.bytes());
        timed(Operation::WeightProducts, cost, || {
            matmul_low_rank(dy, t, &self.backward, update, v, dx, Accumulate::Overwrite);
        });
    }

    /// `y += bias`.
    pub(crate) fn add_bias(&self, y: &mut [f32]) {
        if let Some(bias) = &self.bias {
            y.par_chunks_exact_mut(self.outputs).for_each(|row| {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            });
        }
    }

    /// `dx = dy W` for `dy [t, outputs]`, `dx [t, inputs]`.
    pub(crate) fn apply_transposed(&self, dy: &[f32], t: usize, dx: &mut [f32]) {
        let cost = self.cost(t, self.backward.bytes());
        timed(Operation::WeightProducts, cost, || matmul(dy, t, &self.backward, dx, Accumulate::Overwrite));
    }

    fn cost(&self, t: usize, weight_bytes: usize) -> Cost {
        let moved = weight_bytes + size_of::<f32>() * t * (self.inputs + self.outputs);
        Cost::product(t, self.outputs, self.inputs, moved)
    }
}

/// The operation for burn's backends; call [`frozen_linear`].
#[backend_extension(Autodiff, Flex)]
pub trait FrozenLinearOperation: Backend {
    /// `x [t, inputs]` to `[t, outputs]`.
    fn frozen_linear(x: FloatTensor<Self>, weight: Arc<FrozenLinear>) -> FloatTensor<Self>;
}

/// `y = x W^T + bias` for `x [t, inputs]`.
pub fn frozen_linear(x: Tensor<2>, weight: &Arc<FrozenLinear>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FrozenLinearOperation>::frozen_linear(x.into_dispatch(), Arc::clone(weight)))
}

/// The same in plain burn operations for a dense `weight [outputs, inputs]`.
pub fn frozen_linear_plain(x: Tensor<2>, weight: &Tensor<2>, bias: Option<&[f32]>) -> Tensor<2> {
    let device = x.device();
    let y = x.matmul(weight.clone().transpose());
    match bias {
        Some(bias) => y + Tensor::<1>::from_floats(bias, &device).unsqueeze(),
        None => y,
    }
}

fn forward(x: &FlexTensor, weight: &FrozenLinear) -> FlexTensor {
    let mut y = vec![0.0; rows(x) * weight.outputs];
    weight.apply(&values(x), rows(x), &mut y, Accumulate::Overwrite);
    tensor(y, [rows(x), weight.outputs])
}

impl FrozenLinearOperation for Flex {
    fn frozen_linear(x: FloatTensor<Self>, weight: Arc<FrozenLinear>) -> FloatTensor<Self> {
        forward(&x, &weight)
    }
}

#[derive(Debug)]
struct FrozenLinearBackward;

impl Backward<Flex, 1> for FrozenLinearBackward {
    type State = Arc<FrozenLinear>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let [Some(parent)] = ops.parents else { return };
        let weight = ops.state;
        let mut dx = vec![0.0; rows(&dy) * weight.inputs];
        weight.apply_transposed(&values(&dy), rows(&dy), &mut dx);
        gradients.register::<Flex>(parent.id, tensor(dx, [rows(&dy), weight.inputs]));
    }
}

impl<C: CheckpointStrategy> FrozenLinearOperation for Autodiff<Flex, C> {
    fn frozen_linear(x: FloatTensor<Self>, weight: Arc<FrozenLinear>) -> FloatTensor<Self> {
        let node = x.node();
        let out = forward(&x.into_primitive(), &weight);
        match FrozenLinearBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(weight, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, matrix, noise};

    #[test]
    fn equals_the_plain_operations_and_finite_differences() {
        for bias in [None, Some(noise(4, 7))] {
            let weight = noise(5, 7 * 9);
            let packed = Arc::new(FrozenLinear::pack(Precision::F32, 7, 9, bias.clone(), &|row, out| {
                out.copy_from_slice(&weight[row * 9..(row + 1) * 9]);
            }));
            let dense = matrix(&weight, [7, 9]);
            check_against_plain(
                &[(noise(6, 4 * 9), [4, 9])],
                |inputs| frozen_linear(inputs[0].clone(), &packed),
                |inputs| frozen_linear_plain(inputs[0].clone(), &dense, bias.as_deref()),
            );
        }
    }
}
