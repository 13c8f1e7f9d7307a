//! A sequence that has a place: a prompt being read, an answer being written.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use crate::cache::PageTable;
use crate::constraint::Guide;
use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::request::{Answer, Finish, Request, TokenLogprob};
use crate::sampling::{Draw, Occurrences, Working, choose, most_probable};
use crate::schedule::waiting::most_positions;
use crate::stop::GrowingText;

/// What the logits of a row are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The next token of the answer.
    Next,
    /// The log-probability of the prompt's token at this position.
    Prompt(usize),
}

/// The tokens and the state of one answer.
pub(crate) struct Active<'a> {
    request: Cow<'a, Request>,
    pub(crate) adapter: Option<usize>,
    prompt: Vec<u32>,
    cut: usize,
    /// Keys and values: those of the prompt's and the answer's tokens that were computed.
    pub(crate) table: PageTable,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    end: Option<TokenLogprob>,
    prompt_logprobs: Vec<TokenLogprob>,
    text: GrowingText,
    /// How many of the tokens were told to the receiver.
    told: usize,
    /// Tokens so far; filled only where the request has a penalty.
    seen: Occurrences,
    /// Locked by the one thread that chooses the token of this sequence.
    guide: Option<Mutex<Guide>>,
}

impl<'a> Active<'a> {
    pub(crate) fn new(
        request: Cow<'a, Request>,
        adapter: Option<usize>,
        prompt: Vec<u32>,
        cut: usize,
        table: PageTable,
        guide: Option<Guide>,
    ) -> Self {
        let seen = if request.sampling.penalizes() { Occurrences::of_prompt(&prompt) } else { Occurrences::default() };
        Self {
            adapter,
            cut,
            table,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            end: None,
            prompt_logprobs: Vec::new(),
            text: GrowingText::new(&request.stop),
            told: 0,
            seen,
            guide: guide.map(Mutex::new),
            prompt,
            request,
        }
    }

    /// Tokens that are known and to be read.
    pub(crate) fn known(&self) -> usize {
        match self.request.max_tokens {
            0 => self.prompt.len() - 1,
            _ => self.prompt.len() + self.tokens.len(),
        }
    }

    /// How many tokens the prompt has.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// How many tokens the answer has.
    pub(crate) fn new_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the prompt has tokens that are still to be read.
    pub(crate) fn is_reading(&self) -> bool {
        self.table.length() < self.prompt.len().min(self.known())
    }

    /// The token at a position, and what the logits behind it are for.
    pub(crate) fn token(&self, position: usize) -> (u32, Option<Purpose>) {
        let token = match self.prompt.get(position) {
            Some(&token) => token,
            None => self.tokens[position - self.prompt.len()],
        };
        let next = position + 1;
        let purpose = if next < self.prompt.len() {
            self.request.prompt_logprobs.map(|_| Purpose::Prompt(next))
        } else {
            (next == self.known()).then_some(Purpose::Next)
        };
        (token, purpose)
    }

    /// The most positions that the sequence will have.
    pub(crate) fn most_positions(&self, context: usize) -> usize {
        most_positions(&self.request, self.prompt.len(), context)
    }

    /// Prompt and answer, as far as their keys and values were computed.
    pub(crate) fn computed(&self) -> Vec<u32> {
        self.prompt.iter().chain(&self.tokens).copied().take(self.table.length()).collect()
    }

    /// What a row of logits says. The error says why the constraint allows no next token.
    pub(crate) fn read(
        &self,
        purpose: Purpose,
        logits: &mut [f32],
        working: &mut Working,
    ) -> Result<TokenLogprob, EngineError> {
        match purpose {
            Purpose::Next => self.choose(logits, working),
            Purpose::Prompt(position) => {
                let token = self.prompt[position];
                let count = self.request.prompt_logprobs.unwrap_or(0);
                let (normalizer, top) = most_probable(logits, count, logits.len());
                Ok(TokenLogprob { token, logprob: logits[token as usize] - normalizer, top })
            }
        }
    }

    fn choose(&self, logits: &mut [f32], working: &mut Working) -> Result<TokenLogprob, EngineError> {
        let guide = self.guide.as_ref().map(|guide| guide.lock().unwrap_or_else(PoisonError::into_inner));
        let mask = guide.map(|mut guide| guide.mask()).transpose()?;
        let draw = Draw {
            sampling: &self.request.sampling,
            seed: self.request.seed,
            token_index: self.tokens.len(),
            seen: self.seen.as_slice(),
            allowed: mask.as_ref().map(|mask| mask.as_slice()),
            top_logprobs: self.request.top_logprobs,
        };
        Ok(choose(logits, &draw, working))
    }

    /// Takes what [`Self::read`] found; says so when the answer has ended.
    pub(crate) fn take(
        &mut self,
        engine: &NativeEngine,
        purpose: Purpose,
        found: TokenLogprob,
    ) -> Result<Option<Finish>, EngineError> {
        match purpose {
            Purpose::Next => self.accept(engine, found),
            Purpose::Prompt(position) => {
                self.prompt_logprobs.push(found);
                let ends = self.request.max_tokens == 0 && position + 1 == self.prompt.len();
                Ok(ends.then_some(Finish::Length))
            }
        }
    }

    fn accept(&mut self, engine: &NativeEngine, chosen: TokenLogprob) -> Result<Option<Finish>, EngineError> {
        let token = chosen.token;
        let ends = !engine.ignores_end && engine.tokenizer().is_end_of_generation(token);
        if ends || self.request.stop_tokens.contains(&token) {
            self.end = Some(chosen);
            return Ok(Some(Finish::Stop));
        }
        self.tokens.push(token);
        self.logprobs.push(chosen);
        if self.request.sampling.penalizes() {
            self.seen.push(token);
        }
        let stopped = self.text.push(engine.tokenizer(), token);
        let complete = match &mut self.guide {
            Some(guide) => guide.get_mut().unwrap_or_else(PoisonError::into_inner).consume(token)?,
            None => false,
        };
        if stopped || complete {
            return Ok(Some(Finish::Stop));
        }
        let full =
            self.tokens.len() >= self.request.max_tokens || self.prompt.len() + self.tokens.len() >= engine.context();
        Ok(full.then_some(Finish::Length))
    }

    /// Tokens that were not told yet, each with its text. While the end of the text may turn out otherwise (a stop string, half
    /// a character), its tokens wait, unless the answer has ended. Of several that were held back, the last has the text.
    pub(crate) fn news(&mut self, ended: bool) -> impl Iterator<Item = (String, TokenLogprob)> {
        let text = self.text.news(ended);
        let fresh = match text {
            Some(_) => &self.logprobs[self.told..],
            None => &[],
        };
        self.told += fresh.len();
        let mut text = text.unwrap_or_default();
        let last = fresh.len().wrapping_sub(1);
        fresh.iter().enumerate().map(move |(at, token)| {
            let text = if at == last { std::mem::take(&mut text) } else { String::new() };
            (text, token.clone())
        })
    }

    /// Its answer, and its pages to be given back.
    pub(crate) fn into_answer(self, finish: Finish) -> (Answer, PageTable) {
        let answer = Answer {
            text: self.text.into_text(),
            tokens: self.tokens,
            finish,
            logprobs: self.logprobs,
            end: self.end,
            prompt_logprobs: self.prompt_logprobs,
            echo: Vec::new(),
            prompt_tokens: self.prompt.len(),
            prompt_tokens_cut: self.cut,
            server_usage: None,
        };
        (answer, self.table)
    }
}
