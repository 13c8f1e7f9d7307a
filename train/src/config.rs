//! The settings of a run and their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use espalier_model::ModulePatterns;
use espalier_nn::transformer::{BaseWeights, LoraOptions, Targets};
use espalier_nn::{DeviceName, NnError, Precision};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::TrainError;
use crate::data::{DataItem, Learned, Validation, items};
use crate::memory::Bytes;
use crate::schedule::Schedule;
use crate::validation::Metric;

/// What happens to a conversation with more tokens than `max_sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverLong {
    /// It is left out; the plan says how many.
    #[default]
    Drop,
    /// Its end is cut off; one that has nothing left to learn is left out.
    Truncate,
    /// The run does not start.
    Error,
}

/// The settings of a run. Every field has a default; unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Rank of the updates.
    pub rank: usize,
    /// Numerator of their scale.
    pub alpha: f32,
    /// Scale by `alpha / sqrt(rank)` in place of `alpha / rank`.
    pub rslora: bool,
    /// Learn a length for each row of the adapted matrices too (`DoRA`).
    pub dora: bool,
    /// Modules to adapt, as PEFT's `target_modules`: ends of names, `all-linear`, or a regular expression on whole names.
    pub targets: Targets,
    /// Ranks of their own, by regular expressions on the ends of names.
    pub rank_pattern: ModulePatterns<usize>,
    /// Alphas of their own, likewise.
    pub alpha_pattern: ModulePatterns<f32>,
    /// Adapt the last layers alone, so many of them.
    pub top_layers: Option<usize>,
    /// An adapter (PEFT folder or GGUF) whose training goes on; it decides the shape of the updates.
    pub continue_from: Option<PathBuf>,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Passes over the data; `max_steps` ends the run earlier or later.
    pub epochs: usize,
    /// Number of optimizer steps, in place of `epochs`.
    pub max_steps: Option<usize>,
    /// Tokens that are packed into one optimizer step.
    pub tokens_per_step: usize,
    /// Longest conversation in tokens.
    pub max_sequence: usize,
    /// Form of the learning rate behind the warm-up.
    pub schedule: Schedule,
    /// Share of the steps in which the learning rate rises.
    pub warmup_ratio: f64,
    /// Number of steps in which it rises, in place of `warmup_ratio`.
    pub warmup_steps: Option<usize>,
    /// Share of the steps in which it falls, for the schedule `wsd`.
    pub decay_ratio: f64,
    /// Where it ends, as a share of the peak.
    pub final_learning_rate_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Gradients of a larger norm are scaled down to it.
    pub max_grad_norm: f64,
    /// Seed of the initial updates and of the order of the data.
    pub seed: u64,
    /// What the frozen products compute in: `bf16` or `f32`.
    #[serde(serialize_with = "write_precision", deserialize_with = "read_precision")]
    pub precision: Precision,
    /// Where the frozen weights stay: `packed` in memory, or `stored` in the file. The result does not depend on it.
    pub base_weights: BaseWeights,
    /// Where it computes: `cpu`, or a device of burn (`cuda:0`, or `flex`, which does on the CPU what a GPU does).
    pub device: DeviceName,
    /// What the run may take of memory; on a device of its memory.
    pub memory: Option<Bytes>,
    /// What is held out, to be scored and never trained on: a share of the rows, or rows of their own.
    pub validation: Validation,
    /// Optimizer steps between two looks at the held-out rows and at general text; `checkpoint_every` when absent.
    pub validation_every: Option<usize>,
    /// By which figure of the held-out rows the best checkpoint is chosen.
    pub metric_for_best_model: Metric,
    /// The run ends after so many checkpoints with a validation in a row of which none was better.
    pub patience: Option<usize>,
    /// General text on which the divergence from the base is measured.
    #[serde(deserialize_with = "items")]
    pub forgetting: Vec<DataItem>,
    /// How many of its tokens are looked at.
    pub forgetting_tokens: usize,
    /// Optimizer steps between checkpoints; the guard goes back to the last of them.
    pub checkpoint_every: usize,
    /// How many checkpoints are kept.
    pub keep_checkpoints: usize,
    /// A loss this many deviations above the usual one is a jump, and its step is not taken; none are when absent.
    pub spike_threshold: Option<f64>,
    /// How often the guard goes back to a checkpoint before the run fails.
    pub max_rollbacks: usize,
    /// What happens to conversations that are too long.
    pub over_long: OverLong,
    /// What it learns from, besides the rows of the stages that it needs.
    #[serde(deserialize_with = "items")]
    pub data: Vec<DataItem>,
    /// Which words of a conversation are learned, where its messages do not say it.
    pub loss: Learned,
    /// A file of Jinja in place of the model's own chat template.
    pub chat_template: Option<PathBuf>,
    /// Share of the divergence from the teacher in the loss of rows for which a teacher was asked; the rest is the loss of
    /// the text itself.
    pub distill_weight: f32,
}

impl Default for TrainConfig {
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
            continue_from: None,
            // About ten times the rate of full fine-tuning, and nearly independent of the rank.
            learning_rate: 2e-4,
            epochs: 3,
            max_steps: None,
            tokens_per_step: 2048,
            max_sequence: 512,
            schedule: Schedule::Cosine,
            warmup_ratio: 0.05,
            warmup_steps: None,
            decay_ratio: 0.2,
            final_learning_rate_ratio: 0.1,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 0,
            precision: Precision::Bf16,
            base_weights: BaseWeights::Packed,
            device: DeviceName::Cpu,
            memory: None,
            validation: Validation::Share(0.0),
            validation_every: None,
            metric_for_best_model: Metric::Loss,
            patience: None,
            forgetting: Vec::new(),
            // The mean of so many divergences is known to about a tenth, and a look costs less than a step.
            forgetting_tokens: 1024,
            checkpoint_every: 50,
            keep_checkpoints: 2,
            // Steps are packed from rows of one length, so rows of another kind would look like a jump.
            spike_threshold: None,
            max_rollbacks: 3,
            over_long: OverLong::Drop,
            data: Vec::new(),
            loss: Learned::Answers,
            chat_template: None,
            distill_weight: 0.5,
        }
    }
}

// serde passes fields by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn write_precision<S: Serializer>(precision: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(precision)
}

fn read_precision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    Precision::from_str(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl TrainConfig {
    /// Refuses settings that make no sense.
    pub fn validate(&self) -> Result<(), TrainError> {
        let ensure = |right: bool, name: &'static str, problem: &str| {
            if right { Ok(()) } else { Err(TrainError::Config { name, problem: problem.to_owned() }) }
        };
        ensure(self.rank > 0, "rank", "must be at least 1")?;
        ensure(self.alpha.is_finite() && self.alpha > 0.0, "alpha", "must be above zero")?;
        let module_words = |name| move |error: NnError| TrainError::Config { name, problem: error.to_string() };
        self.targets.check().map_err(module_words("targets"))?;
        let ranks = self.rank_pattern.0.iter().all(|(_, rank)| *rank > 0);
        ensure(ranks, "rank_pattern", "ranks must be at least 1")?;
        let alphas = self.alpha_pattern.0.iter().all(|(_, alpha)| alpha.is_finite() && *alpha > 0.0);
        ensure(alphas, "alpha_pattern", "alphas must be above zero")?;
        self.rank_pattern.check().map_err(|error| module_words("rank_pattern")(error.into()))?;
        self.alpha_pattern.check().map_err(|error| module_words("alpha_pattern")(error.into()))?;
        ensure(self.top_layers != Some(0), "top_layers", "must be at least 1")?;
        ensure(self.learning_rate.is_finite() && self.learning_rate > 0.0, "learning_rate", "must be above zero")?;
        ensure(self.epochs > 0 || self.max_steps.is_some(), "epochs", "must be at least 1")?;
        ensure(self.max_steps != Some(0), "max_steps", "must be at least 1")?;
        ensure(self.max_sequence >= 2, "max_sequence", "must be at least 2 tokens")?;
        ensure(self.tokens_per_step >= self.max_sequence, "tokens_per_step", "must be at least max_sequence")?;
        ensure((0.0..=1.0).contains(&self.warmup_ratio), "warmup_ratio", "must lie in 0 to 1")?;
        ensure((0.0..=1.0).contains(&self.decay_ratio), "decay_ratio", "must lie in 0 to 1")?;
        let ratio = self.final_learning_rate_ratio;
        ensure((0.0..=1.0).contains(&ratio), "final_learning_rate_ratio", "must lie in 0 to 1")?;
        ensure(self.weight_decay.is_finite() && self.weight_decay >= 0.0, "weight_decay", "must not be negative")?;
        ensure((0.0..1.0).contains(&self.beta1), "beta1", "must lie in 0 to 1, 1 excluded")?;
        ensure((0.0..1.0).contains(&self.beta2), "beta2", "must lie in 0 to 1, 1 excluded")?;
        ensure(self.epsilon.is_finite() && self.epsilon > 0.0, "epsilon", "must be above zero")?;
        ensure(self.max_grad_norm > 0.0, "max_grad_norm", "must be above zero")?;
        let threshold = self.spike_threshold.unwrap_or(1.0);
        ensure(threshold.is_finite() && threshold > 0.0, "spike_threshold", "must be above zero, or null")?;
        ensure((0.0..=1.0).contains(&self.distill_weight), "distill_weight", "must lie in 0 to 1")?;
        ensure(self.checkpoint_every > 0, "checkpoint_every", "must be at least 1")?;
        ensure(self.keep_checkpoints > 0, "keep_checkpoints", "must be at least 1")?;
        let kernels = self.device == DeviceName::Cpu || self.base_weights == BaseWeights::Packed;
        ensure(
            kernels,
            "base_weights",
            "stored is for the device cpu: elsewhere the weights lie in the device's memory",
        )?;
        self.validate_looks()?;
        self.data.iter().try_for_each(|item| item.validate("data"))
    }

    /// Refuses settings of what is looked at on the way that make no sense.
    fn validate_looks(&self) -> Result<(), TrainError> {
        let ensure = |right: bool, name: &'static str, problem: &str| {
            if right { Ok(()) } else { Err(TrainError::Config { name, problem: problem.to_owned() }) }
        };
        if let Validation::Share(share) = self.validation {
            ensure((0.0..1.0).contains(&share), "validation", "must lie in 0 to 1, 1 excluded")?;
        }
        self.validation.items().iter().try_for_each(|item| item.validate_apart("validation"))?;
        self.forgetting.iter().try_for_each(|item| item.validate_apart("forgetting"))?;
        ensure(self.forgetting_tokens > 0, "forgetting_tokens", "must be at least 1")?;
        ensure(self.patience != Some(0), "patience", "must be at least 1")?;
        let needs = "needs rows that are held out: set validation, to 0.05 for example";
        ensure(self.validation.is_some() || self.patience.is_none(), "patience", needs)?;
        let judged = self.validation.is_some() || self.metric_for_best_model == Metric::Loss;
        ensure(judged, "metric_for_best_model", needs)?;
        let (every, checkpoints) = (self.validation_every(), self.checkpoint_every);
        ensure(every > 0, "validation_every", "must be at least 1")?;
        let meet = every.is_multiple_of(checkpoints) || checkpoints.is_multiple_of(every);
        let fit = "must divide checkpoint_every or be a multiple of it: the best checkpoint is one with a validation";
        ensure(meet, "validation_every", fit)
    }

    /// Optimizer steps between two looks at the held-out rows and at general text.
    pub fn validation_every(&self) -> usize {
        self.validation_every.unwrap_or(self.checkpoint_every)
    }

    /// The shape of the updates.
    pub fn lora(&self) -> LoraOptions {
        LoraOptions {
            rank: self.rank,
            alpha: self.alpha,
            rslora: self.rslora,
            dora: self.dora,
            targets: self.targets.clone(),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            top_layers: self.top_layers,
        }
    }

    /// The device without its number: a run may go on on another of its kind.
    pub(crate) fn device_kind(&self) -> String {
        let name = self.device.to_string();
        name.split(':').next().unwrap_or_default().to_owned()
    }

    /// Every setting that the result depends on, by name: a run is resumed only under the same. What the data says stands in
    /// its own hash.
    pub fn settings(&self) -> BTreeMap<String, Value> {
        // A struct of numbers and strings always is a JSON object.
        let Ok(Value::Object(mut settings)) = serde_json::to_value(self) else { return BTreeMap::new() };
        // The rows have a hash of their own; memory acts by the size of micro-batches, which stands beside; and products with
        // weights in either place have the same bits.
        for name in ["keep_checkpoints", "base_weights", "memory", "data", "chat_template", "forgetting"] {
            settings.shift_remove(name);
        }
        if let Validation::Rows(_) = self.validation {
            settings.insert("validation".to_owned(), "rows of their own".into());
        }
        settings.insert("device".to_owned(), self.device_kind().into());
        settings.into_iter().collect()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let config: TrainConfig =
            serde_json::from_str(r#"{"rank": 8, "targets": ["q_proj"], "precision": "f32", "over_long": "error"}"#)
                .unwrap();
        assert_eq!((config.rank, config.precision, config.over_long), (8, Precision::F32, OverLong::Error));
        for targets in [r#""all-linear""#, r#"["all-linear"]"#] {
            let one: TrainConfig = serde_json::from_str(&format!(r#"{{"targets": {targets}}}"#)).unwrap();
            assert_eq!(one, TrainConfig::default());
        }
        let error = serde_json::from_str::<TrainConfig>(r#"{"learnig_rate": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `learnig_rate`"), "{error}");
        assert!(serde_json::from_str::<TrainConfig>(r#"{"precision": "f8"}"#).is_err());
    }

    #[test]
    fn targets_and_patterns_are_checked_without_a_model() {
        let error = |settings: &str| {
            let config: TrainConfig = serde_json::from_str(settings).unwrap();
            config.validate().unwrap_err().to_string()
        };
        let message = error(r#"{"targets": ["q_proj", "vproj"]}"#);
        assert!(
            message.starts_with("training setting targets") && message.contains("did you mean v_proj"),
            "{message}"
        );
        assert!(error(r#"{"targets": "q_proj("}"#).contains("q_proj("));
        assert!(error(r#"{"targets": []}"#).contains("at least one target"));
        assert!(error(r#"{"rank_pattern": {"q_proj": 0}}"#).contains("rank_pattern"));
        assert!(error(r#"{"alpha_pattern": {".*": 1, "[": 1}}"#).contains("alpha_pattern"));
        assert!(error(r#"{"top_layers": 0}"#).contains("top_layers"));
    }

    #[test]
    fn the_hash_covers_what_the_result_depends_on() {
        let config = TrainConfig::default();
        assert_eq!(config.settings(), TrainConfig { keep_checkpoints: 3, ..config.clone() }.settings());
        assert_eq!(config.settings(), TrainConfig { base_weights: BaseWeights::Stored, ..config.clone() }.settings());
        assert_ne!(config.settings(), TrainConfig { seed: 1, ..config.clone() }.settings());
        let error = TrainConfig { tokens_per_step: 100, ..config }.validate().unwrap_err().to_string();
        assert_eq!(error, "training setting tokens_per_step: must be at least max_sequence");
    }
}
