//! The fixed mix that an allocation must beat.

use std::collections::BTreeMap;

use espalier_kernels::BlockType;
use espalier_model::{Model, TensorInfo};

use super::errors::{Candidates, bytes};
use crate::mix::{MixOptions, ModelDimensions, TensorShape, Weighing, plan};
use crate::{FileType, QuantizeError};

/// Mixes from large to small.
const MIXES: [FileType; 10] = [
    FileType::Q8_0,
    FileType::Q6_K,
    FileType::Q5_K_M,
    FileType::Q5_K_S,
    FileType::Q4_K_M,
    FileType::Q4_K_S,
    FileType::Q3_K_L,
    FileType::Q3_K_M,
    FileType::Q3_K_S,
    FileType::Q2_K,
];

/// A fixed mix for a model.
pub(super) struct FixedMix {
    /// Of the tensors that are rounded.
    pub(super) types: BTreeMap<String, BlockType>,
    /// Of all tensors.
    pub(super) bytes: u64,
}

/// The largest fixed mix whose tensors take no more than `most` bytes.
///
/// # Errors
///
/// When a mix cannot be planned for the model.
pub(super) fn largest_mix(
    model: &Model,
    candidates: &Candidates,
    weighing: Weighing,
    most: u64,
) -> Result<Option<FixedMix>, QuantizeError> {
    let infos: Vec<&TensorInfo> = model.tensors().collect();
    let shapes: Vec<TensorShape<'_>> = infos
        .iter()
        .map(|info| TensorShape { name: &info.name, dimensions: &info.dimensions, block_type: info.block_type })
        .collect();
    for mix in MIXES {
        let plans = plan(mix, ModelDimensions::from(model.config()), &shapes, &MixOptions::default(), weighing)?;
        let taken = plans.iter().map(|plan| bytes(infos[plan.index], plan.block_type)).sum();
        if taken <= most {
            let mut types: BTreeMap<String, BlockType> =
                plans.iter().map(|plan| (infos[plan.index].name.clone(), plan.block_type)).collect();
            types.retain(|name, _| candidates.tensors.iter().any(|tensor| tensor.name == *name));
            return Ok(Some(FixedMix { types, bytes: taken }));
        }
    }
    Ok(None)
}
