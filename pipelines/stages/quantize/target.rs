//! Types for a size or for speed, by measurement.

use crate::outcome::{Failure, Interrupted};
use crate::reporter::size;
use crate::stages::StageContext;
use anyhow::Result;
use espalier_quantize::{Allocation, AllocationEvent, AllocationInputs, QuantizeError, Target, TokenTime, allocate};
use std::ops::ControlFlow;

/// Finds the types with which a file of `target` diverges least, and says how far it is, and how fast where that was asked.
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
    let found = match found {
        Err(QuantizeError::Interrupted) => return Err(Interrupted.into()),
        Err(error @ QuantizeError::Target { .. }) => return Err(Failure::usage(error.to_string()).into()),
        found => found?,
    };
    if let Some(TokenTime { seconds, fastest }) = found.time {
        context.note(format!(
            "the products of a token take {:.2} ms on this machine, {:.2} ms with the fastest types",
            seconds * 1e3,
            fastest * 1e3
        ));
    }
    Ok(found)
}
