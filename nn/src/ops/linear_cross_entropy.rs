//! The head and the loss over it, without the logits of all rows.
//!
//! Only rows with a weight go through the head, in chunks of rows: `z = x W^T`, `nll = lse(z) - z_target`,
//! `dz = weight (softmax(z) - onehot)`, `dx = dz W`. The gradient is computed in the forward pass, so that all that is
//! saved is `dx`; the backward pass multiplies it by the incoming gradient.
//!
//! `loss = sum_t weight_t loss_t`, where `loss_t` is `nll_t`, or `(1 - share) nll_t + share KL_t` in a row for which a teacher
//! is at hand: the divergence of the student from its most probable tokens and their tail, at no more memory. With weights 1 / (number of target tokens of the whole optimizer step) the losses of its
//! micro-batches add up to the mean over its target tokens.

mod plain;

use std::sync::{Arc, OnceLock};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use espalier_kernels::Accumulate;
use espalier_kernels::ops::{RowLoss, cross_entropy_rows, distillation_rows};

pub use self::plain::{PlainRowLosses, linear_cross_entropy_plain};
use super::frozen_linear::FrozenLinear;
use super::teacher_tokens::TeacherTokens;
use crate::pool::Pool;
use crate::profile::{Cost, Operation, timed};
use crate::storage::{rows, tensor, values};

/// Bytes of logits that live at one time.
const LOGIT_BYTES: usize = 64 << 20;

/// Rows whose logits live at one time.
pub(crate) fn chunk_rows(vocabulary: usize) -> usize {
    (LOGIT_BYTES / (4 * vocabulary)).max(1)
}

/// What each row should predict.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The next token; anything where the weight is 0.
    pub tokens: Arc<Vec<u32>>,
    /// Weight of the row in the loss; 0 leaves it out of the head altogether.
    pub weights: Arc<Vec<f32>>,
    /// What a teacher thinks of each row, and its share in the loss.
    pub teacher: Option<(Arc<TeacherTokens>, f32)>,
}

/// What each row costs, written once by the forward pass.
type RowLossCell = Arc<OnceLock<Vec<RowLoss>>>;

/// The operation for burn's backends; call [`linear_cross_entropy`].
#[backend_extension(Autodiff, Flex)]
pub trait LinearCrossEntropyOperation: Backend {
    /// `hidden [t, h]` to the loss `[1]`.
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        head: Arc<FrozenLinear>,
        targets: Targets,
        pool: Pool,
        losses: RowLossCell,
    ) -> FloatTensor<Self>;
}

/// `sum_t weight_t loss_t` of `hidden [t, h]` under the frozen head `[vocabulary, h]`, as a tensor of one element, and what
/// each row cost; nothing where its weight is 0.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    head: &Arc<FrozenLinear>,
    targets: &Targets,
    pool: &Pool,
) -> (Tensor<1>, Vec<RowLoss>) {
    let losses = RowLossCell::default();
    let loss = Tensor::from_dispatch(<Dispatch as LinearCrossEntropyOperation>::linear_cross_entropy(
        hidden.into_dispatch(),
        Arc::clone(head),
        targets.clone(),
        pool.clone(),
        Arc::clone(&losses),
    ));
    (loss, losses.get().cloned().unwrap_or_default())
}

/// The loss, and the gradient of `hidden` when asked for; what every row cost into `losses`.
fn forward(
    hidden: &FlexTensor,
    head: &FrozenLinear,
    targets: &Targets,
    pool: &Pool,
    losses: &RowLossCell,
    gradient: bool,
) -> (f64, Vec<f32>) {
    let (width, vocabulary, x) = (head.inputs(), head.outputs(), values(hidden));
    let chosen: Vec<usize> = (0..rows(hidden)).filter(|&row| targets.weights[row] != 0.0).collect();
    let mut dx = if gradient { vec![0.0; x.len()] } else { Vec::new() };
    let chunk_rows = chunk_rows(vocabulary);
    let mut logits = pool.take(chunk_rows.min(chosen.len()) * vocabulary);
    let (mut loss, mut found) = (0.0, vec![RowLoss::default(); rows(hidden)]);
    for chosen in chosen.chunks(chunk_rows) {
        let logits = &mut logits[..chosen.len() * vocabulary];
        logits_of_rows(&x, chosen, head, logits);
        loss += timed(Operation::CrossEntropy, Cost::values(3 * logits.len()), || {
            visit(logits, vocabulary, targets, chosen, &mut found)
        });
        if gradient {
            let mut gathered = pool.take(chosen.len() * width);
            head.apply_transposed(logits, chosen.len(), &mut gathered);
            timed(Operation::CrossEntropy, Cost::values(2 * chosen.len() * width), || {
                for (&row, values) in chosen.iter().zip(gathered.chunks_exact(width)) {
                    dx[row * width..(row + 1) * width].copy_from_slice(values);
                }
            });
        }
    }
    // The forward pass of one call runs once; a second would only find the same values.
    let _ = losses.set(found);
    (loss, dx)
}

/// The logits `[chosen, vocabulary]` of the `chosen` rows of `x [t, h]`.
pub(crate) fn logits_of_rows(x: &[f32], chosen: &[usize], head: &FrozenLinear, logits: &mut [f32]) {
    let width = head.inputs();
    let gathered: Vec<f32> = timed(Operation::CrossEntropy, Cost::values(2 * chosen.len() * width), || {
        chosen.iter().flat_map(|&row| &x[row * width..(row + 1) * width]).copied().collect()
    });
    head.apply(&gathered, chosen.len(), logits, Accumulate::Overwrite);
}

/// The logits of the `chosen` rows become their gradient.
fn visit(logits: &mut [f32], vocabulary: usize, targets: &Targets, chosen: &[usize], found: &mut [RowLoss]) -> f64 {
    let tokens: Vec<u32> = chosen.iter().map(|&row| targets.tokens[row]).collect();
    let weights: Vec<f32> = chosen.iter().map(|&row| targets.weights[row]).collect();
    let mut losses = vec![RowLoss::default(); chosen.len()];
    let loss = match &targets.teacher {
        None => cross_entropy_rows(logits, vocabulary, &tokens, &weights, &mut losses),
        Some((teacher, share)) => {
            let teacher = teacher.select(chosen);
            let rows = teacher.rows(*share);
            distillation_rows(logits, vocabulary, &tokens, &weights, rows, &mut losses)
        }
    };
    for (&row, loss) in chosen.iter().zip(losses) {
        found[row] = loss;
    }
    loss
}

impl LinearCrossEntropyOperation for Flex {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        head: Arc<FrozenLinear>,
        targets: Targets,
        pool: Pool,
        losses: RowLossCell,
    ) -> FloatTensor<Self> {
        tensor(vec![forward(&hidden, &head, &targets, &pool, &losses, false).0 as f32], [1])
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
        losses: RowLossCell,
    ) -> FloatTensor<Self> {
        let node = hidden.node();
        let hidden = hidden.into_primitive();
        match LinearCrossEntropyBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (loss, dx) = forward(&hidden, &head, &targets, &pool, &losses, true);
                prepared.finish((Arc::new(dx), [rows(&hidden), head.inputs()]), tensor(vec![loss as f32], [1]))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(tensor(vec![forward(&hidden, &head, &targets, &pool, &losses, false).0 as f32], [1]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_against_plain, matrix, noise};
    use espalier_kernels::Precision;

    fn check(teacher: Option<(Arc<TeacherTokens>, f32)>) {
        let weight = noise(13, 20 * 6);
        let head = Arc::new(FrozenLinear::pack(Precision::F32, 20, 6, None, &|row, out| {
            out.copy_from_slice(&weight[row * 6..(row + 1) * 6]);
        }));
        let dense = matrix(&weight, [20, 6]);
        let (tokens, weights) = (Arc::new(vec![3, 19, 0, 7]), Arc::new(vec![0.5, 0.25, 0.0, 0.25]));
        let targets = Targets { tokens, weights, teacher };
        check_against_plain(
            &[(noise(14, 24), [4, 6])],
            |inputs| linear_cross_entropy(inputs[0].clone(), &head, &targets, &Pool::default()).0.unsqueeze(),
            |inputs| linear_cross_entropy_plain(inputs[0].clone(), &dense, &targets).0.unsqueeze(),
        );
    }

    #[test]
    fn equals_the_plain_operations_and_finite_differences() {
        check(None);
    }

    #[test]
    fn distillation_equals_the_plain_operations_and_finite_differences() {
        let mut teacher = TeacherTokens::default();
        teacher.push(&[3, 5, 11], &[-0.5, -1.5, -3.0]);
        teacher.push(&[], &[]);
        teacher.push(&[1], &[-0.1]);
        teacher.push(&[0, 7], &[-0.7, -0.8]);
        for share in [0.0, 0.4, 1.0] {
            check(Some((Arc::new(teacher.clone()), share)));
        }
    }

    #[test]
    fn rows_tell_what_they_cost() {
        let weight = noise(13, 20 * 6);
        let head = Arc::new(FrozenLinear::pack(Precision::F32, 20, 6, None, &|row, out| {
            out.copy_from_slice(&weight[row * 6..(row + 1) * 6]);
        }));
        let mut teacher = TeacherTokens::default();
        for tokens in [&[3_u32, 4][..], &[], &[2, 5]] {
            teacher.push(tokens, &vec![-1.0; tokens.len()]);
        }
        let (tokens, weights) = (Arc::new(vec![3, 19, 0]), Arc::new(vec![0.5, 0.25, 0.0]));
        let targets = Targets { tokens, weights, teacher: Some((Arc::new(teacher), 0.25)) };
        let hidden = matrix(&noise(14, 18), [3, 6]);
        let (loss, rows) = linear_cross_entropy(hidden, &head, &targets, &Pool::default());
        assert!(rows[0].nll > 0.0 && rows[1].nll > 0.0 && rows[2] == RowLoss::default());
        assert!(rows[0].divergence > 0.0 && rows[1].divergence == 0.0);
        let sum = 0.5 * (0.75 * rows[0].nll + 0.25 * rows[0].divergence) + 0.25 * rows[1].nll;
        assert!((loss.into_scalar::<f32>() - sum).abs() < 1e-6);
    }
}
