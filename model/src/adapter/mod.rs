//! Low-rank adapters: `W' = W + scale * B A` for some linear layers of a model, with a length for each row in `DoRA`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use crate::{ChatTemplate, ModelConfig, ModelError};

mod gguf;
mod merge;
mod norm;
mod patterns;
mod peft;

pub use patterns::{ModulePatterns, matches_whole_module};

/// The update of one linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraModule {
    /// `[rank, inputs]`, row-major.
    pub a: Vec<f32>,
    /// `[outputs, rank]`, row-major, rows in GGUF order.
    pub b: Vec<f32>,
    /// Columns of the layer's weight.
    pub inputs: usize,
    /// Rows of the layer's weight.
    pub outputs: usize,
    /// Rows of `a`.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// The length of each row of the merged weight, in GGUF order: this is `DoRA` (Liu et al., 2024).
    pub magnitude: Option<Vec<f32>>,
}

/// A trained adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraAdapter {
    /// Whether scales are `alpha / sqrt(rank)` and not `alpha / rank` (rank-stabilised `LoRA`).
    pub rslora: bool,
    /// The model that it was trained on, as its configuration names it.
    pub base_model: String,
    /// SHA-256 of that model's file, where the adapter's writer knew it.
    pub base_sha256: Option<String>,
    /// The Jinja of the chat template that it was trained with, where that is not the model's own.
    pub chat_template: Option<String>,
    /// The updates by the name of the module (`blk.0.attn_q`).
    pub modules: BTreeMap<String, LoraModule>,
}

impl LoraAdapter {
    /// What `B A` of one of its modules is multiplied by.
    pub fn scale(&self, module: &LoraModule) -> f32 {
        scale(module.alpha, module.rank, self.rslora)
    }

    /// Whether it holds magnitudes (`DoRA`): then all its modules do.
    pub fn is_dora(&self) -> bool {
        self.modules.values().any(|module| module.magnitude.is_some())
    }

    /// The rank and the alpha that most modules have; of equally many the larger one.
    pub fn usual_rank_and_alpha(&self) -> (usize, f32) {
        let ranks = self.modules.values().map(|module| module.rank);
        let alphas = self.modules.values().map(|module| module.alpha);
        (most(ranks, usize::cmp).unwrap_or(0), most(alphas, f32::total_cmp).unwrap_or(0.0))
    }

    /// Reads a PEFT folder or an adapter GGUF and checks it against the model that it is for.
    ///
    /// # Errors
    ///
    /// A damaged file, a kind of adapter that is neither `LoRA` nor `DoRA`, modules or shapes that the model does not have.
    pub fn load(path: &Path, config: &ModelConfig) -> Result<Self, ModelError> {
        Self::read(path, Some(config))
    }

    /// Reads an adapter whose model is not at hand, to show what it is: the rows of q and k have the order of its file, and
    /// nothing says that its layers are those of any model.
    ///
    /// # Errors
    ///
    /// A damaged file, or a kind of adapter that is neither `LoRA` nor `DoRA`.
    pub fn load_without_model(path: &Path) -> Result<Self, ModelError> {
        Self::read(path, None)
    }

    fn read(path: &Path, config: Option<&ModelConfig>) -> Result<Self, ModelError> {
        let adapter = if path.is_dir() { peft::load(path, config) } else { gguf::load(path, config) };
        let adapter = adapter.map_err(|error| error.in_file(path))?;
        adapter.check(config).map_err(|error| error.in_file(path))?;
        Ok(adapter)
    }

    /// Writes a folder that PEFT, vLLM and [`LoraAdapter::load`] read; its files appear one by one, the weights last.
    pub fn save_peft(&self, directory: &Path, config: &ModelConfig) -> Result<(), ModelError> {
        self.check(Some(config))?;
        peft::save(self, directory, config)
    }

    /// Writes an adapter GGUF for `llama-server --lora` and [`LoraAdapter::load`].
    ///
    /// # Errors
    ///
    /// `DoRA`, which these files have no place for, modules that the model does not have, a full disk.
    pub fn save_gguf(&self, path: &Path, config: &ModelConfig) -> Result<(), ModelError> {
        self.check(Some(config))?;
        gguf::save(self, path, config)
    }

    /// Refuses numbers that cannot be, and modules and shapes that do not fit the model.
    fn check(&self, config: Option<&ModelConfig>) -> Result<(), ModelError> {
        if self.modules.is_empty() {
            return Err(ModelError::invalid("adapter", "it is empty", "train it again"));
        }
        // One that is not Jinja is said with its line, here and not at the first conversation.
        ChatTemplate::new(self.chat_template.as_deref(), "", "")?;
        let dora = self.is_dora();
        for (name, module) in &self.modules {
            let refuse = |problem: String, remedy: &str| {
                Err(ModelError::invalid(format!("adapter module {name:?}"), problem, remedy))
            };
            if let Some(config) = config {
                check_shape(name, module, config)?;
            }
            // An alpha of 0 makes an adapter without effect here, and one of full effect in llama.cpp.
            if module.rank == 0 || !self.scale(module).is_finite() || module.alpha == 0.0 {
                return refuse(format!("its rank is {} and its alpha {}", module.rank, module.alpha), "train it again");
            }
            let of_rank = |values: &[f32], width: usize| module.rank.checked_mul(width) == Some(values.len());
            if !of_rank(&module.a, module.inputs) || !of_rank(&module.b, module.outputs) {
                let problem = format!("its factors do not have rank {} for these shapes", module.rank);
                return refuse(problem, "train or export it again");
            }
            let magnitude = module.magnitude.as_deref();
            if magnitude.is_some() != dora || magnitude.is_some_and(|values| values.len() != module.outputs) {
                let problem = "it has no magnitude for each output, as other modules of this DoRA adapter have";
                return refuse(problem.to_owned(), "train or export it again");
            }
            let mut values = module.a.iter().chain(&module.b).chain(magnitude.unwrap_or_default());
            if !values.all(|value| value.is_finite()) {
                return refuse("it holds values that are not finite".to_owned(), "train it again");
            }
        }
        Ok(())
    }
}

/// The value that comes most often; of equally many the larger one.
fn most<T: Copy + PartialEq>(values: impl Iterator<Item = T>, order: impl Fn(&T, &T) -> Ordering) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then(order(a, b))).map(|(value, _)| value)
}

/// `alpha / rank`, or `alpha / sqrt(rank)` for rank-stabilised `LoRA`.
fn scale(alpha: f32, rank: usize, rslora: bool) -> f32 {
    let rank = rank as f32;
    alpha / if rslora { rank.sqrt() } else { rank }
}

/// Refuses a module that the model does not have in this shape.
fn check_shape(name: &str, module: &LoraModule, config: &ModelConfig) -> Result<(), ModelError> {
    let problem = match config.linear_shape(name) {
        None => format!("model {:?} has no such linear layer", config.name),
        Some((inputs, outputs)) if (module.inputs, module.outputs) != (inputs, outputs) => format!(
            "it is for {} inputs and {} outputs, but the model has {inputs} and {outputs}",
            module.inputs, module.outputs
        ),
        Some(_) => return Ok(()),
    };
    Err(ModelError::invalid(
        format!("adapter module {name:?}"),
        problem,
        "use the adapter with the model that it was trained on",
    ))
}
