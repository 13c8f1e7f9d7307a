//! The head and the loss over it in plain burn operations, with the logits of all rows that it is given: the reference in
//! tests, and the body for devices without our kernels, which give it a chunk of rows at a time.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::Targets;
use crate::ops::frozen_linear::frozen_linear_plain;
use crate::ops::teacher_tokens::TeacherTokens;

/// What each row costs without its weight, `[t, 1]` each.
#[derive(Clone, Debug)]
pub struct PlainRowLosses {
    /// `lse(z) - z_target`.
    pub nll: Tensor<2>,
    /// Divergence from the teacher, in rows that it knows; absent without a teacher.
    pub divergence: Option<Tensor<2>>,
    /// 1 where no token is more probable than the target, 0 elsewhere.
    pub likeliest: Tensor<2>,
}

/// `sum_t weight_t loss_t` of `hidden [t, h]` under a dense `head [vocabulary, h]`, and what each row costs.
pub fn linear_cross_entropy_plain(
    hidden: Tensor<2>,
    head: &Tensor<2>,
    targets: &Targets,
) -> (Tensor<1>, PlainRowLosses) {
    let (t, device) = (targets.tokens.len(), head.device());
    let log_probabilities = log_softmax(frozen_linear_plain(hidden, head, None), 1);
    let indices: Vec<i32> = targets.tokens.iter().map(|&token| token as i32).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [t, 1]), &device);
    let weights = column(targets.weights.to_vec(), &device);
    let target = log_probabilities.clone().gather(1, indices);
    let most = log_probabilities.clone().without_autodiff().max_dim(1);
    let likeliest = target.clone().without_autodiff().greater_equal(most).float();
    let nll = -target;
    let Some((teacher, share)) = &targets.teacher else {
        let loss = (nll.clone() * weights).sum();
        return (loss, PlainRowLosses { nll, divergence: None, likeliest });
    };
    let shares: Vec<f32> = (0..t).map(|row| if teacher.entries(row).is_empty() { 0.0 } else { *share }).collect();
    let shares = column(shares, &device);
    let divergence = divergence(log_probabilities, teacher, &device);
    let mixed = nll.clone() * (-shares.clone() + 1.0) + divergence.clone() * shares;
    ((mixed * weights).sum(), PlainRowLosses { nll, divergence: Some(divergence), likeliest })
}

fn column(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows, 1]), device)
}

/// `sum_K p (ln p - ln q) + P (ln P - ln Q)` of each row `[t, 1]` from the student's `ln q [t, vocabulary]`; 0 in a row that
/// the teacher does not know. Of the teacher only its most probable tokens come to the device.
fn divergence(log_probabilities: Tensor<2>, teacher: &TeacherTokens, device: &Device) -> Tensor<2> {
    let [t, vocabulary] = log_probabilities.dims();
    let most = (0..t).map(|row| teacher.row(row).0.len()).max().unwrap_or_default().max(1);
    // Rows with fewer tokens end in token 0 with probability 0, which is not taken out of the tail either.
    let (mut tokens, mut top, mut taken) = (vec![0_i32; t * most], vec![0.0_f32; t * most], vec![0.0_f32; t * most]);
    let (mut tails, mut entropies) = (vec![0.0; t], vec![0.0; t]);
    for row in 0..t {
        let (known, values) = teacher.row(row);
        let mut tail = 1.0;
        for (index, (token, log_p)) in known.iter().zip(values).enumerate() {
            let (at, p) = (row * most + index, f64::from(*log_p).exp());
            (tokens[at], top[at], taken[at]) = (*token as i32, p as f32, -1.0);
            tail -= p;
            entropies[row] += (p * f64::from(*log_p)) as f32;
        }
        if !known.is_empty() && known.len() < vocabulary && tail > 0.0 {
            tails[row] = tail as f32;
            entropies[row] += (tail * tail.ln()) as f32;
        }
    }
    let table = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [t, most]), device);
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [t, most]), device);
    // Summed over the tail itself: as what is missing from one it would lose its digits.
    let tail_mask =
        Tensor::<2>::ones([t, vocabulary], device).scatter(1, tokens.clone(), table(taken), IndexingUpdateOp::Add);
    let tail_q = (log_probabilities.clone().exp() * tail_mask).sum_dim(1);
    let cross = (log_probabilities.gather(1, tokens) * table(top)).sum_dim(1);
    // Where there is no tail its logarithm is multiplied by zero and must only be finite.
    let tail_cross = tail_q.clamp_min(1e-30).log() * column(tails, device);
    column(entropies, device) - cross - tail_cross
}
