//! The native engine: a model in packed matrices, with everything that runs on it.

use std::ops::ControlFlow;
use std::sync::Arc;

use espalier_kernels::Precision;
use espalier_kernels::ops::PageElement;
use espalier_model::{ChatTemplate, LoraAdapter, Message, Model, SpecialTokens, Tokenizer};

use crate::cache::Cache;
use crate::constraint::{Constraint, Shelf};
use crate::embedding::{self, EmbeddingOptions};
use crate::error::EngineError;
use crate::follow::Follow;
use crate::forward::Workspace;
use crate::inputs::{self, LinearInput};
use crate::matrix::WeightForm;
use crate::memory::{EngineMemory, Part, Reservation};
use crate::named::{NamedAdapter, NamedAdapters, check_beside};
use crate::request::{Answer, Counts, Prompt, Request, Score, ScoreRequest, TokenLogprob};
use crate::schedule::offline;
use crate::score;
use crate::weights::{ChangeRow, Weights};

/// How a model is loaded and how much of it runs at once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What the matrix products compute in. It and `weight_form` change results; the other options do not.
    pub precision: Precision,
    /// What the matrices are kept as.
    pub weight_form: WeightForm,
    /// How many texts are written at once, as far as `memory` allows. Each costs memory for its keys and values.
    pub max_sequences: usize,
    /// How many rows (tokens of prompts and answers together) one pass over the weights may hold.
    pub max_batch_tokens: usize,
    /// The context window in tokens; `None` is the model's own. May be lowered, not raised.
    pub context: Option<usize>,
    /// What weights, keys and values and the buffers of a pass may take together. Texts wait for each other under it; one that
    /// can never fit is refused. `None` gives keys and values [`DEFAULT_CACHE`], or what a full window takes where that is more.
    pub memory: Option<EngineMemory>,
}

/// Bytes for keys and values where no bound is set.
pub const DEFAULT_CACHE: u64 = 2 << 30;

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            precision: Precision::Bf16,
            weight_form: WeightForm::Packed,
            max_sequences: 128,
            max_batch_tokens: 512,
            context: None,
            memory: None,
        }
    }
}

impl EngineOptions {
    /// The same for an engine whose probabilities or vectors count: with packed weights.
    #[must_use]
    pub fn packed(&self) -> Self {
        Self { weight_form: WeightForm::Packed, ..self.clone() }
    }
}

/// The local engine. It is immutable once loaded and may be shared between threads; every call owns its buffers.
pub struct NativeEngine {
    pub(crate) weights: Box<Weights>,
    pub(crate) max_sequences: usize,
    pub(crate) max_batch_tokens: usize,
    /// Bytes for keys and values where no memory is set.
    pub(crate) cache_bytes: usize,
    /// Its part of the memory that is set.
    reservation: Option<Reservation>,
    tokenizer: Box<Tokenizer>,
    template: Box<ChatTemplate>,
    /// The adapter of requests that name none, and of scoring.
    pub(crate) adapter: Option<usize>,
    /// Adapters that requests may name, in the order of their weights.
    named: NamedAdapters,
    /// Constraints that were translated.
    pub(crate) shelf: Shelf,
    identity: String,
    form: WeightForm,
    precision: Precision,
    /// Off in tests that hold results with and without sharing against each other.
    pub(crate) shares_prefixes: bool,
    /// On where lengths must be equal, as in measurements.
    pub(crate) ignores_end: bool,
}

impl std::fmt::Debug for NativeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeEngine").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl NativeEngine {
    /// Packs the weights of `model`; `adapter` runs as a side branch, the base is never changed.
    ///
    /// # Errors
    /// A tensor that cannot be read, an adapter of another model, an option out of range.
    pub fn load(model: &Model, adapter: Option<&LoraAdapter>, options: &EngineOptions) -> Result<Self, EngineError> {
        let mut engine = Self::with_branches(model, adapter.as_slice(), adapter, options, None)?;
        if let Some(adapter) = adapter {
            engine.adapter = Some(0);
            let hash = crate::branch::adapter_hash(adapter);
            engine.identity = identity(model, (options.weight_form, options.precision), &engine.weights, Some(&hash))?;
        }
        Ok(engine)
    }

    /// Packs the weights of `model` as `change` makes them, row by row: how a model would be whose weights are rounded, without
    /// a file of it. Vectors (norms and biases) stay. `called` stands in the identity for what `change` does.
    ///
    /// # Errors
    /// As [`NativeEngine::load`].
    pub fn load_changed(
        model: &Model,
        options: &EngineOptions,
        called: &str,
        change: &ChangeRow<'_>,
    ) -> Result<Self, EngineError> {
        let mut engine = Self::with_branches(model, &[], None, options, Some(change))?;
        engine.identity = identity(model, (options.weight_form, options.precision), &engine.weights, Some(called))?;
        Ok(engine)
    }

    /// Packs the matrices anew that hold a tensor which `touched` names, as `change` makes their rows now; the others stay. For an
    /// engine of [`Self::load_changed`] and the same `model`: much less work than to load it again.
    ///
    /// # Errors
    /// A tensor that cannot be read. Some matrices are changed then and some are not.
    pub fn change(
        &mut self,
        model: &Model,
        touched: &dyn Fn(&str) -> bool,
        change: &ChangeRow<'_>,
    ) -> Result<(), EngineError> {
        self.weights.change(model, self.precision, touched, change)
    }

    /// Packs the weights of `model` once, with adapters that requests choose by name ([`Request::adapter`]); one that names
    /// none is answered by the model alone. Answers of different adapters are written in one batch.
    ///
    /// # Errors
    /// As [`NativeEngine::load`]; two adapters of one name; a `DoRA` adapter, whose base is not the others' base.
    pub fn load_with_adapters(
        model: &Model,
        adapters: &[(&str, &LoraAdapter)],
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        // Those that cannot be are refused before the weights are read.
        for (at, (name, adapter)) in adapters.iter().enumerate() {
            check_beside(name, adapter, adapters[..at].iter().map(|(other, _)| *other))?;
        }
        let mut engine = Self::with_branches(model, &[], None, options, None)?;
        for (name, adapter) in adapters {
            engine.add_adapter(model, name, adapter)?;
        }
        Ok(engine)
    }

    /// Adds an adapter that requests may name from here on; the weights are not read again. `model` is the one that the
    /// engine was loaded from. With an error the engine stays as it was.
    ///
    /// # Errors
    /// As [`NativeEngine::load_with_adapters`]; an engine that was loaded with an adapter which cannot be named.
    pub fn add_adapter(&mut self, model: &Model, name: &str, adapter: &LoraAdapter) -> Result<(), EngineError> {
        check_beside(name, adapter, self.adapters())?;
        if self.adapter.is_some() {
            let problem = "the engine was loaded with one adapter for all requests; load it with named ones".to_owned();
            return Err(EngineError::Option { option: "adapter", problem });
        }
        let template = chat_template(model, Some(adapter), &self.tokenizer)?;
        let branches = self.weights.branches_of(model, adapter, self.precision)?;
        let new = NamedAdapter::new(name, adapter, template);
        let identity =
            identity(model, (self.form, self.precision), &self.weights, Some(&self.named.identity_with(&new)))?;
        if let Some(reservation) = &self.reservation {
            reservation.set_weights(self.weights.bytes() + branches.bytes())?;
        }
        self.identity = identity;
        self.weights.add(branches);
        self.named.push(new);
        Ok(())
    }

    /// An engine with the branches of adapters, none of which is chosen or named; `chosen` has the chat template.
    fn with_branches(
        model: &Model,
        adapters: &[&LoraAdapter],
        chosen: Option<&LoraAdapter>,
        options: &EngineOptions,
        change: Option<&ChangeRow<'_>>,
    ) -> Result<Self, EngineError> {
        let config = model.config();
        let context = options.context.unwrap_or(config.context);
        if context == 0 || context > config.context {
            return Err(EngineError::Option {
                option: "context",
                problem: format!("{context} is not between 1 and the model's own window of {}", config.context),
            });
        }
        if options.max_sequences == 0 {
            return Err(EngineError::Option { option: "max_sequences", problem: "must be at least 1".to_owned() });
        }
        if options.max_batch_tokens == 0 {
            return Err(EngineError::Option { option: "max_batch_tokens", problem: "must be at least 1".to_owned() });
        }
        let form = (options.weight_form, options.precision);
        let weights = Weights::load(model, adapters, form, context, change)?;
        let cache = Cache::new(&weights);
        let window = cache.needed_bytes(0, weights.context, options.max_batch_tokens);
        let part = Part {
            weights: weights.bytes(),
            buffers: Workspace::bytes(&weights.config, options.max_batch_tokens),
            rows: options.max_batch_tokens,
            page: cache.needed_bytes(0, 1, 1),
        };
        let reservation = options.memory.as_ref().map(|memory| memory.reserve(part)).transpose()?;
        let tokenizer = Tokenizer::from_gguf_metadata(model.metadata())?;
        Ok(Self {
            identity: identity(model, form, &weights, None)?,
            weights: Box::new(weights),
            max_sequences: options.max_sequences,
            max_batch_tokens: options.max_batch_tokens,
            cache_bytes: window.max(DEFAULT_CACHE as usize),
            reservation,
            template: Box::new(chat_template(model, chosen, &tokenizer)?),
            tokenizer: Box::new(tokenizer),
            adapter: None,
            named: NamedAdapters::default(),
            shelf: Shelf::default(),
            form: options.weight_form,
            precision: options.precision,
            shares_prefixes: true,
            ignores_end: false,
        })
    }

    /// Switches the reuse of common prefixes on (the default) or off. Results are the same; only the work differs.
    pub fn set_prefix_sharing(&mut self, on: bool) {
        self.shares_prefixes = on;
    }

    /// Lets answers go on to `max_tokens` after an end-of-generation token (off by default); for measurements.
    pub fn set_ignore_end(&mut self, on: bool) {
        self.ignores_end = on;
    }

    /// What decides every result beside the request: sha256 of the model, hash of the adapter (names and hashes where there
    /// are several), precision.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The adapters that requests may name.
    pub fn adapters(&self) -> impl Iterator<Item = &str> {
        self.named.names()
    }

    /// The place of a request's adapter among the weights.
    pub(crate) fn adapter_of(&self, request: &Request) -> Result<Option<usize>, EngineError> {
        self.adapter_called(request.adapter.as_deref())
    }

    /// The place of the adapter of that name; without a name, of the one that the engine was loaded with.
    fn adapter_called(&self, name: Option<&str>) -> Result<Option<usize>, EngineError> {
        name.map_or(Ok(self.adapter), |name| self.named.place(name).map(Some))
    }

    /// The chat template of requests that name no adapter.
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The context window in tokens.
    pub fn context(&self) -> usize {
        self.weights.context
    }

    /// What the matrices are kept as, or as many of them as can be.
    pub fn weight_form(&self) -> WeightForm {
        if self.weights.kept_numbers().0 > 0 { self.form } else { WeightForm::Packed }
    }

    /// What the weights are, with the reason, for people to read.
    pub fn weight_words(&self) -> String {
        let precision = self.precision;
        let (kept, reason) = match self.form {
            WeightForm::Packed => return format!("weights packed as {precision}"),
            WeightForm::Blocks => ("in the blocks of the file", "one text at a time is bound by reading the weights"),
            WeightForm::Int8 => ("as the bytes of the file's blocks", "batches are bound by arithmetic"),
        };
        match self.weights.kept_numbers() {
            (0, _) => format!(
                "weights packed as {precision}: their types have no products of 8 bits, as Q8_0 or Q4_K have, which are faster"
            ),
            (some, all) if some == all => format!("weights {kept}, activations of 8 bits: {reason}"),
            (some, all) => format!(
                "{some} of {all} matrices {kept} with activations of 8 bits, as {reason}; the types of the others have no such \
                 product, they are packed as {precision}"
            ),
        }
    }

    /// Bytes that keys and values may take now.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.reservation.as_ref().map_or(self.cache_bytes, Reservation::left)
    }

    /// Memory of the weights in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// A conversation as tokens, the assistant's turn opened, BOS in front where the model wants one and the template wrote
    /// none.
    ///
    /// # Errors
    /// A template that refuses the conversation.
    pub fn render_chat(&self, messages: &[Message]) -> Result<Vec<u32>, EngineError> {
        self.render(&self.template, messages)
    }

    fn render(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Vec<u32>, EngineError> {
        let text = template.render(messages, true)?;
        Ok(self.encode_with_bos(&text))
    }

    /// The tokens of a prompt as the model will see them.
    ///
    /// # Errors
    /// A template that refuses the conversation; an id that the model does not have; nothing at all.
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        self.tokens_of(prompt, self.adapter)
    }

    /// The tokens of a request's prompt as the model will see them, in the template of its adapter.
    ///
    /// # Errors
    /// As [`Self::prompt_tokens`]; an adapter that the engine does not have.
    pub fn request_tokens(&self, request: &Request) -> Result<Vec<u32>, EngineError> {
        self.tokens_of(&request.prompt, self.adapter_of(request)?)
    }

    /// [`Self::prompt_tokens`] with the template of an adapter.
    pub(crate) fn tokens_of(&self, prompt: &Prompt, adapter: Option<usize>) -> Result<Vec<u32>, EngineError> {
        let template = adapter.and_then(|place| self.named.template(place)).unwrap_or(&self.template);
        let mut tokens = match prompt {
            Prompt::Chat(messages) => self.render(template, messages)?,
            Prompt::Text(text) => self.encode_with_bos(text),
            Prompt::Tokens(tokens) => {
                self.weights.check_tokens(tokens)?;
                tokens.clone()
            }
        };
        if tokens.is_empty() {
            tokens.push(self.tokenizer.bos().ok_or(EngineError::EmptyPrompt)?);
        }
        Ok(tokens)
    }

    fn encode_with_bos(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(text, SpecialTokens::Parse);
        if let Some(bos) = self.tokenizer.bos()
            && self.tokenizer.adds_bos()
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        tokens
    }

    /// Whether answers can have this form: what [`NativeEngine::generate`] finds out before the first token.
    ///
    /// # Errors
    /// What is wrong with the constraint.
    pub fn check_constraint(&self, constraint: &Constraint) -> Result<(), EngineError> {
        self.shelf.check(&self.tokenizer, &Arc::new(constraint.clone()))
    }

    /// Writes an answer for each request. Answers arrive as they end, in any order, each with the index of its request;
    /// what is wrong with one request goes to its own answer. `ControlFlow::Break` ends the call at once, without an error.
    ///
    /// # Errors
    /// None now; kept for engines that can fail as a whole.
    pub fn generate(
        &self,
        requests: &[Request],
        on_answer: &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.generate_counted(requests, on_answer).map(|_| ())
    }

    /// As [`NativeEngine::generate`]; requests that follow from answers join the batch at once.
    ///
    /// # Errors
    /// As there.
    pub fn generate_following(&self, requests: Vec<Request>, follow: &mut Follow<'_>) -> Result<(), EngineError> {
        offline::generate_following(self, requests, follow);
        Ok(())
    }

    /// [`NativeEngine::generate`], and what it took.
    ///
    /// # Errors
    /// As there.
    pub fn generate_counted(
        &self,
        requests: &[Request],
        on_answer: &mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>,
    ) -> Result<Counts, EngineError> {
        Ok(offline::generate(self, requests, on_answer))
    }

    /// Scores continuations. Contexts that requests share, whole or as a prefix, are computed once; scores arrive in any
    /// order, each with the index of its request. A context too long for the window loses its oldest tokens.
    ///
    /// # Errors
    /// An empty continuation, one longer than the window, an unknown token id.
    pub fn loglikelihood(
        &self,
        requests: &[ScoreRequest],
        on_score: &mut dyn FnMut(usize, Score) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        score::loglikelihood(self, requests, on_score)
    }

    /// For each token of the continuations its log-probability and the `count` most probable tokens in its place: what a
    /// student can learn from beside the token itself. Probabilities are those of the whole vocabulary, but only ids below
    /// `among` are named (a teacher's vocabulary may be padded to more ids than the student has). Otherwise as
    /// [`NativeEngine::loglikelihood`]; logits of a few dozen rows exist at a time.
    ///
    /// # Errors
    /// As there.
    pub fn top_logprobs(
        &self,
        requests: &[ScoreRequest],
        count: usize,
        among: usize,
        on_answer: &mut dyn FnMut(usize, Vec<TokenLogprob>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        score::top_logprobs(self, requests, count, among, on_answer)
    }

    /// The natural log-probability of each token but the first, given those before it. A text longer than the window is
    /// scored in windows that overlap by half, so that every token keeps at least half a window before it. NaN throughout
    /// when a token is not in the vocabulary (see [`NativeEngine::logits`] for the error).
    pub fn token_logprobs(&self, tokens: &[u32]) -> Vec<f32> {
        score::token_logprobs(self, tokens)
    }

    /// The vector of each text (its tokens): the states behind the last norm, pooled over its tokens. Vectors arrive as
    /// they are made, each with the index of its text; what is wrong with one text goes to its own result. A vector has the same
    /// bits whatever texts share the call. `ControlFlow::Break` ends the call at once, without an error.
    ///
    /// # Errors
    /// None now; kept for engines that can fail as a whole. In the place of a vector: a text without tokens, with more than
    /// the window or the memory holds, or with an unknown token.
    pub fn embed(
        &self,
        texts: &[Vec<u32>],
        options: EmbeddingOptions,
        on_vector: &mut dyn FnMut(usize, Result<Vec<f32>, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.embed_with_adapter(texts, None, options, on_vector)
    }

    /// [`Self::embed`] with the adapter of that name.
    ///
    /// # Errors
    /// An adapter that the engine does not have; in the place of a vector as there.
    pub fn embed_with_adapter(
        &self,
        texts: &[Vec<u32>],
        adapter: Option<&str>,
        options: EmbeddingOptions,
        on_vector: &mut dyn FnMut(usize, Result<Vec<f32>, EngineError>) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        embedding::of_decoder(self, texts, self.adapter_called(adapter)?, options, on_vector);
        Ok(())
    }

    /// Shows the logits after each position of `tokens`, in order.
    ///
    /// # Errors
    /// More tokens than the window holds; an unknown token id.
    pub fn logits(&self, tokens: &[u32], visit: &mut dyn FnMut(usize, &[f32])) -> Result<(), EngineError> {
        let vocabulary = self.weights.config.vocabulary;
        self.logits_from(tokens, 0, &mut |first, logits| {
            for (offset, row) in logits.chunks_exact(vocabulary).enumerate() {
                visit(first + offset, row);
            }
        })
    }

    /// Shows the logits after each position of `tokens` from `first` on, in order and several positions at a time:
    /// `visit(position, logits)` gets the first position of each piece and rows as wide as the vocabulary.
    ///
    /// # Errors
    /// As [`NativeEngine::logits`].
    pub fn logits_from(
        &self,
        tokens: &[u32],
        first: usize,
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        score::logits_from(self, tokens, first, visit)
    }

    /// Shows what each matrix reads while `tokens` run through: `visit(input, columns, values)` gets rows of so many columns, in
    /// the order of the tokens. Long texts come in several pieces, pass by pass; the values do not depend on how they are cut.
    ///
    /// # Errors
    /// More tokens than the window holds; an unknown token id.
    pub fn linear_inputs(
        &self,
        tokens: &[u32],
        visit: &mut dyn FnMut(LinearInput, usize, &[f32]),
    ) -> Result<(), EngineError> {
        inputs::linear_inputs(self, tokens, visit)
    }
}

fn chat_template(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    tokenizer: &Tokenizer,
) -> Result<ChatTemplate, EngineError> {
    let text_of = |id: Option<u32>| id.map_or("", |id| tokenizer.token_text(id));
    let source = model.chat_template_source(adapter);
    Ok(ChatTemplate::new(source, text_of(tokenizer.bos()), text_of(tokenizer.eos()))?)
}

fn identity(
    model: &Model,
    (form, precision): (WeightForm, Precision),
    weights: &Weights,
    adapters: Option<&str>,
) -> Result<String, EngineError> {
    let adapters = adapters.map_or(String::new(), |adapters| format!("+{adapters}"));
    let products = match form {
        _ if weights.kept_numbers().0 == 0 => "",
        WeightForm::Packed => "",
        WeightForm::Blocks => "-int8-activations",
        WeightForm::Int8 => "-int8",
    };
    let kept = if weights.kept == PageElement::I16 { "-i16-keys" } else { "" };
    Ok(format!("{}{adapters}-{precision}{products}{kept}", model.sha256()?))
}
