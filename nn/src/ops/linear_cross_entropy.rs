//! The head and the loss over it, without the logits of all rows.
//!
//! Only rows with a weight go through the head, in chunks of rows: `z = x W^T`, `nll = lse(z) - z_target`,
//! `dz = weight (softmax(z) - onehot)`, `dx = dz W`. The gradient is computed in the forward pass, so that all that is
//! saved is `dx`; the backward pass multiplies it by the incoming gradient.
//!
//! `loss = sum_t weight_t nll_t`. With weights 1 / (number of target tokens of the whole optimizer step) the losses of its
//! micro-batches add up to the mean over its target tokens.

use std::sync::{Arc, OnceLock};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::FlexTensor;
use espalier_kernels::Accumulate;
use espalier_kernels::ops::cross_entropy_rows;

use super::frozen_linear::FrozenLinear;
use crate::pool::Pool;
use crate::storage::{rows, tensor, values};

/// Bytes of logits that live at one time.
const LOGIT_BYTES: usize = 64 << 20;

/// What each row should predict.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The next token; anything where the weight is 0.
    pub tokens: Arc<Vec<u32>>,
    /// Weight of the row in the loss; 0 leaves it out of the head altogether.
    pub weights: Arc<Vec<f32>>,
}

/// `nll_t` of each row, written once by the forward pass.
type RowLosses = Arc<OnceLock<Vec<f32>>>;

/// The operation for burn's backends; call [`linear_cross_entropy`].
#[backend_extension(Autodiff, Flex)]
pub trait LinearCrossEntropyOperation: Backend {
    /// `hidden [t, h]` to the loss `[1]`.
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        head: Arc<FrozenLinear>,
        targets: Targets,
        pool: Pool,
        nll: RowLosses,
    ) -> FloatTensor<Self>;
}

/// `sum_t weight_t nll_t` of `hidden [t, h]` under the frozen head `[vocabulary, h]`, as a tensor of one element, and
/// every `nll_t` (0 where the weight is 0).
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    head: &Arc<FrozenLinear>,
    targets: &Targets,
    pool: &Pool,
) -> (Tensor<1>, Vec<f32>) {
    let nll = RowLosses::default();
    let loss = Tensor::from_dispatch(<Dispatch as LinearCrossEntropyOperation>::linear_cross_entropy(
        hidden.into_dispatch(),
        Arc::clone(head),
        targets.clone(),
        pool.clone(),
        Arc::clone(&nll),
    ));
    (loss, nll.get().cloned().unwrap_or_default())
}

/// The same in plain burn operations for a dense `head [vocabulary, h]`, with all logits.
pub fn linear_cross_entropy_plain(hidden: Tensor<2>, head: &Tensor<2>, targets: &Targets) -> Tensor<1> {
    let (t, device) = (targets.tokens.len(), hidden.device());
    let log_probabilities = burn::tensor::activation::log_softmax(hidden.matmul(head.clone().transpose()), 1);
    let indices: Vec<i32> = targets.tokens.iter().map(|&token| token as i32).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [t, 1]), &device);
    let weights = Tensor::<2>::from_data(TensorData::new(targets.weights.to_vec(), [t, 1]), &device);
    -(log_probabilities.gather(1, indices) * weights).sum()
}

/// The loss, and the gradient of `hidden` when asked for; every row's loss into `nll`.
fn forward(
    hidden: &FlexTensor,
    head: &FrozenLinear,
    targets: &Targets,
    pool: &Pool,
    nll: &RowLosses,
    gradient: bool,
) -> (f64, Vec<f32>) {
    let (width, vocabulary, x) = (head.inputs(), head.outputs(), values(hidden));
    let chosen: Vec<usize> = (0..rows(hidden)).filter(|&row| targets.weights[row] != 0.0).collect();
    let mut dx = if gradient { vec![0.0; x.len()] } else { Vec::new() };
    let chunk_rows = (LOGIT_BYTES / (4 * vocabulary)).max(1);
    let mut logits = pool.take(chunk_rows.min(chosen.len()) * vocabulary);
    let (mut loss, mut row_losses) = (0.0, vec![0.0; rows(hidden)]);
    for chosen in chosen.chunks(chunk_rows) {
        let gathered: Vec<f32> = chosen.iter().flat_map(|&row| &x[row * width..(row + 1) * width]).copied().collect();
        let tokens: Vec<u32> = chosen.iter().map(|&row| targets.tokens[row]).collect();
        let weights: Vec<f32> = chosen.iter().map(|&row| targets.weights[row]).collect();
        let logits = &mut logits[..chosen.len() * vocabulary];
        head.apply(&gathered, chosen.len(), logits, Accumulate::Overwrite);
        let mut losses = vec![0.0; chosen.len()];
        loss += cross_entropy_rows(logits, vocabulary, &tokens, &weights, &mut losses);
        for (&row, loss) in chosen.iter().zip(losses) {
            row_losses[row] = loss;
        }
        if gradient {
            let mut gathered = pool.take(chosen.len() * width);
            head.apply_transposed(logits, chosen.len(), &mut gathered);
            for (&row, values) in chosen.iter().zip(gathered.chunks_exact(width)) {
                dx[row * width..(row + 1) * width].copy_from_slice(values);
            }
        }
    }
    // The forward pass of one call runs once; a second would only find the same values.
    let _ = nll.set(row_losses);
    (loss, dx)
}

impl LinearCrossEntropyOperation for Flex {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        head: Arc<FrozenLinear>,
        targets: Targets,
        pool: Pool,
        nll: RowLosses,
    ) -> FloatTensor<Self> {
        tensor(vec![forward(&hidden, &head, &targets, &pool, &nll, false).0 as f32], [1])
    }
}

#[derive(Debug)]
struct LinearCrossEntropyBackward;

impl Backward<Flex, 1> for LinearCrossEntropyBackward {
    type State = (Arc<Vec<f32>>, [usize; 2]);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let factor = values(&gradients.consume::<Flex>(&ops.node))[0];
        let [Some(parent)] = ops.parents else { return };
        let (dx, shape) = ops.state;
        let mut dx = Arc::unwrap_or_clone(dx);
        if factor.to_bits() != 1.0_f32.to_bits() {
            for value in &mut dx {
                *value *= factor;
            }
        }
        gradients.register::<Flex>(parent.id, tensor(dx, shape));
    }
}

impl<C: CheckpointStrategy> LinearCrossEntropyOperation for Autodiff<Flex, C> {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        head: Arc<FrozenLinear>,
        targets: Targets,
        pool: Pool,
        nll: RowLosses,
    ) -> FloatTensor<Self> {
        let node = hidden.node();
        let hidden = hidden.into_primitive();
        match LinearCrossEntropyBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (loss, dx) = forward(&hidden, &head, &targets, &pool, &nll, true);
                prepared.finish((Arc::new(dx), [rows(&hidden), head.inputs()]), tensor(vec![loss as f32], [1]))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(tensor(vec![forward(&hidden, &head, &targets, &pool, &nll, false).0 as f32], [1]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, matrix, noise};
    use espalier_kernels::Precision;

    #[test]
    fn equals_the_plain_operations_and_finite_differences() {
        let weight = noise(13, 20 * 6);
        let head = Arc::new(FrozenLinear::pack(Precision::F32, 20, 6, None, &|row, out| {
            out.copy_from_slice(&weight[row * 6..(row + 1) * 6]);
        }));
        let dense = matrix(&weight, [20, 6]);
        let targets = Targets { tokens: Arc::new(vec![3, 19, 0, 7]), weights: Arc::new(vec![0.5, 0.25, 0.0, 0.25]) };
        check_against_plain(
            &[(noise(14, 24), [4, 6])],
            |inputs| linear_cross_entropy(inputs[0].clone(), &head, &targets, &Pool::default()).0.unsqueeze(),
            |inputs| linear_cross_entropy_plain(inputs[0].clone(), &dense, &targets).unsqueeze(),
        );
    }
}
