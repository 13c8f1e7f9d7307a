//! Base and adapter to GGUF files, each reopened and checked.

use super::StageContext;
use crate::content::write_atomically;
use crate::models::ResolvedModel;
use crate::outcome::Failure;
use crate::reporter::size;
use anyhow::{Context, Result};
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::{FileType, MixOptions, QuantizeEvent, QuantizeOptions, quantize};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Raised when the files that a model gives would come out otherwise.
pub const VERSION: u32 = 1;

/// Configuration of `quantize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizeStage {
    /// File types to write.
    #[serde(default = "default_types")]
    pub types: Vec<String>,
    /// One type for every matrix, no mix.
    #[serde(default)]
    pub pure: bool,
}

fn default_types() -> Vec<String> {
    vec!["Q8_0".into(), "Q4_K_M".into()]
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
    /// `Q4_K_M` and so on.
    pub file_type: String,
    /// Name in the output folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Mean bits a weight.
    pub bits_per_weight: f64,
    /// What the mix could not keep, in words; empty when nothing fell back.
    pub fallback: String,
}

/// The name of a file of one type.
pub fn file_name(file_type: &str) -> String {
    format!("model.{file_type}.gguf")
}

/// Reads the file types of a configuration.
pub fn file_types(config: &QuantizeStage) -> Result<Vec<FileType>> {
    if config.types.is_empty() {
        return Err(Failure::usage("`types` is empty: there is nothing to write")
            .hint("for instance `types: [Q8_0, Q4_K_M]`")
            .into());
    }
    config.types.iter().map(|name| parse_type(name)).collect()
}

/// Reads one file type.
pub fn parse_type(name: &str) -> Result<FileType> {
    name.parse::<FileType>().map_err(|error| Failure::usage(error.to_string()).into())
}

/// Writes one file a type, and `quantize.json` with what was made.
pub fn run(
    config: &QuantizeStage,
    student: &ResolvedModel,
    adapter: Option<&Path>,
    out: &Path,
    context: &StageContext<'_>,
) -> Result<String> {
    let model = Model::open(&student.path)?;
    let adapter = adapter.map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let mut made = Made { files: Vec::new() };
    for file_type in file_types(config)? {
        context.check_stop()?;
        let name = file_name(file_type.name());
        let path = out.join(&name);
        let mix = MixOptions { pure: config.pure, ..MixOptions::default() };
        let options = QuantizeOptions { mix, verify_texts: vec![SAMPLE_TEXT.into()], ..QuantizeOptions::default() };
        let file = write_one(&model, adapter.as_ref(), file_type, &path, &options, context)?;
        made.files.push(MadeFile { name, ..file });
    }
    write_atomically(&out.join("quantize.json"), serde_json::to_string_pretty(&made)?.as_bytes())?;
    let list: Vec<String> = made.files.iter().map(|file| format!("{} {}", file.file_type, size(file.bytes))).collect();
    Ok(list.join(", "))
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
    })
}

/// Every kind of character that tokenizers differ on.
pub const SAMPLE_TEXT: &str = "Hello, world!  Déjà vu 1234567 — naïve\n\ttabs, 日本語, 🙂 it's <|im_end|> </s> x²\r\n";
