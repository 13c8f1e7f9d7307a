//! The gated activation of a feed-forward block.
//!
//! `y = a(g) u` with `silu` or the tanh form of `gelu` for `a`; `du = dy a(g)`, `dg = dy u a'(g)`.
//! Gate and up come from one product, side by side in a row. Saves that row; `y` is not saved here.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::Element;
use espalier_kernels::ops::{self, GatedActivation};
use rayon::prelude::*;

use crate::storage::{rows, tensor, values};

/// The operation for burn's backends; call [`gated_activation`].
#[backend_extension(Autodiff, Flex)]
pub trait GatedActivationOperation: Backend {
    /// `gate_up [t, 2 f]` to `[t, f]`.
    fn gated_activation(gate_up: FloatTensor<Self>, activation: GatedActivation) -> FloatTensor<Self>;
}

/// `a(gate) * up` for `gate_up [t, 2 f]`, gate in the first half of each row.
pub fn gated_activation(gate_up: Tensor<2>, activation: GatedActivation) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as GatedActivationOperation>::gated_activation(gate_up.into_dispatch(), activation))
}

/// The same in plain burn operations.
pub fn gated_activation_plain(gate_up: Tensor<2>, activation: GatedActivation) -> Tensor<2> {
    let parts = gate_up.chunk(2, 1);
    let gate = parts[0].clone();
    let gate = match activation {
        GatedActivation::SwiGlu => burn::tensor::activation::silu(gate),
        GatedActivation::GeGlu => {
            let inner = (gate.clone() + gate.clone() * gate.clone() * gate.clone() * 0.044_715)
                * std::f32::consts::FRAC_2_PI.sqrt();
            gate * (inner.tanh() + 1.0) * 0.5
        }
    };
    gate * parts[1].clone()
}

/// `gate_up [t, 2 width]` to `out [t, width]`.
pub(crate) fn activation_rows<T: Element>(activation: GatedActivation, gate_up: &[T], width: usize, out: &mut [T]) {
    out.par_chunks_exact_mut(width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .for_each(|(out, row)| ops::gated_activation(activation, &row[..width], &row[width..], out));
}

/// `dy [t, width]` to the gradient of `gate_up [t, 2 width]`.
pub(crate) fn activation_rows_backward<T: Element>(
    activation: GatedActivation,
    gate_up: &[T],
    dy: &[T],
    width: usize,
    gradient: &mut [T],
) {
    gradient
        .par_chunks_exact_mut(2 * width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .zip(dy.par_chunks_exact(width))
        .for_each(|((gradient, row), dy)| {
            let (dgate, dup) = gradient.split_at_mut(width);
            ops::gated_activation_backward(activation, &row[..width], &row[width..], dy, dgate, dup);
        });
}

fn forward(gate_up: &FlexTensor, activation: GatedActivation) -> FlexTensor {
    let width = gate_up.layout().shape()[1] / 2;
    let mut out = vec![0.0; rows(gate_up) * width];
    activation_rows(activation, &values(gate_up), width, &mut out);
    tensor(out, [rows(gate_up), width])
}

impl GatedActivationOperation for Flex {
    fn gated_activation(gate_up: FloatTensor<Self>, activation: GatedActivation) -> FloatTensor<Self> {
        forward(&gate_up, activation)
    }
}

#[derive(Debug)]
struct ActivationBackward;

impl Backward<Flex, 1> for ActivationBackward {
    type State = (FlexTensor, GatedActivation);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let (gate_up, activation) = ops.state;
        let [Some(parent)] = ops.parents else { return };
        let width = gate_up.layout().shape()[1] / 2;
        let mut gradient = vec![0.0; rows(&gate_up) * 2 * width];
        activation_rows_backward(activation, &values(&gate_up), &values(&dy), width, &mut gradient);
        gradients.register::<Flex>(parent.id, tensor(gradient, [rows(&gate_up), 2 * width]));
    }
}

impl<C: CheckpointStrategy> GatedActivationOperation for Autodiff<Flex, C> {
    fn gated_activation(gate_up: FloatTensor<Self>, activation: GatedActivation) -> FloatTensor<Self> {
        let node = gate_up.node();
        let gate_up = gate_up.into_primitive();
        let out = forward(&gate_up, activation);
        match ActivationBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((gate_up, activation), out),
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
        for activation in [GatedActivation::SwiGlu, GatedActivation::GeGlu] {
            check_against_plain(
                &[(noise(3, 5 * 14), [5, 14])],
                |inputs| gated_activation(inputs[0].clone(), activation),
                |inputs| gated_activation_plain(inputs[0].clone(), activation),
            );
        }
    }
}
