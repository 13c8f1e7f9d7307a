//! Base and adapter to GGUF files, each reopened and checked.

mod gate;
mod questions;
mod target;

pub use questions::{Answers, LeafAnswers, Questions, least_questions, tested};
pub use target::measured_types;

use super::StageContext;
use crate::content::{hash_path, write_atomically};
use crate::models::ResolvedModel;
use crate::outcome::Failure;
use crate::reporter::size;
use anyhow::{Context, Result};
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::{
    FileType, MixOptions, Origin, Provenance, QuantizeError, QuantizeEvent, QuantizeOptions, Target, quantize,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Raised when the files that a model gives would come out otherwise.
pub const VERSION: u32 = 4;

/// Configuration of `quantize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizeStage {
    /// File types to write.
    #[serde(default = "default_types")]
    pub types: Vec<String>,
    /// Sizes to write, as in `4.6bpw`, or `speed`: the type of each matrix is chosen by measurement on rows of the run.
    #[serde(default)]
    pub targets: Vec<String>,
    /// One type for every matrix, no mix.
    #[serde(default)]
    pub pure: bool,
    /// Whether the scales of blocks are moved to lower their errors further.
    #[serde(default)]
    pub refine: bool,
    /// What weighs the errors of rounding: `rows` of the run where it has some, `none`, or a file of importance.
    #[serde(default = "default_imatrix")]
    pub imatrix: String,
    /// A text that a fifth of the importance is measured on, beside rows of the run.
    #[serde(default)]
    pub general: Option<PathBuf>,
    /// What a file must keep of the model that it was made of.
    #[serde(default)]
    pub accept: Option<Accept>,
    /// What happens to a file that does not.
    #[serde(default)]
    pub otherwise: Otherwise,
}

/// What a file must keep to: all that is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Largest mean divergence on rows of the run, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kld: Option<f64>,
    /// What must be shown of its answers to held-out questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskClaim>,
}

/// What answers to held-out questions must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskClaim {
    /// That the file loses less than the margin of evaluation.
    NonInferior,
}

/// What happens to a file that is not accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// The stage fails with exit code 3.
    #[default]
    Fail,
    /// The next larger type is written in its place.
    Climb,
}

fn default_types() -> Vec<String> {
    vec!["Q8_0".into(), "Q4_K_M".into()]
}

fn default_imatrix() -> String {
    ROWS.into()
}

const ROWS: &str = "rows";
const NONE: &str = "none";

impl QuantizeStage {
    /// Whether it reads the rows of the run.
    pub fn reads_rows(&self) -> bool {
        self.imatrix == ROWS || self.largest_kld().is_some() || !self.targets.is_empty()
    }

    /// How far a file may lie from the model.
    pub fn largest_kld(&self) -> Option<f64> {
        self.accept?.kld
    }

    /// Whether files have to answer held-out questions.
    pub fn asks_questions(&self) -> bool {
        self.accept.is_some_and(|accept| accept.task.is_some())
    }

    /// The file of importance that it names.
    pub fn imatrix_file(&self) -> Option<&Path> {
        (![ROWS, NONE].contains(&self.imatrix.as_str())).then(|| Path::new(&self.imatrix))
    }

    /// A key whose value cannot be, and why.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        match self.accept {
            Some(Accept { kld: None, task: None }) => {
                return Some((
                    "accept",
                    "`accept` names nothing that a file must keep to: give `kld: 0.05`, `task: non-inferior`, or both",
                ));
            }
            Some(Accept { kld: Some(kld), .. }) if !(kld.is_finite() && kld > 0.0) => {
                return Some(("accept", "`accept: {kld: ...}` is a divergence above 0, such as 0.05"));
            }
            _ => {}
        }
        let unmixed = self.general.is_some() && self.imatrix != ROWS;
        unmixed.then_some(("general", "`general` is mixed with rows of the run: it needs `imatrix: rows`"))
    }
}

/// What was made, written beside the files for the stages that follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    /// One entry a file.
    pub files: Vec<MadeFile>,
}

/// One GGUF file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MadeFile {
    /// `Q4_K_M` and so on, or the size that was asked for.
    pub file_type: String,
    /// Name in the output folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Mean bits a weight.
    pub bits_per_weight: f64,
    /// What the mix could not keep, in words; empty when nothing fell back.
    pub fallback: String,
    /// Mean divergence from the model that it was made of, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kld: Option<f64>,
    /// Its answers to held-out questions beside those of the model that it was made of, where they were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// The types of the matrices, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<serde_json::Value>,
}

impl MadeFile {
    /// What was measured of it, in words.
    pub fn measured(&self) -> Vec<String> {
        let kld = self.kld.map(|kld| format!("divergence {kld:.4}"));
        kld.into_iter().chain(self.answers.as_ref().map(Answers::words)).collect()
    }
}

/// The name of a file of one type.
pub fn file_name(file_type: &str) -> String {
    format!("model.{file_type}.gguf")
}

/// What a file is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// A fixed mix.
    Mix(FileType),
    /// As large or as fast as that, with types by measurement.
    Target(Target),
}

impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mix(file_type) => write!(formatter, "{file_type}"),
            Self::Target(target) => write!(formatter, "{target}"),
        }
    }
}

/// Reads the types and sizes of a configuration.
pub fn wanted(config: &QuantizeStage) -> Result<Vec<Wanted>> {
    if config.types.is_empty() && config.targets.is_empty() {
        return Err(Failure::usage("`types` is empty: there is nothing to write")
            .hint("for instance `types: [Q8_0, Q4_K_M]`, or `targets: [4.6bpw]`")
            .into());
    }
    let types = config.types.iter().map(|name| parse_type(name).map(Wanted::Mix));
    let size = |text: &String| {
        Ok(Wanted::Target(text.parse().map_err(|error: QuantizeError| Failure::usage(error.to_string()))?))
    };
    types.chain(config.targets.iter().map(size)).collect()
}

/// Reads one file type.
pub fn parse_type(name: &str) -> Result<FileType> {
    name.parse::<FileType>().map_err(|error| Failure::usage(error.to_string()).into())
}

/// Where the stage reads.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The model.
    pub student: &'a ResolvedModel,
    /// The adapter that is merged.
    pub adapter: Option<&'a Path>,
    /// Rows of the run.
    pub rows: Option<&'a Path>,
    /// Questions that a file must answer as well as the model.
    pub questions: Option<&'a Questions>,
}

/// The names of the files that a configuration gives: where it may climb, those that it gave.
pub fn outputs(config: &QuantizeStage, folder: &Path) -> Vec<String> {
    if config.otherwise == Otherwise::Climb
        && let Ok(text) = std::fs::read(folder.join(LIST))
        && let Ok(made) = serde_json::from_slice::<Made>(&text)
    {
        return made.files.into_iter().map(|file| file.name).collect();
    }
    let files = wanted(config).unwrap_or_default();
    files.into_iter().map(|wanted| file_name(&wanted.to_string())).collect()
}

/// The list of what was made.
pub const LIST: &str = "quantize.json";

/// Writes one file a type, and [`LIST`] with what was made.
pub fn run(config: &QuantizeStage, inputs: Inputs<'_>, out: &Path, context: &StageContext<'_>) -> Result<String> {
    let model = Model::open(&inputs.student.path)?;
    let adapter = inputs.adapter.map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let asked = wanted(config)?;
    let source = gate::Source { model: &model, adapter: adapter.as_ref(), context, engine: context.engine_options() };
    let measured = gate::Measured::read(config, &asked, &source, &inputs)?;
    let provenance = provenance(&inputs)?;
    let mut made = Made { files: Vec::new() };
    for asked in asked {
        let mut wanted = asked;
        loop {
            context.check_stop()?;
            let label = wanted.to_string();
            let name = file_name(&label);
            if made.files.iter().any(|file| file.name == name) {
                break;
            }
            let path = out.join(&name);
            let (file_type, mix, allocation) = match wanted {
                Wanted::Mix(file_type) => (file_type, MixOptions { pure: config.pure, ..MixOptions::default() }, None),
                Wanted::Target(target) => {
                    let found = measured_types(measured.allocation_inputs(config, &source), target, context)?;
                    (found.file_type(), found.mix()?, Some(found))
                }
            };
            let options = QuantizeOptions {
                mix,
                importance: measured.importance.clone(),
                refine: config.refine,
                provenance: Provenance { recipe: Some(recipe(wanted, config)), ..provenance.clone() },
                verify_texts: vec![SAMPLE_TEXT.into()],
                ..QuantizeOptions::default()
            };
            let file = write_one(&model, adapter.as_ref(), file_type, &path, &options, context)?;
            let found = measured.measure(wanted, &path, &source)?;
            if let Some(reason) = found.refused {
                wanted = gate::replace(config, (wanted, file.bits_per_weight), reason, &path, context)?;
                continue;
            }
            let allocation = allocation.map(serde_json::to_value).transpose()?;
            let (kld, answers) = (found.kld, found.answers);
            made.files.push(MadeFile { file_type: label, name, kld, answers, allocation, ..file });
            break;
        }
    }
    write_atomically(&out.join(LIST), serde_json::to_string_pretty(&made)?.as_bytes())?;
    let list: Vec<String> = made
        .files
        .iter()
        .map(|file| {
            let measured = file.measured().join("; ");
            let measured = if measured.is_empty() { measured } else { format!(" ({measured})") };
            format!("{} {}{measured}", file.file_type, size(file.bytes))
        })
        .collect();
    Ok(list.join(", "))
}

/// What the weights are made of, by names that mean the same on every machine.
fn provenance(inputs: &Inputs<'_>) -> Result<Provenance> {
    let file = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let student = inputs.student;
    let fetched = ["hf:", "pypi:"].iter().any(|kind| student.reference.starts_with(kind));
    let name = if fetched { student.reference.clone() } else { file(&student.path) };
    let adapter = inputs.adapter.map(|path| anyhow::Ok(Origin { name: file(path), sha256: hash_path(path)? }));
    Ok(Provenance {
        base_model: Some(Origin { name, sha256: student.sha256.clone() }),
        adapter: adapter.transpose()?,
        ..Provenance::default()
    })
}

/// How the types were chosen and the weights rounded.
fn recipe(wanted: Wanted, config: &QuantizeStage) -> String {
    let types = match wanted {
        Wanted::Mix(file_type) if config.pure => format!("{file_type}, pure"),
        Wanted::Mix(file_type) => file_type.to_string(),
        Wanted::Target(target) => format!("measured types, {target}"),
    };
    if config.refine { format!("{types}, refined") } else { types }
}

/// Writes one file, then reopens it and checks it against its source.
pub fn write_one(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    file_type: FileType,
    path: &Path,
    options: &QuantizeOptions,
    context: &StageContext<'_>,
) -> Result<MadeFile> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut total = 0;
    let report = quantize(model, adapter, file_type, path, options, &mut |event| match event {
        QuantizeEvent::Planned { bytes, .. } => total = bytes,
        QuantizeEvent::Progress { tensor, bytes } => context.progress(file_type.name(), bytes, total, "bytes", tensor),
        QuantizeEvent::Tensor { .. } | QuantizeEvent::Verifying => {}
    })?;
    Ok(MadeFile {
        file_type: file_type.name().into(),
        name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        bytes: report.file_bytes,
        bits_per_weight: report.bits_per_weight(),
        fallback: report.notes().join("; "),
        kld: None,
        answers: None,
        allocation: None,
    })
}

/// Every kind of character that tokenizers differ on.
pub const SAMPLE_TEXT: &str = "Hello, world!  Déjà vu 1234567 — naïve\n\ttabs, 日本語, 🙂 it's <|im_end|> </s> x²\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(accept: &str) -> Result<QuantizeStage, serde_json::Error> {
        serde_json::from_str(&format!("{{\"imatrix\": \"none\", \"accept\": {accept}}}"))
    }

    #[test]
    fn either_measure_or_both_are_accepted() -> Result<()> {
        let (near, asked) = (read(r#"{"kld": 0.05}"#)?, read(r#"{"task": "non-inferior"}"#)?);
        assert!(near.reads_rows() && !near.asks_questions() && near.problem().is_none());
        assert!(!asked.reads_rows() && asked.asks_questions() && asked.problem().is_none());
        let both = read(r#"{"kld": 0.05, "task": "non-inferior"}"#)?;
        assert!(both.reads_rows() && both.asks_questions() && both.problem().is_none());
        // Configurations of before keep their form, so that what was made by them is up to date.
        assert_eq!(serde_json::to_value(near.accept)?, serde_json::json!({"kld": 0.05}));
        for wrong in ["{}", r#"{"kld": 0}"#, r#"{"kld": -1, "task": "non-inferior"}"#] {
            assert_eq!(read(wrong)?.problem().map(|(key, _)| key), Some("accept"), "{wrong}");
        }
        for unreadable in [r#"{"task": "better"}"#, r#"{"tasks": "non-inferior"}"#, r#"{"kld": "near"}"#] {
            assert!(read(unreadable).is_err(), "{unreadable}");
        }
        Ok(())
    }
}
