//! GGUF: the file format of llama.cpp, read from a memory map and written in one stream.
//!
//! Layout (all little endian): the four bytes `GGUF`; `u32` version; `u64` counts of tensors and of metadata keys (32 bits
//! in version 1, which is not read); the keys with their values; for each tensor its name, dimensions (row length first),
//! type and offset; padding to `general.alignment` (32 unless said); the data, each tensor padded to the alignment.

mod cursor;
mod metadata;
mod reader;
mod value;
mod writer;

pub use metadata::Metadata;
pub use reader::{GgufFile, TensorEntry};
pub use value::{Array, Value, ValueType};
pub use writer::{GgufWriter, TensorHeader};

/// The first four bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written; 2 is read too.
pub(crate) const VERSION: u32 = 3;
/// Alignment of tensor data where `general.alignment` does not say another.
pub(crate) const DEFAULT_ALIGNMENT: u32 = 32;
/// Key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// Key of the architecture, which stands first in a file.
pub(crate) const ARCHITECTURE_KEY: &str = "general.architecture";
/// ggml keeps names in 64 bytes with a closing zero.
pub(crate) const NAME_BYTES: usize = 63;
/// ggml tensors have up to four dimensions.
pub(crate) const MOST_DIMENSIONS: usize = 4;
