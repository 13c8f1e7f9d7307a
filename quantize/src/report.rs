//! What a quantization did, for people and for the pipeline.

use std::path::PathBuf;

use espalier_kernels::BlockType;
use serde::{Serialize, Serializer};

use crate::file_type::FileType;
use crate::mix::Fallback;
use crate::verify::Verification;

/// One tensor of the written file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorReport {
    /// GGUF name.
    pub name: String,
    /// Dimensions, row length first.
    pub dimensions: Vec<usize>,
    /// Type in the source.
    #[serde(serialize_with = "by_name")]
    pub from: BlockType,
    /// Type in the file.
    #[serde(serialize_with = "by_name")]
    pub to: BlockType,
    /// Bytes in the file, without padding.
    pub bytes: u64,
    /// Whether an adapter was folded in.
    pub merged: bool,
    /// Whether its errors were weighed by an importance matrix.
    pub weighed: bool,
    /// Whether the scales of its blocks were moved to lower its errors further.
    pub refined: bool,
    /// The type that the mix asked for, where its block does not divide the rows.
    #[serde(serialize_with = "wanted_name", skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

impl TensorReport {
    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.dimensions.iter().map(|extent| *extent as u64).product()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn by_name<S: Serializer>(block_type: &BlockType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(block_type.name())
}

#[allow(clippy::ref_option, reason = "the signature is serde's")]
fn wanted_name<S: Serializer>(fallback: &Option<Fallback>, serializer: S) -> Result<S::Ok, S::Error> {
    fallback.map(|fallback| fallback.wanted.name()).serialize(serializer)
}

/// All tensors that fell back from one type to another for the same reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FallbackGroup {
    /// Type that the mix asked for.
    #[serde(serialize_with = "by_name")]
    pub from: BlockType,
    /// Type in the file.
    #[serde(serialize_with = "by_name")]
    pub to: BlockType,
    /// Row length of these tensors.
    pub columns: usize,
    /// How many tensors.
    pub tensors: usize,
    /// How many weights.
    pub parameters: u64,
}

/// What a quantization did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeReport {
    /// The file written.
    pub path: PathBuf,
    /// Its mix.
    pub file_type: FileType,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// Its tensors in order.
    pub tensors: Vec<TensorReport>,
    /// What the check of the file found, if it was asked for.
    pub verification: Option<Verification>,
}

impl QuantizeReport {
    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorReport::parameters).sum()
    }

    /// Bytes of tensor data.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Mean number of bits that a weight takes.
    pub fn bits_per_weight(&self) -> f64 {
        self.tensor_bytes() as f64 * 8.0 / (self.parameters() as f64).max(1.0)
    }

    /// Weights in tensors whose rows the wanted block does not divide.
    pub fn parameters_fallen_back(&self) -> u64 {
        self.tensors.iter().filter(|tensor| tensor.fallback.is_some()).map(TensorReport::parameters).sum()
    }

    /// Weights that were quantized in the source already and are now rounded a second time; `F32` holds what any block decodes to.
    pub fn parameters_requantized(&self) -> u64 {
        self.tensors
            .iter()
            .filter(|tensor| tensor.from.block_size() > 1 && tensor.to != BlockType::F32)
            .filter(|tensor| tensor.from != tensor.to || tensor.merged)
            .map(TensorReport::parameters)
            .sum()
    }

    /// Fallbacks by kind, the largest share first.
    pub fn fallbacks(&self) -> Vec<FallbackGroup> {
        let mut groups: Vec<FallbackGroup> = Vec::new();
        for tensor in &self.tensors {
            let Some(Fallback { wanted, columns }) = tensor.fallback else {
                continue;
            };
            let known =
                groups.iter_mut().find(|group| (group.from, group.to, group.columns) == (wanted, tensor.to, columns));
            if let Some(group) = known {
                group.tensors += 1;
                group.parameters += tensor.parameters();
            } else {
                let parameters = tensor.parameters();
                groups.push(FallbackGroup { from: wanted, to: tensor.to, columns, tensors: 1, parameters });
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.parameters));
        groups
    }

    /// Sentences that a user should read: how much of the model has not the type of the mix, and why.
    pub fn notes(&self) -> Vec<String> {
        let all = self.parameters() as f64;
        let share = |parameters: u64| 100.0 * parameters as f64 / all.max(1.0);
        let mut notes: Vec<String> = self
            .fallbacks()
            .iter()
            .map(|group| {
                format!(
                    "{:.1} % of the weights ({} {}) are {} in place of {}: rows of {} are not a multiple of {}",
                    share(group.parameters),
                    group.tensors,
                    if group.tensors == 1 { "tensor" } else { "tensors" },
                    group.to.name(),
                    group.from.name(),
                    group.columns,
                    group.from.block_size()
                )
            })
            .collect();
        let requantized = self.parameters_requantized();
        if requantized > 0 {
            notes.push(format!(
                "{:.1} % of the weights were quantized in the source already and lose accuracy a second time",
                share(requantized)
            ));
        }
        notes
    }
}
