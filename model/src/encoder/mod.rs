//! Encoders of the BERT family, which make vectors of texts (all-MiniLM-L6-v2, bge-small, e5): configuration, tokenizer and
//! weights of a Hugging Face folder.
//!
//! They share nothing with [`Model`](crate::Model) but the form of their files: no next token, no cache, no chat template.

mod config;
mod word_piece;

pub use config::{EncoderConfig, Pooling};
pub use word_piece::WordPiece;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;
use crate::model::{hash_file, hexadecimal};
use crate::safetensors_file::{self, SafeTensor};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";

/// An encoder on disk, memory-mapped.
pub struct EncoderModel {
    config: EncoderConfig,
    tokenizer: WordPiece,
    weights: Mmap,
    tensors: HashMap<String, SafeTensor>,
    folder: PathBuf,
}

impl EncoderModel {
    /// Whether a folder holds an encoder: its `config.json` names the class.
    pub fn is_in(folder: &Path) -> bool {
        std::fs::read_to_string(folder.join(CONFIG)).is_ok_and(|text| config::is_encoder(&text))
    }

    /// Opens a Hugging Face folder with `config.json`, `tokenizer.json` and `model.safetensors`; what sentence-transformers
    /// writes beside them (`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`) says how vectors are made.
    ///
    /// # Errors
    ///
    /// Files that are missing or damaged, another family, parts that are not computed, tensors that are missing or of
    /// another shape than the configuration says. Messages name the file.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let text = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(ModelError::file(&path, "read it as UTF-8 text"))
        };
        let in_file = |name: &str| {
            let path = folder.join(name);
            move |error: ModelError| error.in_file(&path)
        };
        let beside = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let name = folder.canonicalize().ok();
        let name = name.as_deref().unwrap_or(folder).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let config = EncoderConfig::read(&name, &text(CONFIG)?, &beside).map_err(in_file(CONFIG))?;
        let tokenizer = WordPiece::from_tokenizer_json(&text(TOKENIZER)?).map_err(in_file(TOKENIZER))?;
        if tokenizer.vocabulary() > config.vocabulary {
            let problem =
                format!("it has {} tokens, the embedding has {} rows", tokenizer.vocabulary(), config.vocabulary);
            return Err(in_file(TOKENIZER)(ModelError::invalid("tokenizer", problem, DOWNLOAD_AGAIN)));
        }
        let (weights, tensors) = safetensors_file::open(&folder.join(WEIGHTS))?;
        // Where the encoder is a part of a larger class, its names begin with that of the part.
        let named = |tensor: SafeTensor| (tensor.name.strip_prefix("bert.").unwrap_or(&tensor.name).to_owned(), tensor);
        let tensors = tensors.into_iter().map(named).collect();
        Ok(Self { config, tokenizer, weights, tensors, folder: folder.to_owned() })
    }

    /// Shape and constants.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Text to token ids.
    pub fn tokenizer(&self) -> &WordPiece {
        &self.tokenizer
    }

    /// The values of a tensor by its name in transformers (`encoder.layer.0.output.dense.weight`), of so many elements a
    /// dimension, the row length last.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, of another shape, or of a type that is not read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let in_ggml_order = |shape: &[usize]| shape.iter().rev().copied().collect::<Vec<_>>();
        let of_file = |error: ModelError| error.in_file(&self.folder.join(WEIGHTS));
        let Some(tensor) = self.tensors.get(name) else {
            let expected = format!("{:?}", in_ggml_order(shape));
            return Err(of_file(ModelError::MissingTensor { name: name.to_owned(), expected }));
        };
        if tensor.shape != shape {
            let (found, expected) = (in_ggml_order(&tensor.shape), in_ggml_order(shape));
            return Err(of_file(ModelError::TensorShape { name: name.to_owned(), found, expected }));
        }
        safetensors_file::decode(tensor, &self.weights).map_err(of_file)
    }

    /// The tokens of a text as the model reads it: its start and end tokens around at most [`EncoderConfig::tokens`] in all.
    /// Gives also how many tokens did not fit.
    pub fn encode(&self, text: &str) -> (Vec<u32>, usize) {
        self.tokenizer.encode(text, self.config.tokens)
    }

    /// SHA-256 of the lines `HASH  NAME` of the files that vectors depend on.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn sha256(&self) -> Result<String, ModelError> {
        let mut lines = String::new();
        for name in ["1_Pooling/config.json", CONFIG, WEIGHTS, "modules.json", "sentence_bert_config.json", TOKENIZER] {
            let path = self.folder.join(name);
            if path.is_file() {
                lines += &format!("{}  {name}\n", hash_file(&path)?);
            }
        }
        Ok(hexadecimal(&Sha256::digest(lines.as_bytes())))
    }
}
