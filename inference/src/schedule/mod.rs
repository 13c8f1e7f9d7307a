//! The scheduler: requests that come in at any time, one stream of full batches.
//!
//! In each step every answer being written contributes one row, and prompts being read fill the batch up to its limit.
//! Sequences join when a place and memory are free and leave when their answer ends. A sequence joins only if the most that it
//! and those before it can still ask for fits in memory, so that none has to be stopped half-way.
//!
//! [`offline`] hands over a list of requests and waits for the answers; [`crate::Service`] keeps the scheduler running on a
//! thread of its own.

mod active;
mod kept;
pub(crate) mod offline;
mod prompt;
mod waiting;

use std::borrow::Cow;
use std::ops::ControlFlow;

use espalier_kernels::parallel;

use crate::cache::{Cache, PageTable};
use crate::error::EngineError;
use crate::forward::{Batch, Workspace, forward};
use crate::native::NativeEngine;
use crate::request::{Answer, Counts, Event, Finish, Request};
use crate::sampling::Working;

use active::{Active, Purpose};
pub(crate) use kept::Keep;
use kept::{Found, Kept};
pub(crate) use prompt::{Prepared, prepare};
use waiting::{Task, Waiting};

/// A request waits for another one's prefix when that saves at least this many rows; for less it computes them itself.
const WORTH_WAITING: usize = 32;

/// The receiver of events; `Break` from a request that is still open cancels it.
pub(crate) type OnEvent<'a, T> = dyn FnMut(&mut T, Event) -> ControlFlow<()> + 'a;

/// How a sequence came to its end.
enum End {
    Answered(Finish),
    Failed(EngineError),
    Cancelled,
}

/// A sequence with what belongs to it.
struct Place<'a, T> {
    /// Names it among all sequences of the scheduler.
    id: u64,
    ticket: T,
    active: Active<'a>,
    end: Option<End>,
}

/// A row of the batch whose logits are read: of which sequence, and what for.
#[derive(Clone, Copy)]
struct Wanted {
    place: usize,
    purpose: Purpose,
}

/// Requests on their way through the model; `T` is what its owner needs to know about each.
pub(crate) struct Scheduler<'a, T> {
    engine: &'a NativeEngine,
    waiting: Waiting<'a, T>,
    /// In the order of admission: prompts are read first come, first served, and neighbours stand side by side.
    places: Vec<Place<'a, T>>,
    /// Requests that ended without a place, not yet reported.
    ended: Vec<(T, Result<Answer, EngineError>)>,
    cache: Cache,
    /// Bytes that keys and values may take.
    cache_limit: usize,
    kept: Kept,
    /// Whether tokens are told as they are chosen.
    streams: bool,
    next_id: u64,
    counts: Counts,
    batch: Batch,
    /// For each row of the batch whose logits are asked for.
    wanted: Vec<Wanted>,
    workspace: Workspace,
}

impl<'a, T> Scheduler<'a, T> {
    /// Without requests. Keys and values of some texts are kept for prompts that begin like them.
    pub(crate) fn new(engine: &'a NativeEngine, keep: Keep, streams: bool) -> Self {
        Self {
            engine,
            waiting: Waiting::new(),
            places: Vec::new(),
            ended: Vec::new(),
            cache: Cache::new(&engine.weights),
            cache_limit: engine.cache_bytes(),
            kept: Kept::new(keep),
            streams,
            next_id: 0,
            counts: Counts::default(),
            batch: Batch::default(),
            wanted: Vec::new(),
            workspace: Workspace::default(),
        }
    }

    /// Takes a request into the queue of a client.
    pub(crate) fn submit(
        &mut self,
        client: u64,
        ticket: T,
        request: Cow<'a, Request>,
        prepared: Result<Prepared, EngineError>,
    ) {
        match prepared {
            Err(error) => self.ended.push((ticket, Err(error))),
            Ok(Prepared { adapter, prompt, cut }) => {
                self.counts.prompts_cut += usize::from(cut > 0);
                if request.max_tokens == 0 && (request.prompt_logprobs.is_none() || prompt.len() < 2) {
                    self.ended.push((ticket, Ok(Answer::empty(prompt.len(), cut))));
                } else {
                    self.waiting.push(client, Task { ticket, request, adapter, prompt, cut });
                }
            }
        }
    }

    /// Whether there is anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.places.is_empty() && self.ended.is_empty() && self.waiting.len() == 0
    }

    /// Requests without a place.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests with a place.
    pub(crate) fn active(&self) -> usize {
        self.places.len()
    }

    /// What was computed so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Memory of the keys and values in use, those kept for later prompts included.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache.used_bytes()
    }

    /// Forgets the requests that nobody waits for any more, without an event.
    pub(crate) fn cancel(&mut self, is_gone: impl Fn(&T) -> bool) {
        self.waiting.forget(&is_gone);
        for place in &mut self.places {
            if is_gone(&place.ticket) {
                place.end = Some(End::Cancelled);
            }
        }
        self.retire(&mut |_, _| ControlFlow::Continue(()));
    }

    /// Gives up everything that is open.
    pub(crate) fn close(&mut self) -> Vec<T> {
        let places = self.places.drain(..).map(|place| place.ticket);
        places.chain(self.ended.drain(..).map(|(ticket, _)| ticket)).chain(self.waiting.drain()).collect()
    }

    /// One pass over the weights, and what it brings.
    pub(crate) fn step(&mut self, on_event: &mut OnEvent<'_, T>) {
        self.compose();
        for (mut ticket, result) in self.ended.drain(..) {
            let _ = on_event(&mut ticket, Event::of(result));
        }
        if self.batch.is_empty() {
            return;
        }
        self.counts.steps += 1;
        let active: Vec<&Active<'_>> = self.places.iter().map(|place| &place.active).collect();
        let (wanted, vocabulary) = (&self.wanted, self.engine.weights.config.vocabulary);
        let mut found = Vec::with_capacity(wanted.len());
        forward(&self.engine.weights, &self.batch, &mut self.cache, &mut self.workspace, &mut |first, logits| {
            found.extend(parallel::map_chunks(logits, vocabulary, |row, logits| {
                let wanted = &wanted[first + row];
                active[wanted.place].read(wanted.purpose, logits, &mut Working::default())
            }));
        });
        for (at, found) in found.into_iter().enumerate() {
            let Wanted { place, purpose } = self.wanted[at];
            let place = &mut self.places[place];
            if place.end.is_some() {
                continue;
            }
            let before = place.active.new_tokens();
            match found.and_then(|found| place.active.take(self.engine, purpose, found)) {
                Ok(finish) => place.end = finish.map(End::Answered),
                Err(error) => place.end = Some(End::Failed(error)),
            }
            self.counts.new_tokens += place.active.new_tokens() - before;
            if self.streams && !matches!(place.end, Some(End::Failed(_))) {
                for (text, token) in place.active.news(place.end.is_some()) {
                    if on_event(&mut place.ticket, Event::Token { text, token }).is_break() {
                        place.end = Some(End::Cancelled);
                        break;
                    }
                }
            }
        }
        self.retire(on_event);
    }

    /// Fills the batch for one step: a row for each answer being written, then prompts, first those of sequences that were
    /// there, then those of sequences that join.
    fn compose(&mut self) {
        self.batch.clear();
        self.wanted.clear();
        self.cache.settle();
        // What is kept must not stand in the way of those that have a place.
        while self.cache.used_bytes() + self.later() > self.cache_limit && self.kept.evict(&mut self.cache, None) {
            self.cache.settle();
        }
        let (mut reading, mut writing): (Vec<usize>, Vec<usize>) =
            (0..self.places.len()).partition(|&at| self.places[at].active.is_reading());
        // Rows of one adapter side by side: a branch is multiplied once for all of them.
        for rows in [&mut reading, &mut writing] {
            rows.sort_by_key(|&at| self.places[at].active.adapter);
        }
        for at in writing.into_iter().chain(reading) {
            self.advance(at);
        }
        while self.batch.len() < self.engine.max_batch_tokens
            && let Some(at) = self.admit()
        {
            self.advance(at);
        }
    }

    /// Adds the rows of one sequence to the batch, as many as there is room for.
    fn advance(&mut self, at: usize) {
        let Place { id, active, .. } = &mut self.places[at];
        let room = self.engine.max_batch_tokens - self.batch.len();
        let start = active.table.length();
        let end = active.known().min(start + room);
        if end == start {
            return;
        }
        let rows: Vec<(u32, Option<Purpose>)> = (start..end).map(|position| active.token(position)).collect();
        let purposes = rows.iter().filter_map(|&(_, purpose)| purpose);
        self.wanted.extend(purposes.map(|purpose| Wanted { place: at, purpose }));
        let rows = rows.into_iter().map(|(token, purpose)| (token, purpose.is_some()));
        self.batch.push(&mut self.cache, &mut active.table, active.adapter, start, start, rows);
        let read = end.min(active.prompt_tokens()).saturating_sub(start);
        self.counts.prompt_tokens_computed += read;
        if read > 0 {
            self.kept.advance(&mut self.cache, *id, &active.table, !active.is_reading());
        }
    }

    /// Gives a place to a request, if there are place and memory for it.
    fn admit(&mut self) -> Option<usize> {
        // Every sequence that writes needs a row in every step.
        if self.places.len() >= self.engine.max_sequences.min(self.engine.max_batch_tokens) {
            return None;
        }
        let (lane, positions, found) = self.next_lane()?;
        let found = self.make_room(positions, found)?;
        let Task { ticket, request, adapter, prompt, cut } = self.waiting.take(lane)?;
        let guide = request.constraint.as_ref().map(|form| self.engine.shelf.guide(self.engine.tokenizer(), form));
        let guide = match guide.transpose() {
            Ok(guide) => guide,
            Err(error) => {
                self.ended.push((ticket, Err(error)));
                return self.admit();
            }
        };
        self.counts.prompt_tokens_logical += prompt.len();
        let table = self.kept.share(&mut self.cache, found);
        self.next_id += 1;
        let id = self.next_id;
        if self.engine.shares_prefixes {
            let table = self.cache.keep(&table);
            self.kept.put(&mut self.cache, Some(id), adapter, prompt.clone(), table);
        }
        self.places.push(Place {
            id,
            ticket,
            active: Active::new(request, adapter, prompt, cut, table, guide),
            end: None,
        });
        Some(self.places.len() - 1)
    }

    /// The first client in turn whose next request need not wait for a prefix that is being read; its positions and what is
    /// kept of its prompt.
    fn next_lane(&self) -> Option<(usize, usize, Found)> {
        self.waiting.heads().enumerate().find_map(|(lane, task)| {
            // Logits behind a shared prefix would be missing.
            let shares = self.engine.shares_prefixes && task.request.prompt_logprobs.is_none();
            let found = if shares { self.kept.find(&self.cache, task.adapter, &task.prompt) } else { Found::default() };
            let positions = task.most_positions(self.engine.context());
            (found.coming < WORTH_WAITING).then_some((lane, positions, found))
        })
    }

    /// Lets go of kept texts until one more sequence of so many positions fits, whatever those that are there still ask for.
    /// Gives what remains of `found`; `None` when the sequence has to wait.
    fn make_room(&mut self, positions: usize, found: Found) -> Option<Found> {
        let step = self.engine.max_batch_tokens;
        let fits = |this: &Self, used: usize, found: Found| {
            used + this.later() + this.cache.needed_bytes(found.positions, positions, step) <= this.cache_limit
        };
        // Pages given back now are free when the batch in preparation has run.
        while !fits(self, self.cache.used_bytes() - self.cache.resting_bytes(), found)
            && self.kept.evict(&mut self.cache, Some(found))
        {}
        if self.batch.is_empty() {
            self.cache.settle();
        }
        if fits(self, self.cache.used_bytes(), found) {
            return Some(found);
        }
        if !self.places.is_empty() {
            return None;
        }
        // Nobody is left to wait for: what is kept for its prefix alone goes too. No batch is in preparation.
        self.kept.clear(&mut self.cache);
        self.cache.settle();
        Some(Found::default())
    }

    /// The most memory that the sequences with a place can still ask for.
    fn later(&self) -> usize {
        let (step, context) = (self.engine.max_batch_tokens, self.engine.context());
        let active = self.places.iter().map(|place| &place.active);
        active.map(|active| self.cache.missing_bytes(&active.table, active.most_positions(context), step)).sum()
    }

    /// Reports the answers that have ended, and gives their places back.
    fn retire(&mut self, on_event: &mut OnEvent<'_, T>) {
        let ended: Vec<Place<'a, T>> = self.places.extract_if(.., |place| place.end.is_some()).collect();
        for Place { id, mut ticket, active, end } in ended {
            self.kept.leave(id);
            let text = self.kept.is_lasting().then(|| (active.adapter, active.computed(), active.prompt_tokens()));
            let (table, event) = match end {
                Some(End::Answered(finish)) => {
                    let (answer, table) = active.into_answer(finish);
                    (table, Some(Event::Done(answer)))
                }
                Some(End::Failed(error)) => (active.table, Some(Event::Failed(error))),
                Some(End::Cancelled) | None => (active.table, None),
            };
            self.put_away(table, text);
            if let Some(event) = event {
                let _ = on_event(&mut ticket, event);
            }
        }
    }

    /// Keeps the text of an answer for a prompt that continues it, or gives its pages back.
    fn put_away(&mut self, table: PageTable, text: Option<(Option<usize>, Vec<u32>, usize)>) {
        match text {
            // Where a window has left the prompt behind, the prompt alone is kept: more requests begin like that.
            Some((adapter, computed, prompt))
                if self.engine.shares_prefixes
                    && self.cache.shareable(&table, prompt.min(computed.len()).saturating_sub(1)) > 0 =>
            {
                self.kept.put(&mut self.cache, None, adapter, computed, table);
            }
            _ => self.cache.release(table),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use espalier_model::Model;

    use super::*;
    use crate::native::EngineOptions;
    use crate::request::Prompt;

    /// Requests that begin like earlier ones and go on for longer than a window, some of them given up on the way.
    #[test]
    fn memory_is_never_exceeded() {
        let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/");
        for name in ["model/stories260K.bin", "architectures/mistral", "architectures/gemma3"] {
            let model = Model::open(format!("{assets}{name}").as_ref()).unwrap();
            let options = EngineOptions { max_batch_tokens: 48, max_sequences: 9, ..EngineOptions::default() };
            let mut engine = NativeEngine::load(&model, None, &options).unwrap();
            engine.ignores_end = true;
            let probe = Cache::new(&engine.weights);
            let (window, vocabulary) = (engine.context().min(200), engine.weights.config.vocabulary as u32);
            engine.cache_bytes = probe.needed_bytes(0, window, 48) * 5 / 2;
            for keep in [Keep::Beginnings, Keep::Texts(40)] {
                let mut scheduler: Scheduler<'_, u32> = Scheduler::new(&engine, keep, false);
                let (mut done, mut most, mut step) = (0, 0, 0_u32);
                while step < 60 || !scheduler.is_idle() {
                    if step < 60 {
                        let (head, length) = (step / 8, 20 + step * 37 % 130);
                        let token = |at| if at < 90 { head * 17 + at * 7 } else { step * 31 + at * 11 } % vocabulary;
                        let prompt: Vec<u32> = (0..length).map(token).collect();
                        let request = Request::new(Prompt::Tokens(prompt), 5 + step as usize % 40);
                        let prepared = prepare(&engine, &request);
                        scheduler.submit(u64::from(step % 3), step, Cow::Owned(request), prepared);
                    }
                    scheduler.cancel(|&ticket| ticket % 7 == 3 && ticket + 10 == step);
                    scheduler.step(&mut |_, event| {
                        assert!(matches!(event, Event::Done(_)), "{name}: {event:?}");
                        done += 1;
                        ControlFlow::Continue(())
                    });
                    most = most.max(scheduler.cache_bytes());
                    assert!(scheduler.cache_bytes() <= engine.cache_bytes, "{name}, step {step}");
                    step += 1;
                    assert!(step < 10_000, "{name}: it never ends");
                }
                assert!(done > 45 && most > engine.cache_bytes / 2, "{name}: {done} answers, {most} bytes");
                scheduler.kept.clear(&mut scheduler.cache);
                scheduler.cache.settle();
                assert_eq!(scheduler.cache_bytes(), 0, "{name}: every page comes back");
            }
        }
    }

    /// Requests that follow from answers come one by one and take turns with their beginnings: each is computed once.
    #[test]
    fn beginnings_that_take_turns_are_computed_once() {
        let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/");
        let model = Model::open(format!("{assets}model/stories260K.bin").as_ref()).unwrap();
        let engine = NativeEngine::load(&model, None, &EngineOptions::default()).unwrap();
        let (length, tail, beginnings, each) = (120, 10, 4, 6);
        let mut scheduler: Scheduler<'_, u32> = Scheduler::new(&engine, Keep::Beginnings, false);
        for number in 0..beginnings * each {
            let token = |at: u32| if at < length { number % beginnings * 31 + at * 7 } else { number * 13 + at } % 500;
            let request = Request::new(Prompt::Tokens((0..length + tail).map(token).collect()), 3);
            let prepared = prepare(&engine, &request);
            scheduler.submit(0, number, Cow::Owned(request), prepared);
            while !scheduler.is_idle() {
                scheduler.step(&mut |_, _| ControlFlow::Continue(()));
            }
        }
        let counts = scheduler.counts();
        assert_eq!(counts.prompt_tokens_logical as u32, beginnings * each * (length + tail));
        assert_eq!(counts.prompt_tokens_computed as u32, beginnings * length + beginnings * each * tail);
    }
}
