//! Folding a low-rank adapter into the rows of a frozen matrix: `W + s B A`.
//!
//! Each row is summed on its own in `f32`: first `B A` over the ranks in ascending order, then scaled and added. The
//! result does not depend on which rows are merged together, nor on the number of threads.

use espalier_model::{LoraAdapter, LoraPair};

use crate::QuantizeError;
use crate::mix::TensorShape;

/// One module of an adapter, ready for the rows of its matrix.
#[derive(Debug, Clone, Copy)]
pub struct MergedModule<'a> {
    pair: &'a LoraPair,
    scale: f32,
}

impl<'a> MergedModule<'a> {
    /// The module of `adapter` for the tensor `name` (`blk.0.attn_q.weight`), if it has one.
    pub fn of(adapter: &'a LoraAdapter, name: &str) -> Option<Self> {
        let pair = adapter.modules.get(name.strip_suffix(".weight")?)?;
        Some(Self { pair, scale: adapter.scale() })
    }

    /// Adds row `output` of `s B A` to that row of `W`.
    ///
    /// # Shapes
    ///
    /// `row`: inputs; `scratch`: at least inputs, overwritten.
    pub fn add_to_row(&self, output: usize, row: &mut [f32], scratch: &mut [f32]) {
        let inputs = self.pair.inputs;
        let delta = &mut scratch[..inputs];
        delta.fill(0.0);
        let rank = self.pair.a.len() / inputs.max(1);
        let b = &self.pair.b[output * rank..][..rank];
        for (b, a) in b.iter().zip(self.pair.a.chunks_exact(inputs)) {
            for (delta, a) in delta.iter_mut().zip(a) {
                *delta += b * a;
            }
        }
        for (value, delta) in row.iter_mut().zip(delta) {
            *value += self.scale * *delta;
        }
    }
}

/// Checks that every module has its matrix, with the shapes that both say.
///
/// # Errors
///
/// Names the first module without a matrix, with other shapes, or with a rank that is not a whole number.
pub fn check_adapter(adapter: &LoraAdapter, tensors: &[TensorShape<'_>]) -> Result<(), QuantizeError> {
    for (module, pair) in &adapter.modules {
        let fail = |problem: String| QuantizeError::Adapter { module: module.clone(), problem };
        let name = format!("{module}.weight");
        let tensor = tensors
            .iter()
            .find(|tensor| tensor.name == name)
            .ok_or_else(|| fail(format!("the model has no tensor {name:?}")))?;
        let (inputs, outputs) = (tensor.dimensions[0], tensor.dimensions[1..].iter().product::<usize>());
        if (pair.inputs, pair.outputs) != (inputs, outputs) {
            return Err(fail(format!(
                "it is made for {} inputs and {} outputs, the model has {inputs} and {outputs}",
                pair.inputs, pair.outputs
            )));
        }
        let rank = pair.a.len() / inputs.max(1);
        if rank == 0 || pair.a.len() != rank * inputs || pair.b.len() != rank * outputs {
            return Err(fail(format!(
                "A holds {} and B {} numbers, which no rank gives for {inputs} inputs and {outputs} outputs",
                pair.a.len(),
                pair.b.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use std::collections::BTreeMap;

    use espalier_kernels::BlockType;

    use super::*;

    fn adapter(rank: usize, inputs: usize, outputs: usize) -> LoraAdapter {
        let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin() * 0.3).collect::<Vec<_>>();
        let pair = LoraPair { a: wave(rank * inputs, 0.7), b: wave(outputs * rank, 1.3), inputs, outputs };
        LoraAdapter {
            rank,
            alpha: 32.0,
            rslora: false,
            base_model: String::new(),
            modules: BTreeMap::from([("blk.0.attn_q".to_owned(), pair)]),
        }
    }

    #[test]
    fn a_merged_row_is_the_product_in_f64() {
        let (rank, inputs, outputs) = (16, 48, 5);
        let adapter = adapter(rank, inputs, outputs);
        let module = MergedModule::of(&adapter, "blk.0.attn_q.weight").unwrap();
        let pair = &adapter.modules["blk.0.attn_q"];
        for output in 0..outputs {
            let mut row: Vec<f32> = (0..inputs).map(|i| (i as f32).cos()).collect();
            let expected: Vec<f64> = (0..inputs)
                .map(|i| {
                    let product: f64 = (0..rank)
                        .map(|r| f64::from(pair.b[output * rank + r]) * f64::from(pair.a[r * inputs + i]))
                        .sum();
                    f64::from(row[i]) + f64::from(adapter.scale()) * product
                })
                .collect();
            module.add_to_row(output, &mut row, &mut vec![9.0; inputs]);
            for (got, expected) in row.iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} {expected}");
            }
        }
        assert!(MergedModule::of(&adapter, "blk.0.attn_q.bias").is_none());
        assert!(MergedModule::of(&adapter, "blk.1.attn_q.weight").is_none());
    }

    #[test]
    fn an_adapter_of_another_model_is_named() {
        let adapter = adapter(4, 48, 5);
        let tensor = |name, dimensions| [TensorShape { name, dimensions, block_type: BlockType::F32 }];
        assert!(check_adapter(&adapter, &tensor("blk.0.attn_q.weight", &[48, 5])).is_ok());
        let error = check_adapter(&adapter, &tensor("blk.0.attn_q.weight", &[64, 5])).unwrap_err().to_string();
        assert!(error.contains("blk.0.attn_q") && error.contains("48 inputs"), "{error}");
        let error = check_adapter(&adapter, &tensor("blk.0.attn_k.weight", &[48, 5])).unwrap_err().to_string();
        assert!(error.contains("no tensor"), "{error}");
    }
}
