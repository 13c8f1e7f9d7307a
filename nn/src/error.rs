//! What can go wrong between a model file and a trainable model.

use espalier_model::ModelError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A tensor could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor does not have the shape that the configuration of its model asks for.
    #[error(
        "tensor {name} is {rows} x {columns} where the model's configuration asks for {expected_rows} x {expected_columns}: the file is damaged or of another architecture"
    )]
    Shape {
        /// GGUF name.
        name: String,
        /// Rows found.
        rows: usize,
        /// Columns found.
        columns: usize,
        /// Rows wanted.
        expected_rows: usize,
        /// Columns wanted.
        expected_columns: usize,
    },
    /// A target that no layer has.
    #[error("unknown target {0:?}: choose from q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj")]
    UnknownTarget(String),
    /// No target at all.
    #[error("no module to adapt: name at least one target")]
    NoTarget,
    /// A rank of zero or beyond every width.
    #[error("rank {rank} does not fit: choose from 1 to {largest}")]
    Rank {
        /// Rank asked for.
        rank: usize,
        /// Width of the narrowest adapted matrix.
        largest: usize,
    },
    /// An adapter that is not the same in every layer, or not of this model.
    #[error("the adapter does not fit this model for training: {0}")]
    Adapter(String),
    /// A batch whose parts do not fit together.
    #[error("the batch does not fit together: {0}")]
    Batch(String),
}
