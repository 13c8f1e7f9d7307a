//! What a unit of error costs in each group of tensors.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use espalier_kernels::BlockType;

use super::AllocationEvent;
use super::budget::{Choice, allocate_budget};
use super::errors::Candidates;
use super::rounded::RoundedModel;
use crate::QuantizeError;
use crate::divergence::ReferenceLogits;

/// A group costs at least this part of the mean: measured as nothing, it would be rounded without bound.
const LEAST_COST: f64 = 0.02;

/// A relative error below this is no error: sums of squares in `f32` are not finer.
const LEAST_ERROR: f64 = 1e-9;

type OnEvent<'a> = dyn FnMut(AllocationEvent) -> ControlFlow<()> + 'a;

/// Rounds one group at a time while all others stay exact. The types are about those that the budget will give, where they
/// leave an error: weights that come from a quantized file may lie on the grid of a type.
pub(super) fn alone(
    candidates: &Candidates,
    budget: u64,
    rounded: &mut RoundedModel<'_>,
    reference: &ReferenceLogits,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<f64>, QuantizeError> {
    let mut types = allocate_budget(candidates, &vec![1.0; candidates.groups.len()], budget);
    for (tensor, choice) in candidates.tensors.iter().zip(&mut types) {
        while choice.0 > 0 && tensor.candidates[choice.0].error < LEAST_ERROR {
            choice.0 -= 1;
        }
    }
    let total = candidates.groups.len();
    let mut costs = Vec::with_capacity(total);
    for group in 0..total {
        let chosen = types_where(candidates, &types, |other| other == group);
        let measured = reference.divergence(rounded.engine(&chosen)?)?;
        costs.push(price(measured.mean_kld.value, error(candidates, &types, group)));
        super::stopping(on_event(AllocationEvent::Probes { done: group + 1, total }))?;
    }
    Ok(bounded(costs))
}

/// Restores one group at a time within a whole allocation, whose divergence is `full`: what is missing then is what the group
/// costs beside the others. The mean of both measurements goes on.
pub(super) fn within(
    candidates: &Candidates,
    choices: &[Choice],
    full: f64,
    costs: Vec<f64>,
    rounded: &mut RoundedModel<'_>,
    reference: &ReferenceLogits,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<f64>, QuantizeError> {
    let total = candidates.groups.len();
    let mut found = Vec::with_capacity(total);
    for (group, cost) in costs.into_iter().enumerate() {
        let chosen = types_where(candidates, choices, |other| other != group);
        let without = reference.divergence(rounded.engine(&chosen)?)?.mean_kld.value;
        let measured = price((full - without).max(0.0), error(candidates, choices, group));
        found.push(if measured > 0.0 { f64::midpoint(cost, measured) } else { cost });
        super::stopping(on_event(AllocationEvent::Probes { done: group + 1, total }))?;
    }
    Ok(bounded(found))
}

fn types_where(
    candidates: &Candidates,
    choices: &[Choice],
    wanted: impl Fn(usize) -> bool,
) -> BTreeMap<String, BlockType> {
    let mut types = candidates.types(choices);
    for tensor in candidates.tensors.iter().filter(|tensor| !wanted(tensor.group)) {
        types.remove(&tensor.name);
    }
    types
}

/// The errors of a group, summed.
fn error(candidates: &Candidates, choices: &[Choice], group: usize) -> f64 {
    let pairs = candidates.tensors.iter().zip(choices).filter(|(tensor, _)| tensor.group == group);
    pairs.map(|(tensor, choice)| tensor.candidates[choice.0].error).sum()
}

/// What a unit of error costs; zero where there is too little to tell.
fn price(divergence: f64, error: f64) -> f64 {
    if error < LEAST_ERROR { 0.0 } else { divergence / error }
}

/// Gives a cost to what was measured as nothing, or as next to nothing.
fn bounded(mut costs: Vec<f64>) -> Vec<f64> {
    let known = costs.iter().filter(|cost| **cost > 0.0);
    let mean = if known.clone().count() == 0 { 1.0 } else { known.clone().sum::<f64>() / known.count() as f64 };
    for cost in &mut costs {
        *cost = if *cost > 0.0 { cost.max(mean * LEAST_COST) } else { mean };
    }
    costs
}
