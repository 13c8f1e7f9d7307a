//! The first updates of a run: fresh ones, or those of an adapter that it goes on from.

use std::path::{Path, PathBuf};

use espalier_model::{LoraAdapter, Model};
use espalier_nn::transformer::{Base, LoraOptions, ModulePlan, Network};
use sha2::{Digest, Sha256};

use crate::config::hex;
use crate::{TrainConfig, TrainError};

/// Where the updates come from.
#[derive(Debug)]
pub(crate) enum Start {
    /// The settings and the seed.
    Fresh,
    /// An adapter of the same base.
    Adapter(Box<LoraAdapter>),
}

impl Start {
    /// Checks the settings against the model, and the adapter to go on from against both.
    ///
    /// # Errors
    ///
    /// Targets, patterns, layers and ranks that the model does not have; an adapter of another base or of another shape than
    /// the settings ask for.
    pub(crate) fn new(config: &TrainConfig, model: &Model) -> Result<Self, TrainError> {
        let Some(path) = &config.continue_from else {
            config.lora().modules(model.config())?;
            return Ok(Self::Fresh);
        };
        if !path.exists() {
            let problem = format!("there is no PEFT folder or adapter GGUF at {}", path.display());
            return Err(TrainError::Config { name: CONTINUE_FROM, problem });
        }
        let adapter = LoraAdapter::load(path, model.config())?;
        check_base(&adapter, path, &model.sha256()?)?;
        check_shape(&adapter, path, config, model)?;
        Ok(Self::Adapter(Box::new(adapter)))
    }

    /// What is adapted, and whether with magnitudes.
    pub(crate) fn modules(&self, config: &TrainConfig, model: &Model) -> Result<(Vec<ModulePlan>, bool), TrainError> {
        Ok(match self {
            Self::Fresh => (config.lora().modules(model.config())?, config.dora),
            Self::Adapter(adapter) => (ModulePlan::of_adapter(model.config(), adapter)?, adapter.is_dora()),
        })
    }

    /// The network before the first step.
    pub(crate) fn network(&self, config: &TrainConfig, base: Base) -> Result<Network, TrainError> {
        Ok(match self {
            Self::Fresh => Network::new(base, &config.lora(), config.seed)?,
            Self::Adapter(adapter) => Network::from_adapter(base, adapter)?,
        })
    }

    /// The settings with the content of the adapter in place of its path: what the result depends on.
    pub(crate) fn settings(&self, config: &TrainConfig) -> TrainConfig {
        let continue_from = match self {
            Self::Fresh => None,
            Self::Adapter(adapter) => Some(PathBuf::from(hash(adapter))),
        };
        TrainConfig { continue_from, ..config.clone() }
    }
}

const CONTINUE_FROM: &str = "continue_from";

fn check_base(adapter: &LoraAdapter, path: &Path, sha256: &str) -> Result<(), TrainError> {
    match &adapter.base_sha256 {
        Some(base) if base != sha256 => Err(TrainError::Config {
            name: CONTINUE_FROM,
            problem: format!(
                "{} was trained on another base: {} with SHA-256 {}, and this one has {}; train on that file, or merge the adapter into it and train on the result",
                path.display(),
                adapter.base_model,
                short(base),
                short(sha256),
            ),
        }),
        _ => Ok(()),
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// The shape comes from the adapter; where the settings say one too, it must be the same. `dora` is always said: the files
/// that a run leaves depend on it.
fn check_shape(adapter: &LoraAdapter, path: &Path, config: &TrainConfig, model: &Model) -> Result<(), TrainError> {
    let asked = config.lora();
    if asked.dora != adapter.is_dora() {
        let words = if adapter.is_dora() { "is DoRA: say `dora: true` too" } else { "is not DoRA: leave `dora` out" };
        let problem = format!("{} {words}", path.display());
        return Err(TrainError::Config { name: CONTINUE_FROM, problem });
    }
    if asked == (LoraOptions { dora: asked.dora, ..TrainConfig::default().lora() }) {
        return Ok(());
    }
    let refuse = |found: String| {
        let problem = format!(
            "{} {found}; leave rank, alpha, rslora, targets, rank_pattern, alpha_pattern and top_layers out: the adapter decides them",
            path.display()
        );
        Err(TrainError::Config { name: CONTINUE_FROM, problem })
    };
    if adapter.rslora != asked.rslora {
        let word = |on: bool| if on { "is" } else { "is not" };
        return refuse(format!("{} rsLoRA, and the settings say that it {}", word(adapter.rslora), word(asked.rslora)));
    }
    let plans = asked.modules(model.config())?;
    for plan in &plans {
        let name = plan.projection.module(plan.layer);
        let Some(module) = adapter.modules.get(&format!("blk.{}.{}", plan.layer, plan.projection.gguf)) else {
            return refuse(format!("does not adapt {name}, which the settings ask for"));
        };
        if (module.rank, module.alpha) != (plan.rank, plan.alpha) {
            return refuse(format!(
                "has rank {} and alpha {} in {name}, where the settings say {} and {}",
                module.rank, module.alpha, plan.rank, plan.alpha
            ));
        }
    }
    if plans.len() < adapter.modules.len() {
        let (has, asked) = (adapter.modules.len(), plans.len());
        return refuse(format!("adapts {has} modules, and the settings ask for {asked} of them"));
    }
    Ok(())
}

/// SHA-256 over all values of an adapter.
fn hash(adapter: &LoraAdapter) -> String {
    let mut hash = Sha256::new();
    for (name, module) in &adapter.modules {
        hash.update(name.as_bytes());
        hash.update(adapter.scale(module).to_le_bytes());
        for values in [&module.a, &module.b, module.magnitude.as_ref().unwrap_or(&Vec::new())] {
            hash.update((values.len() as u64).to_le_bytes());
            for value in values {
                hash.update(value.to_le_bytes());
            }
        }
    }
    hex(&hash.finalize())
}
