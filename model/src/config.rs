//! The numbers that define a model, from `{architecture}.*` keys.

mod architecture;
mod features;
mod graph;

use espalier_kernels::ops::{AttentionShape, GatedActivation, RopeStyle};

pub use self::architecture::{Architecture, NormPlacement};
pub(crate) use self::graph::period;
pub use self::graph::{LayerAttention, Rotation, Scales, SlidingWindow};
use crate::ModelError;
use crate::gguf::{Array, Metadata, Value};

/// Shape and constants of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Its family.
    pub architecture: Architecture,
    /// `general.name`, or the name of the file.
    pub name: String,
    /// Rows of the embedding: token ids go from 0 to `vocabulary - 1`.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Inner width of the feed-forward network.
    pub feed_forward: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Added to the mean square in RMS normalisation.
    pub rms_epsilon: f32,
    /// How positions turn queries and keys in layers without a window.
    pub rotation: Rotation,
    /// Every how many layers one is not rotated.
    pub unrotated_every: Option<usize>,
    /// Layers whose queries see only the last positions.
    pub window: Option<SlidingWindow>,
    /// Elements of a head that are rotated: even, at most `head_dim`.
    pub rotary_dims: usize,
    /// Whether the output projection is the embedding.
    pub tied_head: bool,
    /// Whether q, k and v have biases.
    pub attention_bias: bool,
    /// Whether each head of q and k is normalised before it is rotated.
    pub head_norms: bool,
    /// Where a block normalises.
    pub norms: NormPlacement,
    /// The activation of the feed-forward network.
    pub activation: GatedActivation,
    /// Factors of parts of the graph.
    pub scales: Scales,
}

/// Bounds that no model exceeds; beyond them a file is damaged, and products of the sizes could overflow.
const MOST_WIDTH: usize = 1 << 20;
const MOST_VOCABULARY: usize = 1 << 24;
const MOST_LAYERS: usize = 1 << 12;
const MOST_CONTEXT: usize = 1 << 28;

/// A tensor that a configuration asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpectedTensor {
    pub(crate) name: String,
    /// ggml order.
    pub(crate) dimensions: Vec<usize>,
}

impl ModelConfig {
    /// How rotary dimensions are paired: neighbours where GGUF permutes the rows of q and k (llama), else halves (qwen2).
    pub fn rope_style(&self) -> RopeStyle {
        self.architecture.rope_style()
    }

    /// Heads, scale and window of a layer's attention.
    pub fn attention_shape(&self, layer: usize) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.scales.scores,
            window: self.layer_attention(layer).window,
        }
    }

    /// Width of all query heads together: rows of `attn_q`, columns of `attn_output`.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn key_value_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// From metadata; what the tensors say (vocabulary, tied head, biases) is passed in.
    ///
    /// # Errors
    ///
    /// Missing keys, other architectures, features without a native implementation, numbers that cannot be.
    pub(crate) fn from_metadata(
        metadata: &Metadata,
        fallback_name: &str,
        vocabulary: usize,
        tied_head: bool,
        attention_bias: bool,
    ) -> Result<Self, ModelError> {
        let architecture = Architecture::from_name(metadata.require_str("general.architecture")?)?;
        let key = |suffix: &str| format!("{}.{suffix}", architecture.name());
        let size = |suffix: &str| Ok::<_, ModelError>(metadata.require_u32(&key(suffix))? as usize);
        let optional = |suffix: &str| Ok::<_, ModelError>(metadata.get_u32(&key(suffix))?.map(|value| value as usize));
        features::refuse_unimplemented(metadata, architecture)?;
        let layers = size("block_count")?;
        let hidden = size("embedding_length")?;
        let heads = per_layer(metadata, &key("attention.head_count"))?
            .ok_or_else(|| ModelError::MissingKey { key: key("attention.head_count") })?;
        let kv_heads = per_layer(metadata, &key("attention.head_count_kv"))?.unwrap_or(heads);
        let feed_forward = per_layer(metadata, &key("feed_forward_length"))?
            .ok_or_else(|| ModelError::MissingKey { key: key("feed_forward_length") })?;
        let head_dim = match optional("attention.key_length")? {
            Some(length) => length,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(ModelError::KeyType {
                    key: key("attention.head_count"),
                    expected: format!("a divisor of the embedding length {hidden}"),
                    found: heads.to_string(),
                });
            }
        };
        if let Some(value_length) = optional("attention.value_length")?
            && value_length != head_dim
        {
            return Err(ModelError::KeyType {
                key: key("attention.value_length"),
                expected: format!("the key length {head_dim}"),
                found: value_length.to_string(),
            });
        }
        let context = size("context_length")?;
        let rotation = graph::rotation(metadata, architecture)?;
        let config = Self {
            architecture,
            name: metadata.get_str("general.name")?.unwrap_or(fallback_name).to_owned(),
            vocabulary,
            hidden,
            layers,
            heads,
            kv_heads,
            head_dim,
            feed_forward,
            context,
            rms_epsilon: metadata.require_f32(&key("attention.layer_norm_rms_epsilon"))?,
            rotation,
            unrotated_every: architecture.unrotated_every(),
            window: graph::window(metadata, architecture, rotation, [layers, context])?,
            rotary_dims: optional("rope.dimension_count")?.unwrap_or(head_dim),
            tied_head,
            attention_bias,
            head_norms: architecture.head_norms(),
            norms: architecture.norms(),
            activation: architecture.activation(),
            scales: graph::scales(metadata, architecture, [hidden, heads, head_dim, layers])?,
        };
        if let Some(stated) = optional("vocab_size")?
            && stated != vocabulary
        {
            return Err(ModelError::KeyType {
                key: key("vocab_size"),
                expected: format!("the {vocabulary} rows of token_embd.weight"),
                found: stated.to_string(),
            });
        }
        config.check()?;
        Ok(config)
    }

    /// Refuses numbers that cannot be together; afterwards products of two sizes fit `usize`.
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let in_range = |what: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(impossible(format!("{what} is {value}, outside of 1 to {most}")))
        };
        in_range("the vocabulary", self.vocabulary, MOST_VOCABULARY)?;
        in_range("the embedding length", self.hidden, MOST_WIDTH)?;
        in_range("the number of blocks", self.layers, MOST_LAYERS)?;
        in_range("the number of heads", self.heads, MOST_WIDTH)?;
        in_range("the number of key and value heads", self.kv_heads, MOST_WIDTH)?;
        in_range("the length of a head", self.head_dim, MOST_WIDTH)?;
        in_range("the width of all heads", self.query_width(), MOST_WIDTH)?;
        in_range("the feed-forward length", self.feed_forward, 8 * MOST_WIDTH)?;
        in_range("the context length", self.context, MOST_CONTEXT)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(impossible(format!(
                "{} heads do not divide among {} key and value heads",
                self.heads, self.kv_heads
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(impossible(format!("the length of a head, {}, is odd", self.head_dim)));
        }
        if self.rotary_dims == 0 || self.rotary_dims > self.head_dim || !self.rotary_dims.is_multiple_of(2) {
            return Err(impossible(format!("{} rotary dimensions in a head of {}", self.rotary_dims, self.head_dim)));
        }
        if !(self.rms_epsilon > 0.0 && self.rms_epsilon < 1.0) {
            return Err(impossible(format!("the RMS epsilon is {}", self.rms_epsilon)));
        }
        self.check_graph()
    }

    /// Every tensor that the model must have, in the order in which a converter writes them.
    pub(crate) fn expected_tensors(&self) -> Vec<ExpectedTensor> {
        let mut tensors = Vec::new();
        let mut push = |name: String, dimensions: Vec<usize>| {
            tensors.push(ExpectedTensor { name, dimensions });
        };
        let (queries, keys) = (self.query_width(), self.key_value_width());
        push("token_embd.weight".to_owned(), vec![self.hidden, self.vocabulary]);
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            push(name("attn_norm.weight"), vec![self.hidden]);
            for (part, rows) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                push(name(&format!("{part}.weight")), vec![self.hidden, rows]);
                if self.attention_bias {
                    push(name(&format!("{part}.bias")), vec![rows]);
                }
            }
            if self.head_norms {
                push(name("attn_q_norm.weight"), vec![self.head_dim]);
                push(name("attn_k_norm.weight"), vec![self.head_dim]);
            }
            push(name("attn_output.weight"), vec![queries, self.hidden]);
            if self.norms == NormPlacement::BeforeAndAfter {
                push(name("post_attention_norm.weight"), vec![self.hidden]);
            }
            push(name("ffn_norm.weight"), vec![self.hidden]);
            push(name("ffn_gate.weight"), vec![self.hidden, self.feed_forward]);
            push(name("ffn_up.weight"), vec![self.hidden, self.feed_forward]);
            push(name("ffn_down.weight"), vec![self.feed_forward, self.hidden]);
            if self.norms == NormPlacement::BeforeAndAfter {
                push(name("post_ffw_norm.weight"), vec![self.hidden]);
            }
        }
        push("output_norm.weight".to_owned(), vec![self.hidden]);
        if !self.tied_head {
            push("output.weight".to_owned(), vec![self.hidden, self.vocabulary]);
        }
        tensors
    }

    /// Inputs and outputs of a linear layer by the name of its module (`blk.0.attn_q`); `None` for anything else.
    pub fn linear_shape(&self, module: &str) -> Option<(usize, usize)> {
        let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
        let number: usize = layer.parse().ok()?;
        if number >= self.layers || number.to_string() != layer {
            return None;
        }
        Some(match part {
            "attn_q" => (self.hidden, self.query_width()),
            "attn_k" | "attn_v" => (self.hidden, self.key_value_width()),
            "attn_output" => (self.query_width(), self.hidden),
            "ffn_gate" | "ffn_up" => (self.hidden, self.feed_forward),
            "ffn_down" => (self.feed_forward, self.hidden),
            _ => return None,
        })
    }

    /// Heads whose rows GGUF stores permuted for this module (`blk.0.attn_q`); `None` where rows stay as they are.
    pub(crate) fn permuted_heads(&self, module: &str) -> Option<usize> {
        match (self.rope_style(), module.rsplit('.').next()) {
            (RopeStyle::Interleaved, Some("attn_q")) => Some(self.heads),
            (RopeStyle::Interleaved, Some("attn_k")) => Some(self.kv_heads),
            _ => None,
        }
    }

    /// The keys of this configuration as a converter writes them, `general.architecture` first.
    pub(crate) fn to_metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", self.architecture.name());
        metadata.insert("general.type", "model");
        metadata.insert("general.name", self.name.as_str());
        // `check` bounds each of them below 2^32.
        let mut size = |suffix: &str, value: usize| {
            metadata.insert(format!("{}.{suffix}", self.architecture.name()), value as u32);
        };
        size("block_count", self.layers);
        size("context_length", self.context);
        size("embedding_length", self.hidden);
        size("feed_forward_length", self.feed_forward);
        size("attention.head_count", self.heads);
        size("attention.head_count_kv", self.kv_heads);
        if self.head_dim * self.heads != self.hidden || self.head_norms {
            size("attention.key_length", self.head_dim);
            size("attention.value_length", self.head_dim);
        }
        size("rope.dimension_count", self.rotary_dims);
        size("vocab_size", self.vocabulary);
        self.add_graph_metadata(&mut metadata);
        metadata.insert("general.quantization_version", 2_u32);
        metadata
    }
}

fn invalid_key(key: &str, expected: &str, found: String) -> ModelError {
    ModelError::KeyType { key: key.to_owned(), expected: expected.to_owned(), found }
}

fn impossible(problem: String) -> ModelError {
    ModelError::invalid(
        "model configuration",
        problem,
        "the file is damaged or no model of this architecture: download or convert it again",
    )
}

/// A size that some converters write for each layer; layers that differ are not implemented.
fn per_layer(metadata: &Metadata, key: &str) -> Result<Option<usize>, ModelError> {
    if let Some(Value::Array(array)) = metadata.get(key)
        && !matches!(array, Array::String(_))
    {
        let Some(items) = metadata.get_u32_array(key)? else {
            return Ok(None);
        };
        return match items.split_first() {
            Some((first, rest)) if rest.iter().all(|item| item == first) => Ok(Some(*first as usize)),
            _ => Err(ModelError::KeyType {
                key: key.to_owned(),
                expected: "one value for all layers".to_owned(),
                found: "values that differ by layer".to_owned(),
            }),
        };
    }
    Ok(metadata.get_u32(key)?.map(|value| value as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", "llama");
        metadata.insert("llama.block_count", 2_u32);
        metadata.insert("llama.context_length", 128_u32);
        metadata.insert("llama.embedding_length", 64_u32);
        metadata.insert("llama.feed_forward_length", 96_u32);
        metadata.insert("llama.attention.head_count", 4_u32);
        metadata.insert("llama.attention.head_count_kv", vec![2_i32, 2]);
        metadata.insert("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
        metadata
    }

    fn read(metadata: &Metadata) -> Result<ModelConfig, ModelError> {
        ModelConfig::from_metadata(metadata, "file", 100, true, false)
    }

    #[test]
    fn keys_become_a_configuration_and_keys_again() {
        let config = read(&metadata()).unwrap();
        assert_eq!((config.head_dim, config.kv_heads, config.rotary_dims), (16, 2, 16));
        assert_eq!(config.name, "file");
        assert_eq!(read(&config.to_metadata()).unwrap(), config);
        assert_eq!(config.linear_shape("blk.1.attn_k"), Some((64, 32)));
        assert_eq!(config.linear_shape("blk.2.attn_k"), None);
        assert_eq!(config.linear_shape("blk.01.attn_k"), None);
    }

    #[test]
    fn impossible_and_unsupported_numbers_are_refused() {
        let cases: [(&str, Value, &str); 10] = [
            ("general.architecture", "mamba".into(), "\"mamba\" is not supported"),
            ("llama.block_count", 0_u32.into(), "number of blocks is 0"),
            ("llama.attention.head_count", 0_u32.into(), "divisor"),
            ("llama.attention.head_count", 5_u32.into(), "divisor"),
            ("llama.attention.head_count_kv", 3_u32.into(), "do not divide"),
            ("llama.embedding_length", u32::MAX.into(), "divisor"),
            ("llama.rope.dimension_count", 18_u32.into(), "18 rotary dimensions"),
            ("llama.attention.layer_norm_rms_epsilon", f32::NAN.into(), "RMS epsilon"),
            ("llama.expert_count", 8_u32.into(), "8 experts"),
            ("llama.vocab_size", 99_u32.into(), "100 rows"),
        ];
        for (key, value, expected) in cases {
            let mut metadata = metadata();
            metadata.insert(key, value);
            let message = read(&metadata).unwrap_err().to_string();
            assert!(message.contains(expected), "{key}: {message}");
        }
        let mut metadata = metadata();
        metadata.insert("llama.attention.head_count_kv", vec![2_i32, 1]);
        assert!(read(&metadata).unwrap_err().to_string().contains("differ by layer"));
    }
}
