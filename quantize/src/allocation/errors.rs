//! The error that each type leaves in each tensor.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use espalier_kernels::{BlockType, blocks};
use espalier_model::TensorInfo;

use super::budget::Choice;
use super::group::group;
use super::rounded::RoundedModel;
use super::speed::Spending;
use crate::encode::round_into;
use crate::mix::{MixOptions, ModelDimensions, TensorShape, Weighing, plan};
use crate::write::in_tensor;
use crate::{FileType, QuantizeError};

/// Types that may be given: what llama.cpp's kernels are fast in, from few bits to many.
pub(super) const TYPES: [BlockType; 12] = [
    BlockType::Q2K,
    BlockType::Q3K,
    BlockType::Iq4Xs,
    BlockType::Iq4Nl,
    BlockType::Q4_0,
    BlockType::Q4K,
    BlockType::Q4_1,
    BlockType::Q5K,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q6K,
    BlockType::Q8_0,
];

/// Rows of a tensor that are encoded, spread evenly over it.
const SAMPLED_ROWS: usize = 128;

/// One type of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) block_type: BlockType,
    pub(super) bytes: u64,
    /// What it takes of the budget.
    pub(super) spent: u64,
    /// Square of the error over the square of the weights, each column weighed by what it reads.
    pub(super) error: f64,
}

/// One tensor that is to be rounded.
#[derive(Debug, Clone)]
pub(super) struct Rounding {
    pub(super) name: String,
    /// Which of [`Candidates::groups`].
    pub(super) group: usize,
    /// From the cheapest to the dearest; of several that take as much, that with the least error.
    pub(super) candidates: Vec<Candidate>,
}

/// All tensors that are to be rounded.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    pub(super) tensors: Vec<Rounding>,
    pub(super) groups: Vec<String>,
    /// Bytes of the tensors whose type is given: norms, and rows that no block divides.
    pub(super) fixed_bytes: u64,
    /// Weights of the whole model.
    pub(super) weights: u64,
}

impl Candidates {
    /// Encodes rows of every tensor in every type. `usage` has the squares that the columns of a tensor read.
    pub(super) fn measure(
        model: &RoundedModel<'_>,
        usage: &BTreeMap<String, Vec<f32>>,
        spending: &Spending,
        on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self, QuantizeError> {
        let infos: Vec<&TensorInfo> = model.model.tensors().collect();
        let shapes: Vec<TensorShape<'_>> = infos
            .iter()
            .map(|info| TensorShape { name: &info.name, dimensions: &info.dimensions, block_type: info.block_type })
            .collect();
        let layers = model.model.config().layers;
        let pure = MixOptions { pure: true, ..MixOptions::default() };
        let plans = plan(FileType::Q8_0, ModelDimensions::from(model.model.config()), &shapes, &pure, Weighing::Even)?;
        let mut found = Self { tensors: Vec::new(), groups: Vec::new(), fixed_bytes: 0, weights: 0 };
        let total = plans.len();
        for (done, plan) in plans.into_iter().enumerate() {
            let info = infos[plan.index];
            found.weights += (info.rows * info.columns) as u64;
            if plan.block_type == BlockType::Q8_0 {
                let name = group(&info.name, layers);
                let known = found.groups.iter().position(|known| *known == name);
                let group = known.unwrap_or_else(|| {
                    found.groups.push(name);
                    found.groups.len() - 1
                });
                found.tensors.push(Rounding {
                    name: info.name.clone(),
                    group,
                    candidates: measure_tensor(model, info, usage.get(&info.name).map(Vec::as_slice), spending)?,
                });
            } else {
                found.fixed_bytes += bytes(info, plan.block_type);
            }
            super::stopping(on_progress(done + 1, total))?;
        }
        Ok(found)
    }

    /// What the tensors that are rounded take of the budget, when each has its cheapest type.
    pub(super) fn least(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.candidates[0].spent).sum()
    }

    /// What they take of the budget.
    pub(super) fn spent(&self, choices: &[Choice]) -> u64 {
        self.tensors.iter().zip(choices).map(|(tensor, choice)| tensor.candidates[choice.0].spent).sum()
    }

    /// Bytes of the tensors that are rounded.
    pub(super) fn bytes(&self, choices: &[Choice]) -> u64 {
        self.tensors.iter().zip(choices).map(|(tensor, choice)| tensor.candidates[choice.0].bytes).sum()
    }

    /// The types that were chosen.
    pub(super) fn types(&self, choices: &[Choice]) -> BTreeMap<String, BlockType> {
        let pairs = self.tensors.iter().zip(choices);
        pairs.map(|(tensor, choice)| (tensor.name.clone(), tensor.candidates[choice.0].block_type)).collect()
    }
}

pub(super) fn bytes(info: &TensorInfo, block_type: BlockType) -> u64 {
    (info.rows * info.columns / block_type.block_size() * block_type.block_bytes()) as u64
}

fn measure_tensor(
    model: &RoundedModel<'_>,
    info: &TensorInfo,
    usage: Option<&[f32]>,
    spending: &Spending,
) -> Result<Vec<Candidate>, QuantizeError> {
    let weights = model.weights(info)?;
    // What nothing is read of, the embedding, is weighed as it is encoded.
    let usage = usage.or(weights.as_deref()).filter(|usage| usage.iter().any(|square| *square > 0.0));
    let rows = sample(info.rows);
    let mut values = vec![0.0; rows.len() * info.columns];
    for (&row, values) in rows.iter().zip(values.chunks_exact_mut(info.columns)) {
        model.rows(&info.name, row, values)?;
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for block_type in TYPES {
        if !info.columns.is_multiple_of(block_type.block_size()) {
            continue;
        }
        let mut decoded = vec![0.0; values.len()];
        for (place, &row) in rows.iter().enumerate() {
            let span = place * info.columns..(place + 1) * info.columns;
            let weights = weights_of(weights.as_deref(), info, row);
            let mut blocks = vec![0; info.columns / block_type.block_size() * block_type.block_bytes()];
            round_into(block_type, &values[span.clone()], weights, model.refine, &mut blocks)
                .map_err(|error| in_tensor(&info.name, row, info.columns, error))?;
            blocks::decode(block_type, &blocks, &mut decoded[span])?;
        }
        let (mut square, mut difference) = (0.0, 0.0);
        for (place, &row) in rows.iter().enumerate() {
            let span = place * info.columns..(place + 1) * info.columns;
            let usage = weights_of(usage, info, row);
            for (column, (value, decoded)) in values[span.clone()].iter().zip(&decoded[span]).enumerate() {
                let weight = usage.map_or(1.0, |usage| f64::from(usage[column]));
                square += weight * f64::from(*value).powi(2);
                difference += weight * f64::from(value - decoded).powi(2);
            }
        }
        let error = if square > 0.0 { difference / square } else { 0.0 };
        let spent = spending.of(info, block_type);
        candidates.push(Candidate { block_type, bytes: bytes(info, block_type), spent, error });
    }
    Ok(worthwhile(candidates))
}

/// The weights of the matrix that a row stands in.
fn weights_of<'a>(weights: Option<&'a [f32]>, info: &TensorInfo, row: usize) -> Option<&'a [f32]> {
    let matrix = row / info.dimensions.get(1).copied().unwrap_or(1).max(1);
    weights.map(|weights| &weights[matrix * info.columns % weights.len()..][..info.columns])
}

/// Rows spread evenly.
fn sample(rows: usize) -> Vec<usize> {
    let count = rows.min(SAMPLED_ROWS);
    (0..count).map(|place| place * rows / count).collect()
}

/// The candidates from the cheapest to the dearest, without those that a cheaper one beats.
fn worthwhile(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by(|left, right| left.spent.cmp(&right.spent).then(left.error.total_cmp(&right.error)));
    let mut least = f64::INFINITY;
    candidates.retain(|candidate| {
        let better = candidate.error < least;
        least = least.min(candidate.error);
        better
    });
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_more_and_gives_less_is_left_out() {
        let candidate = |spent, error| Candidate { block_type: BlockType::Q8_0, bytes: 1, spent, error };
        let found = worthwhile(vec![candidate(9, 1.0), candidate(5, 3.0), candidate(5, 2.0), candidate(7, 2.5)]);
        assert_eq!(found, [candidate(5, 2.0), candidate(9, 1.0)]);
    }

    #[test]
    fn samples_are_spread() {
        assert_eq!(sample(3), [0, 1, 2]);
        let rows = sample(1280);
        assert_eq!((rows.len(), rows[0], rows[1], rows[127]), (128, 0, 10, 1270));
    }
}
