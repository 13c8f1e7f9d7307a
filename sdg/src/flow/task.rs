//! One leaf on its way through its flow: which blocks can run, what they ask, and what they gave.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Asked, Replied, Wanted, engine_for};
use super::block::{BlockKind, Surroundings, Work};
use super::run::{BlockCounts, FlowEvent, FlowOptions, FlowResult, FlowTask, no_engine};
use super::sample::{Passed, Refused, Rejected, Sample};
use super::{Block, Flow};
use crate::error::SdgError;
use crate::held_out::HeldOut;

/// Where an answer goes: the task, its block, and the number that the block gave the request.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) task: usize,
    pub(super) block: usize,
    pub(super) number: usize,
}

/// A task under way.
pub(super) struct State<'a> {
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
    pub(super) fn new(task: &'a FlowTask<'a>, options: &'a FlowOptions<'a>) -> Result<Self, SdgError> {
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
    pub(super) fn advance(&mut self, on_event: &mut dyn FnMut(FlowEvent)) -> Result<(), SdgError> {
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

    /// Blocks that wait for answers, and how many.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&str, usize)> {
        self.open.iter().map(|(&block, &open)| (self.flow.blocks[block].name.as_str(), open))
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
    pub(super) fn ready(
        &mut self,
        task: usize,
        engine: &str,
        names: &BTreeSet<String>,
    ) -> Result<Vec<Asked<Place>>, SdgError> {
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
    pub(super) fn answer(&mut self, block: usize, number: usize, replied: Replied) -> Result<bool, SdgError> {
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

    pub(super) fn result(mut self) -> FlowResult {
        let kept = self.given.iter_mut().filter_map(Option::take).flatten().collect();
        self.account(kept, 0)
    }

    /// What is finished of a task that was not.
    pub(super) fn unfinished(mut self) -> FlowResult {
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
