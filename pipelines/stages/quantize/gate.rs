//! Importance from the rows of a run, and what a file must keep to.

use super::questions::{Answers, Exam};
use super::{Inputs, Otherwise, QuantizeStage, Wanted};
use crate::outcome::{Failure, Interrupted};
use crate::stages::{StageContext, measured};
use anyhow::Result;
use espalier_inference::{EngineOptions, NativeEngine};
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::encode::weighs_importance;
use espalier_quantize::{
    AllocationInputs, FileType, ImportanceMatrix, ImportanceSource, MeasuredText, QuantizeError, Target, divergence,
    importance,
};
use std::ops::ControlFlow;
use std::path::Path;

/// Every tenth row is kept out of the importance matrix, for the gate.
const HELD_OUT: usize = 10;
/// Tokens that importance is measured on, at most: more changes little.
const IMPORTANCE_TOKENS: usize = 32_768;
/// Part of these tokens that comes from a general text, where there is one.
const GENERAL_SHARE: f64 = 0.2;
/// How much a size grows that is not accepted.
const LARGER: f64 = 1.1;
/// Bits a weight from which no types are better: all of 8 bits.
const MOST_BITS: f64 = 8.5;
/// Rows that divergence is measured on, at most.
const GATE_ROWS: usize = 64;

/// Sizes to climb to.
const LADDER: [FileType; 6] =
    [FileType::Q3_K_M, FileType::Q4_K_M, FileType::Q5_K_M, FileType::Q6_K, FileType::Q8_0, FileType::F16];

/// What is quantized.
pub(super) struct Source<'a> {
    pub(super) model: &'a Model,
    pub(super) adapter: Option<&'a LoraAdapter>,
    pub(super) context: &'a StageContext<'a>,
    /// How engines are loaded: the model, and the file that is held against it.
    pub(super) engine: EngineOptions,
}

impl Source<'_> {
    pub(super) fn engine(&self) -> Result<NativeEngine> {
        Ok(NativeEngine::load(self.model, self.adapter, &self.engine)?)
    }

    fn progress(&self, part: &str, done: usize, total: usize) -> ControlFlow<()> {
        self.context.progress(part, done as u64, total as u64, "rows", "");
        if self.context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What the rows of the run gave.
pub(super) struct Measured<'a> {
    /// Weighs the errors.
    pub(super) importance: Option<ImportanceSource>,
    /// Rows that sizes are measured on.
    learned: Vec<MeasuredText>,
    /// What files are held to in divergence.
    near: Option<Near>,
    /// What files are asked.
    exam: Option<Exam<'a>>,
}

/// How near a file must lie to the model.
struct Near {
    model: NativeEngine,
    /// What both are compared on.
    rows: Vec<MeasuredText>,
    /// Largest mean divergence.
    most: f64,
}

/// What was measured of a file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kld: Option<f64>,
    pub(super) answers: Option<Answers>,
    /// Why it is not accepted.
    pub(super) refused: Option<String>,
}

impl<'a> Measured<'a> {
    /// Reads what the configuration asks for, and asks the model what its files will be asked.
    pub(super) fn read(
        config: &QuantizeStage,
        wanted: &[Wanted],
        source: &Source<'_>,
        inputs: &Inputs<'a>,
    ) -> Result<Self> {
        let exam = inputs.questions.map(|questions| Exam::begin(questions, source)).transpose()?;
        let mut found = Self { importance: None, learned: Vec::new(), near: None, exam };
        let weighed = wanted.iter().any(|wanted| match wanted {
            Wanted::Mix(file_type) => weighs_importance(file_type.default_block_type()),
            Wanted::Target(_) => true,
        });
        if let Some(path) = config.imatrix_file().filter(|_| weighed) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.importance = Some(ImportanceSource { matrix: ImportanceMatrix::read(path)?, file });
        }
        let from_rows = config.imatrix == super::ROWS && weighed;
        let largest_kld = config.largest_kld();
        let needed = from_rows || largest_kld.is_some() || !config.targets.is_empty();
        let Some(rows) = inputs.rows.filter(|_| needed) else {
            return Ok(found);
        };
        let engine = source.engine()?;
        let texts = measured::texts(source.model, &engine, &rows.to_string_lossy(), source.context)?;
        let (learned, held_out) = split(texts);
        if from_rows {
            let mut datasets = vec!["messages.jsonl".to_owned()];
            let mut texts = learned.clone();
            if let Some(general) = &config.general {
                datasets.push(general.file_name().unwrap_or_default().to_string_lossy().into_owned());
                let windows = measured::windows(&engine, general)?;
                texts.extend(measured::general_slice(windows, &learned, GENERAL_SHARE));
            }
            let total = texts.len();
            let measured =
                importance(&engine, &texts, datasets, false, &mut |done| source.progress("importance", done, total));
            let matrix = interrupted(measured)?;
            found.importance = Some(ImportanceSource { matrix, file: "rows of this run".to_owned() });
        }
        found.near = largest_kld.map(|most| Near { model: engine, rows: held_out, most });
        found.learned = learned;
        Ok(found)
    }

    /// What types for a size are measured with.
    pub(super) fn allocation_inputs<'b>(
        &'b self,
        config: &QuantizeStage,
        source: &'b Source<'_>,
    ) -> AllocationInputs<'b> {
        AllocationInputs {
            model: source.model,
            adapter: source.adapter,
            importance: self.importance.as_ref().map(|importance| &importance.matrix),
            refine: config.refine,
            texts: self.learned.clone(),
            engine: source.engine.clone(),
        }
    }

    /// Holds a file to what is accepted. One that lies too far away is asked nothing.
    pub(super) fn measure(&self, wanted: Wanted, path: &Path, source: &Source<'_>) -> Result<Findings> {
        let mut found = Findings::default();
        if self.near.is_none() && self.exam.is_none() {
            return Ok(found);
        }
        let file = NativeEngine::load(&Model::open(path)?, None, &source.engine)?;
        if let Some(Near { model, rows, most }) = &self.near {
            let measured = divergence(model, &file, rows, &mut |done| source.progress("divergence", done, rows.len()));
            let kld = interrupted(measured)?.mean_kld.value;
            found.kld = Some(kld);
            if kld.is_nan() || kld > *most {
                found.refused = Some(format!(
                    "{wanted} lies {kld:.4} from the model (mean divergence on held-out rows), {most} are accepted"
                ));
                return Ok(found);
            }
        }
        if let Some(exam) = &self.exam {
            let (answers, refused) = exam.ask(&wanted.to_string(), file, source.context)?;
            (found.answers, found.refused) = (Some(answers), refused);
        }
        Ok(found)
    }
}

fn interrupted<T>(result: Result<T, QuantizeError>) -> Result<T> {
    match result {
        Err(QuantizeError::Interrupted) => Err(Interrupted.into()),
        result => Ok(result?),
    }
}

/// Rows for the importance matrix, and every tenth (the last, of fewer) for the gate.
fn split(texts: Vec<MeasuredText>) -> (Vec<MeasuredText>, Vec<MeasuredText>) {
    let count = texts.len();
    let is_held_out = |place: usize| place % HELD_OUT == HELD_OUT - 1 || (count < HELD_OUT && place + 1 == count);
    let (mut learned, mut held_out, mut tokens) = (Vec::new(), Vec::new(), 0);
    for (place, text) in texts.into_iter().enumerate() {
        if is_held_out(place) && held_out.len() < GATE_ROWS {
            held_out.push(text.clone());
        }
        // One row alone serves both.
        if (!is_held_out(place) || count == 1) && tokens < IMPORTANCE_TOKENS {
            tokens += text.tokens().len();
            learned.push(text);
        }
    }
    (learned, held_out)
}

/// What to write in place of a file that is refused. The file is taken away.
pub(super) fn replace(
    config: &QuantizeStage,
    (wanted, bits_per_weight): (Wanted, f64),
    refused: String,
    path: &Path,
    context: &StageContext<'_>,
) -> Result<Wanted> {
    let _ = std::fs::remove_file(path);
    let next = match wanted {
        Wanted::Mix(file_type) => larger(file_type).map(Wanted::Mix),
        Wanted::Target(target) => (bits_per_weight < MOST_BITS).then(|| Wanted::Target(grown(target))),
    };
    match next.filter(|_| config.otherwise == Otherwise::Climb) {
        Some(next) => {
            context.note(format!("{refused}: {next} is written in its place"));
            Ok(next)
        }
        None => Err(Failure::refused(refused)
            .hint("choose a larger type or size, write `otherwise: climb`, or ask for less in `accept`")
            .into()),
    }
}

/// A size a tenth larger, or a time a tenth longer, in the digits that its file is named by.
fn grown(target: Target) -> Target {
    match target {
        Target::BitsPerWeight(bits) => Target::BitsPerWeight((bits * LARGER * 100.0).round() / 100.0),
        Target::Bytes(bytes) => Target::Bytes((bytes as f64 * LARGER) as u64),
        Target::Speed(factor) => Target::Speed((factor * LARGER * 100.0).round() / 100.0),
    }
}

/// The next rung above a type.
fn larger(file_type: FileType) -> Option<FileType> {
    let bits = |file_type: FileType| {
        let block = file_type.default_block_type();
        block.block_bytes() as f64 * 8.0 / block.block_size() as f64
    };
    LADDER.into_iter().find(|rung| bits(*rung) > bits(file_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_rise_to_half_precision() {
        assert_eq!(larger(FileType::Q2_K), Some(FileType::Q3_K_M));
        assert_eq!(larger(FileType::Q4_0), Some(FileType::Q5_K_M));
        assert_eq!(larger(FileType::Q4_K_M), Some(FileType::Q5_K_M));
        assert_eq!(larger(FileType::Q8_0), Some(FileType::F16));
        assert_eq!(larger(FileType::F16), None);
    }

    #[test]
    fn sizes_grow_by_a_tenth() {
        assert_eq!(grown(Target::BitsPerWeight(4.6)), Target::BitsPerWeight(5.06));
        assert_eq!(grown(Target::Bytes(1000)), Target::Bytes(1100));
        assert_eq!(grown(Target::Speed(1.1)), Target::Speed(1.21));
    }

    #[test]
    fn every_tenth_row_is_held_out() {
        let texts = |count: u32| (0..count).map(|place| MeasuredText::whole(vec![place, 1])).collect();
        let (learned, held_out) = split(texts(25));
        assert_eq!((learned.len(), held_out.len()), (23, 2));
        assert_eq!(held_out[1].tokens(), [19, 1]);
        let (learned, held_out) = split(texts(3));
        assert_eq!((learned.len(), held_out.len()), (2, 1));
        let (learned, held_out) = split(texts(1));
        assert_eq!((learned.len(), held_out.len()), (1, 1));
    }
}
