//! Hugging Face folders: `config.json`, safetensors in one file or in shards, `tokenizer.json`, `tokenizer_config.json`,
//! `chat_template.jinja`.

mod config;
mod config_json;
pub(crate) mod names;
mod weights;
mod writer;

pub use writer::{FloatType, FolderTensor, HuggingFaceOptions, HuggingFaceWriter};

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::error::DOWNLOAD_AGAIN;
use crate::gguf::Metadata;
use crate::model::Parts;
use crate::{ModelError, Tokenizer};

pub(crate) fn open(folder: &Path) -> Result<Parts, ModelError> {
    let mut files = Vec::new();
    let Some(source) = read_text(folder, "config.json", &mut files)? else {
        return Err(ModelError::invalid(
            "config.json",
            "the folder has none",
            "pass a .gguf file, or a Hugging Face folder with config.json, safetensors and tokenizer.json",
        ));
    };
    let in_config = |error: ModelError| error.in_file(&folder.join("config.json"));
    if crate::EncoderModel::is_in(folder) {
        return Err(in_config(ModelError::invalid(
            "model_type",
            "this is an encoder, which makes vectors of texts and writes none",
            "use it with `pipeline embed`, or pass a language model",
        )));
    }
    let settings = config::parse(&source).map_err(in_config)?;
    let name = folder_name(folder);
    let config = settings.model_config(&name).map_err(in_config)?;
    let factors = settings.frequency_factors(&config).map_err(in_config)?;

    let Some(tokenizer_source) = read_text(folder, "tokenizer.json", &mut files)? else {
        return Err(ModelError::invalid(
            "tokenizer.json",
            "the folder has none",
            "save the tokenizer again with a current transformers, or convert the model to GGUF",
        ));
    };
    let tokenizer_config = read_text(folder, "tokenizer_config.json", &mut files)?;
    let template_file = read_text(folder, "chat_template.jinja", &mut files)?;
    let tokenizer =
        Tokenizer::from_tokenizer_json_padded(&tokenizer_source, tokenizer_config.as_deref(), config.vocabulary)
            .map_err(|error| error.in_file(folder))?;

    let weights = weights::open(folder, &config, factors.as_deref(), &mut files)?;
    let mut metadata = config.to_metadata();
    let elements = weights.tensors.iter().map(|tensor| tensor.info.rows as u64 * tensor.info.columns as u64).sum();
    metadata.insert("general.size_label", size_label(elements));
    metadata.insert("general.file_type", weights.file_type);
    metadata.extend(tokenizer.to_gguf_metadata());
    settings.add_token_ids(&mut metadata);
    let template = match template_file {
        Some(text) => Some(text),
        None => tokenizer_config.as_deref().and_then(template_in_config),
    };
    if let Some(template) = template {
        metadata.insert("tokenizer.chat_template", template);
    }
    // Once more from the keys: what is used here is what a GGUF file written from them gives.
    let tokenizer = Tokenizer::from_gguf_metadata(&metadata)?;
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let (backings, tensors) = (weights.backings, weights.tensors);
    Ok(Parts { metadata, backings, tensors, tokenizer, files })
}

/// The number of weights as people say it, with two digits or more: `135M`, `1.5B`.
fn size_label(elements: u64) -> String {
    let (unit, letter) = match elements {
        1_000_000_000_001.. => (1e12, 'T'),
        1_000_000_001.. => (1e9, 'B'),
        1_000_001.. => (1e6, 'M'),
        _ => (1e3, 'K'),
    };
    let scaled = elements as f64 / unit;
    let digits = usize::from(scaled < 9.5);
    format!("{scaled:.digits$}{letter}")
}

/// The last part of the path, also of `.`; files must not hold a whole path.
fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize();
    let path = whole.as_deref().unwrap_or(folder);
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A text file of the folder, noted among the files that the hash covers; `None` where it is not there.
fn read_text(folder: &Path, name: &str, files: &mut Vec<PathBuf>) -> Result<Option<String>, ModelError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => {
            files.push(path);
            Ok(Some(text))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ModelError::file(&path, "read it as UTF-8 text")(error)),
    }
}

/// `chat_template` of `tokenizer_config.json`: a text, or a list of named ones with "default" among them.
fn template_in_config(source: &str) -> Option<String> {
    // The tokenizer has parsed this text before; an error there was reported.
    let config: Json = serde_json::from_str(source).ok()?;
    match config.get("chat_template")? {
        Json::String(text) => Some(text.clone()),
        Json::Array(templates) => templates
            .iter()
            .find(|template| template.get("name").and_then(Json::as_str) == Some("default"))
            .and_then(|template| template.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    }
}

/// JSON that is not what its file should hold.
pub(crate) fn bad_json(error: &serde_json::Error) -> ModelError {
    ModelError::invalid(
        format!("line {}, column {}", error.line(), error.column()),
        format!("this is not the JSON expected ({error})"),
        DOWNLOAD_AGAIN,
    )
}

/// Adds a special token id where the tokenizer's own files did not name one.
fn add_token_id(metadata: &mut Metadata, name: &str, id: Option<u32>) {
    let key = format!("tokenizer.ggml.{name}_token_id");
    if let Some(id) = id
        && !metadata.contains(&key)
    {
        metadata.insert(key, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_or_more() {
        let cases =
            [(32_064, "32K"), (134_515_008, "135M"), (494_032_768, "494M"), (1_543_714_304, "1.5B"), (7_241, "7.2K")];
        for (elements, label) in cases {
            assert_eq!(size_label(elements), label);
        }
    }
}
