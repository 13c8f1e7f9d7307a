//! The frozen base model, packed once and shared.

use std::sync::{Arc, Mutex};

use espalier_kernels::Precision;
use espalier_kernels::ops::{AttentionShape, RopeTable};
use espalier_model::{Model, ModelConfig, ModelError};

use crate::error::NnError;
use crate::ops::frozen_linear::FrozenLinear;
use crate::ops::self_attention::AttentionPlan;

/// The frozen products of one layer.
#[derive(Debug)]
pub struct FrozenLayer {
    /// Weight of the norm before attention.
    pub attention_norm: Arc<Vec<f32>>,
    /// q, k and v, outputs one after another.
    pub qkv: Arc<FrozenLinear>,
    /// The projection behind attention.
    pub output: Arc<FrozenLinear>,
    /// Weight of the norm before the feed-forward block.
    pub feed_forward_norm: Arc<Vec<f32>>,
    /// Gate and up, outputs one after another.
    pub gate_up: Arc<FrozenLinear>,
    /// The projection back to the residual stream.
    pub down: Arc<FrozenLinear>,
}

/// A base model whose weights never change: packed for both directions, in memory once.
#[derive(Debug)]
pub struct FrozenTransformer {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// What the frozen products compute in.
    pub precision: Precision,
    /// Token vectors `[vocabulary, hidden]`.
    pub embedding: Vec<f32>,
    /// Layers from the input on.
    pub layers: Vec<FrozenLayer>,
    /// Weight of the norm before the head.
    pub output_norm: Arc<Vec<f32>>,
    /// The head `[vocabulary, hidden]`.
    pub head: Arc<FrozenLinear>,
    /// Heads and rotation of every layer.
    pub attention: Arc<AttentionPlan>,
}

impl FrozenTransformer {
    /// Reads and packs every weight of `model`; `positions` bounds the length of a sequence.
    pub fn load(model: &Model, precision: Precision, positions: usize) -> Result<Self, NnError> {
        let config = model.config().clone();
        let reader = Reader { model, precision };
        let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let (hidden, feed_forward) = (config.hidden, config.feed_forward);
        let layers = (0..config.layers)
            .map(|layer| {
                let name = |part: &str| format!("blk.{layer}.{part}");
                let linear = |parts: &[(&str, usize)], inputs: usize| {
                    let parts: Vec<_> = parts.iter().map(|(part, outputs)| (name(part), *outputs)).collect();
                    reader.linear(&parts, inputs)
                };
                Ok(FrozenLayer {
                    attention_norm: Arc::new(reader.vector(&name("attn_norm.weight"), hidden)?),
                    qkv: linear(&[("attn_q", query), ("attn_k", key), ("attn_v", key)], hidden)?,
                    output: linear(&[("attn_output", hidden)], query)?,
                    feed_forward_norm: Arc::new(reader.vector(&name("ffn_norm.weight"), hidden)?),
                    gate_up: linear(&[("ffn_gate", feed_forward), ("ffn_up", feed_forward)], hidden)?,
                    down: linear(&[("ffn_down", hidden)], feed_forward)?,
                })
            })
            .collect::<Result<Vec<_>, NnError>>()?;
        let head = if config.tied_head { "token_embd" } else { "output" };
        let factors = if model.has_tensor("rope_freqs.weight") {
            Some(reader.vector("rope_freqs.weight", config.rotary_dims / 2)?)
        } else {
            None
        };
        let rope =
            RopeTable::new(config.head_dim, config.rotary_dims, config.rope_theta, factors.as_deref(), positions);
        let shape = AttentionShape {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: (config.head_dim as f32).sqrt().recip(),
        };
        Ok(Self {
            embedding: model.tensor("token_embd.weight")?.to_vec()?,
            layers,
            output_norm: Arc::new(reader.vector("output_norm.weight", hidden)?),
            head: reader.linear(&[(head.to_owned(), config.vocabulary)], hidden)?,
            attention: Arc::new(AttentionPlan { shape, rope, style: config.rope_style() }),
            precision,
            config,
        })
    }

    /// Memory of all packed weights and the token vectors.
    pub fn bytes(&self) -> usize {
        let layer =
            |layer: &FrozenLayer| layer.qkv.bytes() + layer.output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes() + 4 * self.embedding.len()
    }
}

struct Reader<'a> {
    model: &'a Model,
    precision: Precision,
}

impl Reader<'_> {
    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, NnError> {
        let tensor = self.model.tensor(name)?;
        check(name, tensor.info().rows, tensor.info().columns, 1, length)?;
        Ok(tensor.to_vec()?)
    }

    /// Packs matrices that share their input as one, in the order given; biases follow where the file has them.
    fn linear(&self, parts: &[(String, usize)], inputs: usize) -> Result<Arc<FrozenLinear>, NnError> {
        let mut tensors = Vec::with_capacity(parts.len());
        let mut bias = Vec::new();
        let mut first = 0;
        for (name, outputs) in parts {
            let weight = format!("{name}.weight");
            let tensor = self.model.tensor(&weight)?;
            check(&weight, tensor.info().rows, tensor.info().columns, *outputs, inputs)?;
            let named = format!("{name}.bias");
            if self.model.has_tensor(&named) {
                bias.resize(first, 0.0);
                bias.extend(self.vector(&named, *outputs)?);
            }
            tensors.push((first, tensor));
            first += outputs;
        }
        if !bias.is_empty() {
            bias.resize(first, 0.0);
        }
        // The packing asks for rows from many threads and knows no errors: the first one is kept aside.
        let failure: Mutex<Option<ModelError>> = Mutex::new(None);
        let fill_row = |row: usize, out: &mut [f32]| {
            let Some((first, tensor)) = tensors.iter().rev().find(|(first, _)| *first <= row) else {
                return;
            };
            if let Err(error) = tensor.row(row - first, out)
                && let Ok(mut failure) = failure.lock()
            {
                failure.get_or_insert(error);
            }
        };
        let bias = (!bias.is_empty()).then_some(bias);
        let packed = FrozenLinear::pack(self.precision, first, inputs, bias, &fill_row);
        match failure.into_inner() {
            Ok(Some(error)) => Err(error.into()),
            _ => Ok(Arc::new(packed)),
        }
    }
}

fn check(
    name: &str,
    rows: usize,
    columns: usize,
    expected_rows: usize,
    expected_columns: usize,
) -> Result<(), NnError> {
    if rows == expected_rows && columns == expected_columns {
        return Ok(());
    }
    Err(NnError::Shape { name: name.to_owned(), rows, columns, expected_rows, expected_columns })
}
