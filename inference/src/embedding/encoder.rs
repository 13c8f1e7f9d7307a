//! Encoders of the BERT family: every token sees the whole text.

use std::ops::ControlFlow;

use espalier_kernels::ops::{AttentionShape, biased_gelu, full_attention, layer_norm};
use espalier_kernels::{Accumulate, PackedMatrix, Precision, matmul};
use espalier_model::encoder::WordPiece;
use espalier_model::{EncoderConfig, EncoderModel};
use rayon::prelude::*;

use super::{EmbeddingOptions, OnVector, Pool};
use crate::error::EngineError;
use crate::memory::{Part, Reservation};
use crate::native::EngineOptions;

/// A frozen matrix with its bias.
struct Linear {
    matrix: PackedMatrix,
    bias: Vec<f32>,
}

/// Weight and bias of a layer norm.
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Layer {
    /// q, k and v, one below the other.
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    inner: Linear,
    outer: Linear,
    feed_forward_norm: Norm,
}

/// An encoder in packed matrices. It is immutable once loaded and may be shared between threads.
pub struct EncoderEngine {
    config: EncoderConfig,
    tokenizer: WordPiece,
    identity: String,
    max_batch_tokens: usize,
    words: Vec<f32>,
    positions: Vec<f32>,
    /// The embedding of the first token type, which all tokens have.
    first_type: Vec<f32>,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    /// Its part of the memory that is set, held until it is dropped.
    _reservation: Option<Reservation>,
}

impl std::fmt::Debug for EncoderEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderEngine").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl EncoderEngine {
    /// Packs the weights of `model`. Of the options, precision, memory and the rows of a pass matter.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape; an option out of range, or memory that does not hold the weights.
    pub fn load(model: &EncoderModel, options: &EngineOptions) -> Result<Self, EngineError> {
        if options.max_batch_tokens == 0 {
            return Err(EngineError::Option { option: "max_batch_tokens", problem: "must be at least 1".to_owned() });
        }
        let config = model.config().clone();
        let (precision, width) = (options.precision, config.hidden);
        let mut first_type = model.tensor("embeddings.token_type_embeddings.weight", &[config.types, width])?;
        first_type.truncate(width);
        let layers: Vec<Layer> =
            (0..config.layers).map(|layer| load_layer(model, layer, precision)).collect::<Result<_, _>>()?;
        let words = model.tensor("embeddings.word_embeddings.weight", &[config.vocabulary, width])?;
        let positions = model.tensor("embeddings.position_embeddings.weight", &[config.positions, width])?;
        let matrices: usize = layers.iter().flat_map(Layer::matrices).map(PackedMatrix::bytes).sum();
        let part = Part {
            weights: matrices + (words.len() + positions.len()) * size_of::<f32>(),
            // The stream, q k v, what was attended and the inner values of each row.
            buffers: options.max_batch_tokens * (5 * width + config.feed_forward) * size_of::<f32>(),
            rows: options.max_batch_tokens,
            page: 0,
        };
        let reservation = options.memory.as_ref().map(|memory| memory.reserve(part)).transpose()?;
        Ok(Self {
            tokenizer: model.tokenizer().clone(),
            identity: format!("{}-{precision}", model.sha256()?),
            max_batch_tokens: options.max_batch_tokens,
            words,
            positions,
            first_type,
            embedding_norm: norm(model, "embeddings.LayerNorm")?,
            layers,
            config,
            _reservation: reservation,
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// What decides every vector beside text and options: sha256 of the model, precision.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The tokens of a text between its start and its end, cut where it does not fit; and how many were cut off.
    pub fn encode(&self, text: &str) -> (Vec<u32>, usize) {
        self.tokenizer.encode(text, self.config.tokens)
    }

    /// The vector of each text (its tokens, start and end included); see [`NativeEngine::embed`](crate::NativeEngine::embed).
    ///
    /// # Errors
    /// As there.
    pub fn embed(
        &self,
        texts: &[Vec<u32>],
        options: EmbeddingOptions,
        on_vector: &mut dyn FnMut(usize, Result<Vec<f32>, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let mut rest = texts;
        let mut first = 0;
        while !rest.is_empty() {
            let mut rows = 0;
            let together = rest.iter().take_while(|text| {
                rows += text.len();
                rows <= self.max_batch_tokens
            });
            let (part, behind) = rest.split_at(together.count().max(1));
            if self.embed_together(part, first, options, on_vector).is_break() {
                return Ok(());
            }
            first += part.len();
            rest = behind;
        }
        Ok(())
    }

    /// One pass over the weights.
    fn embed_together(
        &self,
        texts: &[Vec<u32>],
        first: usize,
        options: EmbeddingOptions,
        on_vector: &mut OnVector<'_>,
    ) -> ControlFlow<()> {
        let checked: Vec<Result<(), EngineError>> = texts.iter().map(|text| self.check(text)).collect();
        let good = texts.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let good: Vec<&[u32]> = good.map(|(text, _)| text.as_slice()).collect();
        let states = self.states(&good);
        let mut states = states.chunks_exact(self.config.hidden);
        let pooling = options.pooling.unwrap_or(self.config.pooling);
        for (offset, (text, checked)) in texts.iter().zip(checked).enumerate() {
            let vector = checked.map(|()| {
                let mut pool = Pool::new(pooling, self.config.hidden);
                for (token, state) in states.by_ref().take(text.len()).enumerate() {
                    if Pool::wants(pooling, token, text.len()) {
                        pool.add(state);
                    }
                }
                pool.finish(options.normalize.unwrap_or(self.config.normalize))
            });
            on_vector(first + offset, vector)?;
        }
        ControlFlow::Continue(())
    }

    fn check(&self, text: &[u32]) -> Result<(), EngineError> {
        let vocabulary = self.config.vocabulary;
        if let Some(&token) = text.iter().find(|token| **token as usize >= vocabulary) {
            return Err(EngineError::UnknownToken { token, vocabulary });
        }
        let context = self.config.positions;
        match text.len() {
            0 => Err(EngineError::EmptyPrompt),
            tokens if tokens > context => Err(EngineError::TextTooLong { tokens, context }),
            _ => Ok(()),
        }
    }

    /// The states of all tokens behind the last layer.
    fn states(&self, texts: &[&[u32]]) -> Vec<f32> {
        let (width, eps) = (self.config.hidden, self.config.norm_epsilon);
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let rows: usize = lengths.iter().sum();
        let tokens = texts.iter().flat_map(|text| text.iter().enumerate());
        let mut hidden = Vec::with_capacity(rows * width);
        for (position, &token) in tokens {
            let word = &self.words[token as usize * width..][..width];
            hidden.extend(word.iter().zip(&self.positions[position * width..][..width]).map(|(word, at)| word + at));
        }
        self.embedding_norm.apply(&mut hidden, &self.first_type, eps);
        let head_dim = width / self.config.heads;
        let shape = AttentionShape {
            heads: self.config.heads,
            kv_heads: self.config.heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
        };
        let mut qkv = vec![0.0; rows * 3 * width];
        let mut attended = vec![0.0; rows * width];
        let mut inner = vec![0.0; rows * self.config.feed_forward];
        for layer in &self.layers {
            matmul(&hidden, rows, &layer.qkv.matrix, &mut qkv, Accumulate::Overwrite);
            qkv.par_chunks_exact_mut(3 * width).with_min_len(16).for_each(|row| {
                for (value, bias) in row.iter_mut().zip(&layer.qkv.bias) {
                    *value += bias;
                }
            });
            full_attention(&shape, &qkv, &lengths, &mut attended);
            matmul(&attended, rows, &layer.output.matrix, &mut hidden, Accumulate::Add);
            layer.attention_norm.apply(&mut hidden, &layer.output.bias, eps);
            matmul(&hidden, rows, &layer.inner.matrix, &mut inner, Accumulate::Overwrite);
            biased_gelu(&mut inner, &layer.inner.bias);
            matmul(&inner, rows, &layer.outer.matrix, &mut hidden, Accumulate::Add);
            layer.feed_forward_norm.apply(&mut hidden, &layer.outer.bias, eps);
        }
        hidden
    }
}

impl Layer {
    fn matrices(&self) -> [&PackedMatrix; 4] {
        [&self.qkv, &self.output, &self.inner, &self.outer].map(|linear| &linear.matrix)
    }
}

impl Norm {
    /// Adds `shift` (the bias of the product before it) to each row and normalises.
    fn apply(&self, x: &mut [f32], shift: &[f32], eps: f32) {
        layer_norm(x, shift, &self.weight, &self.bias, eps);
    }
}

fn load_layer(model: &EncoderModel, layer: usize, precision: Precision) -> Result<Layer, EngineError> {
    let (width, feed_forward) = (model.config().hidden, model.config().feed_forward);
    let name = |part: &str| format!("encoder.layer.{layer}.{part}");
    let linear = |parts: &[&str], inputs: usize, outputs: usize| -> Result<Linear, EngineError> {
        let (mut values, mut bias) = (Vec::new(), Vec::new());
        for part in parts {
            values.extend(model.tensor(&format!("{}.weight", name(part)), &[outputs, inputs])?);
            bias.extend(model.tensor(&format!("{}.bias", name(part)), &[outputs])?);
        }
        let row = |row: usize, out: &mut [f32]| out.copy_from_slice(&values[row * inputs..][..inputs]);
        Ok(Linear { matrix: PackedMatrix::pack(precision, bias.len(), inputs, &row), bias })
    };
    Ok(Layer {
        qkv: linear(&["attention.self.query", "attention.self.key", "attention.self.value"], width, width)?,
        output: linear(&["attention.output.dense"], width, width)?,
        attention_norm: norm(model, &name("attention.output.LayerNorm"))?,
        inner: linear(&["intermediate.dense"], width, feed_forward)?,
        outer: linear(&["output.dense"], feed_forward, width)?,
        feed_forward_norm: norm(model, &name("output.LayerNorm"))?,
    })
}

fn norm(model: &EncoderModel, name: &str) -> Result<Norm, EngineError> {
    let width = [model.config().hidden];
    let tensor = |part: &str| model.tensor(&format!("{name}.{part}"), &width);
    Ok(Norm { weight: tensor("weight")?, bias: tensor("bias")? })
}
