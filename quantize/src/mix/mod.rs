//! Which block type each tensor gets: llama-quantize's own rules.
//!
//! The rules go by a tensor's name and by how many of its kind came before, so that the order of the tensors is part of
//! them: by layer, then by name, those without a layer first. A type whose block does not divide the rows falls back to
//! one whose block does.

mod rules;

use espalier_kernels::BlockType;
use espalier_model::ModelConfig;
use regex::Regex;

use self::rules::Rules;
use crate::QuantizeError;
use crate::file_type::{FileType, encodable_type};

/// `--tensor-type REGEX=TYPE`: the type of every tensor whose name the expression finds, whatever the mix says.
#[derive(Debug, Clone)]
pub struct TypeOverride {
    /// Searched in the name of the tensor.
    pub pattern: Regex,
    /// The type; it falls back like any other where rows do not divide.
    pub block_type: BlockType,
}

impl std::str::FromStr for TypeOverride {
    type Err = QuantizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |problem: String| QuantizeError::Override { text: text.to_owned(), problem };
        // The last sign: an expression may hold one, a type does not.
        let (pattern, name) = text.rsplit_once('=').ok_or_else(|| fail("there is no '='".to_owned()))?;
        let pattern = Regex::new(pattern).map_err(|error| fail(error.to_string()))?;
        let block_type = encodable_type(name).map_err(fail)?;
        Ok(Self { pattern, block_type })
    }
}

/// What the user changes in a mix.
#[derive(Debug, Clone, Default)]
pub struct MixOptions {
    /// One type for every matrix: no rule but the fallbacks (`--pure`).
    pub pure: bool,
    /// The first that matches counts.
    pub tensor_types: Vec<TypeOverride>,
    /// Type of `token_embd.weight` (`--token-embedding-type`).
    pub token_embedding_type: Option<BlockType>,
    /// Type of `output.weight`, and of `token_embd.weight` where it serves as both (`--output-tensor-type`).
    pub output_tensor_type: Option<BlockType>,
}

/// Whether errors are weighed by an importance matrix; some mixes then choose other types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighing {
    /// All columns count alike.
    Even,
    /// By the importance of the columns.
    Importance,
}

/// What the rules ask of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelDimensions {
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
}

impl From<&ModelConfig> for ModelDimensions {
    fn from(config: &ModelConfig) -> Self {
        Self { layers: config.layers, heads: config.heads, kv_heads: config.kv_heads }
    }
}

/// What the rules ask of a tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorShape<'a> {
    /// GGUF name.
    pub name: &'a str,
    /// Dimensions, row length first.
    pub dimensions: &'a [usize],
    /// Type in the source.
    pub block_type: BlockType,
}

/// Why a tensor has not the type that the mix asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// The type asked for.
    pub wanted: BlockType,
    /// Row length, not a multiple of its block.
    pub columns: usize,
}

/// The decision for one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// Position in the list given to [`plan`].
    pub index: usize,
    /// Type in the new file.
    pub block_type: BlockType,
    /// Set where `block_type` stands in for another.
    pub fallback: Option<Fallback>,
}

/// The order of tensors in a quantized file: by layer, those without one first, then by name.
pub fn tensor_order(left: &str, right: &str) -> std::cmp::Ordering {
    layer_of(left).cmp(&layer_of(right)).then_with(|| left.as_bytes().cmp(right.as_bytes()))
}

/// The layer in `blk.N.`; none sorts before layer 0.
fn layer_of(name: &str) -> Option<u32> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Decides the type of every tensor and the order in which they stand in the file.
///
/// `index` of each plan is the position of the tensor in `tensors`; the plans come in file order.
///
/// # Errors
///
/// When a type given by name for the embedding or the output does not divide their rows (llama-quantize stops there in
/// the middle of the file), or a tensor gets a type that takes importance and there is none.
pub fn plan(
    file_type: FileType,
    model: ModelDimensions,
    tensors: &[TensorShape<'_>],
    options: &MixOptions,
    weighing: Weighing,
) -> Result<Vec<TensorPlan>, QuantizeError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|left, right| tensor_order(tensors[*left].name, tensors[*right].name));
    let mut rules = Rules::new(file_type, model, tensors, options, weighing);
    order.into_iter().map(|index| rules.decide(index, &tensors[index])).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    const SMALL: ModelDimensions = ModelDimensions { layers: 30, heads: 9, kv_heads: 3 };

    /// A llama with tied embeddings, tensors in the order of a converter.
    fn tensors(hidden: usize, feed_forward: usize, layers: usize, tied: bool) -> Vec<(String, Vec<usize>)> {
        let mut list = vec![("token_embd.weight".to_owned(), vec![hidden, 1000])];
        for layer in 0..layers {
            for (name, dimensions) in [
                ("attn_norm", vec![hidden]),
                ("ffn_down", vec![feed_forward, hidden]),
                ("ffn_gate", vec![hidden, feed_forward]),
                ("ffn_up", vec![hidden, feed_forward]),
                ("ffn_norm", vec![hidden]),
                ("attn_k", vec![hidden, hidden / 3]),
                ("attn_output", vec![hidden, hidden]),
                ("attn_q", vec![hidden, hidden]),
                ("attn_v", vec![hidden, hidden / 3]),
            ] {
                list.push((format!("blk.{layer}.{name}.weight"), dimensions));
            }
        }
        list.push(("output_norm.weight".to_owned(), vec![hidden]));
        if !tied {
            list.push(("output.weight".to_owned(), vec![hidden, 1000]));
        }
        list
    }

    fn decide(
        file_type: FileType,
        model: ModelDimensions,
        list: &[(String, Vec<usize>)],
        options: &MixOptions,
    ) -> Vec<(String, TensorPlan)> {
        let shapes: Vec<_> = list
            .iter()
            .map(|(name, dimensions)| TensorShape { name, dimensions, block_type: BlockType::F32 })
            .collect();
        let plans = plan(file_type, model, &shapes, options, Weighing::Even).unwrap();
        plans.into_iter().map(|plan| (list[plan.index].0.clone(), plan)).collect()
    }

    fn type_of(plans: &[(String, TensorPlan)], name: &str) -> BlockType {
        plans.iter().find(|(other, _)| other == name).unwrap().1.block_type
    }

    #[test]
    fn the_order_is_by_layer_number_then_name() {
        let plans = decide(FileType::Q8_0, SMALL, &tensors(576, 1536, 12, false), &MixOptions::default());
        let names: Vec<_> = plans.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..4], ["output.weight", "output_norm.weight", "token_embd.weight", "blk.0.attn_k.weight"]);
        let second = names.iter().position(|name| name.starts_with("blk.2.")).unwrap();
        let tenth = names.iter().position(|name| name.starts_with("blk.10.")).unwrap();
        assert!(second < tenth);
    }

    #[test]
    fn rows_of_576_fall_back_to_blocks_of_32() {
        let plans = decide(FileType::Q4_K_M, SMALL, &tensors(576, 1536, 30, true), &MixOptions::default());
        assert_eq!(type_of(&plans, "token_embd.weight"), BlockType::Q8_0);
        assert_eq!(type_of(&plans, "blk.5.attn_q.weight"), BlockType::Q5_0);
        assert_eq!(type_of(&plans, "blk.0.attn_v.weight"), BlockType::Q8_0);
        assert_eq!(type_of(&plans, "blk.3.attn_v.weight"), BlockType::Q5_0);
        assert_eq!(type_of(&plans, "blk.5.attn_v.weight"), BlockType::Q8_0);
        assert_eq!(type_of(&plans, "blk.0.ffn_down.weight"), BlockType::Q6K);
        assert_eq!(type_of(&plans, "blk.3.ffn_down.weight"), BlockType::Q4K);
        assert_eq!(type_of(&plans, "blk.5.attn_norm.weight"), BlockType::F32);
        let fallback = plans.iter().find(|(name, _)| name == "blk.5.attn_q.weight").unwrap().1.fallback;
        assert_eq!(fallback, Some(Fallback { wanted: BlockType::Q4K, columns: 576 }));
    }

    #[test]
    fn rows_that_32_does_not_divide_become_half_precision() {
        let plans = decide(FileType::Q4_0, SMALL, &tensors(64, 172, 5, true), &MixOptions::default());
        assert_eq!(type_of(&plans, "blk.0.ffn_down.weight"), BlockType::F16);
        assert_eq!(type_of(&plans, "blk.0.ffn_up.weight"), BlockType::Q4_0);
    }

    #[test]
    fn an_untied_embedding_keeps_the_default() {
        let plans = decide(FileType::Q4_K_M, SMALL, &tensors(768, 2048, 30, false), &MixOptions::default());
        assert_eq!(type_of(&plans, "token_embd.weight"), BlockType::Q4K);
        assert_eq!(type_of(&plans, "output.weight"), BlockType::Q6K);
        assert_eq!(type_of(&plans, "blk.29.attn_v.weight"), BlockType::Q6K);
    }

    #[test]
    fn options_come_before_rules() {
        let list = tensors(768, 2048, 30, false);
        let pure = MixOptions { pure: true, ..MixOptions::default() };
        let plans = decide(FileType::Q4_K_M, SMALL, &list, &pure);
        assert!(plans.iter().all(|(_, plan)| matches!(plan.block_type, BlockType::F32 | BlockType::Q4K)));

        let options = MixOptions {
            tensor_types: vec!["ffn_(up|gate)=q5_k".parse().unwrap(), "ffn=Q2_K".parse().unwrap()],
            token_embedding_type: Some(BlockType::Q8_0),
            ..MixOptions::default()
        };
        let plans = decide(FileType::Q4_K_M, SMALL, &list, &options);
        assert_eq!(type_of(&plans, "blk.0.ffn_up.weight"), BlockType::Q5K);
        assert_eq!(type_of(&plans, "blk.0.ffn_down.weight"), BlockType::Q2K);
        assert_eq!(type_of(&plans, "token_embd.weight"), BlockType::Q8_0);
    }

    #[test]
    fn an_impossible_named_type_is_refused_before_anything_is_written() {
        let list = tensors(576, 1536, 2, true);
        let shapes: Vec<_> = list
            .iter()
            .map(|(name, dimensions)| TensorShape { name, dimensions, block_type: BlockType::F32 })
            .collect();
        let options = MixOptions { token_embedding_type: Some(BlockType::Q6K), ..MixOptions::default() };
        let error = plan(FileType::Q4_K_M, SMALL, &shapes, &options, Weighing::Even).unwrap_err().to_string();
        assert!(error.contains("token_embd.weight") && error.contains("576"), "{error}");
        for bad in ["ffn", "ffn=Q9", "(=Q4_0", "ffn=IQ2_S"] {
            assert!(bad.parse::<TypeOverride>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_bits_throughout_take_an_importance_matrix() {
        let list = tensors(576, 1536, 30, true);
        let shapes: Vec<_> = list
            .iter()
            .map(|(name, dimensions)| TensorShape { name, dimensions, block_type: BlockType::F32 })
            .collect();
        let planned = |weighing| plan(FileType::Q2_K_S, SMALL, &shapes, &MixOptions::default(), weighing);
        // The first eighth of the down projections has more bits, and rows of 576 fall back to more.
        let error = planned(Weighing::Even).unwrap_err().to_string();
        assert!(error.contains("blk.3.ffn_down.weight") && error.contains("importance matrix"), "{error}");
        planned(Weighing::Importance).unwrap();
    }
}
