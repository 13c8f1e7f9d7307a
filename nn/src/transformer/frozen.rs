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
        let ropes = model.rope_tables(positions)?.into_iter().enumerate();
        let layers = ropes.map(|(layer, rope)| reader.layer(layer, rope)).collect::<Result<Vec<_>, NnError>>()?;
        let output_norm = reader.output_norm()?;
        Ok(Self {
            embedding: token_vectors(&model.tensor("token_embd.weight")?)?,
            layers,
            output_norm: Arc::new(output_norm),
            head: reader.linear(&head(&config))?,
            positions,
            precision,
            base_weights,
            config,
        })
    }

    /// One layer alone, for sequences of so many positions.
    pub(super) fn layer(
        model: &Model,
        precision: Precision,
        base_weights: BaseWeights,
        positions: usize,
        layer: usize,
    ) -> Result<FrozenLayer, NnError> {
        let rope = model.rope_tables(positions)?.into_iter().nth(layer).flatten();
        Reader { model, precision, base_weights }.layer(layer, rope)
    }

    /// What [`FrozenTransformer::bytes`] will be, from the names and shapes of the tensors alone.
    ///
    /// # Errors
    /// Tensors that are missing or of another shape than the configuration says.
    pub fn planned_bytes(model: &Model, precision: Precision, base_weights: BaseWeights) -> Result<usize, NnError> {
        let config = model.config();
        let reader = Reader { model, precision, base_weights };
        let mut bytes = reader.planned_bytes(&head(config))?;
        for product in (0..config.layers).flat_map(|layer| products(config, layer)) {
            bytes += reader.planned_bytes(&product)?;
        }
        let embedding = model.tensor("token_embd.weight")?;
        let values = embedding.info().rows * embedding.info().columns;
        let shared = config.tied_head && base_weights == BaseWeights::Stored;
        let own = embedding.blocks().map_or(size_of::<f32>() * values, |blocks| blocks.bytes());
        Ok(bytes + if shared { 0 } else { own })
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

/// Matrices that share their input: the name and the outputs of each, and the width of the input.
pub(super) struct Product {
    pub(super) parts: Vec<(String, usize)>,
    pub(super) inputs: usize,
}

/// The products of a layer in their order: q, k and v; the projection behind attention; gate and up; down.
pub(super) fn products(config: &ModelConfig, layer: usize) -> [Product; 4] {
    let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (hidden, feed_forward) = (config.hidden, config.feed_forward);
    let product = |parts: &[(&str, usize)], inputs: usize| Product {
        parts: parts.iter().map(|(part, outputs)| (format!("blk.{layer}.{part}"), *outputs)).collect(),
        inputs,
    };
    [
        product(&[("attn_q", query), ("attn_k", key), ("attn_v", key)], hidden),
        product(&[("attn_output", hidden)], query),
        product(&[("ffn_gate", feed_forward), ("ffn_up", feed_forward)], hidden),
        product(&[("ffn_down", hidden)], feed_forward),
    ]
}

pub(super) fn head(config: &ModelConfig) -> Product {
    let name = if config.tied_head { "token_embd" } else { "output" };
    Product { parts: vec![(name.to_owned(), config.vocabulary)], inputs: config.hidden }
}

/// The rows where they lie, or a copy where the file has them in another order.
pub(super) fn token_vectors(tensor: &Tensor<'_>) -> Result<TokenVectors, NnError> {
    if let Some(rows) = tensor.blocks() {
        return Ok(TokenVectors(rows));
    }
    let bytes: Vec<u8> = tensor.to_vec()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let range = 0..bytes.len();
    Ok(TokenVectors(BlockRows::new(BlockType::F32, tensor.info().columns, Arc::new(bytes), range)?))
}

pub(super) struct Reader<'a> {
    pub(super) model: &'a Model,
    pub(super) precision: Precision,
    pub(super) base_weights: BaseWeights,
}

impl<'a> Reader<'a> {
    fn layer(&self, layer: usize, rope: Option<Arc<RopeTable>>) -> Result<FrozenLayer, NnError> {
        let config = self.model.config();
        let norm =
            |part: &str| Ok::<_, NnError>(Arc::new(self.vector(&format!("blk.{layer}.{part}.weight"), config.hidden)?));
        let [qkv, output, gate_up, down] = products(config, layer);
        Ok(FrozenLayer {
            attention_norm: norm("attn_norm")?,
            qkv: self.linear(&qkv)?,
            output: self.linear(&output)?,
            feed_forward_norm: norm("ffn_norm")?,
            gate_up: self.linear(&gate_up)?,
            down: self.linear(&down)?,
            norms_behind: match config.norms {
                NormPlacement::Before => None,
                NormPlacement::BeforeAndAfter => Some([norm("post_attention_norm")?, norm("post_ffw_norm")?]),
            },
            attention: Arc::new(self.attention(layer, rope)?),
        })
    }

    pub(super) fn attention(&self, layer: usize, rope: Option<Arc<RopeTable>>) -> Result<AttentionPlan, NnError> {
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

    pub(super) fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, NnError> {
        let tensor = self.model.tensor(name)?;
        check(name, tensor.info().rows, tensor.info().columns, 1, length)?;
        Ok(tensor.to_vec()?)
    }

    /// The tensors of a product, each with its first output, and how many outputs there are.
    pub(super) fn tensors(&self, product: &Product) -> Result<(Vec<(usize, Tensor<'a>)>, usize), NnError> {
        let (mut tensors, mut first) = (Vec::with_capacity(product.parts.len()), 0);
        for (name, outputs) in &product.parts {
            let weight = format!("{name}.weight");
            let tensor = self.model.tensor(&weight)?;
            check(&weight, tensor.info().rows, tensor.info().columns, *outputs, product.inputs)?;
            tensors.push((first, tensor));
            first += outputs;
        }
        Ok((tensors, first))
    }

    /// Their blocks, where they stay in these.
    fn blocks(&self, tensors: &[(usize, Tensor<'_>)]) -> Option<Vec<BlockRows>> {
        let stay = self.base_weights == BaseWeights::Stored;
        stay.then(|| tensors.iter().map(|(_, tensor)| tensor.blocks()).collect())?
    }

    fn planned_bytes(&self, product: &Product) -> Result<usize, NnError> {
        let (tensors, outputs) = self.tensors(product)?;
        Ok(match self.blocks(&tensors) {
            Some(blocks) => blocks.iter().map(BlockRows::bytes).sum(),
            None => FrozenLinear::packed_bytes(self.precision, outputs, product.inputs),
        })
    }

    /// Weight of the norm before the head, divided by what the logits are divided by.
    pub(super) fn output_norm(&self) -> Result<Vec<f32>, NnError> {
        let config = self.model.config();
        let mut weight = self.vector("output_norm.weight", config.hidden)?;
        scale(&mut weight, 1.0 / config.scales.logits);
        Ok(weight)
    }

    /// What is added to all outputs of a product, if anything is.
    pub(super) fn bias(
        &self,
        product: &Product,
        tensors: &[(usize, Tensor<'_>)],
        outputs: usize,
    ) -> Result<Option<Vec<f32>>, NnError> {
        let mut bias = Vec::new();
        for ((name, own), (first, _)) in product.parts.iter().zip(tensors) {
            let named = format!("{name}.bias");
            if self.model.has_tensor(&named) {
                bias.resize(*first, 0.0);
                bias.extend(self.vector(&named, *own)?);
            }
        }
        if !bias.is_empty() {
            bias.resize(outputs, 0.0);
        }
        Ok((!bias.is_empty()).then_some(bias))
    }

    /// Matrices that share their input as one, in the order given; biases follow where the file has them.
    fn linear(&self, product: &Product) -> Result<Arc<FrozenLinear>, NnError> {
        let (tensors, outputs) = self.tensors(product)?;
        let bias = self.bias(product, &tensors, outputs)?;
        match self.blocks(&tensors) {
            Some(blocks) => Ok(Arc::new(FrozenLinear::stored(StoredMatrix::new(self.precision, blocks), bias))),
            None => self.pack(&tensors, outputs, product.inputs, bias),
        }
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
