//! Blocks that have a model write again what another block refused, with its reason.

use espalier_inference::Request;

use super::llm::{Generation, Llm, LlmWork};
use super::{Surroundings, Work};
use crate::error::SdgError;
use crate::flow::Block;
use crate::flow::ask::Replied;
use crate::flow::sample::{Passed, Rejected, Sample};

/// Gives what it gets, and after it the rows that a judge, a check or a filter refused and that pass it when they are written
/// again.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    /// The block that refused.
    pub(crate) of: String,
    /// Writes again; its prompt sees `reason`.
    pub(crate) llm: Llm,
    pub(crate) generation: Generation,
    pub(crate) tries: usize,
}

/// A repair under way.
#[derive(Debug)]
pub(crate) struct RepairWork<'a> {
    block: &'a str,
    repair: &'a Repair,
    of: &'a Block,
    around: Surroundings<'a>,
    tries: usize,
    step: Step<'a>,
    /// What cannot be written again, for the next try.
    refused: Vec<Rejected>,
    passed: Passed,
}

#[derive(Debug)]
enum Step<'a> {
    Writing(LlmWork<'a>),
    Checking(Box<Work<'a>>),
    Over,
}

impl<'a> RepairWork<'a> {
    pub(crate) fn new(
        block: &'a str,
        repair: &'a Repair,
        of: &'a Block,
        around: Surroundings<'a>,
        rows: Vec<Sample>,
        refused: Vec<Rejected>,
    ) -> Result<Self, SdgError> {
        let passed = Passed { kept: rows, rejected: Vec::new() };
        let mut work = Self { block, repair, of, around, tries: 0, step: Step::Over, refused, passed };
        work.next_try();
        work.go_on()?;
        Ok(work)
    }

    fn next_try(&mut self) {
        if self.tries == self.repair.tries || self.refused.is_empty() {
            self.passed.rejected.append(&mut self.refused);
            self.step = Step::Over;
            return;
        }
        let refused = std::mem::take(&mut self.refused);
        let reasons: Vec<String> = refused.iter().map(|row| format!("{}: {}", row.category, row.detail)).collect();
        let rows = refused.into_iter().map(|row| row.sample.child(self.block, self.tries)).collect();
        self.tries += 1;
        let run = (self.around.seed, self.around.scale);
        let own = |row: usize| vec![("reason", reasons[row].clone().into())];
        self.step = Step::Writing(LlmWork::new(self.block, &self.repair.llm, &self.repair.generation, run, rows, &own));
    }

    /// Goes on as far as it can without an answer.
    fn go_on(&mut self) -> Result<(), SdgError> {
        loop {
            match std::mem::replace(&mut self.step, Step::Over) {
                Step::Writing(work) if work.is_done() => {
                    let written = work.finish();
                    self.refused = written.rejected;
                    let check = Work::of(&self.of.name, &self.of.kind, written.kept, self.around)?;
                    self.step = Step::Checking(Box::new(check));
                }
                Step::Checking(work) if work.is_done() => {
                    let mut checked = work.finish();
                    self.passed.kept.append(&mut checked.kept);
                    self.refused.append(&mut checked.rejected);
                    self.next_try();
                    if matches!(self.step, Step::Over) {
                        return Ok(());
                    }
                }
                waiting => {
                    self.step = waiting;
                    return Ok(());
                }
            }
        }
    }

    pub(crate) fn engine(&self) -> &str {
        match &self.step {
            Step::Writing(work) => work.engine(),
            Step::Checking(work) => work.engine(),
            Step::Over => "",
        }
    }

    pub(crate) fn may_fail(&self) -> bool {
        matches!(&self.step, Step::Checking(work) if work.may_fail())
    }

    pub(crate) fn pending(&self) -> Vec<(usize, Request)> {
        match &self.step {
            Step::Writing(work) => work.pending(),
            Step::Checking(work) => work.pending(),
            Step::Over => Vec::new(),
        }
    }

    pub(crate) fn answer(&mut self, number: usize, replied: Replied) -> Result<(), SdgError> {
        match &mut self.step {
            Step::Writing(work) => work.answer(number, replied),
            Step::Checking(work) => work.answer(number, replied)?,
            Step::Over => {}
        }
        Ok(())
    }

    /// To be called when everything pending is answered: numbers of requests hold until then.
    pub(crate) fn settle(&mut self) -> Result<(), SdgError> {
        if let Step::Checking(work) = &mut self.step {
            work.settle()?;
        }
        self.go_on()
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.step, Step::Over)
    }

    pub(crate) fn finish(self) -> Passed {
        self.passed
    }
}
