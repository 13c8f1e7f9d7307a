//! Text generation and scoring: a native engine on our own kernels, and a client for `OpenAI`-compatible servers.
//!
//! # Which call for what
//! - Many texts to write: [`Engine::generate`]. Hand over all requests at once; the engine batches them. Where answers bring further
//!   requests: [`Engine::generate_following`].
//! - Requests that come in at any time, tokens as they are chosen: [`Service`]. It writes what [`Engine::generate`] writes.
//! - Several answers of one prompt: [`Request::alternatives`]. Answers of a form (JSON by a schema): [`Constraint`].
//! - Which of several continuations is likelier: [`NativeEngine::loglikelihood`].
//! - What a student can learn from a teacher at each token of an answer: [`NativeEngine::top_logprobs`].
//! - A model's rating of texts: [`judge`].
//! - Vectors of texts, of an encoder or of a model that writes: [`EmbeddingEngine::embed`].
//! - What each matrix reads of a text: [`NativeEngine::linear_inputs`].
//! - Perplexity of a text: [`NativeEngine::token_logprobs`]; beside an answer: [`Request::prompt_logprobs`]. Whole distributions: [`NativeEngine::logits`].
//!
//! # How the native engine works
//! One *step* is one pass over the weights for a batch of rows. A row is one token at one position of one sequence; rows of
//! prompts being read and of answers being written stand side by side. Everything but attention works on rows alone, so the
//! weights are read once for all of them. Attention looks into pages of keys and values, 64 positions in each.
//!
//! Requests are sorted so that neighbours share the longest prefix, those that may write the most first. They name the same
//! pages for it: it is computed once, held once, and attention reads it once for all that share it. A few-shot head before
//! hundreds of questions is so read once. Texts wait until [`EngineOptions::memory`] has room for their pages; engines that are
//! loaded with clones of one [`EngineMemory`] share it. Two things may go above it: in models with windowed and full layers the
//! pages of one kind are not lent to the other, and scoring bounds its sequences, not their pages.
//!
//! One text alone is bound by reading the weights. With [`WeightForm::Blocks`] they stay in the blocks of their file, a third
//! of bf16. Batches are bound by arithmetic. With [`WeightForm::Int8`] the numbers of the blocks are bytes, which processors
//! multiply twice as fast as bf16. Both round the activations of every product to 8 bits. That changes results, so it is a
//! choice of the caller and part of the identity, never of the moment.
//!
//! # What is promised
//! With one [`NativeEngine::identity`], a request's text depends on the request alone: not on batch size, neighbours, order,
//! prefix sharing or threads. Each output element of every operation has one order of additions, and the randomness of a
//! token comes from the request's seed and the token's index.
//!
//! # Example
//! ```no_run
//! use std::ops::ControlFlow;
//! use espalier_inference::{Engine, EngineOptions, NativeEngine, Prompt, Request};
//! use espalier_model::{Message, Model};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::open("model.gguf".as_ref())?;
//! let engine = Engine::Native(NativeEngine::load(&model, None, &EngineOptions::default())?);
//! let question = Message::new("user", "What is the capital of France?");
//! engine.generate(&[Request::new(Prompt::Chat(vec![question]), 64)], &mut |_, answer| {
//!     match answer {
//!         Ok(answer) => println!("{}", answer.text),
//!         Err(error) => eprintln!("{error}"),
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```

mod branch;
mod cache;
mod constraint;
mod embedding;
mod error;
mod follow;
mod forward;
mod inputs;
pub mod judge;
mod matrix;
mod memory;
mod named;
mod native;
pub mod openai;
mod overflow;
mod prefix;
mod request;
mod sampling;
mod schedule;
mod score;
pub mod serve;
mod server;
mod service;
mod stop;
mod weights;

use std::ops::ControlFlow;

pub use constraint::Constraint;
pub use embedding::{EmbeddingEngine, EmbeddingOptions, EncoderEngine};
pub use error::EngineError;
pub use espalier_model::{ChatTemplate, Message, Pooling, SpecialTokens, python_method};
pub use follow::{AnswerAll, Follow, in_waves};
pub use inputs::LinearInput;
pub use matrix::WeightForm;
pub use memory::EngineMemory;
pub use native::{DEFAULT_CACHE, EngineOptions, NativeEngine};
pub use overflow::Overflow;
pub use request::{
    Answer, Counts, Echoed, Event, Finish, Prompt, Request, Sampling, Score, ScoreRequest, ServerUsage, TokenLogprob,
};
pub use server::{ServerEvent, ServerKind, ServerNews, ServerOptions, ServerPool};
pub use service::{Cancel, Load, Refused, Service, ServiceOptions};
pub use weights::ChangeRow;

/// Something that answers requests.
#[derive(Debug)]
pub enum Engine {
    /// The model in this process.
    Native(NativeEngine),
    /// Servers that speak the `OpenAI` protocol.
    Servers(ServerPool),
}

impl Engine {
    /// Writes an answer for each request. Answers arrive as they end, in any order, each with the index of its request;
    /// `ControlFlow::Break` ends the call cleanly.
    ///
    /// # Errors
    /// What stops all requests; what stops one comes as its answer.
    pub fn generate(
        &self,
        requests: &[Request],
        on_answer: &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.generate_with_events(requests, on_answer, &mut |_| {})
    }

    /// As [`Self::generate`]; what happens to servers meanwhile goes to `on_event`.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_with_events(
        &self,
        requests: &[Request],
        on_answer: &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
        on_event: &mut dyn FnMut(&ServerEvent),
    ) -> Result<(), EngineError> {
        match self {
            Self::Native(engine) => engine.generate(requests, on_answer),
            Self::Servers(pool) => pool.generate(requests, on_answer, on_event),
        }
    }

    /// As [`Self::generate_with_events`], with requests that follow from answers: in this process they join the batch at once,
    /// servers get them when all before are answered.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_following(
        &self,
        requests: Vec<Request>,
        follow: &mut Follow<'_>,
        on_event: &mut dyn FnMut(&ServerEvent),
    ) -> Result<(), EngineError> {
        match self {
            Self::Native(engine) => engine.generate_following(requests, follow),
            Self::Servers(pool) => {
                let answer_all: &mut AnswerAll<'_> =
                    &mut |requests, on_answer| pool.generate(requests, on_answer, &mut *on_event);
                in_waves(answer_all, requests, follow)
            }
        }
    }

    /// Whether answers can have this form, as far as it can be known before any is written.
    ///
    /// # Errors
    /// What is wrong with the constraint.
    pub fn check_constraint(&self, constraint: &Constraint) -> Result<(), EngineError> {
        match self {
            Self::Native(engine) => engine.check_constraint(constraint),
            Self::Servers(_) => constraint.validate().map_err(|problem| constraint.broken(problem)),
        }
    }

    /// What decides every result beside the request: model, adapter and precision, or the kind of the servers and their model.
    pub fn identity(&self) -> &str {
        match self {
            Self::Native(engine) => engine.identity(),
            Self::Servers(pool) => pool.identity(),
        }
    }
}
