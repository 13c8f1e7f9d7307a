//! What can be wrong with a model, a tokenizer or an adapter.

use std::io;
use std::path::{Path, PathBuf};

/// Remedy for files that ended early or whose bytes were changed.
pub(crate) const DOWNLOAD_AGAIN: &str = "the file is incomplete or damaged: download or export it again";

/// An error of this crate; each message says where, what and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused a file.
    #[error("{}: cannot {action}: {source}; check that it exists, its permissions and the free space", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried ("open it", "write to it").
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes of a file are not what its format asks for.
    #[error("byte {offset}: expected {expected}, found {found}; {remedy}")]
    Format {
        /// Where in the file.
        offset: u64,
        /// What the format asks for there.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A key of the metadata is not there.
    #[error("metadata key {key:?} is missing; convert the model again with a current converter, or use another file")]
    MissingKey {
        /// Name of the key.
        key: String,
    },
    /// A key of the metadata has a value of another type or range.
    #[error("metadata key {key:?} holds {found}, expected {expected}; convert the model again or correct the key")]
    KeyType {
        /// Name of the key.
        key: String,
        /// What was asked for.
        expected: String,
        /// Type and value found.
        found: String,
    },
    /// An architecture that nobody wrote here.
    #[error(
        "architecture {architecture:?} is not supported by the native engine (supported: llama and mistral, qwen2, qwen3, granite, \
         smollm3, gemma3); \
         serve the model with llama-server, vLLM or Ollama and pass --engine http://HOST:PORT"
    )]
    UnsupportedArchitecture {
        /// Its name in the file.
        architecture: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("tensor {name:?} is missing (expected dimensions {expected}); {DOWNLOAD_AGAIN}")]
    MissingTensor {
        /// GGUF name.
        name: String,
        /// Dimensions in ggml order, or "any".
        expected: String,
    },
    /// A tensor has not the shape that the configuration implies.
    #[error(
        "tensor {name:?} has dimensions {found:?}, but the configuration implies {expected:?}; \
         the file contradicts itself: convert it again"
    )]
    TensorShape {
        /// GGUF name.
        name: String,
        /// Dimensions found, in ggml order.
        found: Vec<usize>,
        /// Dimensions implied, in ggml order.
        expected: Vec<usize>,
    },
    /// A request for a row or a buffer that the tensor does not have.
    #[error("tensor {name:?}: {problem}; ask for rows 0..rows and pass buffers of `columns` elements")]
    TensorAccess {
        /// GGUF name.
        name: String,
        /// What was asked for, and what there is.
        problem: String,
    },
    /// Anything else that is wrong in a named place.
    #[error("{place}: {problem}; {remedy}")]
    Invalid {
        /// File, key, field or argument.
        place: String,
        /// What is wrong there.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// An error inside of a file, with the file named in front.
    #[error("{}: {source}", path.display())]
    In {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<ModelError>,
    },
}

impl ModelError {
    /// A problem in a named place with its remedy.
    pub fn invalid(place: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), problem: problem.into(), remedy: remedy.into() }
    }

    /// Names the file in front of the message; an error that names one already stays as it is.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::File { .. } | Self::In { .. } => self,
            other => Self::In { path: path.to_owned(), source: Box::new(other) },
        }
    }

    /// A closure for `map_err` on input and output: `action` completes "cannot ...".
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), action, source }
    }

    /// Bytes that contradict their format, with the usual remedy.
    pub(crate) fn format(offset: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Format {
            offset: offset as u64,
            expected: expected.into(),
            found: found.into(),
            remedy: DOWNLOAD_AGAIN.to_owned(),
        }
    }
}
