//! What goes into an engine and what comes out of it.

use espalier_model::Message;

/// What the model is to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A conversation: the model's chat template is applied and the assistant's turn opened.
    Chat(Vec<Message>),
    /// Text to be continued. Special tokens written in it (`<|im_start|>`) are parsed; BOS is put in front where the model
    /// wants one.
    Text(String),
    /// Token ids, taken as they are (nothing is put in front).
    Tokens(Vec<u32>),
}

/// How the next token is chosen from the logits.
///
/// The steps run in this order: repetition penalty, temperature, top-k, top-p, min-p, then one draw from what is left.
/// The default is greedy: the highest logit, the lowest id among equals.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 means greedy, and then the fields `top_k`, `top_p` and `min_p` have no effect.
    pub temperature: f32,
    /// Keeps the `top_k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens whose probabilities sum to `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less probable than `min_p` times the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits (multiplies negative ones) of every token of prompt and answer so far; 1 changes nothing.
    pub repetition_penalty: f32,
}

impl Sampling {
    /// The most probable token always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

    /// Whether tokens seen before are treated differently.
    pub(crate) fn penalizes(&self) -> bool {
        (self.repetition_penalty - 1.0).abs() > 0.0
    }

    /// Plain sampling at a temperature.
    pub fn at_temperature(temperature: f32) -> Self {
        Self { temperature, ..Self::GREEDY }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self::GREEDY
    }
}

/// One text to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// The longest answer, in tokens. The context window may end it earlier.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// With the prompt, this alone decides a sampled text: neighbours in the batch, order and threads do not.
    pub seed: u64,
    /// The answer ends before the first of these strings, wherever the borders of its tokens lie. Empty strings are ignored.
    pub stop: Vec<String>,
    /// How many alternatives to report with each token, beside the chosen one.
    pub top_logprobs: usize,
}

impl Request {
    /// A greedy request without stop strings, with seed 0.
    pub fn new(prompt: Prompt, max_tokens: usize) -> Self {
        Self { prompt, max_tokens, sampling: Sampling::GREEDY, seed: 0, stop: Vec::new(), top_logprobs: 0 }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said that it was done, or a stop string was written.
    Stop,
    /// `max_tokens` or the context window was reached.
    Length,
}

/// The log-probability of one token under the model's own distribution: temperature 1, no filter, no penalty.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token that was chosen.
    pub token: u32,
    /// Its natural log-probability.
    pub logprob: f32,
    /// The most probable tokens, best first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text, cut before a stop string, without special tokens; bytes that are not UTF-8 become U+FFFD.
    pub text: String,
    /// The tokens that were written, those of a stop string included, the end-of-generation token not. Empty from a server.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// One entry for each of `tokens`. From a server only when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Length of the prompt in tokens, BOS and template included (0 when a server does not say).
    pub prompt_tokens: usize,
}

/// What a call to generate computed, beside the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of all prompts that were answered, as the requests have them.
    pub prompt_tokens_logical: usize,
    /// Tokens of prompts that went through the model: fewer where prefixes were shared.
    pub prompt_tokens_computed: usize,
    /// Tokens written, end-of-generation tokens not counted.
    pub new_tokens: usize,
    /// Passes over the weights.
    pub steps: usize,
}

/// How probable is `continuation` after `context`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreRequest {
    /// Tokens that are given. When empty, BOS (or EOS in models without BOS) stands in its place.
    pub context: Vec<u32>,
    /// Tokens that are scored; at least one.
    pub continuation: Vec<u32>,
}

/// The answer to a [`ScoreRequest`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum of the natural log-probabilities of the continuation's tokens.
    pub logprob: f64,
    /// Whether greedy decoding after the context writes exactly the continuation.
    pub greedy: bool,
    /// Length of the continuation.
    pub tokens: usize,
}
