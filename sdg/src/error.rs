//! What can stop a generation.

use espalier_dataset::DatasetError;
use espalier_inference::EngineError;

/// Why generation stopped. Rows that were finished before are in the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SdgError {
    /// The configuration cannot be.
    #[error("configuration of generate: {0}")]
    Config(String),
    /// A template or an expression of a leaf fails.
    #[error("leaf {leaf}: `{part}` fails: {reason} (correct it in the leaf's qna.yaml)")]
    Expression {
        /// Id of the leaf.
        leaf: String,
        /// The template or the expression.
        part: String,
        /// Why.
        reason: String,
    },
    /// A prompt file of ours does not fit a leaf.
    #[error("leaf {leaf}: the prompt {file} cannot be filled in: {reason}")]
    Prompt {
        /// The file.
        file: &'static str,
        /// Id of the leaf.
        leaf: String,
        /// Why.
        reason: String,
    },
    /// A block of a flow cannot do its work.
    #[error("the block {block} fails: {reason}")]
    Block {
        /// Name of the block.
        block: String,
        /// Why.
        reason: String,
    },
    /// The check of a leaf cannot be used.
    #[error("leaf {leaf}: its `verify` cannot be used: {reason} (correct it in the leaf's qna.yaml)")]
    Verify {
        /// Id of the leaf.
        leaf: String,
        /// Why.
        reason: String,
    },
    /// A seed of one leaf is a held-out test question of another.
    #[error("leaf {leaf}: the seed in line {line} is a held-out test question; remove it here or from the test")]
    Leak {
        /// Id of the leaf with the seed.
        leaf: String,
        /// Line of the seed.
        line: usize,
    },
    /// The teacher failed.
    #[error("the teacher cannot answer: {0}")]
    Engine(#[from] EngineError),
    /// The teacher ended without an answer to every request.
    #[error("the teacher left {missing} of {asked} requests without an answer; run it again to go on from here")]
    Unanswered {
        /// Requests without an answer.
        missing: usize,
        /// Requests.
        asked: usize,
    },
    /// A file of rows failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Somebody asked to stop.
    #[error("interrupted with {done} of {total} jobs done; run it again to go on from here")]
    Interrupted {
        /// Jobs whose rows are in the journal.
        done: usize,
        /// All jobs.
        total: usize,
    },
}
