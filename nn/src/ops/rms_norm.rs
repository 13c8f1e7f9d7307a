//! Root-mean-square normalisation with a frozen weight.
//!
//! `r = 1 / sqrt(mean(x^2) + eps)`, `y_i = x_i r w_i`;
//! `dx_i = r w_i dy_i - x_i r^3 / n * sum_j w_j dy_j x_j`. Saves `x`; the weight has no gradient.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::ops;

use crate::profile::{Cost, Operation, timed};
use crate::storage::{rows, tensor, values};

/// The operation for burn's backends; call [`rms_norm`].
#[backend_extension(Autodiff, Flex)]
pub trait RmsNormOperation: Backend {
    /// Rows of `x [t, n]` normalised.
    fn rms_norm(x: FloatTensor<Self>, weight: Arc<Vec<f32>>, epsilon: f32) -> FloatTensor<Self>;
}

/// Normalises the rows of `x [t, n]` by `weight [n]`.
pub fn rms_norm(x: Tensor<2>, weight: &Arc<Vec<f32>>, epsilon: f32) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as RmsNormOperation>::rms_norm(x.into_dispatch(), Arc::clone(weight), epsilon))
}

/// The same in plain burn operations for a `weight [n]` on the device of `x`, and for heads of rows `[.., n]` too: the
/// reference in tests, and the body for devices without our kernels.
pub fn rms_norm_plain<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, epsilon: f32) -> Tensor<D> {
    let mean = (x.clone() * x.clone()).mean_dim(D - 1);
    x / (mean + epsilon).sqrt() * weight.clone().unsqueeze()
}

fn forward(x: &FlexTensor, weight: &[f32], epsilon: f32) -> FlexTensor {
    let mut out = vec![0.0; rows(x) * weight.len()];
    timed(Operation::Norms, Cost::values(2 * out.len()), || ops::rms_norm(&values(x), weight, epsilon, &mut out));
    tensor(out, [rows(x), weight.len()])
}

impl RmsNormOperation for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: Arc<Vec<f32>>, epsilon: f32) -> FloatTensor<Self> {
        forward(&x, &weight, epsilon)
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl Backward<Flex, 1> for RmsNormBackward {
    type State = (FlexTensor, Arc<Vec<f32>>, f32);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let (x, weight, epsilon) = ops.state;
        let [Some(parent)] = ops.parents else { return };
        let mut dx = vec![0.0; rows(&x) * weight.len()];
        timed(Operation::Norms, Cost::values(3 * dx.len()), || {
            espalier_kernels::ops::rms_norm_backward(&values(&x), &weight, epsilon, &values(&dy), &mut dx);
        });
        gradients.register::<Flex>(parent.id, tensor(dx, [rows(&x), weight.len()]));
    }
}

impl<C: CheckpointStrategy> RmsNormOperation for Autodiff<Flex, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: Arc<Vec<f32>>, epsilon: f32) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        let out = forward(&x, &weight, epsilon);
        match RmsNormBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, weight, epsilon), out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, noise, vector};

    #[test]
    fn equals_the_plain_operations_and_finite_differences() {
        let weight = Arc::new(noise(1, 12).iter().map(|x| 1.0 + x).collect::<Vec<_>>());
        let dense = vector(&weight);
        check_against_plain(
            &[(noise(2, 60), [5, 12])],
            |inputs| rms_norm(inputs[0].clone(), &weight, 1e-5),
            |inputs| rms_norm_plain(inputs[0].clone(), &dense, 1e-5),
        );
    }
}
