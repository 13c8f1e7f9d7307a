//! Rounds of flows over leaves, until each leaf has the rows that it wants.
//!
//! A leaf's sources go into its flow in portions: the first is small and tells the yield, the others are as large as what is
//! missing asks for. So a leaf that wants ten rows does not cost a thousand calls, and one whose rows are refused is topped up.
//! All leaves run side by side, so that an engine sees the requests of all of them at once.
//!
//! The order of sources and the size of each portion follow from the seed and from what came out before, never from time: an
//! interrupted run repeats the same portions and finds their answers in the [`ResponseCache`].

mod rows;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use espalier_dataset::{Row, Verdict};
use espalier_taxonomy::{ChunkSettings, Leaf, Seed, Tree};

use crate::error::SdgError;
use crate::estimate::{Estimate, Probed, estimate};
use crate::flow::{
    Budget, Flow, FlowEngines, FlowEvent, FlowOptions, FlowTask, ResponseCache, Sample, SourceSettings, Usage, run,
    sources,
};
use crate::identity::number;
use rows::RowMaker;

/// A leaf, the flow that makes its rows, and how many it wants.
#[derive(Clone, Copy, Debug)]
pub struct LeafRounds<'a> {
    /// The leaf.
    pub leaf: &'a Leaf,
    /// The flow.
    pub flow: &'a Flow,
    /// Rows wanted.
    pub wanted: usize,
}

/// How rounds run.
#[derive(Clone, Copy)]
pub struct RoundOptions<'a> {
    /// The whole tree: the tests of all its leaves are held out.
    pub tree: &'a Tree,
    /// Decides the order of sources and all sampling.
    pub seed: u64,
    /// How documents are cut.
    pub chunks: &'a ChunkSettings,
    /// Counts the tokens of a text.
    pub count_tokens: &'a dyn Fn(&str) -> usize,
    /// Answers for each row where a block says `scaled`.
    pub scale: usize,
    /// How often each source may be used; another time draws other random numbers.
    pub rounds: usize,
    /// What everything together may cost.
    pub budget: Budget,
    /// Whether to end behind the first portion, which tells what the others will cost.
    pub probe: bool,
    /// Set from outside to stop at the next answer.
    pub stop: &'a AtomicBool,
}

/// Looks at the accepted rows of a leaf so far and refuses some; rows that it refused once stay so.
pub type Review<'a> = &'a mut dyn FnMut(&Leaf, &mut [Row]) -> Result<(), SdgError>;

/// What happens in rounds.
#[derive(Clone, Debug, PartialEq)]
pub enum RoundEvent {
    /// Something in a flow.
    Flow(FlowEvent),
    /// What is still to come, said once behind the first portion where there is more.
    Estimate(Estimate),
    /// A leaf's rows after a round.
    Leaf {
        /// The leaf.
        leaf: String,
        /// Rows accepted.
        accepted: usize,
        /// Rows wanted.
        wanted: usize,
    },
}

/// What came out for a leaf.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafOutcome {
    /// Id of the leaf.
    pub leaf: String,
    /// Its rows, accepted and rejected, in the order in which they were made.
    pub rows: Vec<Row>,
    /// What was asked for it.
    pub usage: Usage,
    /// Why it has fewer rows than it wants; `None` where it has them.
    pub shortfall: Option<String>,
}

/// Everything that came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundsOutcome {
    /// Leaf by leaf, in the order given.
    pub leaves: Vec<LeafOutcome>,
    /// Why the budget ended the run; `None` where it did not.
    pub budget_ended: Option<String>,
    /// What would still be to come, where the run was a probe.
    pub probed: Option<Estimate>,
}

/// Rejected rows without an accepted one after which a leaf is given up: what a teacher gets wrong so often, it gets wrong.
const HOPELESS: usize = 96;

/// Runs flows until every leaf has its rows, its sources are used up, it is hopeless, or the budget ends.
///
/// # Errors
/// What stops an engine, a flow or the review; a stop from outside. What was answered is in the cache.
pub fn run_rounds(
    plans: &[LeafRounds<'_>],
    options: &RoundOptions<'_>,
    engines: &mut FlowEngines<'_>,
    cache: &mut ResponseCache,
    review: Review<'_>,
    on_event: &mut dyn FnMut(RoundEvent),
) -> Result<RoundsOutcome, SdgError> {
    let mut leaves = plans.iter().map(|plan| LeafState::new(*plan, options)).collect::<Result<Vec<_>, _>>()?;
    let mut spent = 0;
    let started = Instant::now();
    let mut budget_ended = None;
    let mut probed = None;
    while budget_ended.is_none() {
        let open: Vec<usize> = (0..leaves.len()).filter(|&leaf| leaves[leaf].ended.is_none()).collect();
        let tasks: Vec<FlowTask<'_>> =
            leaves.iter_mut().filter(|leaf| leaf.ended.is_none()).map(LeafState::next_task).collect();
        if tasks.is_empty() {
            break;
        }
        let left = Budget {
            tokens: options.budget.tokens.map(|tokens| tokens.saturating_sub(spent)),
            minutes: options.budget.minutes.map(|most| (most - minutes(started)).max(0.0)),
        };
        let flow_options = FlowOptions { seed: options.seed, scale: options.scale, budget: left, stop: options.stop };
        let made = run(&tasks, engines, cache, &flow_options, &mut |event| on_event(RoundEvent::Flow(event)))?;
        for (&leaf, result) in open.iter().zip(&made.results) {
            let state = &mut leaves[leaf];
            let usage = result.usage();
            spent += usage.prompt_tokens + usage.answer_tokens;
            state.usage += usage;
            state.take(result)?;
            review(state.plan.leaf, &mut state.rows)?;
            state.decide();
            on_event(RoundEvent::Leaf {
                leaf: state.plan.leaf.id.clone(),
                accepted: state.accepted(),
                wanted: state.plan.wanted,
            });
        }
        // Said of the whole budget, not of what was left of it for this round.
        budget_ended = made.budget_ended.map(|reason| over(options.budget, spent, started).unwrap_or(reason));
        if probed.is_none() && budget_ended.is_none() {
            let found = estimate(&leaves.iter().map(LeafState::probed).collect::<Vec<_>>(), started.elapsed());
            probed = Some(found);
            if options.probe {
                break;
            }
            if found.sources > 0 {
                on_event(RoundEvent::Estimate(found));
            }
        }
    }
    let ended = budget_ended.as_deref().or(options.probe.then_some("this was a probe"));
    let leaves = leaves.into_iter().map(|state| state.outcome(ended)).collect();
    Ok(RoundsOutcome { leaves, budget_ended, probed: probed.filter(|_| options.probe) })
}

fn minutes(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() / 60.0
}

/// What of a budget is used up.
fn over(budget: Budget, spent: usize, started: Instant) -> Option<String> {
    if let Some(tokens) = budget.tokens.filter(|tokens| spent >= *tokens) {
        return Some(format!("the budget of {tokens} tokens is spent"));
    }
    budget.minutes.filter(|most| minutes(started) >= *most).map(|most| format!("the budget of {most} minutes is over"))
}

/// Why a leaf needs no further round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Enough,
    NoSource,
    UsedUp,
    Hopeless,
}

struct LeafState<'a> {
    plan: LeafRounds<'a>,
    maker: RowMaker<'a>,
    /// Seeds of other leaves.
    elsewhere: Vec<&'a Seed>,
    /// All that the leaf gives, in the order drawn by the seed.
    sources: Vec<Sample>,
    rounds: usize,
    /// Sources used, those of further rounds counted again.
    used: usize,
    portion: usize,
    rows: Vec<Row>,
    usage: Usage,
    ended: Option<End>,
}

impl<'a> LeafState<'a> {
    fn new(plan: LeafRounds<'a>, options: &RoundOptions<'a>) -> Result<Self, SdgError> {
        let settings = SourceSettings { chunks: *options.chunks, seed: options.seed, ..SourceSettings::default() };
        let mut sources = sources(options.tree, plan.leaf, &settings, options.count_tokens)?;
        let seed = options.seed.to_le_bytes();
        sources.sort_by_key(|sample| number(&[b"order of sources", &seed, sample.id.as_bytes()]));
        let portion = plan.wanted.div_ceil(8).max(4);
        let others = options.tree.leaves.iter().filter(|leaf| leaf.id != plan.leaf.id);
        let mut state = Self {
            plan,
            maker: RowMaker::new(options.tree, plan.leaf, plan.flow)?,
            elsewhere: others.flat_map(|leaf| &leaf.seeds).collect(),
            rounds: options.rounds.max(1),
            used: 0,
            portion,
            rows: Vec::new(),
            usage: Usage::default(),
            ended: None,
            sources,
        };
        if plan.wanted == 0 {
            state.ended = Some(End::Enough);
        } else if state.sources.is_empty() {
            state.ended = Some(End::NoSource);
        }
        Ok(state)
    }

    fn left(&self) -> usize {
        self.sources.len() * self.rounds - self.used
    }

    /// The next portion of sources. One that comes a second time is another row, with random numbers of its own.
    fn next_task(&mut self) -> FlowTask<'_> {
        let count = self.portion.min(self.left());
        let sources = (self.used..self.used + count)
            .map(|place| {
                let (round, source) = (place / self.sources.len(), &self.sources[place % self.sources.len()]);
                if round == 0 { source.clone() } else { source.child("round", round) }
            })
            .collect();
        self.used += count;
        FlowTask {
            leaf: self.plan.leaf,
            flow: self.plan.flow,
            sources,
            held_out: &self.maker.held_out,
            elsewhere: self.elsewhere.clone(),
        }
    }

    fn take(&mut self, result: &crate::flow::FlowResult) -> Result<(), SdgError> {
        for sample in &result.kept {
            self.rows.push(self.maker.kept(sample)?);
        }
        self.rows.extend(result.rejected.iter().map(|rejected| self.maker.rejected(rejected)));
        Ok(())
    }

    fn accepted(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Accepted).count()
    }

    /// Whether there is another round, and how large.
    fn decide(&mut self) {
        let accepted = self.accepted();
        self.ended = if accepted >= self.plan.wanted {
            Some(End::Enough)
        } else if accepted == 0 && self.rows.len() >= HOPELESS {
            Some(End::Hopeless)
        } else if self.left() == 0 {
            Some(End::UsedUp)
        } else {
            None
        };
        // A tenth more than the yield so far asks for; never more than four times what is known.
        let missing = self.plan.wanted.saturating_sub(accepted);
        let expected = if accepted == 0 { self.used } else { (missing * self.used * 11).div_ceil(accepted * 10) };
        self.portion = expected.clamp(1, 4 * self.used);
    }

    /// What the leaf cost so far, and how many sources its yield asks for beyond them.
    fn probed(&self) -> Probed {
        let accepted = self.accepted();
        let further = match self.ended {
            Some(_) => 0,
            // Without a row, a leaf goes on until it is given up.
            None if accepted == 0 => HOPELESS,
            None => (self.plan.wanted.saturating_sub(accepted) * self.used).div_ceil(accepted),
        };
        let bytes = |row: &Row| serde_json::to_string(row).map_or(0, |text| text.len());
        Probed {
            sources: self.used,
            usage: self.usage,
            kept: accepted,
            bytes: self.rows.iter().map(bytes).sum(),
            further: further.min(self.left()),
        }
    }

    fn outcome(mut self, budget_ended: Option<&str>) -> LeafOutcome {
        for (index, row) in self.rows.iter_mut().enumerate() {
            row.index = index as u64;
        }
        let accepted = self.accepted();
        let shortfall = (accepted < self.plan.wanted).then(|| {
            let why = match (self.ended, budget_ended) {
                (Some(End::NoSource), _) => self.no_source().to_owned(),
                (Some(End::Hopeless), _) => format!("given up: {}", self.refusals()),
                (None, Some(budget)) => budget.to_owned(),
                _ => format!(
                    "{} used {} times gave no more ({})",
                    counted(self.sources.len(), "source"),
                    self.rounds,
                    self.refusals()
                ),
            };
            format!("{accepted} of {} rows: {why}", self.plan.wanted)
        });
        LeafOutcome { leaf: self.plan.leaf.id.clone(), rows: self.rows, usage: self.usage, shortfall }
    }

    fn no_source(&self) -> &'static str {
        if self.plan.leaf.kind == espalier_taxonomy::LeafKind::Knowledge {
            "no document of the leaf is here, so that nothing can be asked about it"
        } else {
            "the leaf has no seed to start from"
        }
    }

    /// The reasons for which rows were rejected, the most frequent first.
    fn refusals(&self) -> String {
        let mut reasons: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.verdict == Verdict::Rejected) {
            *reasons.entry(row.reason_category()).or_default() += 1;
        }
        let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if list.is_empty() { "nothing was written".to_owned() } else { list.join(", ") }
    }
}

fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
