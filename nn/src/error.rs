//! What can go wrong between a model file and a trainable model.

use crate::device_list::DeviceError;
use espalier_kernels::BlockError;
use espalier_model::ModelError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A device that cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A tensor could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor that is not made of whole rows.
    #[error(transparent)]
    Blocks(#[from] BlockError),
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
    #[error(
        "unknown target {name:?}: did you mean {nearest}? The linear layers are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj, in every layer or with their place before them (model.layers.0.self_attn.q_proj)"
    )]
    UnknownTarget {
        /// As it was written.
        name: String,
        /// The target that it looks like.
        nearest: &'static str,
    },
    /// A pattern for targets that no layer matches.
    #[error(
        "the pattern {0:?} matches no linear layer: one string is a regular expression on whole names such as model.layers.0.self_attn.q_proj; write .*{0} for an end, or a list for names"
    )]
    PatternWithoutTarget(String),
    /// A pattern for ranks or alphas that no adapted module matches.
    #[error(
        "{key}: the pattern {pattern:?} matches no adapted module that an earlier pattern leaves; it is a regular expression on the end of a name such as model.layers.0.self_attn.q_proj"
    )]
    PatternWithoutModule {
        /// `rank_pattern` or `alpha_pattern`.
        key: &'static str,
        /// As it was written.
        pattern: String,
    },
    /// No target at all.
    #[error("no module to adapt: name at least one target, in a layer that top_layers leaves")]
    NoTarget,
    /// No layer, or more than there are.
    #[error("top_layers: {top} of the model's {layers} layers; choose from 1 to {layers}")]
    TopLayers {
        /// Layers asked for.
        top: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A rank of zero or beyond every width.
    #[error(
        "rank {rank} does not fit {module} ({inputs} inputs, {outputs} outputs): choose from 1 to {largest}, or give it a rank of its own in rank_pattern"
    )]
    Rank {
        /// PEFT name of the module.
        module: String,
        /// Rank asked for.
        rank: usize,
        /// Width of its inputs.
        inputs: usize,
        /// Width of its outputs.
        outputs: usize,
        /// The smaller of both.
        largest: usize,
    },
    /// An alpha that is no scale.
    #[error("alpha {alpha} for {module}: it must be above zero")]
    Alpha {
        /// PEFT name of the module.
        module: String,
        /// Alpha asked for.
        alpha: f32,
    },
    /// An adapter that is not of this model.
    #[error("the adapter does not fit this model for training: {0}")]
    Adapter(String),
    /// A batch whose parts do not fit together.
    #[error("the batch does not fit together: {0}")]
    Batch(String),
    /// A device that cannot do what is asked of it.
    #[error("the device cannot train this: {0}")]
    OnDevice(String),
}
