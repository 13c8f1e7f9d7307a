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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;

    use espalier_inference::EngineOptions;

    use super::super::rounded::RoundedModel;
    use super::super::speed::Spending;
    use super::*;

    #[test]
    fn the_largest_that_fits_is_found() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"));
        let model = Model::open(path).unwrap();
        let rounded = RoundedModel::new(&model, None, None, false, EngineOptions::default());
        let mut going_on = |_, _| ControlFlow::Continue(());
        let candidates = Candidates::measure(&rounded, &BTreeMap::new(), &Spending::Bytes, &mut going_on).unwrap();
        let largest = |most| largest_mix(&model, &candidates, Weighing::Even, most).unwrap();
        let mut most = u64::MAX;
        let mut sizes = Vec::new();
        while let Some(mix) = largest(most) {
            assert!(mix.bytes <= most && mix.types.len() == candidates.tensors.len(), "{}", mix.types.len());
            assert_eq!(largest(mix.bytes).unwrap().types, mix.types, "a mix fits into its own bytes");
            sizes.push(mix.bytes);
            most = mix.bytes - 1;
        }
        assert!(sizes.len() > 3, "{sizes:?}");
        assert_eq!(largest(u64::MAX).unwrap().types["blk.0.ffn_up.weight"], BlockType::Q8_0);
    }
}
