//! Blocks that have a model judge rows.

use espalier_inference::Request;
use espalier_inference::judge::{Calibration, Heard, Judge, JudgeConfig, Judgement, Planted, Policy, Said, calibrate};

use super::Surroundings;
use super::filter::{Condition, Requirement};
use super::planted::{PlantedColumns, planted_samples};
use crate::error::SdgError;
use crate::flow::ask::Replied;
use crate::flow::prompt::FlowPrompt;
use crate::flow::sample::{Passed, Refused, Rejected, Sample};
use crate::identity::number;
use crate::planted::Plant;

/// Keeps rows that a model finds good.
#[derive(Clone, Debug)]
pub(crate) struct JudgeBlock {
    /// The question to the judge. It sees `swapped`, which is true where the second order is shown.
    pub(crate) prompt: FlowPrompt,
    pub(crate) config: JudgeConfig,
    /// Name of the engine.
    pub(crate) engine: String,
    /// Whether rows below the threshold are dropped, or only get their score.
    pub(crate) reject: bool,
    /// Where planted rows are judged first.
    pub(crate) calibrate: Option<PlantedColumns>,
    /// What decides about rows where the judge cannot tell planted ones apart.
    pub(crate) otherwise: Option<Requirement>,
}

/// A judge at work: it learns how its engine answers, shows what it can on planted rows, and judges.
#[derive(Debug)]
pub(crate) struct JudgeWork<'a> {
    block: &'a str,
    judge: &'a JudgeBlock,
    around: Surroundings<'a>,
    rows: Vec<Sample>,
    step: Step<'a>,
}

#[derive(Debug)]
enum Step<'a> {
    Probing(Item),
    Calibrating {
        judge: Box<Judge>,
        plants: Vec<Plant>,
        items: Items,
    },
    Judging {
        judge: Box<Judge>,
        calibration: Option<Box<Calibration>>,
        items: Items,
    },
    /// The judge cannot tell planted rows apart: it is asked no more, and the block's expression decides.
    Replaced {
        judge: Box<Judge>,
        calibration: Box<Calibration>,
        requirement: &'a Requirement,
    },
    /// There is nothing to ask, or the engine cannot judge.
    Over(Option<String>),
}

/// What is asked about one row.
#[derive(Debug)]
struct Item {
    requests: Vec<Request>,
    answers: Vec<Option<Heard>>,
}

impl Item {
    fn of(requests: Vec<Request>) -> Self {
        Self { answers: requests.iter().map(|_| None).collect(), requests }
    }

    fn answered(self) -> Vec<Heard> {
        self.answers.into_iter().flatten().collect()
    }
}

/// What is asked about rows; a row may be refused because its prompt cannot be filled in.
#[derive(Debug)]
struct Items(Vec<Result<Item, Refused>>);

impl Items {
    fn is_answered(&self) -> bool {
        self.0.iter().flatten().flat_map(|item| &item.answers).all(Option::is_some)
    }

    fn pending(&self) -> Vec<(usize, Request)> {
        let all = self.0.iter().flatten().flat_map(|item| item.requests.iter().zip(&item.answers)).enumerate();
        all.filter(|(_, (_, answer))| answer.is_none()).map(|(at, (request, _))| (at, request.clone())).collect()
    }

    fn answer(&mut self, number: usize, answered: Heard) {
        if let Some(place) = self.0.iter_mut().flatten().flat_map(|item| &mut item.answers).nth(number) {
            *place = Some(answered);
        }
    }

    /// What the judge says about each row.
    fn read(self, judge: &Judge) -> impl Iterator<Item = Result<Judgement, Refused>> {
        self.0.into_iter().map(|item| item.map(|item| judge.read(&item.answered())))
    }
}

impl<'a> JudgeWork<'a> {
    pub(crate) fn new(
        block: &'a str,
        judge: &'a JudgeBlock,
        around: Surroundings<'a>,
        rows: Vec<Sample>,
    ) -> Result<Self, SdgError> {
        let step = match Judge::probes(&judge.config) {
            _ if rows.is_empty() => Step::Over(None),
            Ok(requests) => Step::Probing(Item::of(requests)),
            Err(reason) => Step::Over(Some(reason)),
        };
        let mut work = Self { block, judge, around, rows, step };
        work.settle()?;
        Ok(work)
    }

    pub(crate) fn engine(&self) -> &'a str {
        &self.judge.engine
    }

    pub(crate) fn is_done(&self) -> bool {
        match &self.step {
            Step::Probing(_) | Step::Calibrating { .. } => false,
            Step::Judging { items, .. } => items.is_answered(),
            Step::Replaced { .. } | Step::Over(_) => true,
        }
    }

    pub(crate) fn pending(&self) -> Vec<(usize, Request)> {
        match &self.step {
            Step::Probing(Item { requests, answers }) => {
                let all = requests.iter().zip(answers).enumerate();
                all.filter(|(_, (_, answer))| answer.is_none())
                    .map(|(at, (request, _))| (at, request.clone()))
                    .collect()
            }
            Step::Calibrating { items, .. } | Step::Judging { items, .. } => items.pending(),
            Step::Replaced { .. } | Step::Over(_) => Vec::new(),
        }
    }

    /// An engine that cannot do what a probe asks says so, and is asked more plainly.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self.step, Step::Probing(_))
    }

    pub(crate) fn answer(&mut self, number: usize, replied: Replied) {
        let answered = match replied {
            Ok(reply) => Ok(Said::from(reply.answer)),
            Err(refused) => Err(refused.detail),
        };
        match &mut self.step {
            Step::Probing(item) => item.answers[number] = Some(answered),
            Step::Calibrating { items, .. } | Step::Judging { items, .. } => items.answer(number, answered),
            Step::Replaced { .. } | Step::Over(_) => {}
        }
    }

    /// To the next step when everything of this one is answered; numbers of requests hold until then.
    pub(crate) fn settle(&mut self) -> Result<(), SdgError> {
        loop {
            self.step = match std::mem::replace(&mut self.step, Step::Over(None)) {
                Step::Probing(item) if item.answers.iter().all(Option::is_some) => {
                    match Judge::new(&self.judge.config, &item.answered()) {
                        Ok(judge) => self.after_probes(Box::new(judge)),
                        Err(reason) => Step::Over(Some(reason)),
                    }
                }
                Step::Calibrating { judge, plants, items } if items.is_answered() => {
                    self.after_calibration(judge, &plants, items)?
                }
                waiting => {
                    self.step = waiting;
                    return Ok(());
                }
            };
        }
    }

    fn after_probes(&self, judge: Box<Judge>) -> Step<'a> {
        let Some(columns) = &self.judge.calibrate else { return self.judging(judge, None) };
        let planted = planted_samples(columns, self.around.leaf, self.around.elsewhere, self.around.seed);
        let items = Items(planted.iter().map(|(_, sample)| self.item(&judge, sample)).collect());
        Step::Calibrating { judge, plants: planted.into_iter().map(|(plant, _)| plant).collect(), items }
    }

    fn after_calibration(&self, judge: Box<Judge>, plants: &[Plant], items: Items) -> Result<Step<'a>, SdgError> {
        let known = |plant: &Plant| if plant.is_good() { Planted::Good } else { Planted::Bad };
        let scores: Vec<(Planted, Option<f64>)> = plants
            .iter()
            .zip(items.read(&judge))
            .filter_map(|(plant, judgement)| Some((known(plant), judgement.ok()?.score)))
            .collect();
        let found = calibrate(&self.judge.config, &scores);
        if found.policy == Policy::Stop {
            let reason = format!("leaf {}: {}", self.around.leaf.id, found.sentence());
            return Err(SdgError::Block { block: self.block.to_owned(), reason });
        }
        let judge = Box::new(judge.with_threshold(found.threshold));
        if let (true, Some(requirement)) = (self.judge.reject && found.policy != Policy::Reject, &self.judge.otherwise)
        {
            return Ok(Step::Replaced { judge, calibration: Box::new(found), requirement });
        }
        Ok(self.judging(judge, Some(Box::new(found))))
    }

    fn judging(&self, judge: Box<Judge>, calibration: Option<Box<Calibration>>) -> Step<'a> {
        let items = Items(self.rows.iter().map(|sample| self.item(&judge, sample)).collect());
        Step::Judging { judge, calibration, items }
    }

    fn item(&self, judge: &Judge, sample: &Sample) -> Result<Item, Refused> {
        let renderings = (0..judge.orders())
            .map(|order| self.judge.prompt.fill(sample, &[("swapped", (order == 1).into())]))
            .collect::<Result<Vec<_>, _>>()?;
        let seed = number(&[b"judge", &self.around.seed.to_le_bytes(), sample.id.as_bytes(), self.block.as_bytes()]);
        Ok(Item::of(judge.requests(&renderings, seed)))
    }

    /// What a person should know of the judge: how it is read where not as asked for, and what it can.
    pub(crate) fn notes(&self) -> Vec<String> {
        let (judge, calibrated) = match &self.step {
            Step::Judging { judge, calibration, .. } => (judge, calibration.as_ref().map(|found| found.sentence())),
            Step::Replaced { judge, calibration, requirement: Requirement { expression, .. } } => {
                let finding = calibration.finding();
                (judge, Some(format!("{finding}; it is asked no more, rows must satisfy `{expression}` in its place")))
            }
            Step::Probing(_) | Step::Calibrating { .. } | Step::Over(_) => return Vec::new(),
        };
        judge.notes().iter().cloned().chain(calibrated).collect()
    }

    pub(crate) fn finish(self) -> Passed {
        let Self { block, judge: kind, rows, step, .. } = self;
        match step {
            Step::Judging { judge, calibration, items } => {
                let drops = kind.reject && trusted(calibration.as_deref());
                judged(rows, block, items.read(&judge), drops)
            }
            Step::Replaced { requirement, .. } => {
                let condition = Condition::of(requirement);
                Passed::each(rows, block, |sample| condition.check(sample))
            }
            Step::Over(Some(reason)) => Passed::each(rows, block, |_| Err(Refused::new("no rating", reason.clone()))),
            Step::Probing(_) | Step::Calibrating { .. } | Step::Over(None) => {
                Passed { kept: rows, rejected: Vec::new() }
            }
        }
    }
}

/// Rows with their scores; those that the judge finds poor are refused where `drops` says so.
fn judged(
    rows: Vec<Sample>,
    block: &str,
    judgements: impl Iterator<Item = Result<Judgement, Refused>>,
    drops: bool,
) -> Passed {
    let mut passed = Passed::default();
    for (mut sample, judgement) in rows.into_iter().zip(judgements) {
        let refused = match judgement {
            Err(refused) => Some(refused),
            Ok(judgement) => {
                if let Some(score) = judgement.score {
                    sample.scores.push((block.to_owned(), score));
                }
                let category = if judgement.score.is_none() { "no rating" } else { "judged poor" };
                let dropped = drops && !judgement.passed;
                dropped.then(|| Refused { score: judgement.score, ..Refused::new(category, judgement.text) })
            }
        };
        match refused {
            None => passed.kept.push(sample),
            Some(Refused { category, detail, score }) => {
                passed.rejected.push(Rejected { score, ..Rejected::new(sample, block, category, detail) });
            }
        }
    }
    passed
}

/// Whether verdicts count: a judge that cannot tell planted rows apart says nothing about others.
fn trusted(calibration: Option<&Calibration>) -> bool {
    calibration.is_none_or(|found| found.policy == Policy::Reject)
}
