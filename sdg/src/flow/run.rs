//! Running flows: an engine is asked for everything that can be asked, and for what follows from its answers while it writes
//! others. A block waits for its own rows alone, not for other blocks or leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use espalier_taxonomy::{Leaf, Seed};

use super::ask::{Asked, FlowEngines, Heard, Replied, Wanted, ask, engine_for};
use super::block::{BlockKind, Surroundings, Work};
use super::cache::ResponseCache;
use super::sample::{Passed, Refused, Rejected, Sample};
use super::{Block, Budget, Flow};
use crate::error::SdgError;
use crate::held_out::HeldOut;

/// A leaf and the flow that makes its rows.
#[derive(Clone, Debug)]
pub struct FlowTask<'a> {
    /// The leaf.
    pub leaf: &'a Leaf,
    /// The flow.
    pub flow: &'a Flow,
    /// The rows that the flow starts from; see [`super::sources`].
    pub sources: Vec<Sample>,
    /// Questions that no row may ask.
    pub held_out: &'a HeldOut,
    /// Seeds of other leaves: their answers are wrong ones in the calibration of a judge.
    pub elsewhere: Vec<&'a Seed>,
}

/// How flows run.
#[derive(Clone, Copy, Debug)]
pub struct FlowOptions<'a> {
    /// Decides all sampling.
    pub seed: u64,
    /// Answers for each row where a block says `scaled`.
    pub scale: usize,
    /// Where a flow does not set its own.
    pub budget: Budget,
    /// Set from outside to stop at the next answer.
    pub stop: &'a AtomicBool,
}

/// What happens while flows run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// Other blocks ask now.
    Asking {
        /// Blocks that wait for answers, with the number of their requests.
        requests: BTreeMap<String, usize>,
    },
    /// An engine answered.
    Answered {
        /// The engine.
        engine: String,
        /// Answers since it was asked.
        done: usize,
        /// Requests since then that were not answered before.
        total: usize,
    },
    /// A block of a leaf is done.
    Block {
        /// The leaf.
        leaf: String,
        /// What it did.
        counts: BlockCounts,
    },
}

/// What a block did for a leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// The block.
    pub block: String,
    /// Rows that it got.
    pub rows_in: usize,
    /// Rows that it gave.
    pub rows_out: usize,
    /// Rows that it dropped, by category.
    pub rejected: BTreeMap<&'static str, usize>,
    /// What it asked.
    pub usage: Usage,
    /// What a person should know of how it went.
    pub notes: Vec<String>,
}

/// What was asked of engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Answers used.
    pub answers: usize,
    /// Those of them that were known: from an earlier run, or to an equal request.
    pub cached: usize,
    /// Tokens of prompts.
    pub prompt_tokens: usize,
    /// Tokens of answers.
    pub answer_tokens: usize,
}

impl Usage {
    fn add(&mut self, replied: &Replied) {
        if let Ok(reply) = replied {
            self.answers += 1;
            self.cached += usize::from(reply.cached);
            self.prompt_tokens += reply.answer.prompt_tokens;
            self.answer_tokens += reply.answer_tokens;
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.cached += other.cached;
        self.prompt_tokens += other.prompt_tokens;
        self.answer_tokens += other.answer_tokens;
    }
}

/// What a flow made of a leaf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowResult {
    /// The leaf.
    pub leaf: String,
    /// The rows, in one order however answers arrived.
    pub kept: Vec<Sample>,
    /// Every row that a block dropped, in the order of the blocks.
    pub rejected: Vec<Rejected>,
    /// Rows that were under way when the budget ended; the same flow goes on with them when it runs again.
    pub unfinished: usize,
    /// What each block did, in the order in which they ran.
    pub blocks: Vec<BlockCounts>,
}

impl FlowResult {
    /// What all its blocks asked.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for block in &self.blocks {
            sum += block.usage;
        }
        sum
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowRun {
    /// One for each task, in their order.
    pub results: Vec<FlowResult>,
    /// Why the run ended before everything was done; `None` when everything was.
    pub budget_ended: Option<String>,
}

/// Runs flows over leaves. The result follows from tasks, options and answers: the order of arrival and interruptions change
/// nothing. After a stop or a kill the same call gets what was answered from the cache.
///
/// # Errors
/// A block whose engine is not there, an engine that fails, a stop from outside.
pub fn run(
    tasks: &[FlowTask<'_>],
    engines: &mut FlowEngines<'_>,
    cache: &mut ResponseCache,
    options: &FlowOptions<'_>,
    on_event: &mut dyn FnMut(FlowEvent),
) -> Result<FlowRun, SdgError> {
    let started = Instant::now();
    let budget = tasks.iter().map(|task| task.flow.budget).fold(options.budget, Budget::smaller);
    let allowed = budget.minutes.and_then(|minutes| Duration::try_from_secs_f64(60.0 * minutes).ok());
    let deadline = allowed.and_then(|allowed| started.checked_add(allowed));
    let states = tasks.iter().map(|task| State::new(task, options)).collect::<Result<Vec<_>, _>>()?;
    let names = engines.keys().cloned().collect();
    let mut running = Running { states, names, budget, started, spent: 0, ended: None, on_event };
    loop {
        let asked = running.begin()?;
        if asked.is_empty() {
            return Ok(running.result());
        }
        for (name, asked) in asked {
            let Some(engine) = engines.get_mut(&name) else { return Err(no_engine(&name)) };
            let complete = ask(engine, asked, cache, options.stop, deadline, &mut |heard| running.hear(&name, heard))?;
            if !complete {
                running.ended = over_budget(budget, running.spent, started);
                return Ok(running.unfinished());
            }
        }
        if running.ended.is_some() {
            return Ok(running.unfinished());
        }
    }
}

/// Tasks under way.
struct Running<'a> {
    states: Vec<State<'a>>,
    /// Engines that are there.
    names: BTreeSet<String>,
    budget: Budget,
    started: Instant,
    /// Tokens of prompts and answers that were not known before.
    spent: usize,
    /// Why nothing more is asked.
    ended: Option<String>,
    on_event: &'a mut dyn FnMut(FlowEvent),
}

impl Running<'_> {
    /// Runs what can run without an answer; gives what can be asked, by engine. Nothing where the budget is spent.
    fn begin(&mut self) -> Result<BTreeMap<String, Vec<Asked<Place>>>, SdgError> {
        let mut asked: BTreeMap<String, Vec<Asked<Place>>> = BTreeMap::new();
        for task in 0..self.states.len() {
            self.states[task].advance(self.on_event)?;
            for name in &self.names {
                let ready = self.states[task].ready(task, name, &self.names)?;
                if !ready.is_empty() {
                    asked.entry(name.clone()).or_default().extend(ready);
                }
            }
        }
        if !asked.is_empty() && self.is_over() {
            asked.clear();
        }
        self.tell(!asked.is_empty());
        Ok(asked)
    }

    /// Takes what is heard of an engine; gives what it is asked next.
    fn hear(&mut self, engine: &str, heard: Heard<Place>) -> Result<Vec<Asked<Place>>, SdgError> {
        let (Place { task, block, number }, replied) = match heard {
            Heard::Reply { place, replied } => (place, *replied),
            Heard::Progress { done, total } => {
                (self.on_event)(FlowEvent::Answered { engine: engine.to_owned(), done, total });
                return Ok(Vec::new());
            }
        };
        self.spent += replied
            .as_ref()
            .map_or(0, |reply| if reply.cached { 0 } else { reply.answer.prompt_tokens + reply.answer_tokens });
        let state = &mut self.states[task];
        if !state.answer(block, number, replied)? || self.ended.is_some() {
            return Ok(Vec::new());
        }
        state.advance(self.on_event)?;
        let mut ready = state.ready(task, engine, &self.names)?;
        if !ready.is_empty() && self.is_over() {
            ready.clear();
        }
        self.tell(!ready.is_empty());
        Ok(ready)
    }

    /// Whether the budget is spent: then nothing more is asked.
    fn is_over(&mut self) -> bool {
        self.ended = over_budget(self.budget, self.spent, self.started);
        self.ended.is_some()
    }

    /// Says which blocks ask, where there are new ones.
    fn tell(&mut self, more: bool) {
        if more {
            let mut requests: BTreeMap<String, usize> = BTreeMap::new();
            for state in &self.states {
                for (&block, open) in &state.open {
                    *requests.entry(state.flow.blocks[block].name.clone()).or_default() += open;
                }
            }
            (self.on_event)(FlowEvent::Asking { requests });
        }
    }

    fn result(self) -> FlowRun {
        if self.ended.is_some() {
            return self.unfinished();
        }
        FlowRun { results: self.states.into_iter().map(State::result).collect(), budget_ended: None }
    }

    fn unfinished(self) -> FlowRun {
        FlowRun { results: self.states.into_iter().map(State::unfinished).collect(), budget_ended: self.ended }
    }
}

fn no_engine(name: &str) -> SdgError {
    SdgError::Config(format!("a block asks the engine `{name}`, which is not there"))
}

/// Where an answer goes: the task, its block, and the number that the block gave the request.
#[derive(Clone, Copy)]
struct Place {
    task: usize,
    block: usize,
    number: usize,
}

/// Why nothing more is to be asked.
fn over_budget(budget: Budget, spent: usize, started: Instant) -> Option<String> {
    if let Some(tokens) = budget.tokens.filter(|tokens| spent >= *tokens) {
        return Some(format!("the budget of {tokens} tokens is spent"));
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    budget.minutes.filter(|most| minutes >= *most).map(|most| format!("the budget of {most} minutes is over"))
}

/// A task under way.
struct State<'a> {
    task: &'a FlowTask<'a>,
    flow: &'a Flow,
    options: &'a FlowOptions<'a>,
    /// Blocks in an order in which each stands after those that it needs.
    order: Vec<usize>,
    /// Blocks before each.
    before: Vec<Vec<usize>>,
    /// How many blocks still want what each gave.
    wanted: Vec<usize>,
    given: Vec<Option<Vec<Sample>>>,
    working: BTreeMap<usize, Work<'a>>,
    /// Requests under way of each block that waits for some.
    open: BTreeMap<usize, usize>,
    /// What blocks refused, and no repair took.
    rejected: Vec<Vec<Rejected>>,
    counts: Vec<Option<BlockCounts>>,
}

impl<'a> State<'a> {
    fn new(task: &'a FlowTask<'a>, options: &'a FlowOptions<'a>) -> Result<Self, SdgError> {
        let flow = task.flow;
        let before = flow.before().map_err(SdgError::Config)?;
        let order = flow.order().map_err(SdgError::Config)?;
        let mut wanted = vec![0; flow.blocks.len()];
        for &block in before.iter().flatten() {
            wanted[block] += 1;
        }
        let blocks = flow.blocks.len();
        Ok(Self {
            task,
            flow,
            options,
            order,
            before,
            wanted,
            given: vec![None; blocks],
            working: BTreeMap::new(),
            open: BTreeMap::new(),
            rejected: vec![Vec::new(); blocks],
            counts: vec![None; blocks],
        })
    }

    /// Runs every block that can run without an answer, and readies those that ask.
    fn advance(&mut self, on_event: &mut dyn FnMut(FlowEvent)) -> Result<(), SdgError> {
        for place in 0..self.order.len() {
            let number = self.order[place];
            if self.open.contains_key(&number) {
                continue;
            }
            if let Some(work) = self.working.get_mut(&number) {
                work.settle()?;
                if work.is_done()
                    && let Some(work) = self.working.remove(&number)
                {
                    if let Some(counts) = &mut self.counts[number] {
                        counts.notes = work.notes();
                    }
                    self.done(number, work.finish(), on_event);
                }
            } else if self.counts[number].is_none() && self.before[number].iter().all(|&block| self.is_done(block)) {
                self.start(number, on_event)?;
            }
        }
        Ok(())
    }

    fn is_done(&self, block: usize) -> bool {
        self.counts[block].is_some() && !self.working.contains_key(&block)
    }

    fn start(&mut self, number: usize, on_event: &mut dyn FnMut(FlowEvent)) -> Result<(), SdgError> {
        let flow: &'a Flow = self.flow;
        let block: &'a Block = &flow.blocks[number];
        let rows = self.rows_for(number);
        let refused = match &block.kind {
            BlockKind::Repair(repair) => flow.number(&repair.of).map(|of| std::mem::take(&mut self.rejected[of])),
            _ => None,
        };
        let refused = refused.unwrap_or_default();
        let rows_in = rows.len() + refused.len();
        self.counts[number] = Some(BlockCounts { block: block.name.clone(), rows_in, ..BlockCounts::default() });
        let task: &'a FlowTask<'a> = self.task;
        let (seed, scale) = (self.options.seed, self.options.scale);
        let around = Surroundings { flow, leaf: task.leaf, elsewhere: &task.elsewhere, seed, scale };
        let work = Work::start(block, rows, refused, around)?;
        if work.is_done() {
            self.done(number, work.finish(), on_event);
        } else {
            self.working.insert(number, work);
        }
        Ok(())
    }

    /// What the blocks before gave. Where several meet, their names go into the ids: a row that came along two ways is two.
    fn rows_for(&mut self, number: usize) -> Vec<Sample> {
        let before = self.before[number].clone();
        if before.is_empty() {
            return self.task.sources.clone();
        }
        let mut rows = Vec::new();
        for &block in &before {
            self.wanted[block] -= 1;
            let given = &mut self.given[block];
            let own = if self.wanted[block] == 0 { given.take() } else { given.clone() }.unwrap_or_default();
            if before.len() == 1 {
                return own;
            }
            let name = &self.flow.blocks[block].name;
            rows.extend(own.into_iter().map(|sample| sample.child(name, 0)));
        }
        rows
    }

    /// What blocks ask an engine that have nothing under way; it is under way from here on.
    fn ready(&mut self, task: usize, engine: &str, names: &BTreeSet<String>) -> Result<Vec<Asked<Place>>, SdgError> {
        let mut asked = Vec::new();
        for (&block, work) in &self.working {
            if self.open.contains_key(&block) {
                continue;
            }
            let wanted = work.engine();
            if engine_for(wanted, |name| names.contains(name)).ok_or_else(|| no_engine(wanted))? != engine {
                continue;
            }
            let may_fail = work.may_fail();
            let before = asked.len();
            asked.extend(work.pending().into_iter().map(|(number, request)| Asked {
                place: Place { task, block, number },
                wanted: Wanted { request, may_fail },
            }));
            if asked.len() > before {
                self.open.insert(block, asked.len() - before);
            }
        }
        Ok(asked)
    }

    /// Takes the reply to a request; says whether it was the last that its block waited for.
    fn answer(&mut self, block: usize, number: usize, replied: Replied) -> Result<bool, SdgError> {
        if let Some(counts) = &mut self.counts[block] {
            counts.usage.add(&replied);
        }
        if let Some(work) = self.working.get_mut(&block) {
            work.answer(number, replied)?;
        }
        let Some(open) = self.open.get_mut(&block) else { return Ok(false) };
        *open -= 1;
        let last = *open == 0;
        if last {
            self.open.remove(&block);
        }
        Ok(last)
    }

    fn done(&mut self, number: usize, passed: Passed, on_event: &mut dyn FnMut(FlowEvent)) {
        let Passed { kept, rejected } = self.flow.blocks[number].tidy(passed);
        if let Some(counts) = &mut self.counts[number] {
            counts.rows_out = kept.len();
            for row in &rejected {
                *counts.rejected.entry(row.category).or_default() += 1;
            }
            on_event(FlowEvent::Block { leaf: self.task.leaf.id.clone(), counts: counts.clone() });
        }
        self.given[number] = Some(kept);
        self.rejected[number].extend(rejected);
    }

    fn result(mut self) -> FlowResult {
        let kept = self.given.iter_mut().filter_map(Option::take).flatten().collect();
        self.account(kept, 0)
    }

    /// What is finished of a task that was not.
    fn unfinished(mut self) -> FlowResult {
        let before = |block: usize| self.before.iter().any(|before| before.contains(&block));
        let ends: Vec<bool> = (0..self.flow.blocks.len()).map(|block| !before(block)).collect();
        let (mut kept, mut under_way) = (Vec::new(), 0);
        for (given, is_end) in self.given.iter_mut().zip(ends) {
            match given.take() {
                Some(rows) if is_end => kept.extend(rows),
                Some(rows) => under_way += rows.len(),
                None => {}
            }
        }
        under_way +=
            self.working.keys().filter_map(|&block| self.counts[block].as_ref()).map(|c| c.rows_in).sum::<usize>();
        self.account(kept, under_way)
    }

    fn account(self, kept: Vec<Sample>, unfinished: usize) -> FlowResult {
        let Self { task, order, mut rejected, mut counts, .. } = self;
        let mut result = FlowResult {
            leaf: task.leaf.id.clone(),
            kept: Vec::new(),
            rejected: order.iter().flat_map(|&block| std::mem::take(&mut rejected[block])).collect(),
            unfinished,
            blocks: order.iter().filter_map(|&block| counts[block].take()).collect(),
        };
        let rows_in = kept.len();
        let Passed { kept, mut rejected } = without_held_out(kept, task.held_out);
        if !rejected.is_empty() {
            let counted = [(HELD_OUT_QUESTION, rejected.len())].into();
            let (block, rows_out) = (HELD_OUT.to_owned(), kept.len());
            result.blocks.push(BlockCounts { block, rows_in, rows_out, rejected: counted, ..BlockCounts::default() });
            result.rejected.append(&mut rejected);
        }
        result.kept = kept;
        result
    }
}

/// The name in the ledger of what stands behind every flow.
const HELD_OUT: &str = "held out";
const HELD_OUT_QUESTION: &str = "held-out question";

/// Takes away rows that ask what a test asks, with the text that they ask it about or without.
fn without_held_out(rows: Vec<Sample>, held_out: &HeldOut) -> Passed {
    Passed::each(rows, HELD_OUT, |sample| {
        let Some((question, _)) = sample.question_and_answer() else { return Ok(()) };
        let contexts = ["context", "document", "raw_document", "seed_context"];
        let contexts = contexts.iter().filter_map(|column| sample.text(column)).map(Some);
        let asks = |context: Option<&str>| held_out.question(context, &question);
        if contexts.chain([None]).any(asks) { Err(Refused::new(HELD_OUT_QUESTION, "")) } else { Ok(()) }
    })
}
