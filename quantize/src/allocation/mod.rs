//! Which type each tensor gets so that a file of a given size, or of a given time a token, diverges least, by measurement.
//!
//! 1. *Errors*: rows of every matrix are encoded in every type that divides them, and decoded: the error that each type leaves
//!    in what the texts read ([`errors`]).
//! 2. *Sensitivities*: an error of one size does not cost the same everywhere. Matrices of one kind in one third of the
//!    layers are rounded together while the rest stays exact, and the divergence that follows says what a unit of their
//!    error costs ([`probe`]).
//! 3. *Allocation*: cost times error is additive to a good approximation, so the least sum under a budget of bytes or of
//!    seconds ([`speed`]) is found with one price for all tensors ([`budget`]).
//! 4. *Verification*: the whole allocation is measured, and the sensitivities are corrected by what each group costs within
//!    it; a second allocation is kept only if it measures better, and the largest fixed mix that the budget holds if none does
//!    ([`fixed`]).
//!
//! Nothing of this writes a file: the engine reads the rows as they would be ([`rounded`]).

mod budget;
mod errors;
mod fixed;
mod group;
mod probe;
mod rounded;
mod speed;
mod target;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::BlockType;
use espalier_model::{LoraAdapter, Model};
use serde::Serialize;

use self::budget::{Choice, allocate_budget};
use self::errors::{Candidates, TYPES};
use self::fixed::{FixedMix, largest_mix};
use self::rounded::RoundedModel;
use self::speed::Spending;
pub use self::speed::TokenTime;
pub use self::target::Target;
use crate::divergence::{Divergence, ReferenceLogits};
use crate::imatrix::{ImportanceMatrix, usual_squares};
use crate::mix::Weighing;
use crate::text::MeasuredText;
use crate::{FileType, MixOptions, QuantizeError, TypeOverride};

/// Positions that every candidate is measured on, about.
const POSITIONS: usize = 1024;
/// Bytes of logits that are kept of the reference: with a vocabulary above 196,608 they are fewer positions.
const KEPT_LOGITS: usize = 768 << 20;

/// Corrections of the sensitivities. A second one found nothing better on the models that this was tried on, for half the time
/// again.
const ROUNDS: usize = 1;

/// What an allocation is made for.
pub struct AllocationInputs<'a> {
    /// The model.
    pub model: &'a Model,
    /// Folded into its matrices.
    pub adapter: Option<&'a LoraAdapter>,
    /// Weighs the errors; without it all columns count alike.
    pub importance: Option<&'a ImportanceMatrix>,
    /// Whether the file will be refined: types are then chosen by what refined blocks lose.
    pub refine: bool,
    /// Texts that divergence is measured on: as many from the first on as the bound on kept logits lets.
    pub texts: Vec<MeasuredText>,
    /// How the engines compute.
    pub engine: EngineOptions,
}

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub enum AllocationEvent {
    /// Errors of so many of the matrices are known.
    Errors {
        /// Matrices done.
        done: usize,
        /// Matrices in all.
        total: usize,
    },
    /// The divergence of so many probes is known.
    Probes {
        /// Probes done.
        done: usize,
        /// Probes in all.
        total: usize,
    },
    /// A whole allocation was measured.
    Measured {
        /// Its mean divergence.
        mean_kld: f64,
        /// Bytes of its tensors.
        bytes: u64,
    },
}

/// Types for the tensors of a model.
#[derive(Debug, Clone, Serialize)]
pub struct Allocation {
    /// The type of each tensor that is rounded, by name.
    #[serde(serialize_with = "names")]
    pub types: BTreeMap<String, BlockType>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Mean bits a weight.
    pub bits_per_weight: f64,
    /// Its divergence on the texts that it was made on: on others it is larger.
    pub divergence: Divergence,
    /// How fast it is on this machine, where that was the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<TokenTime>,
}

fn names<S: serde::Serializer>(types: &BTreeMap<String, BlockType>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(types.iter().map(|(name, block_type)| (name, block_type.name())))
}

impl Allocation {
    /// The fixed mix whose size is nearest, for readers that show a file's type.
    pub fn file_type(&self) -> FileType {
        match self.bits_per_weight {
            ..3.1 => FileType::Q2_K,
            3.1..4.3 => FileType::Q3_K_M,
            4.3..5.3 => FileType::Q4_K_M,
            5.3..6.1 => FileType::Q5_K_M,
            6.1..7.5 => FileType::Q6_K,
            _ => FileType::Q8_0,
        }
    }

    /// The allocation as changes to a mix; its file type only names the file then.
    ///
    /// # Errors
    ///
    /// Never for names of tensors as models have them.
    pub fn mix(&self) -> Result<MixOptions, QuantizeError> {
        let tensor_types = self
            .types
            .iter()
            .map(|(name, block_type)| {
                format!("^{}$={}", regex::escape(name), block_type.name()).parse::<TypeOverride>()
            })
            .collect::<Result<_, _>>()?;
        Ok(MixOptions { tensor_types, ..MixOptions::default() })
    }
}

/// Finds the types with which a file of `target` diverges least. For a target of speed every type is timed first, a second or so
/// in all: other programs that run meanwhile, and another day, may give other types.
///
/// # Errors
///
/// When no types make the file as small as `target`: the smallest possible is said. When no text can be measured, an engine
/// refuses a text, or interrupted by `on_event`.
pub fn allocate(
    inputs: AllocationInputs<'_>,
    target: Target,
    on_event: &mut dyn FnMut(AllocationEvent) -> ControlFlow<()>,
) -> Result<Allocation, QuantizeError> {
    let AllocationInputs { model, adapter, importance, refine, texts, engine } = inputs;
    let mut rounded = RoundedModel::new(model, adapter, importance, refine, engine.clone());
    let spending = match target {
        Target::Speed(_) => Spending::time(model, &TYPES, engine.precision)?,
        Target::BitsPerWeight(_) | Target::Bytes(_) => Spending::Bytes,
    };
    let (reference, usage) = reference(NativeEngine::load(model, adapter, &engine)?, texts)?;
    let mut errors = |done, total| on_event(AllocationEvent::Errors { done, total });
    let candidates = Candidates::measure(&rounded, &usage, &spending, &mut errors)?;
    let budget = budget_of(target, &candidates)?;

    let mut costs = probe::alone(&candidates, budget, &mut rounded, &reference, on_event)?;
    let mut best: Option<(Vec<Choice>, Divergence)> = None;
    for round in 0..=ROUNDS {
        let choices = allocate_budget(&candidates, &costs, budget);
        if best.as_ref().is_some_and(|(known, _)| *known == choices) {
            break;
        }
        let divergence = reference.divergence(rounded.engine(&candidates.types(&choices))?)?;
        let bytes = candidates.bytes(&choices) + candidates.fixed_bytes;
        stopping(on_event(AllocationEvent::Measured { mean_kld: divergence.mean_kld.value, bytes }))?;
        let better = best.as_ref().is_none_or(|(_, known)| divergence.mean_kld.value < known.mean_kld.value);
        if !better {
            break;
        }
        if round < ROUNDS {
            let full = divergence.mean_kld.value;
            costs = probe::within(&candidates, &choices, full, costs, &mut rounded, &reference, on_event)?;
        }
        best = Some((choices, divergence));
    }
    let (choices, divergence) = best.ok_or(QuantizeError::NothingToCompare { texts: 0 })?;
    if !matches!(target, Target::Speed(_)) {
        let weighing = if importance.is_some() { Weighing::Importance } else { Weighing::Even };
        let mix = largest_mix(model, &candidates, weighing, budget + candidates.fixed_bytes)?;
        if let Some(FixedMix { types, bytes }) = mix {
            let mixed = reference.divergence(rounded.engine(&types)?)?;
            stopping(on_event(AllocationEvent::Measured { mean_kld: mixed.mean_kld.value, bytes }))?;
            if mixed.mean_kld.value < divergence.mean_kld.value {
                let bits_per_weight = bytes as f64 * 8.0 / candidates.weights as f64;
                return Ok(Allocation { types, bytes, bits_per_weight, divergence: mixed, time: None });
            }
        }
    }
    let bytes = candidates.bytes(&choices) + candidates.fixed_bytes;
    let seconds = |picoseconds: u64| picoseconds as f64 * 1e-12;
    let time = TokenTime { seconds: seconds(candidates.spent(&choices)), fastest: seconds(candidates.least()) };
    Ok(Allocation {
        types: candidates.types(&choices),
        bytes,
        bits_per_weight: bytes as f64 * 8.0 / candidates.weights as f64,
        divergence,
        time: matches!(target, Target::Speed(_)).then_some(time),
    })
}

/// What the tensors that are rounded may take.
fn budget_of(target: Target, candidates: &Candidates) -> Result<u64, QuantizeError> {
    let least = candidates.least();
    let bytes = match target {
        Target::Speed(factor) => return Ok((least as f64 * factor) as u64),
        Target::BitsPerWeight(bits) => (bits * candidates.weights as f64 / 8.0) as u64,
        Target::Bytes(bytes) => bytes,
    };
    bytes.checked_sub(candidates.fixed_bytes).filter(|budget| *budget >= least).ok_or_else(|| QuantizeError::Target {
        target: target.to_string(),
        smallest: least + candidates.fixed_bytes,
        bits_per_weight: (least + candidates.fixed_bytes) as f64 * 8.0 / candidates.weights as f64,
    })
}

/// The logits of the exact model, and what its matrices read. Its engine goes with the call: the weights of a rounded one take its
/// place.
fn reference(
    engine: NativeEngine,
    texts: Vec<MeasuredText>,
) -> Result<(ReferenceLogits, BTreeMap<String, Vec<f32>>), QuantizeError> {
    let texts = affordable(texts, engine.tokenizer().vocabulary());
    let usage = usual_squares(&engine, &texts)?;
    Ok((ReferenceLogits::new(&engine, texts)?, usage))
}

/// The first texts whose logits may be kept; one at least.
fn affordable(texts: Vec<MeasuredText>, vocabulary: usize) -> Vec<MeasuredText> {
    let mut left = POSITIONS.min(KEPT_LOGITS / (size_of::<f32>() * vocabulary.max(1)));
    let mut first = true;
    let take = texts.into_iter().filter(|text| text.scored() > 0).take_while(|text| {
        // All positions from the first that counts are kept.
        let positions = text.tokens().len() - text.first_position().unwrap_or(0);
        let fits = first || positions <= left;
        left = left.saturating_sub(positions);
        first = false;
        fits
    });
    take.collect()
}

fn stopping(flow: ControlFlow<()>) -> Result<(), QuantizeError> {
    if flow.is_break() { Err(QuantizeError::Interrupted) } else { Ok(()) }
}
