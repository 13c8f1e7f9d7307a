//! The stages: each a function of named input files and a plain configuration to named output files.

pub mod contaminated;
pub mod data;
pub mod evaluate;
pub mod generate;
pub mod measured;
pub mod quantize;
pub mod report;
pub mod require;
pub mod teach;
pub mod train;

use crate::events::Event;
use crate::graph::{Place, StageKind, Words, explain};
use crate::outcome::{Failure, Interrupted};
use crate::reporter::Reporter;
use anyhow::Result;
use espalier_inference::{EngineMemory, EngineOptions, WeightForm};
use espalier_kernels::{Precision, int8_is_fast};
use espalier_train::TrainConfig;
use serde::Deserializer;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub use evaluate::EvaluateStage;
pub use generate::GenerateStage;
pub use quantize::QuantizeStage;
pub use report::ReportStage;
pub use teach::TeachStage;

/// What a stage that ran to its end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutcome {
    /// Its result in one line.
    pub summary: String,
    /// Why its gate refuses the result, which is kept all the same.
    pub refused: Option<String>,
}

impl From<String> for StageOutcome {
    fn from(summary: String) -> Self {
        Self { summary, refused: None }
    }
}

/// The configuration of a stage of any kind.
#[derive(Debug, Clone)]
pub enum StageConfig {
    /// Taxonomy to rows.
    Generate(GenerateStage),
    /// Rows to a teacher's probabilities.
    Teach(TeachStage),
    /// Rows to adapter.
    Train(Box<TrainConfig>),
    /// Base and adapter to GGUF files.
    Quantize(QuantizeStage),
    /// Models to scores.
    Evaluate(EvaluateStage),
    /// Everything to one page.
    Report(ReportStage),
}

impl StageConfig {
    /// Reads the configuration of one kind; unknown keys are refused.
    pub fn read<'de, D: Deserializer<'de>>(kind: StageKind, deserializer: D) -> Result<Self, D::Error> {
        use serde::Deserialize;
        Ok(match kind {
            StageKind::Generate => Self::Generate(GenerateStage::deserialize(deserializer)?),
            StageKind::Teach => Self::Teach(TeachStage::deserialize(deserializer)?),
            StageKind::Train => Self::Train(Box::new(TrainConfig::deserialize(deserializer)?)),
            StageKind::Quantize => Self::Quantize(QuantizeStage::deserialize(deserializer)?),
            StageKind::Evaluate => Self::Evaluate(EvaluateStage::deserialize(deserializer)?),
            StageKind::Report => Self::Report(ReportStage::deserialize(deserializer)?),
        })
    }

    /// The configuration of a stage that gives no keys at all.
    pub fn defaults(kind: StageKind) -> Result<Self, serde_json::Error> {
        Self::read(kind, serde_json::Value::Object(serde_json::Map::new()))
    }

    /// Every value, as the cache key and `plan` see it.
    pub fn json(&self) -> serde_json::Value {
        let value = match self {
            Self::Generate(config) => serde_json::to_value(config),
            Self::Teach(config) => serde_json::to_value(config),
            Self::Train(config) => serde_json::to_value(config),
            Self::Quantize(config) => serde_json::to_value(config),
            Self::Evaluate(config) => serde_json::to_value(config),
            Self::Report(config) => serde_json::to_value(config),
        };
        let mut value = value.unwrap_or(serde_json::Value::Null);
        value.as_object_mut().into_iter().flatten().for_each(|(_, value)| shorten(value));
        value
    }

    /// The same with one value changed, checked as if it stood in the file.
    pub fn with(&self, key: &str, value: serde_json::Value) -> Result<Self, Words> {
        let all = self.json();
        // JSON is YAML: the file's own reader finds what it would find there. The changed key stands in the last line.
        let rest = all.as_object().into_iter().flatten().filter(|(other, _)| *other != key);
        let mut text: String = rest.map(|(key, value)| format!("{key}: {value}\n")).collect();
        text += &format!("{key}: {value}\n");
        Self::read_text(self.kind(), &text).map_err(|(_, words)| words)
    }

    /// The configuration of one kind from a file of its own.
    pub fn parse(kind: StageKind, path: &Path, text: &str) -> Result<Self, Failure> {
        Self::read_text(kind, text)
            .map_err(|(place, words)| words.failure(&format!("{}:{}:{}: ", path.display(), place.line, place.column)))
    }

    fn read_text(kind: StageKind, text: &str) -> Result<Self, (Place, Words)> {
        let mut options = serde_saphyr::Options::default();
        options.with_snippet = false;
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            Self::read(kind, deserializer)
        })
        .map_err(|error| {
            let place = error
                .location()
                .map_or_else(Place::default, |location| Place { line: location.line(), column: location.column() });
            (place, explain(&error, text, place))
        })
    }

    fn kind(&self) -> StageKind {
        match self {
            Self::Generate(_) => StageKind::Generate,
            Self::Teach(_) => StageKind::Teach,
            Self::Train(_) => StageKind::Train,
            Self::Quantize(_) => StageKind::Quantize,
            Self::Evaluate(_) => StageKind::Evaluate,
            Self::Report(_) => StageKind::Report,
        }
    }
}

/// What a running stage may use of its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct StageContext<'a> {
    /// Name of the stage, for events.
    pub stage: &'a str,
    /// Where events go.
    pub reporter: &'a Reporter,
    /// Set by Ctrl-C: stop at the next safe point.
    pub stop: &'a AtomicBool,
    /// Precision of the frozen weights.
    pub precision: Precision,
    /// Whether texts may be written with activations of 8 bits.
    pub int8_texts: bool,
    /// Bytes that its engines may take.
    pub memory: Option<u64>,
}

/// What the weights of engines are that write many texts, where 8 bits are allowed or not.
pub fn weight_form_of_texts(int8_texts: bool) -> WeightForm {
    if int8_texts && int8_is_fast() { WeightForm::Int8 } else { WeightForm::Packed }
}

impl StageContext<'_> {
    /// How engines are loaded. Those that are held at the same time share the memory: load them with clones of one of these.
    pub fn engine_options(&self) -> EngineOptions {
        let memory = self.memory.map(EngineMemory::new);
        EngineOptions { precision: self.precision, memory, ..EngineOptions::default() }
    }

    /// How engines are loaded that write many texts and score none; see [`Self::engine_options`].
    pub fn writing_options(&self) -> EngineOptions {
        EngineOptions { weight_form: weight_form_of_texts(self.int8_texts), ..self.engine_options() }
    }

    /// Reports work done so far.
    pub fn progress(&self, part: &str, done: u64, total: u64, unit: &str, detail: impl Into<String>) {
        self.reporter.send(&Event::Progress {
            stage: self.stage.into(),
            part: part.into(),
            done,
            total,
            unit: unit.into(),
            detail: detail.into(),
        });
    }

    /// Says something worth knowing.
    pub fn note(&self, message: impl Into<String>) {
        self.reporter.send(&Event::Note { stage: self.stage.into(), message: message.into() });
    }

    /// Gives figures to scripts and to the log.
    pub fn figures(&self, figures: serde_json::Value) {
        self.reporter.send(&Event::Figures { stage: self.stage.into(), figures });
    }

    /// Says something that will probably disappoint.
    pub fn warn(&self, message: impl Into<String>) {
        self.reporter.send(&Event::Warning { stage: self.stage.into(), message: message.into() });
    }

    /// Whether a stop was asked for.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the stage when a stop was asked for.
    pub fn check_stop(&self) -> Result<()> {
        if self.stopping() { Err(Interrupted.into()) } else { Ok(()) }
    }
}
/// A number in single precision without the digits that double precision adds: 0.7, not 0.699999988079071.
fn shorten(value: &mut serde_json::Value) {
    if let Some(number) = value.as_f64().filter(|_| value.is_f64())
        && f64::from(number as f32).to_bits() == number.to_bits()
        && let Ok(short) = (number as f32).to_string().parse::<f64>()
    {
        *value = short.into();
    }
}
