//! The rules of the mixes, with the counters that they run on.

use espalier_kernels::BlockType;

use super::{Fallback, MixOptions, ModelDimensions, TensorPlan, TensorShape, Weighing};
use crate::QuantizeError;
use crate::file_type::FileType;

/// Kinds of tensors that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Category {
    TokenEmbedding,
    AttentionValue,
    AttentionQkv,
    AttentionOutput,
    FeedForwardDown,
    Output,
    Other,
}

impl Category {
    fn of(name: &str) -> Self {
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" => Self::TokenEmbedding,
            _ if name.contains("attn_qkv.weight") => Self::AttentionQkv,
            _ if name.contains("attn_v.weight") => Self::AttentionValue,
            _ if name.contains("attn_output.weight") => Self::AttentionOutput,
            _ if name.contains("ffn_down") => Self::FeedForwardDown,
            _ => Self::Other,
        }
    }

    fn is_value(self) -> bool {
        matches!(self, Self::AttentionValue | Self::AttentionQkv)
    }
}

/// Whether a tensor is quantized at all: matrices named `weight`, but no norms and no routers.
fn is_quantized(tensor: &TensorShape<'_>) -> bool {
    let rank = tensor.dimensions.iter().rposition(|extent| *extent > 1).map_or(1, |last| last + 1);
    rank >= 2
        && tensor.name.ends_with("weight")
        && !tensor.name.contains("_norm.weight")
        && !tensor.name.contains("ffn_gate_inp.weight")
}

/// The rules with their counters.
pub(super) struct Rules<'a> {
    file_type: FileType,
    model: ModelDimensions,
    options: &'a MixOptions,
    weighing: Weighing,
    tied: bool,
    values: usize,
    values_seen: usize,
    downs_seen: usize,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        file_type: FileType,
        model: ModelDimensions,
        tensors: &[TensorShape<'_>],
        options: &'a MixOptions,
        weighing: Weighing,
    ) -> Self {
        let count =
            |wanted: fn(Category) -> bool| tensors.iter().filter(|tensor| wanted(Category::of(tensor.name))).count();
        Self {
            file_type,
            model,
            options,
            weighing,
            tied: count(|category| category == Category::Output) == 0,
            values: count(Category::is_value),
            values_seen: 0,
            downs_seen: 0,
        }
    }

    /// The decision for the next tensor in file order.
    ///
    /// # Errors
    ///
    /// When a type asked for by name does not divide the rows, or the type takes importance and there is none.
    pub(super) fn decide(&mut self, index: usize, tensor: &TensorShape<'_>) -> Result<TensorPlan, QuantizeError> {
        let exactly = |block_type| TensorPlan { index, block_type, fallback: None };
        if !is_quantized(tensor) {
            return Ok(exactly(kept_type(tensor)));
        }
        let category = Category::of(tensor.name);
        let named = match category {
            Category::TokenEmbedding => {
                self.options.token_embedding_type.map(|named| ("--token-embedding-type", named))
            }
            Category::Output => self.options.output_tensor_type.map(|named| ("--output-tensor-type", named)),
            _ => None,
        };
        let columns = tensor.dimensions[0];
        if let Some((option, block_type)) = named {
            if !columns.is_multiple_of(block_type.block_size()) {
                return Err(QuantizeError::RowLength { option, tensor: tensor.name.to_owned(), columns, block_type });
            }
            return Ok(exactly(block_type));
        }
        let default = self.file_type.default_block_type();
        if matches!(default, BlockType::F32 | BlockType::F16 | BlockType::Bf16) {
            return Ok(exactly(default));
        }
        let chosen = self.options.tensor_types.iter().find(|chosen| chosen.pattern.is_match(tensor.name));
        let wanted = match chosen {
            Some(chosen) => chosen.block_type,
            None if self.options.pure => default,
            None => self.by_rule(default, category, tensor),
        };
        let block_type = fall_back(wanted, columns);
        let even = self.weighing == Weighing::Even && !matches!(category, Category::TokenEmbedding | Category::Output);
        if even && self.file_type == FileType::Q2_K_S && block_type == BlockType::Q2K {
            return Err(QuantizeError::ImportanceNeeded {
                file_type: self.file_type,
                tensor: tensor.name.to_owned(),
                block_type,
            });
        }
        Ok(TensorPlan { index, block_type, fallback: (block_type != wanted).then_some(Fallback { wanted, columns }) })
    }

    /// The type that the mix gives to a kind of tensor; counts as it goes.
    fn by_rule(&mut self, default: BlockType, category: Category, tensor: &TensorShape<'_>) -> BlockType {
        match category {
            Category::Output => self.output_type(default),
            Category::TokenEmbedding if self.tied => self.output_type(default),
            _ if self.file_type == FileType::MXFP4_MOE => {
                // Experts lie in one tensor of three dimensions.
                if tensor.dimensions.get(2).is_some_and(|matrices| *matrices > 1) { default } else { BlockType::Q8_0 }
            }
            Category::TokenEmbedding if matches!(self.file_type, FileType::TQ1_0 | FileType::TQ2_0) => BlockType::Q4K,
            Category::AttentionValue | Category::AttentionQkv => {
                let block_type = self.value_type(default);
                self.values_seen += 1;
                block_type
            }
            Category::FeedForwardDown => {
                let block_type = self.down_type(default);
                self.downs_seen += 1;
                block_type
            }
            Category::AttentionOutput => match self.file_type {
                FileType::Q2_K => BlockType::Q3K,
                FileType::Q3_K_M => BlockType::Q4K,
                FileType::Q3_K_L => BlockType::Q5K,
                _ => default,
            },
            Category::TokenEmbedding | Category::Other => default,
        }
    }

    fn output_type(&self, default: BlockType) -> BlockType {
        match self.options.output_tensor_type {
            Some(named) => named,
            None if default == BlockType::Q8_0 || self.file_type == FileType::MXFP4_MOE => BlockType::Q8_0,
            None => BlockType::Q6K,
        }
    }

    fn value_type(&self, default: BlockType) -> BlockType {
        let grouped = self.model.heads / self.model.kv_heads.max(1) >= 4;
        let block_type = match self.file_type {
            FileType::Q2_K | FileType::Q2_K_S if grouped => BlockType::Q4K,
            FileType::Q2_K => BlockType::Q3K,
            FileType::IQ4_NL | FileType::IQ4_XS if grouped => BlockType::Q5K,
            FileType::Q3_K_M if self.values_seen < 2 => BlockType::Q5K,
            FileType::Q3_K_M => BlockType::Q4K,
            FileType::Q3_K_L => BlockType::Q5K,
            FileType::Q4_K_M | FileType::Q5_K_M if gets_more_bits(self.values_seen, self.values) => BlockType::Q6K,
            FileType::Q4_K_S if self.values_seen < 4 => BlockType::Q5K,
            _ => default,
        };
        // The 70B models: eight heads share each value head, so that these matrices are small beside their weight.
        let large = self.model.layers == 80 && self.model.heads != self.model.kv_heads;
        if large && matches!(block_type, BlockType::Q3K | BlockType::Q4K) { BlockType::Q5K } else { block_type }
    }

    fn down_type(&self, default: BlockType) -> BlockType {
        let (layer, layers) = (self.downs_seen, self.model.layers);
        let early = layer < layers / 8;
        let weighed = self.weighing == Weighing::Importance;
        match self.file_type {
            FileType::Q2_K => BlockType::Q3K,
            FileType::Q2_K_S if early => BlockType::Q4K,
            FileType::IQ4_NL | FileType::IQ4_XS if early && !weighed => BlockType::Q5K,
            FileType::Q4_0 if early && weighed => BlockType::Q4_1,
            FileType::Q5_0 if early && weighed => BlockType::Q5_1,
            FileType::Q3_K_M if layer < layers / 16 => BlockType::Q5K,
            FileType::Q3_K_M => BlockType::Q4K,
            FileType::Q3_K_L => BlockType::Q5K,
            FileType::Q4_K_M | FileType::Q5_K_M if gets_more_bits(layer, layers) => BlockType::Q6K,
            FileType::Q4_K_S if early => BlockType::Q5K,
            _ => default,
        }
    }
}

/// Type of a tensor that is not quantized: as in the source, and norms and biases always in `f32`, which readers need.
fn kept_type(tensor: &TensorShape<'_>) -> BlockType {
    let narrow = matches!(tensor.block_type, BlockType::F16 | BlockType::Bf16);
    let vector = tensor.dimensions.iter().skip(1).all(|extent| *extent == 1);
    if narrow && (vector || tensor.name.contains("_norm.weight")) { BlockType::F32 } else { tensor.block_type }
}

/// The first and the last eighth of the layers, and every third between them.
fn gets_more_bits(layer: usize, layers: usize) -> bool {
    let first = layers / 8;
    layer < first || layer >= 7 * layers / 8 || (layer - first) % 3 == 2
}

/// The type for rows of this length: a block of 32 of about the same size where 256 does not divide them, half precision
/// where 32 does not either.
fn fall_back(wanted: BlockType, columns: usize) -> BlockType {
    if columns.is_multiple_of(wanted.block_size()) {
        return wanted;
    }
    let smaller = match wanted {
        BlockType::Q2K | BlockType::Q3K | BlockType::Tq1_0 | BlockType::Tq2_0 => BlockType::Q4_0,
        BlockType::Iq4Xs => BlockType::Iq4Nl,
        BlockType::Q4K => BlockType::Q5_0,
        BlockType::Q5K => BlockType::Q5_1,
        BlockType::Q6K => BlockType::Q8_0,
        other => other,
    };
    if columns.is_multiple_of(smaller.block_size()) { smaller } else { BlockType::F16 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn norms_in_half_precision_become_f32() {
        let tensor = |name, dimensions| TensorShape { name, dimensions, block_type: BlockType::Bf16 };
        assert_eq!(kept_type(&tensor("blk.0.attn_norm.weight", &[64])), BlockType::F32);
        assert_eq!(kept_type(&tensor("blk.0.ffn_gate_inp.weight", &[64, 8])), BlockType::Bf16);
    }
}
