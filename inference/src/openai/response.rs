//! Answers in the form of the protocol.

use espalier_model::Tokenizer;
use serde_json::{Map, Value, json};

use crate::error::EngineError;
use crate::request::{Answer, Finish, TokenLogprob};

/// What all responses of one model have in common.
#[derive(Clone, Copy)]
pub struct Form<'a> {
    /// The model as it was asked for.
    pub model: &'a str,
    /// What decides every answer beside the request.
    pub fingerprint: &'a str,
    /// The tokenizer, where it is known: without it, log-probabilities name tokens by id alone.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// A prompt that is part of its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Echo {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
}

impl Form<'_> {
    /// A chat completion with all answers to one prompt. It holds no clock, so that the same run writes the same bytes.
    pub fn chat_completion(self, id: &str, answers: &[Answer], logprobs: bool) -> Value {
        let choice = |(index, answer): (usize, &Answer)| {
            let message = json!({"role": "assistant", "content": answer.text, "refusal": null});
            let logprobs = if logprobs { self.chat_logprobs(&answer.logprobs) } else { Value::Null };
            json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason(answer.finish)})
        };
        let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
        json!({"id": id, "object": "chat.completion", "model": self.model, "system_fingerprint": self.fingerprint,
            "choices": choices, "usage": usage(answers, answers.len().max(1))})
    }

    /// A part of a streamed chat completion.
    pub(crate) fn chat_chunk(
        self,
        id: &str,
        index: usize,
        delta: Value,
        logprobs: Value,
        finish: Option<Finish>,
    ) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish.map(reason)});
        json!({"id": id, "object": "chat.completion.chunk", "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": [choice]})
    }

    /// A completion, whole or a part of a streamed one.
    pub(crate) fn completion(self, id: &str, choices: Vec<Value>) -> Value {
        json!({"id": id, "object": "text_completion", "model": self.model, "system_fingerprint": self.fingerprint,
            "choices": choices})
    }

    /// Log-probabilities as chat completions have them.
    pub(crate) fn chat_logprobs(self, tokens: &[TokenLogprob]) -> Value {
        json!({"content": tokens.iter().map(|chosen| self.token(chosen)).collect::<Vec<_>>()})
    }

    fn token(self, chosen: &TokenLogprob) -> Value {
        let named = |token: u32, logprob: f32| {
            let bytes = self.tokenizer.map(|tokenizer| tokenizer.token_bytes(token));
            json!({"token": bytes.map(String::from_utf8_lossy), "bytes": bytes, "logprob": logprob, "id": token})
        };
        let mut entry = named(chosen.token, chosen.logprob);
        entry["top_logprobs"] = chosen.top.iter().map(|&(token, logprob)| named(token, logprob)).collect();
        entry
    }
}

/// Log-probabilities as completions have them: one column for each property of a token.
pub(crate) struct TokenColumns<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<String>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
    /// Characters of the text before the next token.
    characters: usize,
}

impl<'a> TokenColumns<'a> {
    /// No token yet; the first one stands behind so many characters.
    pub(crate) fn new(tokenizer: &'a Tokenizer, characters: usize) -> Self {
        let (tokens, token_logprobs, top_logprobs, text_offset) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { tokenizer, tokens, token_logprobs, top_logprobs, text_offset, characters }
    }

    /// Characters of the text before the next token.
    pub(crate) fn characters(&self) -> usize {
        self.characters
    }

    /// The tokens of a prompt: the first has no log-probability, because nothing stands before it.
    pub(crate) fn echo(&mut self, echo: &Echo, logprobs: &[TokenLogprob]) {
        let written: usize = echo.tokens.iter().map(|&token| self.characters_of(token)).sum();
        let rest = echo.tokens.get(1..).unwrap_or_default().iter();
        if let Some(&first) = echo.tokens.first() {
            self.add(first, Value::Null, Value::Null);
        }
        for (&token, known) in rest.zip(logprobs) {
            self.add(token, json!(known.logprob), self.top(known));
        }
        // What a tokenizer puts in front of a text (BOS, a space) is no part of it.
        let length = echo.text.chars().count();
        let excess = written.saturating_sub(length);
        self.text_offset.iter_mut().for_each(|offset| *offset = offset.saturating_sub(excess));
        self.characters = length;
    }

    /// A token of the answer.
    pub(crate) fn push(&mut self, chosen: &TokenLogprob) {
        self.add(chosen.token, json!(chosen.logprob), self.top(chosen));
    }

    fn add(&mut self, token: u32, logprob: Value, top: Value) {
        self.tokens.push(self.name(token));
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
        self.text_offset.push(self.characters);
        self.characters += self.characters_of(token);
    }

    /// Characters that begin in a token; one may end in the next.
    fn characters_of(&self, token: u32) -> usize {
        self.tokenizer.token_bytes(token).iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
    }

    /// A token's text; where its bytes alone are none, their names.
    fn name(&self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("bytes:{}", bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>()),
        }
    }

    /// The most probable tokens and the chosen one, by their texts.
    fn top(&self, chosen: &TokenLogprob) -> Value {
        if chosen.top.is_empty() {
            return Value::Null;
        }
        let mut map = Map::new();
        for &(token, logprob) in chosen.top.iter().chain([&(chosen.token, chosen.logprob)]) {
            map.entry(self.name(token)).or_insert(json!(logprob));
        }
        Value::Object(map)
    }

    /// The columns as the protocol has them.
    pub(crate) fn into_value(self) -> Value {
        json!({"tokens": self.tokens, "token_logprobs": self.token_logprobs, "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset})
    }
}

/// Tokens of prompts and answers; each prompt has so many answers and is counted once.
pub(crate) fn usage(answers: &[Answer], answers_a_prompt: usize) -> Value {
    let prompts = || answers.iter().step_by(answers_a_prompt);
    let prompt_tokens: usize = prompts().map(|answer| answer.prompt_tokens).sum();
    let new_tokens: usize = answers.iter().map(Answer::new_tokens).sum();
    let mut usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens});
    let cut: usize = prompts().map(|answer| answer.prompt_tokens_cut).sum();
    if cut > 0 {
        usage["prompt_tokens_cut"] = json!(cut);
    }
    if answers.iter().any(Answer::is_estimated) {
        usage["estimated"] = json!(true);
    }
    usage
}

/// Why an answer ended, in the protocol's word.
pub(crate) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// The protocol's word for an error.
pub fn error_code(error: &EngineError) -> &'static str {
    match error {
        EngineError::TextTooLong { .. } => "context_length_exceeded",
        error if error.is_prompt_too_long() => "context_length_exceeded",
        EngineError::GivenUp { .. } | EngineError::Status { .. } => "server_error",
        _ => "invalid_request",
    }
}
