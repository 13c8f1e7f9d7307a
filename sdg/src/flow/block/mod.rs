//! What blocks do, one file a family.

pub(crate) mod columns;
pub(crate) mod filter;
pub(crate) mod llm;
pub(crate) mod parse;

use espalier_inference::Request;

use super::Block;
use super::ask::Replied;
use super::sample::{Passed, Sample};
use columns::Columns;
use filter::Filter;
use llm::{Generation, Llm, LlmWork};

/// What a block does.
#[derive(Clone, Debug)]
pub(crate) enum BlockKind {
    /// A model writes columns.
    Llm(Box<Llm>, Generation),
    /// Rows are kept or dropped by what stands in them.
    Filter(Filter),
    /// Values move between columns and rows.
    Columns(Columns),
    /// Another block, several times over the same rows; what each time gives comes one after another.
    Each { count: usize, block: Box<BlockKind> },
}

impl BlockKind {
    /// The engine that it asks.
    pub(crate) fn engine(&self) -> Option<&str> {
        match self {
            Self::Llm(_, generation) => Some(&generation.engine),
            Self::Each { block, .. } => block.engine(),
            Self::Filter(_) | Self::Columns(_) => None,
        }
    }

    /// Whether it gives each row what it gives it whatever rows stand beside.
    fn is_row_by_row(&self) -> bool {
        match self {
            Self::Llm(..) => true,
            Self::Filter(filter) => !matches!(filter, Filter::Unique { .. }),
            Self::Columns(columns) => !matches!(columns, Columns::Flatten { .. } | Columns::Majority { .. }),
            Self::Each { block, .. } => block.is_row_by_row(),
        }
    }
}

/// What a block knows beside its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    pub(crate) seed: u64,
    pub(crate) scale: usize,
}

/// A block under way.
#[derive(Debug)]
pub(crate) enum Work<'a> {
    Done(Passed),
    Llm(LlmWork<'a>),
}

impl<'a> Work<'a> {
    pub(crate) fn start(block: &'a Block, rows: Vec<Sample>, around: Surroundings) -> Self {
        Self::of(&block.name, &block.kind, rows, around)
    }

    fn of(name: &'a str, kind: &'a BlockKind, rows: Vec<Sample>, around: Surroundings) -> Self {
        match kind {
            BlockKind::Llm(llm, generation) => {
                let run = (around.seed, around.scale);
                Self::Llm(LlmWork::new(name, llm, generation, run, rows, &|_| Vec::new()))
            }
            BlockKind::Filter(filter) => Self::Done(filter.apply(name, rows)),
            BlockKind::Columns(columns) => Self::Done(columns.apply(name, rows)),
            BlockKind::Each { count, block } => Self::each(name, *count, block, &rows, around),
        }
    }

    fn each(name: &'a str, count: usize, block: &'a BlockKind, rows: &[Sample], around: Surroundings) -> Self {
        let time = |number: usize| rows.iter().map(move |row| row.child(name, number));
        if block.is_row_by_row() {
            return Self::of(name, block, (0..count).flat_map(time).collect(), around);
        }
        let mut all = Passed::default();
        for number in 0..count {
            if let Self::Done(mut passed) = Self::of(name, block, time(number).collect(), around) {
                all.kept.append(&mut passed.kept);
                all.rejected.append(&mut passed.rejected);
            }
        }
        Self::Done(all)
    }

    /// The engine that it asks; of no meaning for one that asks nothing.
    pub(crate) fn engine(&self) -> &str {
        match self {
            Self::Done(_) => "",
            Self::Llm(work) => work.engine(),
        }
    }

    /// What it asks, each with its number.
    pub(crate) fn pending(&self) -> Vec<(usize, Request)> {
        match self {
            Self::Done(_) => Vec::new(),
            Self::Llm(work) => work.pending(),
        }
    }

    pub(crate) fn answer(&mut self, number: usize, replied: Replied) {
        match self {
            Self::Done(_) => {}
            Self::Llm(work) => work.answer(number, replied),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Llm(work) => work.is_done(),
        }
    }

    pub(crate) fn finish(self) -> Passed {
        match self {
            Self::Done(passed) => passed,
            Self::Llm(work) => work.finish(),
        }
    }
}
