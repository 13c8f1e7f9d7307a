//! Blocks that have a model judge rows.

use espalier_inference::{Answer, EngineError, Request};

use crate::flow::ask::Replied;
use crate::flow::prompt::FlowPrompt;
use crate::flow::sample::{Passed, Refused, Rejected, Sample};
use crate::identity::number;
use crate::judging::{Judge, JudgeConfig};

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
}

/// A judge at work: first it learns how its engine answers.
#[derive(Debug)]
pub(crate) struct JudgeWork<'a> {
    block: &'a str,
    judge: &'a JudgeBlock,
    seed: u64,
    rows: Vec<Sample>,
    step: Step,
}

type Answered = Result<Answer, EngineError>;

#[derive(Debug)]
enum Step {
    Probing {
        requests: Vec<Request>,
        answers: Vec<Option<Answered>>,
    },
    Judging {
        judge: Box<Judge>,
        items: Vec<Result<Item, Refused>>,
    },
    /// There is nothing to ask, or the engine cannot judge.
    Over(Option<String>),
}

/// A row under judgement.
#[derive(Debug)]
struct Item {
    requests: Vec<Request>,
    answers: Vec<Option<Answered>>,
}

impl Item {
    fn of(requests: Vec<Request>) -> Self {
        Self { answers: requests.iter().map(|_| None).collect(), requests }
    }
}

impl<'a> JudgeWork<'a> {
    pub(crate) fn new(block: &'a str, judge: &'a JudgeBlock, seed: u64, rows: Vec<Sample>) -> Self {
        let step = match Judge::probes(&judge.config) {
            _ if rows.is_empty() => Step::Over(None),
            Ok(requests) => {
                let Item { requests, answers } = Item::of(requests);
                Step::Probing { requests, answers }
            }
            Err(reason) => Step::Over(Some(reason)),
        };
        let mut work = Self { block, judge, seed, rows, step };
        work.go_on();
        work
    }

    pub(crate) fn engine(&self) -> &'a str {
        &self.judge.engine
    }

    pub(crate) fn is_done(&self) -> bool {
        match &self.step {
            Step::Probing { .. } => false,
            Step::Judging { items, .. } => items.iter().flatten().flat_map(|item| &item.answers).all(Option::is_some),
            Step::Over(_) => true,
        }
    }

    pub(crate) fn pending(&self) -> Vec<(usize, Request)> {
        let open = |requests: &[Request], answers: &[Option<Answered>], from: usize| -> Vec<(usize, Request)> {
            let all = requests.iter().zip(answers).enumerate();
            all.filter(|(_, (_, answer))| answer.is_none())
                .map(|(at, (request, _))| (from + at, request.clone()))
                .collect()
        };
        match &self.step {
            Step::Probing { requests, answers } => open(requests, answers, 0),
            Step::Judging { items, .. } => {
                let mut from = 0;
                let mut pending = Vec::new();
                for item in items.iter().flatten() {
                    pending.extend(open(&item.requests, &item.answers, from));
                    from += item.requests.len();
                }
                pending
            }
            Step::Over(_) => Vec::new(),
        }
    }

    /// An engine that cannot do what a probe asks says so, and is asked more plainly.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self.step, Step::Probing { .. })
    }

    pub(crate) fn answer(&mut self, number: usize, replied: Replied) {
        let answered = match replied {
            Ok(reply) => Ok(reply.answer),
            Err(refused) => Err(EngineError::Broken { problem: refused.detail }),
        };
        match &mut self.step {
            Step::Probing { answers, .. } => answers[number] = Some(answered),
            Step::Judging { items, .. } => {
                if let Some(place) = items.iter_mut().flatten().flat_map(|item| &mut item.answers).nth(number) {
                    *place = Some(answered);
                }
            }
            Step::Over(_) => {}
        }
        self.go_on();
    }

    /// From probing to judging when all probes are answered.
    fn go_on(&mut self) {
        let Step::Probing { answers, .. } = &mut self.step else { return };
        if answers.iter().any(Option::is_none) {
            return;
        }
        let answers: Vec<Answered> = std::mem::take(answers).into_iter().flatten().collect();
        self.step = match Judge::new(&self.judge.config, &answers) {
            Ok(judge) => {
                let items = self.rows.iter().map(|sample| self.item(&judge, sample)).collect();
                Step::Judging { judge: Box::new(judge), items }
            }
            Err(reason) => Step::Over(Some(reason)),
        };
    }

    fn item(&self, judge: &Judge, sample: &Sample) -> Result<Item, Refused> {
        let renderings = (0..judge.orders())
            .map(|order| self.judge.prompt.fill(sample, &[("swapped", (order == 1).into())]))
            .collect::<Result<Vec<_>, _>>()?;
        let seed = number(&[b"judge", &self.seed.to_le_bytes(), sample.id.as_bytes(), self.block.as_bytes()]);
        Ok(Item::of(judge.requests(&renderings, seed)))
    }

    pub(crate) fn finish(self) -> Passed {
        let Self { block, judge: kind, rows, step, .. } = self;
        let (judge, items) = match step {
            Step::Judging { judge, items } => (judge, items),
            Step::Probing { .. } | Step::Over(None) => return Passed { kept: rows, rejected: Vec::new() },
            Step::Over(Some(reason)) => {
                return Passed::each(rows, block, |_| Err(Refused::new("no rating", reason.clone())));
            }
        };
        let mut passed = Passed::default();
        for (mut sample, item) in rows.into_iter().zip(items) {
            let refused = match item {
                Err(refused) => Some(refused),
                Ok(item) => {
                    let judgement = judge.read(&item.answers.into_iter().flatten().collect::<Vec<_>>());
                    if let Some(score) = judgement.score {
                        sample.scores.push((block.to_owned(), score));
                    }
                    let category = if judgement.score.is_none() { "no rating" } else { "judged poor" };
                    let dropped = kind.reject && !judgement.passed;
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
}
