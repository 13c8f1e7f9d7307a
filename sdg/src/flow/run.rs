//! Running flows: an engine is asked for everything that can be asked, and for what follows from its answers while it writes
//! others. A block waits for its own rows alone, not for other blocks or leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use espalier_taxonomy::{Leaf, Seed};

use super::ask::{Asked, FlowEngines, Heard, Replied, ask};
use super::cache::ResponseCache;
use super::sample::{Rejected, Sample};
use super::task::{Place, State};
use super::{Budget, Flow};
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
    pub(super) fn add(&mut self, replied: &Replied) {
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
            for (block, open) in self.states.iter().flat_map(State::waiting) {
                *requests.entry(block.to_owned()).or_default() += open;
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

pub(super) fn no_engine(name: &str) -> SdgError {
    SdgError::Config(format!("a block asks the engine `{name}`, which is not there"))
}

/// Why nothing more is to be asked.
fn over_budget(budget: Budget, spent: usize, started: Instant) -> Option<String> {
    if let Some(tokens) = budget.tokens.filter(|tokens| spent >= *tokens) {
        return Some(format!("the budget of {tokens} tokens is spent"));
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    budget.minutes.filter(|most| minutes >= *most).map(|most| format!("the budget of {most} minutes is over"))
}
