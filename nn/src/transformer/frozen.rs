//! The frozen base model, packed once or left in its file, and shared.

use std::sync::{Arc, Mutex};

use espalier_kernels::ops::RopeTable;
use espalier_kernels::{BlockRows, BlockType, Precision, StoredMatrix};
use espalier_model::{Model, ModelConfig, ModelError, NormPlacement, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::NnError;
use crate::ops::frozen_linear::FrozenLinear;
use crate::ops::self_attention::{AttentionPlan, HeadNorms, scale};

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
    /// Weights of the norms behind attention and behind the feed-forward block.
    pub norms_behind: Option<[Arc<Vec<f32>>; 2]>,
    /// Heads, norms of heads, window and rotation.
    pub attention: Arc<AttentionPlan>,
}

/// Where the weights of the frozen products stay. Results have the same bits either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseWeights {
    /// Packed for both directions: the fastest, at two numbers of the precision for each weight.
    #[default]
    Packed,
    /// In the blocks of the file, decoded into cache when they are used: the smallest. Rows that a file has in another
    /// order than GGUF (q and k of some safetensors) are packed all the same.
    Stored,
}

impl std::fmt::Display for BaseWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Packed => "packed",
            Self::Stored => "stored",
        })
    }
}

/// The vectors of the tokens, read from the model's file row by row.
#[derive(Debug)]
pub struct TokenVectors(BlockRows);

impl TokenVectors {
    /// The vectors of `tokens`, one after another.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn gather(&self, tokens: &[u32]) -> Vec<f32> {
        let width = self.0.columns();
        let mut vectors = vec![0.0; tokens.len() * width];
        vectors.par_chunks_exact_mut(width).zip(tokens).for_each(|(vector, &token)| self.0.row(token as usize, vector));
        vectors
    }
}

/// A base model whose weights never change, in memory once.
#[derive(Debug)]
pub struct FrozenTransformer {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// What the frozen products compute in.
    pub precision: Precision,
    /// Where their weights stay.
    pub base_weights: BaseWeights,
    /// Token vectors `[vocabulary, hidden]`.
    pub embedding: TokenVectors,
    /// Layers from the input on.
    pub layers: Vec<FrozenLayer>,
    /// Weight of the norm before the head, divided by what the logits are divided by.
    pub output_norm: Arc<Vec<f32>>,
    /// The head `[vocabulary, hidden]`.
    pub head: Arc<FrozenLinear>,
    /// Positions that the rotation knows: the longest sequence.
    pub positions: usize,
}

impl FrozenTransformer {
    /// Takes every weight of `model`; `positions` bounds the length of a sequence.
    ///
    /// # Errors
    /// Tensors that are missing, damaged or of another shape than the configuration says.
    pub fn load(
        model: &Model,
        precision: Precision,
        base_weights: BaseWeights,
        positions: usize,
    ) -> Result<Self, NnError> {
        let config = model.config().clone();
        let reader = Reader { model, precision, base_weights };
        let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let (hidden, feed_forward) = (config.hidden, config.feed_forward);
        let layers = model
            .rope_tables(positions)?
            .into_iter()
            .enumerate()
            .map(|(layer, rope)| {
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
                    norms_behind: match config.norms {
                        NormPlacement::Before => None,
                        NormPlacement::BeforeAndAfter => Some([
                            Arc::new(reader.vector(&name("post_attention_norm.weight"), hidden)?),
                            Arc::new(reader.vector(&name("post_ffw_norm.weight"), hidden)?),
                        ]),
                    },
                    attention: Arc::new(reader.attention(layer, rope)?),
                })
            })
            .collect::<Result<Vec<_>, NnError>>()?;
        let head = if config.tied_head { "token_embd" } else { "output" };
        let mut output_norm = reader.vector("output_norm.weight", hidden)?;
        scale(&mut output_norm, 1.0 / config.scales.logits);
        Ok(Self {
            embedding: token_vectors(&model.tensor("token_embd.weight")?)?,
            layers,
            output_norm: Arc::new(output_norm),
            head: reader.linear(&[(head.to_owned(), config.vocabulary)], hidden)?,
            positions,
            precision,
            base_weights,
            config,
        })
    }

    /// Memory of all weights: packed ones, and blocks of the file once they were read. Token vectors that are no part of
    /// the head count too, although only those of the tokens at hand are read.
    pub fn bytes(&self) -> usize {
        let layer =
            |layer: &FrozenLayer| layer.qkv.bytes() + layer.output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
        let shared = self.config.tied_head && self.base_weights == BaseWeights::Stored;
        let embedding = if shared { 0 } else { self.embedding.0.bytes() };
        self.layers.iter().map(layer).sum::<usize>() + self.head.bytes() + embedding
    }
}

/// The rows where they lie, or a copy where the file has them in another order.
fn token_vectors(tensor: &Tensor<'_>) -> Result<TokenVectors, NnError> {
    if let Some(rows) = tensor.blocks() {
        return Ok(TokenVectors(rows));
    }
    let bytes: Vec<u8> = tensor.to_vec()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let range = 0..bytes.len();
    Ok(TokenVectors(BlockRows::new(BlockType::F32, tensor.info().columns, Arc::new(bytes), range)?))
}

struct Reader<'a> {
    model: &'a Model,
    precision: Precision,
    base_weights: BaseWeights,
}

impl Reader<'_> {
    fn attention(&self, layer: usize, rope: Option<Arc<RopeTable>>) -> Result<AttentionPlan, NnError> {
        let config = self.model.config();
        let norm = |part: &str| self.vector(&format!("blk.{layer}.{part}.weight"), config.head_dim);
        let head_norms = if config.head_norms {
            let (query, key) = (norm("attn_q_norm")?, norm("attn_k_norm")?);
            Some(HeadNorms { query, key, epsilon: config.rms_epsilon })
        } else {
            None
        };
        let (shape, style) = (config.attention_shape(layer), config.rope_style());
        Ok(AttentionPlan { shape, head_norms, rope, style, value_scale: config.scales.residual })
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, NnError> {
        let tensor = self.model.tensor(name)?;
        check(name, tensor.info().rows, tensor.info().columns, 1, length)?;
        Ok(tensor.to_vec()?)
    }

    /// Matrices that share their input as one, in the order given; biases follow where the file has them.
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
        let bias = (!bias.is_empty()).then_some(bias);
        if self.base_weights == BaseWeights::Stored
            && let Some(blocks) = tensors.iter().map(|(_, tensor)| tensor.blocks()).collect()
        {
            return Ok(Arc::new(FrozenLinear::stored(StoredMatrix::new(self.precision, blocks), bias)));
        }
        self.pack(&tensors, first, inputs, bias)
    }

    /// Packs tensors, each with its first output.
    fn pack(
        &self,
        tensors: &[(usize, Tensor<'_>)],
        outputs: usize,
        inputs: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Arc<FrozenLinear>, NnError> {
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
        let packed = FrozenLinear::pack(self.precision, outputs, inputs, bias, &fill_row);
        // What was packed is not read again, and its pages would count as memory of this process.
        for (_, tensor) in tensors {
            tensor.release();
        }
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
