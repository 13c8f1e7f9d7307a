//! Vectors of texts: of encoders (BERT), and of the models that write, from the states behind their last norm.

mod decoder;
mod encoder;

pub(crate) use decoder::embed as of_decoder;
pub use encoder::EncoderEngine;

use std::ops::ControlFlow;
use std::path::Path;

use espalier_model::{EncoderModel, Model, Pooling};

use crate::error::EngineError;
use crate::native::{EngineOptions, NativeEngine};
use crate::request::Prompt;

/// How a vector is made of a text's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddingOptions {
    /// `None`: what the model was made for; the mean where it does not say.
    pub pooling: Option<Pooling>,
    /// Whether vectors are divided by their length. `None`: what the model was made for; yes where it does not say.
    pub normalize: Option<bool>,
}

/// The receiver of vectors.
pub(crate) type OnVector<'a> = dyn FnMut(usize, Result<Vec<f32>, EngineError>) -> ControlFlow<()> + 'a;

/// A model that makes vectors.
#[derive(Debug)]
pub enum EmbeddingEngine {
    /// One that was made for it.
    Encoder(EncoderEngine),
    /// One that writes, whose states are taken.
    Decoder(NativeEngine),
}

impl EmbeddingEngine {
    /// Loads what the path holds: the folder of an encoder, or any model that [`Model::open`] opens.
    ///
    /// # Errors
    /// Files that are no such model, tensors that cannot be read, an option out of range.
    pub fn load(path: &Path, options: &EngineOptions) -> Result<Self, EngineError> {
        if path.is_dir() && EncoderModel::is_in(path) {
            return Ok(Self::Encoder(EncoderEngine::load(&EncoderModel::open(path)?, options)?));
        }
        Ok(Self::Decoder(NativeEngine::load(&Model::open(path)?, None, options)?))
    }

    /// Elements of a vector.
    pub fn dimensions(&self) -> usize {
        match self {
            Self::Encoder(engine) => engine.config().hidden,
            Self::Decoder(engine) => engine.weights.config.hidden,
        }
    }

    /// The most tokens that a text may have.
    pub fn context(&self) -> usize {
        match self {
            Self::Encoder(engine) => engine.config().tokens,
            Self::Decoder(engine) => engine.context(),
        }
    }

    /// What decides every vector beside text and options: model and precision.
    pub fn identity(&self) -> &str {
        match self {
            Self::Encoder(engine) => engine.identity(),
            Self::Decoder(engine) => engine.identity(),
        }
    }

    /// The tokens of a text, its end cut off where it does not fit; and how many tokens that were.
    ///
    /// # Errors
    /// A text without a token, for a model without one to begin with.
    pub fn encode(&self, text: &str) -> Result<(Vec<u32>, usize), EngineError> {
        match self {
            Self::Encoder(engine) => Ok(engine.encode(text)),
            Self::Decoder(engine) => {
                let mut tokens = engine.prompt_tokens(&Prompt::Text(text.to_owned()))?;
                let cut = tokens.len().saturating_sub(engine.context());
                tokens.truncate(engine.context());
                Ok((tokens, cut))
            }
        }
    }

    /// The vector of each text; see [`NativeEngine::embed`].
    ///
    /// # Errors
    /// As there.
    pub fn embed(
        &self,
        texts: &[Vec<u32>],
        options: EmbeddingOptions,
        on_vector: &mut dyn FnMut(usize, Result<Vec<f32>, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        match self {
            Self::Encoder(engine) => engine.embed(texts, options, on_vector),
            Self::Decoder(engine) => engine.embed(texts, options, on_vector),
        }
    }
}

/// Sums the states of a text's tokens, in their order.
struct Pool {
    pooling: Pooling,
    sum: Vec<f64>,
    tokens: usize,
}

impl Pool {
    fn new(pooling: Pooling, dimensions: usize) -> Self {
        Self { pooling, sum: vec![0.0; dimensions], tokens: 0 }
    }

    /// Whether the state of a token is needed.
    fn wants(pooling: Pooling, token: usize, tokens: usize) -> bool {
        match pooling {
            Pooling::Mean => true,
            Pooling::FirstToken => token == 0,
            Pooling::LastToken => token + 1 == tokens,
        }
    }

    /// Takes the next state that is needed.
    fn add(&mut self, state: &[f32]) {
        for (sum, value) in self.sum.iter_mut().zip(state) {
            *sum += f64::from(*value);
        }
        self.tokens += 1;
    }

    fn finish(self, normalize: bool) -> Vec<f32> {
        debug_assert!(self.pooling == Pooling::Mean || self.tokens == 1, "one state is the vector");
        let mut divisor = self.tokens.max(1) as f64;
        if normalize {
            let length = self.sum.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
            // A vector of zeros has no direction.
            if length > 0.0 {
                divisor = length;
            }
        }
        self.sum.iter().map(|sum| (sum / divisor) as f32).collect()
    }
}
