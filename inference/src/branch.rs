//! Low-rank side branches: an adapter beside the frozen matrices, without a merge.

use std::collections::BTreeSet;
use std::ops::Range;

use espalier_kernels::{LowRank, LowRankFactors, Precision};
use espalier_model::{LoraAdapter, LoraModule, ModelError, Tensor};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::EngineError;

/// Which adapter changes which rows of a batch, and working memory of the branches.
#[derive(Debug, Default)]
pub(crate) struct AdaptedRows {
    /// Neighbouring rows of one adapter, or of none; together all rows.
    pub(crate) runs: Vec<(Option<usize>, Range<usize>)>,
    /// The narrow product of a branch.
    pub(crate) low: Vec<f32>,
}

impl AdaptedRows {
    /// Tells the adapter of each row.
    pub(crate) fn set(&mut self, adapters: impl Iterator<Item = Option<usize>>) {
        self.runs.clear();
        for (row, adapter) in adapters.enumerate() {
            match self.runs.last_mut() {
                Some((before, rows)) if *before == adapter => rows.end = row + 1,
                _ => self.runs.push((adapter, row..row + 1)),
            }
        }
    }
}

/// What an adapter does to one packed matrix.
pub(crate) struct Adaptation {
    /// `y += (x A^T) B^T`, the scale in `B`.
    ///
    /// Where several modules share a packed matrix (q, k and v; gate and up), their `A` stand one below the other and their
    /// `B` on the diagonal of a larger one. The zeros add nothing to a sum, so the result is that of separate branches.
    pub(crate) branch: LowRank,
    /// `DoRA`: what the rows of the frozen matrix are multiplied by before they are packed (those of `B` already are).
    pub(crate) row_factors: Option<Vec<f32>>,
}

/// The modules of an adapter, each to be used once.
pub(crate) struct Branches<'a> {
    adapter: &'a LoraAdapter,
    unused: BTreeSet<&'a str>,
}

impl<'a> Branches<'a> {
    pub(crate) fn new(adapter: &'a LoraAdapter) -> Self {
        let unused = adapter.modules.keys().map(String::as_str).collect();
        Self { adapter, unused }
    }

    /// What the adapter does to tensors (by the names of their modules) that share one packed matrix, if anything.
    pub(crate) fn take(
        &mut self,
        parts: &[(String, Tensor<'_>)],
        precision: Precision,
    ) -> Result<Option<Adaptation>, EngineError> {
        let adapter = self.adapter;
        let mut found = Vec::new();
        let mut outputs = 0;
        for (name, tensor) in parts {
            if let Some(module) = adapter.modules.get(name) {
                self.unused.remove(name.as_str());
                check_shape(name, module, tensor)?;
                found.push((module, tensor, outputs));
            }
            outputs += tensor.info().rows;
        }
        if found.is_empty() {
            return Ok(None);
        }
        let rank: usize = found.iter().map(|(module, ..)| module.rank).sum();
        let (mut a, mut b) = (Vec::new(), vec![0.0; outputs * rank]);
        let mut row_factors = adapter.is_dora().then(|| vec![1.0; outputs]);
        let (mut first_rank, mut blocks) = (0, Vec::new());
        for (module, tensor, first_output) in found {
            let scale = adapter.scale(module);
            let factors = factors(module, scale, tensor)?;
            a.extend_from_slice(&module.a);
            for (output, row) in module.b.chunks_exact(module.rank).enumerate() {
                let at = (first_output + output) * rank + first_rank;
                let factor = factors.as_ref().map_or(scale, |factors| scale * factors[output]);
                for (into, value) in b[at..at + module.rank].iter_mut().zip(row) {
                    *into = factor * value;
                }
            }
            if let (Some(all), Some(factors)) = (&mut row_factors, factors) {
                all[first_output..first_output + module.outputs].copy_from_slice(&factors);
            }
            blocks.push((first_output..first_output + module.outputs, first_rank..first_rank + module.rank));
            first_rank += module.rank;
        }
        let inputs = parts[0].1.info().columns;
        let factors = LowRankFactors {
            rank,
            inputs,
            outputs,
            a: &|row, out| out.copy_from_slice(&a[row * inputs..(row + 1) * inputs]),
            b: &|row, out| out.copy_from_slice(&b[row * rank..(row + 1) * rank]),
            blocks: &blocks,
        };
        Ok(Some(Adaptation { branch: LowRank::pack(precision, &factors), row_factors }))
    }

    pub(crate) fn all_used(&self) -> Result<(), EngineError> {
        match self.unused.first() {
            None => Ok(()),
            Some(module) => Err(EngineError::Adapter {
                module: (*module).to_owned(),
                problem: "the model has no such linear layer".to_owned(),
            }),
        }
    }
}

fn check_shape(name: &str, module: &LoraModule, tensor: &Tensor<'_>) -> Result<(), EngineError> {
    let (inputs, outputs) = (tensor.info().columns, tensor.info().rows);
    if module.inputs == inputs
        && module.outputs == outputs
        && module.rank > 0
        && module.a.len() == module.rank * inputs
        && module.b.len() == module.rank * outputs
        && module.magnitude.as_ref().is_none_or(|magnitude| magnitude.len() == outputs)
    {
        return Ok(());
    }
    Err(EngineError::Adapter {
        module: name.to_owned(),
        problem: format!(
            "it maps {} to {} values, the model's matrix maps {inputs} to {outputs}",
            module.inputs, module.outputs
        ),
    })
}

/// Magnitude over norm for every row of a `DoRA` module.
fn factors(module: &LoraModule, scale: f32, tensor: &Tensor<'_>) -> Result<Option<Vec<f32>>, ModelError> {
    if module.magnitude.is_none() {
        return Ok(None);
    }
    let mut factors = vec![0.0; module.outputs];
    factors.par_iter_mut().enumerate().try_for_each_init(
        || (vec![0.0; module.inputs], vec![0.0; module.inputs]),
        |(row, scratch), (output, factor)| -> Result<(), ModelError> {
            tensor.row(output, row)?;
            *factor = module.add_update_to_row(scale, output, row, scratch);
            Ok(())
        },
    )?;
    Ok(Some(factors))
}

/// A hash of everything in an adapter that changes results, 16 hexadecimal digits.
pub(crate) fn adapter_hash(adapter: &LoraAdapter) -> String {
    let mut hash = Sha256::new();
    for (name, module) in &adapter.modules {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(adapter.scale(module).to_le_bytes());
        for values in [&module.a, &module.b, module.magnitude.as_ref().unwrap_or(&Vec::new())] {
            hash.update((values.len() as u64).to_le_bytes());
            for value in values {
                hash.update(value.to_le_bytes());
            }
        }
    }
    if let Some(template) = &adapter.chat_template {
        hash.update(template.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..] = hash.finalize().0;
    format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}
