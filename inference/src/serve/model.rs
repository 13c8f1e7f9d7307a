//! What is served: a model that writes, behind its queue, or an encoder, which makes vectors alone.

use std::sync::Arc;

use super::problem::Problem;
use crate::embedding::{EmbeddingOptions, EncoderEngine, OnVector};
use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::openai::Form;
use crate::request::Prompt;
use crate::service::{Load, Service, ServiceOptions};

/// A model to be served.
#[derive(Debug, Clone)]
pub enum ServedModel {
    /// One that writes.
    Writer(Arc<NativeEngine>),
    /// An encoder: only requests for embeddings are answered.
    Encoder(Arc<EncoderEngine>),
}

impl From<Arc<NativeEngine>> for ServedModel {
    fn from(engine: Arc<NativeEngine>) -> Self {
        Self::Writer(engine)
    }
}

impl From<Arc<EncoderEngine>> for ServedModel {
    fn from(engine: Arc<EncoderEngine>) -> Self {
        Self::Encoder(engine)
    }
}

/// A model that writes, and its queue.
pub(super) struct Writer {
    pub(super) engine: Arc<NativeEngine>,
    pub(super) service: Service,
}

impl Writer {
    pub(super) fn form<'a>(&'a self, name: &'a str) -> Form<'a> {
        Form { model: name, fingerprint: self.engine.identity(), tokenizer: Some(self.engine.tokenizer()) }
    }
}

/// The model at work.
pub(super) enum Running {
    Writer(Writer),
    Encoder(Arc<EncoderEngine>),
}

impl Running {
    pub(super) fn start(model: ServedModel, options: ServiceOptions) -> Self {
        match model {
            ServedModel::Writer(engine) => {
                Self::Writer(Writer { service: Service::start(Arc::clone(&engine), options), engine })
            }
            ServedModel::Encoder(engine) => Self::Encoder(engine),
        }
    }

    /// What writes, or why a path that writes is not answered; `name` is the model's.
    pub(super) fn writer(&self, name: &str) -> Result<&Writer, Problem> {
        match self {
            Self::Writer(writer) => Ok(writer),
            Self::Encoder(_) => {
                let message =
                    format!("model: {name:?} is an encoder: it writes no text; it makes vectors at /v1/embeddings");
                Err(Problem::new(400, message).at("model").with_code("model_not_supported"))
            }
        }
    }

    /// The most tokens that a text may have.
    pub(super) fn context(&self) -> usize {
        match self {
            Self::Writer(writer) => writer.engine.context(),
            Self::Encoder(encoder) => encoder.config().tokens,
        }
    }

    /// Elements of a vector.
    pub(super) fn dimensions(&self) -> usize {
        match self {
            Self::Writer(writer) => writer.engine.weights.config.hidden,
            Self::Encoder(encoder) => encoder.config().hidden,
        }
    }

    /// The tokens of a text that a vector is made of; a text that an encoder would cut is refused.
    pub(super) fn tokens(&self, text: &Prompt) -> Result<Vec<u32>, EngineError> {
        match (self, text) {
            (Self::Writer(writer), text) => writer.engine.prompt_tokens(text),
            (Self::Encoder(_), Prompt::Tokens(tokens)) => Ok(tokens.clone()),
            (Self::Encoder(encoder), Prompt::Text(text)) => match encoder.encode(text) {
                (tokens, 0) => Ok(tokens),
                (tokens, cut) => {
                    Err(EngineError::TextTooLong { tokens: tokens.len() + cut, context: encoder.config().tokens })
                }
            },
            (Self::Encoder(_), Prompt::Chat(_)) => Err(EngineError::EmptyPrompt),
        }
    }

    /// Makes the vectors of texts, with the adapter of that name.
    pub(super) fn embed(
        &self,
        texts: &[Vec<u32>],
        adapter: Option<&str>,
        on_vector: &mut OnVector<'_>,
    ) -> Result<(), EngineError> {
        let options = EmbeddingOptions::default();
        match self {
            Self::Writer(writer) => writer.engine.embed_with_adapter(texts, adapter, options, on_vector),
            Self::Encoder(encoder) => encoder.embed(texts, options, on_vector),
        }
    }

    /// What is written at the moment: nothing by an encoder.
    pub(super) fn load(&self) -> Load {
        match self {
            Self::Writer(writer) => writer.service.load(),
            Self::Encoder(_) => Load::default(),
        }
    }

    /// Ends what is being written.
    pub(super) fn stop(&self) {
        if let Self::Writer(writer) = self {
            writer.service.stop();
        }
    }
}
