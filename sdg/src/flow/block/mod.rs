//! What blocks do, one file a family.

pub(crate) mod columns;
pub(crate) mod command;
pub(crate) mod filter;
pub(crate) mod judge;
pub(crate) mod llm;
pub(crate) mod parse;
pub(crate) mod planted;
pub(crate) mod repair;
pub(crate) mod split;
pub(crate) mod verify;

use espalier_inference::Request;
use espalier_taxonomy::{Leaf, Seed};

use super::ask::Replied;
use super::sample::{Passed, Rejected, Sample};
use super::{Block, Flow};
use crate::error::SdgError;
use columns::Columns;
use command::Program;
use filter::Filter;
use judge::{JudgeBlock, JudgeWork};
use llm::{Generation, Llm, LlmWork};
use repair::{Repair, RepairWork};
use split::Split;
use verify::{Select, Verify, Vote};

/// What a block does.
#[derive(Clone, Debug)]
pub(crate) enum BlockKind {
    /// A model writes columns.
    Llm(Box<Llm>, Generation),
    /// A model judges rows.
    Judge(Box<JudgeBlock>),
    /// A program of ours checks answers.
    Verify(Verify),
    /// Answers are counted.
    Vote(Vote),
    /// Of answers that belong together the best are kept.
    Select(Select),
    /// A model writes again what another block refused.
    Repair(Box<Repair>),
    /// Rows are kept or dropped by what stands in them.
    Filter(Filter),
    /// Values move between columns and rows.
    Columns(Columns),
    /// A text becomes its pieces.
    Split(Split),
    /// A program of somebody else.
    Command(Program),
    /// Another block, several times over the same rows; what each time gives comes one after another.
    Each { count: usize, block: Box<BlockKind> },
}

impl BlockKind {
    /// The engine that it asks.
    pub(crate) fn engine(&self) -> Option<&str> {
        match self {
            Self::Llm(_, generation) => Some(&generation.engine),
            Self::Judge(judge) => Some(&judge.engine),
            Self::Repair(repair) => Some(&repair.generation.engine),
            Self::Each { block, .. } => block.engine(),
            Self::Verify(_)
            | Self::Vote(_)
            | Self::Select(_)
            | Self::Filter(_)
            | Self::Columns(_)
            | Self::Split(_)
            | Self::Command(_) => None,
        }
    }

    /// Whether it drops rows for a reason that a model can mend.
    pub(crate) fn can_be_repaired(&self) -> bool {
        matches!(self, Self::Judge(_) | Self::Verify(_) | Self::Filter(Filter::Value(_) | Filter::Expression(_)))
    }

    /// Whether it gives each row what it gives it whatever rows stand beside.
    fn is_row_by_row(&self) -> bool {
        match self {
            Self::Llm(..) | Self::Judge(_) | Self::Verify(_) | Self::Split(_) => true,
            Self::Filter(filter) => !matches!(filter, Filter::Unique { .. }),
            Self::Columns(columns) => !matches!(columns, Columns::Flatten { .. } | Columns::Majority { .. }),
            Self::Each { block, .. } => block.is_row_by_row(),
            Self::Vote(_) | Self::Select(_) | Self::Command(_) | Self::Repair(_) => false,
        }
    }
}

/// What a block knows beside its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) flow: &'a Flow,
    pub(crate) leaf: &'a Leaf,
    /// Seeds of other leaves.
    pub(crate) elsewhere: &'a [&'a Seed],
    pub(crate) seed: u64,
    pub(crate) scale: usize,
}

/// A block under way.
#[derive(Debug)]
pub(crate) enum Work<'a> {
    Done(Passed),
    Llm(LlmWork<'a>),
    Judge(JudgeWork<'a>),
    Repair(Box<RepairWork<'a>>),
}

impl<'a> Work<'a> {
    /// Starts a block; `refused` is what a repair is to write again.
    pub(crate) fn start(
        block: &'a Block,
        rows: Vec<Sample>,
        refused: Vec<Rejected>,
        around: Surroundings<'a>,
    ) -> Result<Self, SdgError> {
        if let BlockKind::Repair(repair) = &block.kind
            && let Some(of) = around.flow.number(&repair.of)
        {
            let of = &around.flow.blocks[of];
            let work = RepairWork::new(&block.name, repair, of, around, rows, refused)?;
            return Ok(Self::Repair(Box::new(work)));
        }
        Self::of(&block.name, &block.kind, rows, around)
    }

    pub(crate) fn of(
        name: &'a str,
        kind: &'a BlockKind,
        rows: Vec<Sample>,
        around: Surroundings<'a>,
    ) -> Result<Self, SdgError> {
        Ok(match kind {
            BlockKind::Llm(llm, generation) => {
                let run = (around.seed, around.scale);
                Self::Llm(LlmWork::new(name, llm, generation, run, rows, &|_| Vec::new()))
            }
            BlockKind::Judge(judge) => Self::Judge(JudgeWork::new(name, judge, around, rows)?),
            BlockKind::Verify(verify) => Self::Done(verify.apply(name, rows, around.leaf)?),
            BlockKind::Vote(vote) => Self::Done(vote.apply(name, rows)),
            BlockKind::Select(select) => Self::Done(select.apply(name, rows)),
            BlockKind::Filter(filter) => Self::Done(filter.apply(name, rows)),
            BlockKind::Columns(columns) => Self::Done(columns.apply(name, rows)),
            BlockKind::Split(split) => Self::Done(split.apply(name, rows, around.seed)),
            BlockKind::Command(program) => Self::Done(program.apply(name, rows)?),
            BlockKind::Each { count, block } => return Self::each(name, *count, block, &rows, around),
            BlockKind::Repair(_) => Self::Done(Passed { kept: rows, rejected: Vec::new() }),
        })
    }

    fn each(
        name: &'a str,
        count: usize,
        block: &'a BlockKind,
        rows: &[Sample],
        around: Surroundings<'a>,
    ) -> Result<Self, SdgError> {
        let time = |number: usize| rows.iter().map(move |row| row.child(name, number));
        if block.is_row_by_row() {
            return Self::of(name, block, (0..count).flat_map(time).collect(), around);
        }
        let mut all = Passed::default();
        for number in 0..count {
            if let Self::Done(mut passed) = Self::of(name, block, time(number).collect(), around)? {
                all.kept.append(&mut passed.kept);
                all.rejected.append(&mut passed.rejected);
            }
        }
        Ok(Self::Done(all))
    }

    /// The engine that it asks; of no meaning for one that asks nothing.
    pub(crate) fn engine(&self) -> &str {
        match self {
            Self::Done(_) => "",
            Self::Llm(work) => work.engine(),
            Self::Judge(work) => work.engine(),
            Self::Repair(work) => work.engine(),
        }
    }

    /// Whether an engine that cannot follow what is asked may say so without ending the run.
    pub(crate) fn may_fail(&self) -> bool {
        match self {
            Self::Done(_) | Self::Llm(_) => false,
            Self::Judge(work) => work.may_fail(),
            Self::Repair(work) => work.may_fail(),
        }
    }

    /// What it asks, each with its number.
    pub(crate) fn pending(&self) -> Vec<(usize, Request)> {
        match self {
            Self::Done(_) => Vec::new(),
            Self::Llm(work) => work.pending(),
            Self::Judge(work) => work.pending(),
            Self::Repair(work) => work.pending(),
        }
    }

    pub(crate) fn answer(&mut self, number: usize, replied: Replied) -> Result<(), SdgError> {
        match self {
            Self::Done(_) => {}
            Self::Llm(work) => work.answer(number, replied),
            Self::Judge(work) => work.answer(number, replied),
            Self::Repair(work) => work.answer(number, replied)?,
        }
        Ok(())
    }

    /// Goes on after everything that was asked is answered.
    pub(crate) fn settle(&mut self) -> Result<(), SdgError> {
        match self {
            Self::Judge(work) => work.settle(),
            Self::Repair(work) => work.settle(),
            Self::Done(_) | Self::Llm(_) => Ok(()),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Llm(work) => work.is_done(),
            Self::Judge(work) => work.is_done(),
            Self::Repair(work) => work.is_done(),
        }
    }

    /// What a person should know of how it went.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Self::Judge(work) => work.notes(),
            Self::Done(_) | Self::Llm(_) | Self::Repair(_) => Vec::new(),
        }
    }

    pub(crate) fn finish(self) -> Passed {
        match self {
            Self::Done(passed) => passed,
            Self::Llm(work) => work.finish(),
            Self::Judge(work) => work.finish(),
            Self::Repair(work) => work.finish(),
        }
    }
}
