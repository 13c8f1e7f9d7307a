//! The shape of the updates: what is adapted, with which rank and scale.

use espalier_model::{LoraAdapter, ModelConfig, ModulePatterns};

use super::targets::{PROJECTIONS, Projection, Targets};
use crate::error::NnError;

/// The shape of the low-rank updates.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// Rank of every update that `rank_pattern` says nothing about.
    pub rank: usize,
    /// Numerator of the scale of every update that `alpha_pattern` says nothing about.
    pub alpha: f32,
    /// Scale by `alpha / sqrt(rank)` in place of `alpha / rank`.
    pub rslora: bool,
    /// Learn a length for each row of the adapted matrices (`DoRA`).
    pub dora: bool,
    /// Which modules are adapted.
    pub targets: Targets,
    /// Ranks by regular expressions on the ends of names.
    pub rank_pattern: ModulePatterns<usize>,
    /// Alphas, likewise.
    pub alpha_pattern: ModulePatterns<f32>,
    /// Adapt the last layers alone, so many of them.
    pub top_layers: Option<usize>,
}

impl Default for LoraOptions {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            rslora: false,
            dora: false,
            targets: Targets::AllLinear,
            rank_pattern: ModulePatterns::default(),
            alpha_pattern: ModulePatterns::default(),
            top_layers: None,
        }
    }
}

/// One module that is to be adapted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModulePlan {
    /// Its layer.
    pub layer: usize,
    /// Its place in the layer.
    pub projection: Projection,
    /// Rank of its update.
    pub rank: usize,
    /// Numerator of its scale.
    pub alpha: f32,
}

impl LoraOptions {
    /// The modules that these options adapt, layer by layer.
    ///
    /// # Errors
    ///
    /// Names and patterns that match nothing, more layers than the model has, a rank above the width of a matrix.
    pub fn modules(&self, config: &ModelConfig) -> Result<Vec<ModulePlan>, NnError> {
        let lowest = match self.top_layers {
            None => 0,
            Some(top) if (1..=config.layers).contains(&top) => config.layers - top,
            Some(top) => return Err(NnError::TopLayers { top, layers: config.layers }),
        };
        let chosen = self.targets.choose(config)?;
        let mut used = (vec![false; self.rank_pattern.0.len()], vec![false; self.alpha_pattern.0.len()]);
        let mut plans = Vec::new();
        for (layer, projection) in chosen.into_iter().filter(|(layer, _)| *layer >= lowest) {
            let module = projection.module(layer);
            let rank = value(&self.rank_pattern, &module, &mut used.0)?.unwrap_or(self.rank);
            let alpha = value(&self.alpha_pattern, &module, &mut used.1)?.unwrap_or(self.alpha);
            check_rank(rank, &projection, layer, config)?;
            if !(alpha.is_finite() && alpha > 0.0) {
                return Err(NnError::Alpha { module, alpha });
            }
            plans.push(ModulePlan { layer, projection, rank, alpha });
        }
        if plans.is_empty() {
            return Err(NnError::NoTarget);
        }
        unused("rank_pattern", &self.rank_pattern, &used.0)?;
        unused("alpha_pattern", &self.alpha_pattern, &used.1)?;
        Ok(plans)
    }
}

impl ModulePlan {
    /// Parameters of its update; `dora`: with a magnitude for each output.
    pub fn parameters(&self, config: &ModelConfig, dora: bool) -> usize {
        let (inputs, outputs) = self.projection.size(config);
        self.rank * (inputs + outputs) + if dora { outputs } else { 0 }
    }

    /// The modules of an adapter, layer by layer.
    ///
    /// # Errors
    ///
    /// A module that the model does not have in this shape, a rank above its width.
    pub fn of_adapter(config: &ModelConfig, adapter: &LoraAdapter) -> Result<Vec<Self>, NnError> {
        let mut plans = Vec::with_capacity(adapter.modules.len());
        for layer in 0..config.layers {
            for projection in PROJECTIONS {
                let Some(module) = adapter.modules.get(&format!("blk.{layer}.{}", projection.gguf)) else {
                    continue;
                };
                let (rank, alpha) = (module.rank, module.alpha);
                check_rank(rank, &projection, layer, config)?;
                let (inputs, outputs) = projection.size(config);
                let lengths = module.magnitude.as_ref().map_or(outputs, Vec::len);
                if (module.inputs, module.outputs, lengths) != (inputs, outputs, outputs)
                    || (module.a.len(), module.b.len()) != (rank * inputs, rank * outputs)
                {
                    return Err(NnError::Adapter(format!(
                        "{} maps {} to {} values, the model's matrix maps {inputs} to {outputs}",
                        projection.module(layer),
                        module.inputs,
                        module.outputs
                    )));
                }
                plans.push(Self { layer, projection, rank, alpha });
            }
        }
        if plans.len() != adapter.modules.len() || plans.is_empty() {
            return Err(NnError::Adapter(format!(
                "of its {} modules the model has {}",
                adapter.modules.len(),
                plans.len()
            )));
        }
        Ok(plans)
    }
}

/// Refuses a rank of zero, and one that adds nothing to a smaller one.
fn check_rank(rank: usize, projection: &Projection, layer: usize, config: &ModelConfig) -> Result<(), NnError> {
    let (inputs, outputs) = projection.size(config);
    if (1..=inputs.min(outputs)).contains(&rank) {
        return Ok(());
    }
    Err(NnError::Rank { module: projection.module(layer), rank, inputs, outputs, largest: inputs.min(outputs) })
}

fn value<T: Copy>(patterns: &ModulePatterns<T>, module: &str, used: &mut [bool]) -> Result<Option<T>, NnError> {
    Ok(patterns.find(module)?.map(|(place, value)| {
        used[place] = true;
        *value
    }))
}

fn unused<T>(key: &'static str, patterns: &ModulePatterns<T>, used: &[bool]) -> Result<(), NnError> {
    match used.iter().position(|used| !used) {
        Some(place) => Err(NnError::PatternWithoutModule { key, pattern: patterns.0[place].0.clone() }),
        None => Ok(()),
    }
}
