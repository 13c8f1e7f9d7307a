//! What can go wrong in training, in plain words.

use std::path::PathBuf;

use espalier_dataset::DatasetError;
use espalier_model::ModelError;
use espalier_nn::NnError;

use crate::collect::DataProblems;
use crate::guard::Trouble;
use crate::memory::Bytes;

/// An error of training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model could not be read, or the adapter not be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network refused.
    #[error(transparent)]
    Network(#[from] NnError),
    /// A setting that makes no sense.
    #[error("training setting {name}: {problem}")]
    Config {
        /// Its name in the configuration.
        name: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Data that cannot be learned from.
    #[error("{0}")]
    Data(DataProblems),
    /// A file of the data could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// What a teacher thinks is not about these rows.
    #[error("the teacher's table does not fit: {0}")]
    Teacher(String),
    /// The run was asked to stop while it read its data.
    #[error("stopped")]
    Stopped,
    /// Nothing is left to learn from.
    #[error("no row to train on: {0}")]
    Empty(String),
    /// A checkpoint of another run lies in the folder.
    #[error("{} holds a run that was started with {what}: a resumed run must end with the same bytes as an unbroken one. Put it back as it was, or train into another folder (or delete this one)", .directory.display())]
    OtherRun {
        /// The checkpoints' folder.
        directory: PathBuf,
        /// What differs, then and now.
        what: String,
    },
    /// A file could not be written or read.
    #[error("{}: cannot {action}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A weight of the base is no number.
    #[error(
        "the base cannot be trained on: in tensor {tensor}, row {row}, column {column} is {value}, so every loss would be no number; fetch or convert the model again"
    )]
    BaseNotFinite {
        /// GGUF name.
        tensor: String,
        /// Counted from 0.
        row: usize,
        /// Counted from 0.
        column: usize,
        /// Infinite or no number.
        value: f32,
    },
    /// The run does not fit into the memory that it may take.
    #[error(
        "memory {limit} is too little: in micro-batches of one row of at most {longest} tokens and with every block computed twice the run still needs {needed} ({largest}). Give it that, or lower max_sequence or rank, or take a smaller base"
    )]
    Memory {
        /// What it may take.
        limit: Bytes,
        /// The least that it can do with.
        needed: Bytes,
        /// Tokens of the longest row.
        longest: usize,
        /// The largest parts of it, in words.
        largest: String,
    },
    /// The checkpoint that the adapter should be of was removed or damaged by hand.
    #[error(
        "the best checkpoint, of step {step}, is gone or damaged; delete the folder of checkpoints and train again, or set validation to 0 in another folder"
    )]
    BestIsGone {
        /// Steps done.
        step: usize,
    },
    /// A step cannot be taken, and the run has gone back as often as it may.
    #[error(
        "step {step}: {trouble}, and the run has gone back to a checkpoint {rollbacks} times (max_rollbacks). Lower learning_rate, or look at the rows of this step, the dearest first: {rows}. If they are as they should be, spike_threshold: null takes such steps. The last checkpoint is unharmed"
    )]
    Unstable {
        /// The step, counted from 1.
        step: usize,
        /// What is wrong with it.
        trouble: Trouble,
        /// How often the run has gone back.
        rollbacks: usize,
        /// The rows of the step.
        rows: String,
    },
}

impl TrainError {
    pub(crate) fn file(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, action, source }
    }
}
