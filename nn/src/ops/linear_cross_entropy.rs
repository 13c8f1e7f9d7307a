//! The head and the loss over it, without the logits of all rows.
//!
//! Only rows with a weight go through the head, in chunks of rows: `z = x W^T`, `nll = lse(z) - z_target`,
//! `dz = weight (softmax(z) - onehot)`, `dx = dz W`. The gradient is computed in the forward pass, so that all that is
//! saved is `dx`; the backward pass multiplies it by the incoming gradient.
//!
//! `loss = sum_t weight_t loss_t`, where `loss_t` is `nll_t`, or `(1 - share) nll_t + share KL_t` in a row for which a teacher
//! is at hand: the divergence of the student from its most probable tokens and their tail, at no more memory. With weights 1 / (number of target tokens of the whole optimizer step) the losses of its
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
use espalier_kernels::ops::{RowLoss, cross_entropy_rows, distillation_rows};

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

/// The same in plain burn operations for a dense `head [vocabulary, h]`, with all logits.
pub fn linear_cross_entropy_plain(hidden: Tensor<2>, head: &Tensor<2>, targets: &Targets) -> Tensor<1> {
    let (t, device) = (targets.tokens.len(), hidden.device());
    let log_probabilities = burn::tensor::activation::log_softmax(hidden.matmul(head.clone().transpose()), 1);
    let indices: Vec<i32> = targets.tokens.iter().map(|&token| token as i32).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [t, 1]), &device);
    let weights = Tensor::<2>::from_data(TensorData::new(targets.weights.to_vec(), [t, 1]), &device);
    let nll = -log_probabilities.clone().gather(1, indices);
    let Some((teacher, share)) = &targets.teacher else { return (nll * weights).sum() };
    let shares: Vec<f32> = (0..t).map(|row| if teacher.entries(row).is_empty() { 0.0 } else { *share }).collect();
    let shares = Tensor::<2>::from_data(TensorData::new(shares, [t, 1]), &device);
    let divergence = divergence_plain(log_probabilities, teacher);
    ((nll * (-shares.clone() + 1.0) + divergence * shares) * weights).sum()
}

/// `sum_K p (ln p - ln q) + P (ln P - ln Q)` of each row `[t, 1]` from the student's `ln q [t, vocabulary]`.
fn divergence_plain(log_probabilities: Tensor<2>, teacher: &TeacherTokens) -> Tensor<2> {
    let ([t, vocabulary], device) = (log_probabilities.dims(), log_probabilities.device());
    let (mut top, mut tail_mask) = (vec![0.0; t * vocabulary], vec![0.0; t * vocabulary]);
    let (mut tails, mut entropies) = (vec![0.0; t], vec![0.0; t]);
    for row in 0..t {
        let (tokens, values) = teacher.row(row);
        let mut tail = 1.0;
        if !tokens.is_empty() {
            tail_mask[row * vocabulary..(row + 1) * vocabulary].fill(1.0);
        }
        for (token, log_p) in tokens.iter().zip(values) {
            let (at, p) = (row * vocabulary + *token as usize, f64::from(*log_p).exp());
            (top[at], tail_mask[at]) = (p as f32, 0.0);
            tail -= p;
            entropies[row] += (p * f64::from(*log_p)) as f32;
        }
        if !tokens.is_empty() && tokens.len() < vocabulary && tail > 0.0 {
            tails[row] = tail as f32;
            entropies[row] += (tail * tail.ln()) as f32;
        }
    }
    let tensor = |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
    let tail_q = (log_probabilities.clone().exp() * tensor(tail_mask, [t, vocabulary])).sum_dim(1);
    let cross = (log_probabilities * tensor(top, [t, vocabulary])).sum_dim(1);
    // Where there is no tail its logarithm is multiplied by zero and must only be finite.
    let tail_cross = tail_q.clamp_min(1e-30).log() * tensor(tails, [t, 1]);
    tensor(entropies, [t, 1]) - cross - tail_cross
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
            |inputs| linear_cross_entropy_plain(inputs[0].clone(), &dense, &targets).unsqueeze(),
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
