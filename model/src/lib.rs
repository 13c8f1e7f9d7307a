//! What a model is: its architecture, its tensors in GGUF, safetensors or llama2.c files, its tokenizer, its chat template
//! and the low-rank adapters trained for it.
//!
//! Whatever the file on disk, names and row order are those of GGUF, so that everything above sees one convention.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod adapter;
mod atomic_file;
mod atomic_folder;
mod chat;
mod config;
pub mod encoder;
mod error;
pub mod gguf;
pub mod huggingface;
mod llama2c;
mod mapped_file;
mod model;
mod row_order;
mod safetensors_file;
mod tensor;
pub mod tokenizer;

pub use adapter::{LoraAdapter, LoraModule, ModulePatterns, matches_whole_module};
pub use atomic_folder::{AtomicFolder, Existing};
pub use chat::{ChatTemplate, Message, python_method};
pub use config::{Architecture, LayerAttention, ModelConfig, NormPlacement, Rotation, Scales, SlidingWindow};
pub use encoder::{EncoderConfig, EncoderModel, Pooling};
pub use error::ModelError;
pub use model::Model;
pub use tensor::{Tensor, TensorInfo};
pub use tokenizer::{SpecialTokens, Tokenizer};
