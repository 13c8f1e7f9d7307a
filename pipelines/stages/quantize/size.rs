//! Types for a size, by measurement.

use crate::outcome::{Failure, Interrupted};
use crate::reporter::size;
use crate::stages::StageContext;
use anyhow::Result;
use espalier_quantize::{Allocation, AllocationEvent, AllocationInputs, QuantizeError, Target, allocate};
use std::ops::ControlFlow;

/// Finds the types with which a file of `target` diverges least, and says how far it is.
pub fn measured_types(inputs: AllocationInputs<'_>, target: Target, context: &StageContext<'_>) -> Result<Allocation> {
    let found = allocate(inputs, target, &mut |event| {
        match event {
            AllocationEvent::Errors { done, total } => {
                context.progress("errors", done as u64, total as u64, "tensors", "");
            }
            AllocationEvent::Probes { done, total } => {
                context.progress("sensitivity", done as u64, total as u64, "groups", "");
            }
            AllocationEvent::Measured { mean_kld, bytes } => {
                context.note(format!("{}: mean divergence {mean_kld:.5} on what it was measured on", size(bytes)));
            }
        }
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match found {
        Err(QuantizeError::Interrupted) => Err(Interrupted.into()),
        Err(error @ QuantizeError::Target { .. }) => Err(Failure::usage(error.to_string()).into()),
        found => Ok(found?),
    }
}
