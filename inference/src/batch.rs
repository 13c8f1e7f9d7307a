//! The offline scheduler: many requests, one stream of full batches.
//!
//! In each step every answer being written contributes one row, and prompts being read fill the batch up to its limit.
//! Sequences join when a place and memory are free and leave when their answer ends. A sequence joins only if the most that it
//! and those before it can still ask for fits in memory, so that none has to be stopped half-way.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::cache::{Cache, PageTable};
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

/// The receiver of answers.
pub(crate) type OnAnswer<'a> = dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()> + 'a;

/// Answers all requests; see [`NativeEngine::generate`].
pub(crate) fn generate(engine: &NativeEngine, requests: &[Request], on_answer: &mut OnAnswer<'_>) -> Counts {
    let context = engine.context();
    let constraints =
        Prepared::new(requests.iter().filter_map(|request| request.constraint.as_deref()), || engine.guides());
    let cache = Cache::new(&engine.weights.config);
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
            let positions = context.min(tokens.len() + request.max_tokens);
            let needed = cache.needed_bytes(0, positions, engine.max_batch_tokens);
            if needed > engine.cache_bytes {
                let available = engine.cache_bytes;
                return Err(EngineError::TooLargeForMemory { tokens: positions, needed, available });
            }
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
    let mut scheduler = Scheduler::new(engine, requests, &constraints, queue, cache);
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
    /// Keys and values: those of the prompt's and the answer's tokens that were computed.
    table: PageTable,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    text: GrowingText,
    /// Tokens so far; filled only where the request has a penalty.
    seen: Occurrences,
    /// Locked by the one thread that chooses the token of this sequence.
    guide: Option<Mutex<Guide>>,
}

impl<'a> Active<'a> {
    fn new(index: usize, request: &'a Request, prompt: Vec<u32>, table: PageTable, guide: Option<Guide>) -> Self {
        let seen = if request.sampling.penalizes() { Occurrences::of_prompt(&prompt) } else { Occurrences::default() };
        Self {
            index,
            request,
            table,
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

    /// Tokens of the prompt that are still to be read.
    fn unread(&self) -> usize {
        self.prompt.len().saturating_sub(self.table.length())
    }

    /// The most positions that the sequence will have.
    fn most_positions(&self, context: usize) -> usize {
        context.min(self.prompt.len() + self.request.max_tokens)
    }

    /// Its answer, and its pages to be given back.
    fn into_answer(self, finish: Result<Finish, EngineError>) -> (Result<Answer, EngineError>, PageTable) {
        let answer = finish.map(|finish| Answer {
            text: self.text.into_text(),
            tokens: self.tokens,
            finish,
            logprobs: self.logprobs,
            prompt_tokens: self.prompt.len(),
            prompt_tokens_cut: 0,
        });
        (answer, self.table)
    }
}

/// The prompt admitted last, which is the source of the next one's prefix.
struct Source {
    prompt: Vec<u32>,
    /// What of it was computed, or will be by the batch in preparation.
    table: PageTable,
    /// Where it is read; `None` once that is done.
    place: Option<usize>,
}

struct Scheduler<'a> {
    engine: &'a NativeEngine,
    requests: &'a [Request],
    constraints: &'a Prepared<'a>,
    queue: std::iter::Peekable<std::vec::IntoIter<(usize, Vec<u32>)>>,
    places: Vec<Option<Active<'a>>>,
    cache: Cache,
    /// Places in the order of admission: prompts are read first come, first served, and neighbours stand side by side.
    admitted: Vec<usize>,
    source: Option<Source>,
    counts: Counts,
}

impl<'a> Scheduler<'a> {
    fn new(
        engine: &'a NativeEngine,
        requests: &'a [Request],
        constraints: &'a Prepared<'a>,
        queue: Vec<(usize, Vec<u32>)>,
        cache: Cache,
    ) -> Self {
        // Every sequence that writes needs a row in every step.
        let most = engine.max_sequences.min(engine.max_batch_tokens).min(queue.len());
        Self {
            engine,
            requests,
            constraints,
            queue: queue.into_iter().peekable(),
            places: (0..most).map(|_| None).collect(),
            cache,
            admitted: Vec::with_capacity(most),
            source: None,
            counts: Counts::default(),
        }
    }

    fn run(&mut self, on_answer: &mut OnAnswer<'_>) -> ControlFlow<()> {
        let mut batch = Batch::default();
        let mut workspace = Workspace::default();
        let mut chosen = Vec::with_capacity(self.places.len());
        let vocabulary = self.engine.weights.config.vocabulary;
        loop {
            let writers = self.compose(&mut batch);
            if batch.is_empty() {
                return ControlFlow::Continue(());
            }
            self.counts.steps += 1;
            let places = &self.places;
            forward(&self.engine.weights, &batch, &mut self.cache, &mut workspace, &mut |first, logits| {
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

    /// Fills the batch for one step: a row for each answer being written, then prompts, first those of sequences that were
    /// there, then those of sequences that join. Gives the places whose next token will be known, in the order of the batch.
    fn compose(&mut self, batch: &mut Batch) -> Vec<usize> {
        batch.clear();
        self.cache.settle();
        let mut writers = Vec::with_capacity(self.admitted.len());
        let admitted = std::mem::take(&mut self.admitted);
        let is_unread = |&place: &usize| self.places[place].as_ref().is_some_and(|active| active.unread() > 0);
        let (reading, writing): (Vec<usize>, Vec<usize>) = admitted.iter().partition(|place| is_unread(place));
        self.admitted = admitted;
        for place in writing.into_iter().chain(reading) {
            self.advance(place, batch, &mut writers);
        }
        while batch.len() < self.engine.max_batch_tokens
            && let Some(place) = self.admit()
        {
            self.advance(place, batch, &mut writers);
        }
        writers
    }

    /// Adds the rows of one sequence to the batch, as many as there is room for.
    fn advance(&mut self, place: usize, batch: &mut Batch, writers: &mut Vec<usize>) {
        let Some(active) = &mut self.places[place] else { return };
        let room = self.engine.max_batch_tokens - batch.len();
        let (start, known) = (active.table.length(), active.prompt.len() + active.tokens.len());
        let end = known.min(start + room);
        if end == start {
            return;
        }
        let token = |position: usize| match active.prompt.get(position) {
            Some(&token) => token,
            None => active.tokens[position - active.prompt.len()],
        };
        let rows = (start..end).map(|position| (token(position), position + 1 == known));
        batch.push(&mut self.cache, &mut active.table, start, start, rows);
        if end == known {
            writers.push(place);
        }
        let read = end.min(active.prompt.len()).saturating_sub(start);
        self.counts.prompt_tokens_computed += read;
        if read > 0
            && let Some(source) = self.source.as_mut().filter(|source| source.place == Some(place))
        {
            let table = std::mem::replace(&mut source.table, self.cache.keep(&active.table));
            self.cache.release(table);
            if active.unread() == 0 {
                source.place = None;
            }
        }
    }

    /// Gives a free place to the next request, if there are place and memory for it.
    fn admit(&mut self) -> Option<usize> {
        let place = self.places.iter().position(Option::is_none)?;
        let (index, prompt) = self.queue.peek()?;
        let request = &self.requests[*index];
        let mut shared = 0;
        if let Some(source) = self.source.as_ref().filter(|_| self.engine.shares_prefixes) {
            // The last token is always computed: its logits start the answer.
            let useful = prefix::common_prefix(&source.prompt, prompt).min(prompt.len() - 1);
            shared = self.cache.shareable(&source.table, useful);
            if source.place.is_some() && useful - shared >= WORTH_WAITING {
                return None;
            }
        }
        let positions = self.engine.context().min(prompt.len() + request.max_tokens);
        if !self.fits(shared, positions) {
            if !self.admitted.is_empty() {
                return None;
            }
            // Nobody is left to wait for: what is kept for its prefix alone goes. No batch is in preparation.
            self.forget_source();
            self.cache.settle();
            shared = 0;
        }
        let table = match &self.source {
            Some(source) if shared > 0 => self.cache.share(&source.table, shared),
            _ => self.cache.table(),
        };
        let (index, prompt) = self.queue.next()?;
        self.counts.prompt_tokens_logical += prompt.len();
        self.forget_source();
        let kept = self.cache.keep(&table);
        self.source = Some(Source { prompt: prompt.clone(), table: kept, place: Some(place) });
        let guide = request.constraint.as_ref().and_then(|constraint| self.constraints.guide(constraint));
        self.places[place] = Some(Active::new(index, request, prompt, table, guide));
        self.admitted.push(place);
        Some(place)
    }

    /// Whether one more sequence of so many positions fits, whatever those that are there still ask for.
    fn fits(&self, shared: usize, positions: usize) -> bool {
        let (step, context) = (self.engine.max_batch_tokens, self.engine.context());
        let active = self.places.iter().flatten();
        let later: usize =
            active.map(|active| self.cache.missing_bytes(&active.table, active.most_positions(context), step)).sum();
        self.cache.used_bytes() + later + self.cache.needed_bytes(shared, positions, step) <= self.engine.cache_bytes
    }

    fn forget_source(&mut self) {
        if let Some(source) = self.source.take() {
            self.cache.release(source.table);
        }
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
        self.counts.new_tokens += active.tokens.len();
        let index = active.index;
        let (answer, table) = active.into_answer(finish);
        self.cache.release(table);
        on_answer(index, answer)
    }
}
