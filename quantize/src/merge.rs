//! The modules of an adapter, ready to be folded into the rows of their matrices: `W + s B A`, scaled to the learned lengths
//! for `DoRA` ([`LoraModule::merge_into_row`]).

use espalier_model::{LoraAdapter, LoraModule};

use crate::QuantizeError;
use crate::mix::TensorShape;

/// One module of an adapter with its scale.
#[derive(Debug, Clone, Copy)]
pub struct MergedModule<'a> {
    module: &'a LoraModule,
    scale: f32,
}

impl<'a> MergedModule<'a> {
    /// The module of `adapter` for the tensor `name` (`blk.0.attn_q.weight`), if it has one.
    pub fn of(adapter: &'a LoraAdapter, name: &str) -> Option<Self> {
        let module = adapter.modules.get(name.strip_suffix(".weight")?)?;
        Some(Self { module, scale: adapter.scale(module) })
    }

    /// Folds the update into row `output` of `W`.
    ///
    /// # Shapes
    ///
    /// `row`: inputs; `scratch`: at least inputs, overwritten.
    pub fn merge_into_row(&self, output: usize, row: &mut [f32], scratch: &mut [f32]) {
        self.module.merge_into_row(self.scale, output, row, scratch);
    }
}

/// Checks that every module has its matrix, with the shapes that both say.
///
/// # Errors
///
/// Names the first module without a matrix, with other shapes, or with factors that do not have its rank.
pub fn check_adapter(adapter: &LoraAdapter, tensors: &[TensorShape<'_>]) -> Result<(), QuantizeError> {
    for (name, module) in &adapter.modules {
        let fail = |problem: String| QuantizeError::Adapter { module: name.clone(), problem };
        let weight = format!("{name}.weight");
        let tensor = tensors
            .iter()
            .find(|tensor| tensor.name == weight)
            .ok_or_else(|| fail(format!("the model has no tensor {weight:?}")))?;
        let (inputs, outputs) = (tensor.dimensions[0], tensor.dimensions[1..].iter().product::<usize>());
        if (module.inputs, module.outputs) != (inputs, outputs) {
            return Err(fail(format!(
                "it is made for {} inputs and {} outputs, the model has {inputs} and {outputs}",
                module.inputs, module.outputs
            )));
        }
        let (rank, lengths) = (module.rank, module.magnitude.as_ref().map_or(outputs, Vec::len));
        if rank == 0 || module.a.len() != rank * inputs || module.b.len() != rank * outputs || lengths != outputs {
            return Err(fail(format!(
                "A holds {}, B {} and the magnitudes {lengths} numbers, which rank {rank} does not give for {inputs} inputs and {outputs} outputs",
                module.a.len(),
                module.b.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::collections::BTreeMap;

    use espalier_kernels::BlockType;

    use super::*;

    #[test]
    fn an_adapter_of_another_model_is_named() {
        let (rank, inputs, outputs) = (4, 48, 5);
        let (a, b) = (vec![0.5; rank * inputs], vec![0.5; rank * outputs]);
        let module = LoraModule { a, b, inputs, outputs, rank, alpha: 32.0, magnitude: None };
        let mut adapter = LoraAdapter {
            rslora: false,
            base_model: String::new(),
            base_sha256: None,
            chat_template: None,
            modules: BTreeMap::from([("blk.0.attn_q".to_owned(), module)]),
        };
        assert!(MergedModule::of(&adapter, "blk.0.attn_q.weight").is_some());
        assert!(MergedModule::of(&adapter, "blk.0.attn_q.bias").is_none());
        assert!(MergedModule::of(&adapter, "blk.1.attn_q.weight").is_none());
        let tensor = |name, dimensions| [TensorShape { name, dimensions, block_type: BlockType::F32 }];
        let right = tensor("blk.0.attn_q.weight", &[48, 5]);
        assert!(check_adapter(&adapter, &right).is_ok());
        let error = check_adapter(&adapter, &tensor("blk.0.attn_q.weight", &[64, 5])).unwrap_err().to_string();
        assert!(error.contains("blk.0.attn_q") && error.contains("48 inputs"), "{error}");
        let error = check_adapter(&adapter, &tensor("blk.0.attn_k.weight", &[48, 5])).unwrap_err().to_string();
        assert!(error.contains("no tensor"), "{error}");
        for module in adapter.modules.values_mut() {
            module.magnitude = Some(vec![1.0; 4]);
        }
        assert!(check_adapter(&adapter, &right).unwrap_err().to_string().contains("magnitudes 4"));
    }
}
