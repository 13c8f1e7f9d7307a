//! Flows: a graph of typed blocks that makes rows from rows.
//!
//! A flow is read from YAML, `InstructLab`'s pipelines or our own form (docs/flows.md has every block and key), checked with
//! [`Flow::check`] before anything is asked, and run with [`run()`] over the rows that [`sources`] makes of a leaf.
//!
//! # What is promised
//! - Seeds of sampling follow from the run's seed, a row's id, the block and the try; ids follow from the leaf, the source and
//!   the path through the blocks. So the result depends neither on the order of arrival nor on interruptions.
//! - Every row that a block drops is among the rejected ones, with the block and the reason.
//! - What was answered is in the [`ResponseCache`] when a run is killed: the same run goes on from there.

mod ask;
mod block;
mod cache;
mod check;
mod prompt;
mod read;
mod run;
mod sample;
mod shipped;
mod source;
mod task;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use espalier_taxonomy::Place;

pub use ask::{AnswerFollowing, FlowEngine, FlowEngines, JUDGE, TEACHER};
use block::BlockKind;
use block::columns::drop_columns;
use block::filter::unique;
pub use cache::{Kept, ResponseCache};
pub use read::{FlowSet, read_flow, read_flows};
pub use run::{BlockCounts, FlowEvent, FlowOptions, FlowResult, FlowRun, FlowTask, Usage, run};
use sample::Passed;
pub use sample::{Origin, Rejected, Sample, Writing};
pub use shipped::{SHIPPED, ShippedFlow, shipped};
pub use source::{SourceSettings, source_columns, sources};

use crate::identity::{digest, hexadecimal};

/// A graph of blocks.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its name.
    pub name: String,
    /// Its version, as the file has it.
    pub version: String,
    /// The file that it was read from.
    pub file: PathBuf,
    /// The blocks, in the order of the file.
    pub(crate) blocks: Vec<Block>,
    /// Columns that its last blocks must give, each with its place.
    pub(crate) outputs: Vec<(String, Place)>,
    /// What it may cost.
    pub budget: Budget,
    /// `InstructLab`'s `datamixing.auxiliary_instructions`: phrasings of the task that a `dataset_type` is, for mixing.
    pub auxiliary_instructions: BTreeMap<String, Vec<String>>,
    /// Hexadecimal sha256 over the flow's file and all files that it names.
    pub hash: String,
}

/// What a run may cost; `None` is no limit. Where the tokens are reached, what is being asked is the last; where the minutes are
/// over, the answer under way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Tokens of prompts and answers together, kept answers not counted.
    pub tokens: Option<usize>,
    /// Minutes.
    pub minutes: Option<f64>,
}

impl Budget {
    fn smaller(self, other: Self) -> Self {
        let tokens = [self.tokens, other.tokens].into_iter().flatten().min();
        Self { tokens, minutes: [self.minutes, other.minutes].into_iter().flatten().reduce(f64::min) }
    }
}

/// A step of a flow.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) name: String,
    /// The blocks whose rows it gets; `None` is the one before it in the file.
    pub(crate) after: Option<Vec<(String, Place)>>,
    pub(crate) kind: BlockKind,
    /// Columns that are taken away behind it.
    pub(crate) drop_columns: Vec<String>,
    /// Columns by which equal rows are dropped behind it.
    pub(crate) drop_duplicates: Vec<String>,
    /// Where it begins.
    pub(crate) place: Place,
    /// Where its keys' values stand.
    pub(crate) keys: HashMap<String, Place>,
}

impl Block {
    /// What is left after the columns and duplicates that go behind the block.
    fn tidy(&self, passed: Passed) -> Passed {
        let Passed { mut kept, mut rejected } = passed;
        for sample in &mut kept {
            drop_columns(sample, &self.drop_columns);
        }
        if !self.drop_duplicates.is_empty() {
            let mut single = unique(&self.name, kept, &self.drop_duplicates, false);
            kept = single.kept;
            rejected.append(&mut single.rejected);
        }
        Passed { kept, rejected }
    }
}

impl Flow {
    /// The number of a block.
    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.blocks.iter().position(|block| block.name == name)
    }

    /// The blocks before each, by number.
    ///
    /// # Errors
    /// A name that no block has.
    pub(crate) fn before(&self) -> Result<Vec<Vec<usize>>, String> {
        let of = |(index, block): (usize, &Block)| match &block.after {
            None => Ok(index.checked_sub(1).into_iter().collect()),
            Some(names) => names
                .iter()
                .map(|(name, _)| self.number(name).ok_or_else(|| format!("no block is called `{name}`")))
                .collect(),
        };
        self.blocks.iter().enumerate().map(of).collect()
    }

    /// The blocks in an order in which each stands after those before it.
    ///
    /// # Errors
    /// The blocks of a circle.
    pub(crate) fn order(&self) -> Result<Vec<usize>, String> {
        let before = self.before()?;
        let mut order: Vec<usize> = Vec::with_capacity(before.len());
        while order.len() < before.len() {
            let ready = |block: &usize| !order.contains(block) && before[*block].iter().all(|one| order.contains(one));
            let Some(next) = (0..before.len()).find(ready) else {
                let rest = (0..before.len()).filter(|block| !order.contains(block));
                let names: Vec<&str> = rest.map(|block| self.blocks[block].name.as_str()).collect();
                return Err(format!("the blocks {} wait for each other", names.join(", ")));
            };
            order.push(next);
        }
        Ok(order)
    }

    /// The engines that its blocks ask.
    pub fn engines(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.blocks.iter().filter_map(|block| block.kind.engine()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names of its blocks, in the order of the file.
    pub fn block_names(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().map(|block| block.name.as_str())
    }

    /// The digest of its files' texts.
    fn digest<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> String {
        hexadecimal(&digest(&texts.into_iter().collect::<Vec<_>>()))
    }
}
