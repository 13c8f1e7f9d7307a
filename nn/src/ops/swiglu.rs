//! The gated activation of a feed-forward block.
//!
//! `y = silu(g) u` with `silu(g) = g / (1 + e^-g)`; `du = dy silu(g)`, `dg = dy u s (1 + g (1 - s))`, `s = 1 / (1 + e^-g)`.
//! Gate and up come from one product, side by side in a row. Saves that row; `y` is not saved here.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::ops::{GatedActivation, gated_activation, gated_activation_backward};
use rayon::prelude::*;

use crate::storage::{rows, tensor, values};

/// The operation for burn's backends; call [`swiglu`].
#[backend_extension(Autodiff, Flex)]
pub trait SwigluOperation: Backend {
    /// `gate_up [t, 2 f]` to `[t, f]`.
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// `silu(gate) * up` for `gate_up [t, 2 f]`, gate in the first half of each row.
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as SwigluOperation>::swiglu(gate_up.into_dispatch()))
}

/// The same in plain burn operations.
pub fn swiglu_plain(gate_up: Tensor<2>) -> Tensor<2> {
    let parts = gate_up.chunk(2, 1);
    burn::tensor::activation::silu(parts[0].clone()) * parts[1].clone()
}

/// `gate_up [t, 2 width]` to `out [t, width]`.
pub(crate) fn swiglu_rows(gate_up: &[f32], width: usize, out: &mut [f32]) {
    out.par_chunks_exact_mut(width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .for_each(|(out, row)| gated_activation(GatedActivation::SwiGlu, &row[..width], &row[width..], out));
}

/// `dy [t, width]` to the gradient of `gate_up [t, 2 width]`.
pub(crate) fn swiglu_rows_backward(gate_up: &[f32], dy: &[f32], width: usize, gradient: &mut [f32]) {
    gradient
        .par_chunks_exact_mut(2 * width)
        .zip(gate_up.par_chunks_exact(2 * width))
        .zip(dy.par_chunks_exact(width))
        .for_each(|((gradient, row), dy)| {
            let (dgate, dup) = gradient.split_at_mut(width);
            gated_activation_backward(GatedActivation::SwiGlu, &row[..width], &row[width..], dy, dgate, dup);
        });
}

fn forward(gate_up: &FlexTensor) -> FlexTensor {
    let width = gate_up.layout().shape()[1] / 2;
    let mut out = vec![0.0; rows(gate_up) * width];
    swiglu_rows(&values(gate_up), width, &mut out);
    tensor(out, [rows(gate_up), width])
}

impl SwigluOperation for Flex {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        forward(&gate_up)
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl Backward<Flex, 1> for SwigluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let gate_up = ops.state;
        let [Some(parent)] = ops.parents else { return };
        let width = gate_up.layout().shape()[1] / 2;
        let mut gradient = vec![0.0; rows(&gate_up) * 2 * width];
        swiglu_rows_backward(&values(&gate_up), &values(&dy), width, &mut gradient);
        gradients.register::<Flex>(parent.id, tensor(gradient, [rows(&gate_up), 2 * width]));
    }
}

impl<C: CheckpointStrategy> SwigluOperation for Autodiff<Flex, C> {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = gate_up.node();
        let gate_up = gate_up.into_primitive();
        let out = forward(&gate_up);
        match SwigluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(gate_up, out),
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
        check_against_plain(
            &[(noise(3, 5 * 14), [5, 14])],
            |inputs| swiglu(inputs[0].clone()),
            |inputs| swiglu_plain(inputs[0].clone()),
        );
    }
}
