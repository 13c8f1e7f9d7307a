//! Leaves whose rows a flow makes: which flow, whether it can run, its engines, its rounds.

use super::probe::words;
use super::review::Reviewer;
use super::{GenerateStage, StageContext, or_interrupted};
use crate::outcome::Failure;
use crate::servers;
use anyhow::Result;
use espalier_inference::{Engine, Follow, Request};
use espalier_model::{Model, SpecialTokens};
use espalier_sdg::flow::{
    Budget, Flow, FlowEngine, FlowEngines, FlowEvent, FlowSet, JUDGE, ResponseCache, SHIPPED, TEACHER, read_flow,
    read_flows, shipped, source_columns,
};
use espalier_sdg::{LeafRounds, RoundEvent, RoundOptions, RoundsOutcome, run_rounds};
use espalier_taxonomy::{Diagnostic, Leaf, Severity, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The word for the way without a flow: one call a row, the leaf's seeds as the teacher's example.
pub(super) const DIRECT: &str = "direct";

/// File of the answers of engines in the folder of unfinished work.
pub(super) const ANSWERS: &str = "answers.jsonl";

/// Engines that blocks may ask. Where no judge is named, the teacher judges.
const ENGINES: [&str; 2] = [TEACHER, JUDGE];

/// The flows of a tree.
pub(super) struct Flows<'t> {
    /// By the name that a leaf or the configuration gave.
    sets: BTreeMap<String, FlowSet>,
    /// The name for each leaf that has a flow.
    names: Vec<(&'t Leaf, String)>,
}

/// What flows run in.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a GenerateStage,
    pub(super) tree: &'a Tree,
    pub(super) engine: &'a Engine,
    pub(super) judge: Option<&'a Engine>,
    pub(super) model: &'a Model,
    pub(super) context: &'a StageContext<'a>,
    /// Whether only the first portion runs.
    pub(super) probe: bool,
}

impl<'t> Flows<'t> {
    /// Reads and checks the flow of every leaf that has one.
    pub(super) fn of_tree(tree: &'t Tree, config: &GenerateStage) -> Result<Self> {
        let mut flows = Self { sets: BTreeMap::new(), names: Vec::new() };
        let mut findings = Vec::new();
        for leaf in &tree.leaves {
            let name = leaf.flow.as_ref().unwrap_or(&config.flow);
            // Questions of a template are drawn and checked without a flow, unless the leaf wants one.
            if name == DIRECT || (leaf.questions.is_some() && leaf.flow.is_none()) {
                continue;
            }
            if !flows.sets.contains_key(name) {
                flows.sets.insert(name.clone(), find(name, leaf)?);
            }
            let Some(flow) = flows.sets[name].of(leaf.kind) else {
                let kind = leaf.kind.name().replace('_', " ");
                return Err(Failure::usage(format!("the flow {name} has no part for leaf {}, {kind}", leaf.id))
                    .hint("give the leaf another `flow:`, or the flow a file for leaves of this kind")
                    .into());
            };
            findings.extend(flow.check(&source_columns(leaf), &ENGINES));
            flows.names.push((leaf, name.clone()));
        }
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if errors.is_empty() { Ok(flows) } else { Err(refused(&errors).into()) }
    }

    /// The flow of a leaf.
    pub(super) fn of(&self, leaf: &Leaf) -> Option<&Flow> {
        let (_, name) = self.names.iter().find(|(other, _)| other.id == leaf.id)?;
        self.sets[name].of(leaf.kind)
    }

    /// Name and hash of each flow that is used.
    pub(super) fn versions(&self) -> Vec<String> {
        let used = self.names.iter().filter_map(|(leaf, _)| self.of(leaf));
        let names = used.map(|flow| format!("{} {}", flow.name, &flow.hash[..16]));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Runs them all.
    pub(super) fn run(
        &self,
        around: &Surroundings<'_>,
        answers: &Path,
        reviewer: &mut Reviewer<'_>,
    ) -> Result<RoundsOutcome> {
        let Surroundings { config, tree, engine, judge, model, context, probe } = *around;
        if self.names.is_empty() {
            return Ok(RoundsOutcome::default());
        }
        let plans: Vec<LeafRounds<'_>> = self
            .names
            .iter()
            .filter_map(|(leaf, _)| {
                let wanted = leaf.samples.unwrap_or(config.samples);
                self.of(leaf).map(|flow| LeafRounds { leaf, flow, wanted })
            })
            .collect();
        let count = |text: &str| model.tokenizer().encode(text, SpecialTokens::AsText).len();
        let options = RoundOptions {
            tree,
            seed: config.seed,
            chunks: &config.chunks(),
            count_tokens: &count,
            scale: config.scale,
            rounds: config.rounds,
            budget: Budget { tokens: config.budget_tokens, minutes: config.budget_minutes },
            probe,
            stop: context.stop,
        };
        let named: Vec<(&str, &Engine)> =
            [(TEACHER, engine)].into_iter().chain(judge.map(|judge| (JUDGE, judge))).collect();
        let mut asking: Vec<_> = named
            .iter()
            .map(|(_, engine)| {
                |requests: Vec<Request>, follow: &mut Follow<'_>| {
                    engine.generate_following(requests, follow, &mut |event| {
                        servers::report(event, context.stage, context.reporter);
                    })
                }
            })
            .collect();
        let mut engines: FlowEngines<'_> = named
            .iter()
            .zip(&mut asking)
            .map(|((name, engine), answer)| ((*name).to_owned(), FlowEngine::following(engine.identity(), answer)))
            .collect();
        let mut cache = ResponseCache::open(answers)?;
        if !cache.is_empty() {
            context.note(format!("{} answers of an earlier run are there", cache.len()));
        }
        let mut progress = Progress { context, asked: String::new(), said: BTreeSet::new() };
        let made = run_rounds(
            &plans,
            &options,
            &mut engines,
            &mut cache,
            &mut |leaf, rows| reviewer.review(leaf, rows),
            &mut |event| progress.report(event),
        );
        let made = or_interrupted(made)?;
        if let Some(reason) = &made.budget_ended {
            context.warn(format!("{reason}: what was finished is written; with a larger budget the same run goes on"));
        }
        for outcome in made.leaves.iter().filter(|_| !probe) {
            if let Some(shortfall) = &outcome.shortfall {
                context.warn(format!("{}: {shortfall}", outcome.leaf));
            }
        }
        Ok(made)
    }
}

/// The flows of a name: a folder of flows for each kind of leaf, or one file for leaves like this one.
fn find(name: &str, leaf: &Leaf) -> Result<FlowSet> {
    let beside = leaf.file.with_file_name(name);
    let path = [beside, name.into()].into_iter().find(|path| path.exists()).or_else(|| shipped(name));
    let Some(path) = path else {
        let names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
        return Err(Failure::usage(format!("there is no flow {name}"))
            .hint(format!(
                "write `{DIRECT}`, a flow that comes with the program ({}), or the path of a flow's file or folder; docs/flows.md \
                 describes them",
                names.join(", ")
            ))
            .into());
    };
    let is_file = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let read = if is_file { read_flow(&path).map(|flow| FlowSet::one(leaf.kind, flow)) } else { read_flows(&path) };
    read.map_err(|found: Vec<Diagnostic>| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        refused(&lines).into()
    })
}

fn refused(lines: &[String]) -> Failure {
    Failure::usage(format!("the flow cannot run:\n{}", lines.join("\n")))
}

/// Tells people what is asked and how far it is.
struct Progress<'a> {
    context: &'a StageContext<'a>,
    /// What is being asked.
    asked: String,
    /// What was said about blocks.
    said: BTreeSet<String>,
}

impl Progress<'_> {
    fn report(&mut self, event: RoundEvent) {
        match event {
            RoundEvent::Flow(FlowEvent::Asking { requests }) => {
                let blocks: Vec<String> = requests.iter().map(|(block, count)| format!("{block} {count}")).collect();
                self.asked = blocks.join(", ");
            }
            RoundEvent::Flow(FlowEvent::Answered { engine, done, total }) => {
                self.context.progress(&engine, done as u64, total as u64, "answers", self.asked.clone());
            }
            RoundEvent::Flow(FlowEvent::Block { leaf, counts }) => {
                // Every round judges planted rows and finds the same.
                for note in &counts.notes {
                    let said = format!("{leaf}, {}: {note}", counts.block);
                    if self.said.insert(said.clone()) {
                        self.context.note(said);
                    }
                }
                self.context.figures(serde_json::json!({
                    "event": "block", "leaf": leaf, "block": counts.block, "rows_in": counts.rows_in,
                    "rows_out": counts.rows_out, "rejected": counts.rejected, "answers": counts.usage.answers,
                    "prompt_tokens": counts.usage.prompt_tokens, "answer_tokens": counts.usage.answer_tokens,
                }));
            }
            RoundEvent::Estimate(rest) => self.context.note(words(&rest)),
            RoundEvent::Leaf { leaf, accepted, wanted } => {
                self.context.progress(&leaf, accepted.min(wanted) as u64, wanted as u64, "rows", String::new());
            }
        }
    }
}
