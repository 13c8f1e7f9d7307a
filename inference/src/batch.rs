//! The offline scheduler: many requests, one stream of full batches.
//!
//! In each step every answer being written contributes one row, and prompts being read fill the batch up to its limit.
//! Sequences join when a place is free and leave when their answer ends.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::cache::SequenceCache;
use crate::constraint::{Guide, Prepared};
use crate::error::EngineError;
use crate::forward::{Batch, Workspace, forward};
use crate::native::NativeEngine;
use crate::prefix;
use crate::request::{Answer, Counts, Finish, Request, TokenLogprob};
use crate::sampling::{Draw, Occurrences, Working, choose};
use crate::stop::GrowingText;

/// A request waits for its predecessor's prefix when that saves at least this many rows; for less it computes them itself.
const WORTH_WAITING: usize = 32;

/// Room for keys and values that an answer gets at once, in tokens.
const EXPECTED_ANSWER: usize = 256;

/// The receiver of answers.
pub(crate) type OnAnswer<'a> = dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()> + 'a;

/// Answers all requests; see [`NativeEngine::generate`].
pub(crate) fn generate(engine: &NativeEngine, requests: &[Request], on_answer: &mut OnAnswer<'_>) -> Counts {
    let context = engine.context();
    let constraints =
        Prepared::new(requests.iter().filter_map(|request| request.constraint.as_deref()), || engine.guides());
    let prompts: Vec<Result<(Vec<u32>, usize), EngineError>> = requests
        .par_iter()
        .map(|request| {
            let named =
                request.sampling.logit_bias.iter().map(|&(token, _)| token).chain(request.stop_tokens.iter().copied());
            engine.weights.check_tokens(&named.collect::<Vec<_>>())?;
            if let Some(constraint) = &request.constraint
                && let Some(problem) = constraints.problem(constraint)
            {
                return Err(problem);
            }
            let mut tokens = engine.prompt_tokens(&request.prompt)?;
            let bos = engine.tokenizer().bos();
            let cut = request.overflow.fit(&mut tokens, request.max_tokens, context, bos)?;
            Ok((tokens, cut))
        })
        .collect();
    let cut: Vec<usize> = prompts.iter().map(|prompt| prompt.as_ref().map_or(0, |&(_, cut)| cut)).collect();
    let on_answer = &mut |index: usize, answer: Result<Answer, EngineError>| {
        on_answer(index, answer.map(|answer| Answer { prompt_tokens_cut: cut[index], ..answer }))
    };
    let mut waiting = Vec::with_capacity(requests.len());
    for (index, prompt) in prompts.into_iter().enumerate() {
        let flow = match prompt {
            Err(error) => on_answer(index, Err(error)),
            Ok((prompt, _)) if requests[index].max_tokens == 0 => on_answer(index, Ok(empty_answer(prompt.len()))),
            Ok((prompt, _)) => {
                waiting.push((index, prompt));
                ControlFlow::Continue(())
            }
        };
        if flow.is_break() {
            return Counts::default();
        }
    }
    let order: Vec<usize> = if engine.shares_prefixes {
        let views: Vec<&[u32]> = waiting.iter().map(|(_, prompt)| prompt.as_slice()).collect();
        prefix::order(&views)
    } else {
        (0..waiting.len()).collect()
    };
    let mut waiting: Vec<Option<(usize, Vec<u32>)>> = waiting.into_iter().map(Some).collect();
    let queue = order.into_iter().filter_map(|at| waiting[at].take()).collect();
    let mut scheduler = Scheduler::new(engine, requests, &constraints, queue);
    // A break carries no value: it only says that the receiver has enough.
    let _ = scheduler.run(on_answer);
    Counts { prompts_cut: cut.iter().filter(|&&cut| cut > 0).count(), ..scheduler.counts }
}

fn empty_answer(prompt_tokens: usize) -> Answer {
    Answer {
        text: String::new(),
        tokens: Vec::new(),
        finish: Finish::Length,
        logprobs: Vec::new(),
        prompt_tokens,
        prompt_tokens_cut: 0,
    }
}

/// A sequence that has a place.
struct Active<'a> {
    index: usize,
    request: &'a Request,
    prompt: Vec<u32>,
    /// How many of the prompt's and the answer's tokens are in the cache.
    computed: usize,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    text: GrowingText,
    /// Tokens so far; filled only where the request has a penalty.
    seen: Occurrences,
    /// Locked by the one thread that chooses the token of this sequence.
    guide: Option<Mutex<Guide>>,
}

impl<'a> Active<'a> {
    fn new(index: usize, request: &'a Request, prompt: Vec<u32>, computed: usize, guide: Option<Guide>) -> Self {
        let seen = if request.sampling.penalizes() { Occurrences::of_prompt(&prompt) } else { Occurrences::default() };
        Self {
            index,
            request,
            computed,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            text: GrowingText::new(&request.stop),
            seen,
            guide: guide.map(Mutex::new),
            prompt,
        }
    }

    /// The next token; the error says why the constraint allows none.
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

    /// Takes the chosen token; says so when the answer has ended.
    fn accept(&mut self, engine: &NativeEngine, chosen: TokenLogprob) -> Result<Option<Finish>, EngineError> {
        let token = chosen.token;
        let ends = !engine.ignores_end && engine.tokenizer().is_end_of_generation(token);
        if ends || self.request.stop_tokens.contains(&token) {
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

    fn into_answer(self, finish: Finish) -> Answer {
        Answer {
            text: self.text.into_text(),
            tokens: self.tokens,
            finish,
            logprobs: self.logprobs,
            prompt_tokens: self.prompt.len(),
            prompt_tokens_cut: 0,
        }
    }
}

/// The place whose cache holds the prompt admitted last: the source of the next one's prefix.
struct Source {
    place: usize,
    prompt: Vec<u32>,
    /// Rows in the cache when the sequence left its place; `None` while it is there.
    left_with: Option<usize>,
}

struct Scheduler<'a> {
    engine: &'a NativeEngine,
    requests: &'a [Request],
    constraints: &'a Prepared<'a>,
    queue: std::vec::IntoIter<(usize, Vec<u32>)>,
    next: Option<(usize, Vec<u32>)>,
    /// One place more than sequences at once, so that a source that has ended can keep its cache.
    places: Vec<Option<Active<'a>>>,
    caches: Vec<SequenceCache>,
    /// Places in the order of admission: prompts are read first come, first served.
    admitted: Vec<usize>,
    source: Option<Source>,
    max_active: usize,
    counts: Counts,
}

impl<'a> Scheduler<'a> {
    fn new(
        engine: &'a NativeEngine,
        requests: &'a [Request],
        constraints: &'a Prepared<'a>,
        queue: Vec<(usize, Vec<u32>)>,
    ) -> Self {
        // Every sequence that writes needs a row in every step.
        let max_active = engine.max_sequences.min(engine.max_batch_tokens).min(queue.len());
        let config = &engine.weights.config;
        let mut queue = queue.into_iter();
        let next = queue.next();
        Self {
            engine,
            requests,
            constraints,
            queue,
            next,
            places: (0..=max_active).map(|_| None).collect(),
            caches: (0..=max_active)
                .map(|_| SequenceCache::new(config.layers, config.kv_heads * config.head_dim))
                .collect(),
            admitted: Vec::with_capacity(max_active),
            source: None,
            max_active,
            counts: Counts::default(),
        }
    }

    fn run(&mut self, on_answer: &mut OnAnswer<'_>) -> ControlFlow<()> {
        let mut batch = Batch::default();
        let mut workspace = Workspace::default();
        let mut chosen = Vec::with_capacity(self.max_active);
        let vocabulary = self.engine.weights.config.vocabulary;
        loop {
            self.admit();
            let writers = self.compose(&mut batch);
            if batch.is_empty() {
                return ControlFlow::Continue(());
            }
            self.counts.steps += 1;
            let places = &self.places;
            forward(&self.engine.weights, &batch, &mut self.caches, &mut workspace, &mut |first, logits| {
                let rows = logits.par_chunks_mut(vocabulary).zip(&writers[first..]);
                chosen.par_extend(rows.map_init(Working::default, |working, (logits, &place)| {
                    places[place].as_ref().map(|active| active.choose(logits, working))
                }));
            });
            for (place, chosen) in writers.into_iter().zip(chosen.drain(..)) {
                if let Some(chosen) = chosen {
                    self.take_token(place, chosen, on_answer)?;
                }
            }
        }
    }

    /// Gives free places to waiting requests.
    fn admit(&mut self) {
        while self.admitted.len() < self.max_active
            && let Some((_, prompt)) = &self.next
        {
            let mut shared = 0;
            if let Some(source) = self.source.as_ref().filter(|_| self.engine.shares_prefixes) {
                // The last token is always computed: its logits start the answer.
                let useful = prefix::common_prefix(&source.prompt, prompt).min(prompt.len() - 1);
                let computed =
                    source.left_with.or_else(|| self.places[source.place].as_ref().map(|active| active.computed));
                shared = useful.min(computed.unwrap_or(0));
                if source.left_with.is_none() && useful - shared >= WORTH_WAITING {
                    return;
                }
            }
            let source_place = self.source.as_ref().map(|source| source.place);
            let free = (0..self.places.len()).find(|&at| self.places[at].is_none() && Some(at) != source_place);
            let (Some(place), Some((index, prompt))) = (free, self.next.take()) else {
                return;
            };
            self.next = self.queue.next();
            self.counts.prompt_tokens_logical += prompt.len();
            self.caches[place].clear();
            // A long limit is seldom reached: what lies beyond grows as it comes.
            self.caches[place].reserve(prompt.len() + self.requests[index].max_tokens.min(EXPECTED_ANSWER));
            if let Some(source) = source_place.filter(|_| shared > 0)
                && let Ok([own, source]) = self.caches.get_disjoint_mut([place, source])
            {
                own.share_prefix(source, shared);
            }
            self.source = Some(Source { place, prompt: prompt.clone(), left_with: None });
            let request = &self.requests[index];
            let guide = request.constraint.as_ref().and_then(|constraint| self.constraints.guide(constraint));
            self.places[place] = Some(Active::new(index, request, prompt, shared, guide));
            self.admitted.push(place);
        }
    }

    /// Fills the batch for one step: a row for each answer being written, then prompts. Gives the places whose next token will
    /// be known, in the order of the batch.
    fn compose(&mut self, batch: &mut Batch) -> Vec<usize> {
        batch.clear();
        let reading = |active: &Active<'_>| active.prompt.len().saturating_sub(active.computed);
        let writing = self.places.iter().flatten().filter(|active| reading(active) == 0).count();
        let mut room = self.engine.max_batch_tokens - writing;
        let mut share = vec![1; self.places.len()];
        for &place in &self.admitted {
            if let Some(active) = &self.places[place]
                && reading(active) > 0
            {
                share[place] = reading(active).min(room);
                room -= share[place];
            }
        }
        let mut writers = Vec::with_capacity(self.admitted.len());
        for (place, active) in self.places.iter_mut().enumerate() {
            let Some(active) = active else { continue };
            let known = active.prompt.len() + active.tokens.len();
            let end = active.computed + share[place];
            for position in active.computed..end {
                let token = match active.prompt.get(position) {
                    Some(&token) => token,
                    None => active.tokens[position - active.prompt.len()],
                };
                batch.push(place, position, token, position + 1 == known);
            }
            if end == known {
                writers.push(place);
            }
            self.counts.prompt_tokens_computed += end.min(active.prompt.len()).saturating_sub(active.computed);
            active.computed = end;
        }
        writers
    }

    fn take_token(
        &mut self,
        place: usize,
        chosen: Result<TokenLogprob, EngineError>,
        on_answer: &mut OnAnswer<'_>,
    ) -> ControlFlow<()> {
        let Some(active) = self.places[place].as_mut() else {
            return ControlFlow::Continue(());
        };
        let finish = chosen.and_then(|chosen| active.accept(self.engine, chosen));
        let Some(finish) = finish.transpose() else {
            return ControlFlow::Continue(());
        };
        let Some(active) = self.places[place].take() else {
            return ControlFlow::Continue(());
        };
        self.admitted.retain(|&admitted| admitted != place);
        if let Some(source) = self.source.as_mut().filter(|source| source.place == place) {
            source.left_with = Some(active.computed);
        }
        self.counts.new_tokens += active.tokens.len();
        on_answer(active.index, finish.map(|finish| active.into_answer(finish)))
    }
}
