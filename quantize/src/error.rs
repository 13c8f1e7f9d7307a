//! What can go wrong in quantization.

use std::path::PathBuf;

use espalier_inference::EngineError;
use espalier_kernels::BlockType;
use espalier_kernels::blocks::BlockError;
use espalier_model::ModelError;

use crate::encode::EncodeError;
use crate::file_type::FileType;

/// An error of this crate; the message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The model, the adapter or the file written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Blocks that cannot be decoded again.
    #[error(transparent)]
    Blocks(#[from] BlockError),
    /// The engine, while divergence is measured.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A tensor whose values do not fit the format.
    #[error("tensor {tensor:?}, row {row}: {source}")]
    Encode {
        /// GGUF name.
        tensor: String,
        /// First row of the part in which the value stands.
        row: usize,
        /// What is wrong with the value.
        source: EncodeError,
    },
    /// A file type that nobody knows.
    #[error("unknown file type {name:?}; known are {known}")]
    UnknownFileType {
        /// As given.
        name: String,
        /// Names separated by commas.
        known: String,
    },
    /// An override `REGEX=TYPE` that cannot be read.
    #[error("--tensor-type {text:?}: {problem}; write REGEX=TYPE, as in 'ffn_down=Q6_K'")]
    Override {
        /// As given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A type asked for by name that the rows of a tensor do not divide into.
    #[error(
        "{option} asks for {name} in tensor {tensor:?}, whose rows of {columns} elements are not a multiple of {block}; \
         choose a type with a smaller block, such as Q8_0",
        name = .block_type.name(),
        block = .block_type.block_size()
    )]
    RowLength {
        /// The option that asked.
        option: &'static str,
        /// GGUF name.
        tensor: String,
        /// Row length.
        columns: usize,
        /// Type asked for.
        block_type: BlockType,
    },
    /// An adapter that belongs to another model.
    #[error("the adapter does not fit the model: module {module:?}: {problem}; use the model that it was trained on")]
    Adapter {
        /// GGUF name of the module.
        module: String,
        /// What does not fit.
        problem: String,
    },
    /// The file system is full.
    #[error(
        "no space left while writing {}: it takes {} MB; free some space or choose another folder (what was written of it \
         is removed)", path.display(), needed.div_ceil(1_000_000)
    )]
    DiskFull {
        /// The file or folder to be.
        path: PathBuf,
        /// Its size in bytes.
        needed: u64,
    },
    /// The file that was written is not what it should be.
    #[error("{}: the written file failed its check: {problem}; quantize again, and report this if it stays", path.display())]
    Verify {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A file that should be an importance matrix.
    #[error("{}: {problem}; make an importance matrix with `pipeline imatrix`, or with llama-imatrix", path.display())]
    ImportanceFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An importance matrix whose entry does not fit the tensor.
    #[error(
        "the importance matrix has {found} values for tensor {tensor:?}, which takes {needed}: it was measured on another \
         model; make one of this model with `pipeline imatrix`"
    )]
    ForeignImportance {
        /// GGUF name.
        tensor: String,
        /// Values of the entry.
        found: usize,
        /// Columns of the tensor's matrices.
        needed: usize,
    },
    /// A mix that rounds too coarsely without importance.
    #[error(
        "{file_type} takes an importance matrix: tensor {tensor:?} becomes {name}, which is useless without one; make one with \
         `pipeline imatrix` and pass it, or choose a larger type such as Q2_K",
        name = .block_type.name()
    )]
    ImportanceNeeded {
        /// The mix.
        file_type: FileType,
        /// First tensor that needs it.
        tensor: String,
        /// Its type.
        block_type: BlockType,
    },
    /// An importance matrix that does not know a tensor.
    #[error(
        "the importance matrix has no entry for tensor {tensor:?}: it was measured on another model, or on too little text \
         to reach it; measure it on this model"
    )]
    MissingImportance {
        /// GGUF name.
        tensor: String,
    },
    /// Two importance matrices that cannot be added.
    #[error("the importance matrices differ in tensor {tensor:?}: {problem}; merge those of one model")]
    UnlikeImportance {
        /// GGUF name.
        tensor: String,
        /// What differs.
        problem: String,
    },
    /// Texts that give nothing to measure.
    #[error("an importance matrix needs at least one token; {texts} texts without any were given")]
    NothingToMeasure {
        /// Number of texts.
        texts: usize,
    },
    /// Activations that are no numbers.
    #[error("the input of tensor {tensor:?} overflows: {problem}; the weights or the adapter are damaged")]
    Activations {
        /// GGUF name.
        tensor: String,
        /// What is wrong with the sums.
        problem: String,
    },
    /// A target size that cannot be read.
    #[error(
        "cannot understand the target {text:?}; write bits a weight as in 4.6bpw, a size as in 3.2GB or 900MB, or speed"
    )]
    TargetWords {
        /// As given.
        text: String,
    },
    /// A target that no types reach.
    #[error(
        "no types make this model as small as {target}: the smallest possible is {:.3}GB ({bits_per_weight:.2}bpw); choose a \
         larger target, or a smaller model", *smallest as f64 / 1e9
    )]
    Target {
        /// As given.
        target: String,
        /// Bytes of all tensors, each in its smallest type.
        smallest: u64,
        /// The same as bits a weight.
        bits_per_weight: f64,
    },
    /// Stopped before its end.
    #[error("stopped before the end; start it again")]
    Interrupted,
    /// Texts that give nothing to compare.
    #[error("divergence needs at least one text of two tokens or more; {texts} texts were given")]
    NothingToCompare {
        /// Number of texts.
        texts: usize,
    },
    /// Two models that do not share a vocabulary.
    #[error("the reference has {reference} tokens and the candidate {candidate}; compare models with one vocabulary")]
    Vocabulary {
        /// Of the reference.
        reference: usize,
        /// Of the candidate.
        candidate: usize,
    },
}
