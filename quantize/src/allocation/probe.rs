//! What a unit of error costs in each group of tensors.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use espalier_kernels::BlockType;

use super::AllocationEvent;
use super::budget::{Choice, allocate_bytes};
use super::errors::Candidates;
use super::rounded::RoundedModel;
use crate::QuantizeError;
use crate::divergence::ReferenceLogits;

/// A group costs at least this part of the mean: measured as nothing, it would be rounded without bound.
const LEAST_COST: f64 = 0.02;

type OnEvent<'a> = dyn FnMut(AllocationEvent) -> ControlFlow<()> + 'a;

/// Rounds one group at a time while all others stay exact. The types are about those that the budget will give.
pub(super) fn alone(
    candidates: &Candidates,
    budget: u64,
    rounded: &mut RoundedModel<'_>,
    reference: &ReferenceLogits,
    on_event: &mut OnEvent<'_>,
) -> Result<Vec<f64>, QuantizeError> {
    let types = allocate_bytes(candidates, &vec![1.0; candidates.groups.len()], budget);
    let total = candidates.groups.len();
    let mut costs = Vec::with_capacity(total);
    for group in 0..total {
        let chosen = types_where(candidates, &types, |other| other == group);
        let measured = reference.divergence(&rounded.engine(&chosen)?)?;
        costs.push(measured.mean_kld.value / error(candidates, &types, group).max(f64::MIN_POSITIVE));
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
        let without = reference.divergence(&rounded.engine(&chosen)?)?.mean_kld.value;
        let error = error(candidates, choices, group).max(f64::MIN_POSITIVE);
        found.push(f64::midpoint(cost, (full - without).max(0.0) / error));
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

fn bounded(mut costs: Vec<f64>) -> Vec<f64> {
    let mean = costs.iter().sum::<f64>() / costs.len().max(1) as f64;
    for cost in &mut costs {
        *cost = cost.max(mean * LEAST_COST);
    }
    costs
}
