//! What goes into an engine and what comes out of it.

use std::sync::Arc;

use espalier_model::Message;
use sha2::{Digest, Sha256};

use crate::constraint::Constraint;
use crate::error::EngineError;
use crate::overflow::Overflow;

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
/// The steps run in this order: constraint, logit bias, repetition penalty, frequency and presence penalty, temperature, top-k,
/// top-p, min-p, then one draw from what is left. Those before the temperature act on the logits, in greedy decoding too.
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
    /// Taken from the logit of a token once for each time that it stands in the answer (as `OpenAI` has it); 0 changes nothing.
    pub frequency_penalty: f32,
    /// Taken from the logit of every token that stands in the answer (as `OpenAI` has it); 0 changes nothing.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens; -100 as good as forbids one, 100 as good as forces it.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Sampling {
    /// The most probable token always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
    };

    /// Whether tokens of the prompt and the answer are treated differently.
    pub(crate) fn penalizes_repetition(&self) -> bool {
        (self.repetition_penalty - 1.0).abs() > 0.0
    }

    /// Whether tokens seen before are treated differently.
    pub(crate) fn penalizes(&self) -> bool {
        self.penalizes_repetition() || self.frequency_penalty.abs() > 0.0 || self.presence_penalty.abs() > 0.0
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
    /// The name of an adapter of the engine; `None` is the model as the engine was loaded. Only the native engine has them.
    pub adapter: Option<String>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// With the prompt, this alone decides a sampled text: neighbours in the batch, order and threads do not.
    pub seed: u64,
    /// The answer ends before the first of these strings, wherever the borders of its tokens lie. Empty strings are ignored.
    pub stop: Vec<String>,
    /// The answer ends before the first of these tokens, as before an end-of-generation token.
    pub stop_tokens: Vec<u32>,
    /// The form that the answer must have.
    pub constraint: Option<Arc<Constraint>>,
    /// What happens when the prompt does not fit into the context window.
    pub overflow: Overflow,
    /// How many alternatives to report with each token, beside the chosen one.
    pub top_logprobs: usize,
    /// Asks for the log-probabilities of the prompt's tokens, each with so many alternatives. With `max_tokens: 0` they are
    /// all that is computed. A server gives them as [`Answer::echo`], of prompts that are texts.
    pub prompt_logprobs: Option<usize>,
}

impl Request {
    /// A greedy request without stop strings, with seed 0.
    pub fn new(prompt: Prompt, max_tokens: usize) -> Self {
        Self {
            prompt,
            max_tokens,
            adapter: None,
            sampling: Sampling::GREEDY,
            seed: 0,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            constraint: None,
            overflow: Overflow::Refuse,
            top_logprobs: 0,
            prompt_logprobs: None,
        }
    }

    /// Names this request to an engine of that identity: SHA-256 over both and every field, in hexadecimal. What two requests
    /// of one name are answered is the same.
    pub fn digest(&self, identity: &str) -> String {
        // The debug form holds every field, those of later versions too; a length in front keeps the two parts apart.
        let whole = format!("{}\n{identity}{self:?}", identity.len());
        Sha256::digest(whole.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `count` requests for answers of one prompt (`n` of `OpenAI`). They differ in their seeds alone, and each of these
    /// follows from the request's seed and its place: the first is the request itself, and more answers do not change those
    /// that were there. Given to one call, they share the computation of the prompt.
    pub fn alternatives(&self, count: usize) -> impl Iterator<Item = Self> {
        (0..count).map(|index| Self { seed: alternative_seed(self.seed, index), ..self.clone() })
    }
}

/// The seed of the `index`-th answer of one prompt: the index-th state of `SplitMix64` (Steele, Lea and Flood 2014), mixed;
/// the first answer keeps the seed.
fn alternative_seed(seed: u64, index: usize) -> u64 {
    if index == 0 {
        return seed;
    }
    let mut mixed = seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said that it was done, or a stop string or token was written.
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
    /// The tokens that were written, those of a stop string included, the end-of-generation or stop token not.
    /// Empty from a server.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// One entry for each of `tokens`. From a server only when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// The token at which the answer ended and which is not among `tokens`: of end-of-generation, or one of the request's stop
    /// tokens. Only the native engine tells it.
    pub end: Option<TokenLogprob>,
    /// One entry for each token of the prompt but the first, where [`Request::prompt_logprobs`] asks for them.
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// The prompt's tokens as a server tells them, where [`Request::prompt_logprobs`] asks for them; empty from the native engine.
    pub echo: Vec<Echoed>,
    /// Length of the prompt in tokens, BOS and template included; what was cut not counted. Where a server does not say, an
    /// estimate.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were taken away because it did not fit (see [`Overflow`]).
    pub prompt_tokens_cut: usize,
    /// What a server tells of its tokens; `None` from the native engine, which gives the tokens themselves.
    pub server_usage: Option<ServerUsage>,
}

/// How many tokens a server wrote, and whether it said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerUsage {
    /// Tokens of the answer.
    pub new_tokens: usize,
    /// Whether the server told too little, so that this count or that of the prompt is an estimate: four bytes a token.
    pub estimated: bool,
}

/// A token of a prompt, by its place in the text: servers tell no ids.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Echoed {
    /// Characters of the text before it.
    pub offset: usize,
    /// Its natural log-probability; the first token of a text has none.
    pub logprob: Option<f64>,
    /// Whether no token is likelier in its place.
    pub likeliest: bool,
}

impl Answer {
    /// Tokens that were written: those that are here, or as many as the server tells.
    pub fn new_tokens(&self) -> usize {
        self.server_usage.map_or(self.tokens.len(), |usage| usage.new_tokens)
    }

    /// Whether a server told too little of its tokens, so that a count of them is an estimate.
    pub fn is_estimated(&self) -> bool {
        self.server_usage.is_some_and(|usage| usage.estimated)
    }

    /// The answer to a request for nothing.
    pub(crate) fn empty(prompt_tokens: usize, prompt_tokens_cut: usize) -> Self {
        Self {
            text: String::new(),
            tokens: Vec::new(),
            finish: Finish::Length,
            logprobs: Vec::new(),
            end: None,
            prompt_logprobs: Vec::new(),
            echo: Vec::new(),
            prompt_tokens,
            prompt_tokens_cut,
            server_usage: None,
        }
    }
}

/// What happens to a request that [`crate::Service`] took.
#[derive(Debug)]
pub enum Event {
    /// A token of the answer. Texts of all tokens put together are the text of the answer. A token waits while its text may
    /// still turn out otherwise: where it may begin a stop string, or ends within a character.
    Token {
        /// What it adds to the text; empty where its characters come with a later token.
        text: String,
        /// The token.
        token: TokenLogprob,
    },
    /// The answer is complete. Nothing comes after it.
    Done(Answer),
    /// There is no answer. Nothing comes after it.
    Failed(EngineError),
}

impl Event {
    /// The last event of a request.
    pub(crate) fn of(result: Result<Answer, EngineError>) -> Self {
        match result {
            Ok(answer) => Self::Done(answer),
            Err(error) => Self::Failed(error),
        }
    }
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
    /// Prompts that were cut because they did not fit.
    pub prompts_cut: usize,
    /// Passes over the weights.
    pub steps: usize,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens_logical: self.prompt_tokens_logical + other.prompt_tokens_logical,
            prompt_tokens_computed: self.prompt_tokens_computed + other.prompt_tokens_computed,
            new_tokens: self.new_tokens + other.new_tokens,
            prompts_cut: self.prompts_cut + other.prompts_cut,
            steps: self.steps + other.steps,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_request_is_in_its_digest() {
        let request = Request::new(Prompt::Text("a".into()), 5);
        let others = [
            Request { prompt: Prompt::Text("b".into()), ..request.clone() },
            Request { max_tokens: 6, ..request.clone() },
            Request { seed: 1, ..request.clone() },
            Request { sampling: Sampling::at_temperature(0.5), ..request.clone() },
            Request { constraint: Some(Arc::new(Constraint::JsonObject)), ..request.clone() },
        ];
        let mut digests: Vec<String> = others.iter().map(|other| other.digest("x")).collect();
        digests.extend([request.digest("x"), request.digest("y"), request.digest("")]);
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 8);
    }

    #[test]
    fn alternatives_differ_in_seeds_that_do_not_depend_on_their_number() {
        let request = Request { seed: 7, ..Request::new(Prompt::Text("One day".to_owned()), 5) };
        let three: Vec<Request> = request.alternatives(3).collect();
        assert_eq!(three[0], request);
        assert_eq!(request.alternatives(2).collect::<Vec<_>>(), three[..2]);
        let mut seeds: Vec<u64> =
            (0..50).flat_map(|seed| (0..50).map(move |index| alternative_seed(seed, index))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 2500, "neighbouring seeds have no answers in common");
        assert_eq!(Request { seed: three[1].seed, ..request }, three[1]);
    }
}
