//! Runs a graph of stages: decides which have to run and says why, runs them in order, and remembers what was done, so
//! that a run killed at any instant goes on and ends with the same bytes.

mod bind;
mod guard;

pub use bind::Bound;
pub use guard::RunGuard;

use crate::content::hash_path;
use crate::events::Event;
use crate::folder::RunFolder;
use crate::graph::{
    Components, LockedStage, PipelineFile, PipelineLock, Place, StageKind, StageSpec, ancestors, differences, order,
};
use crate::models::{ResolvedModel, resolve};
use crate::outcome::{Failure, Interrupted, Status, error_code};
use crate::reporter::Reporter;
use crate::stages::require::refusal;
use crate::stages::{StageConfig, StageOutcome};
use anyhow::{Context, Result};
use espalier_inference::WeightForm;
use espalier_kernels::Precision;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Which stages a person asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Start here: what stands before is taken as it is.
    pub from: Option<String>,
    /// End here.
    pub to: Option<String>,
    /// This stage alone.
    pub only: Option<String>,
    /// Run these even when they are up to date.
    pub force: Vec<String>,
}

/// What will happen to a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changed.
    UpToDate(String),
    /// It runs, for these reasons.
    Run(Vec<String>),
    /// It runs if a stage before it makes something new.
    Depends(Vec<String>),
    /// Outside of what was asked for.
    NotSelected,
}

/// One pipeline in one run folder.
#[derive(Debug)]
pub struct Runner<'a> {
    /// The graph.
    pub file: PipelineFile,
    /// Where results go.
    pub folder: RunFolder,
    /// Where events go.
    pub reporter: &'a Reporter,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Precision of frozen weights.
    pub precision: Precision,
    /// Whether texts may be written with activations of 8 bits.
    pub int8_texts: bool,
    /// Memory that training may take; it goes before that of the file.
    pub memory: Option<espalier_train::Bytes>,
    /// URLs of servers, with commas between them, that generate instead of the native engine.
    pub engine: Option<String>,
    /// Which stages to run.
    pub selection: Selection,
}

/// The models of a run, on this machine.
#[derive(Debug, Clone)]
pub struct Models {
    /// The model that is trained.
    pub student: ResolvedModel,
    /// The model that writes the data.
    pub teacher: ResolvedModel,
    /// Models that stages name, to judge or to make vectors, by what the stages call them.
    pub named: BTreeMap<String, ResolvedModel>,
}

impl Runner<'_> {
    /// The stages in running order.
    pub fn stages(&self) -> Result<Vec<&StageSpec>> {
        let sorted = order(&self.file.stages)
            .map_err(|error| Failure::usage(self.file.refuse(error.place, error.message, error.hint).to_string()))?;
        Ok(sorted.into_iter().map(|index| &self.file.stages[index]).collect())
    }

    /// Finds or fetches both models.
    pub fn models(&self) -> Result<Models> {
        let student = self.model("student", &self.file.student, self.file.student_place)?;
        let teacher = if self.file.teacher == self.file.student {
            student.clone()
        } else {
            self.model("teacher", &self.file.teacher, self.file.teacher_place)?
        };
        let mut named = BTreeMap::new();
        for spec in &self.file.stages {
            let (judge, embedder) = match &spec.config {
                StageConfig::Generate(config) => (config.judge_model(), config.embedder.as_deref()),
                StageConfig::Evaluate(config) => (None, config.embedder.as_deref()),
                _ => continue,
            };
            for (key, reference) in [("judge", judge), ("embedder", embedder)] {
                if let Some(reference) = reference.filter(|reference| !named.contains_key(*reference)) {
                    named.insert(reference.to_owned(), self.model(key, reference, Some(spec.places.key(key)))?);
                }
            }
        }
        Ok(Models { student, teacher, named })
    }

    /// Finds or fetches one of them; trouble is said with its place in the pipeline file.
    fn model(&self, key: &str, reference: &str, place: Option<Place>) -> Result<ResolvedModel> {
        let found = resolve(reference, self.reporter, self.stop);
        match place {
            Some(Place { line, column }) => {
                found.with_context(|| format!("{}:{line}:{column}: `{key}: {reference}`", self.file.path.display()))
            }
            None => found,
        }
    }

    /// Decides for every stage, without running any.
    pub fn plan(&self, models: &Models) -> Result<Vec<(&StageSpec, Decision)>> {
        let lock = PipelineLock::read(&self.folder.lock())?;
        let selected = self.selected()?;
        let mut planned: Vec<(&StageSpec, Decision)> = Vec::new();
        for stage in self.stages()? {
            let waits: Vec<String> = ancestors(&self.file.stages, stage)
                .iter()
                .filter(|above| {
                    planned.iter().any(|(other, decision)| {
                        other.name == above.name && matches!(decision, Decision::Run(_) | Decision::Depends(_))
                    })
                })
                .map(|above| above.name.clone())
                .collect();
            let decision = if !selected.contains(&stage.name.as_str()) {
                Decision::NotSelected
            } else if waits.is_empty() {
                self.decide(stage, models, &lock)?
            } else if !lock.stages.contains_key(&stage.name) {
                Decision::Run(vec![self.bind(stage).unfinished()])
            } else {
                Decision::Depends(waits)
            };
            planned.push((stage, decision));
        }
        Ok(planned)
    }

    /// Runs what has to be run.
    pub fn execute(&self) -> Result<Status> {
        let stages = self.stages()?;
        let selected = self.selected()?;
        for stage in &stages {
            self.bind(stage).check()?;
        }
        std::fs::create_dir_all(self.folder.root())
            .with_context(|| format!("cannot create the run folder {}", self.folder.root().display()))?;
        let _guard = RunGuard::take(&self.folder)?;
        self.reporter.log_to(&self.folder.event_log()).context("cannot open the run's log")?;
        let models = match self.models() {
            Err(error) if error_code(&error) == 130 => return Ok(Status::Interrupted),
            models => models?,
        };
        let mut refused: Option<(&StageSpec, String)> = None;
        for stage in stages.into_iter().filter(|stage| selected.contains(&stage.name.as_str())) {
            // Nothing is built on what a gate refused; the report says what was found.
            let below = |(gate, _): &(&StageSpec, String)| {
                ancestors(&self.file.stages, stage).iter().any(|above| above.name == gate.name)
            };
            if stage.kind != StageKind::Report && refused.as_ref().is_some_and(below) {
                continue;
            }
            match self.execute_stage(stage, &models) {
                Ok(None) => {}
                Ok(Some(reason)) => refused = refused.or(Some((stage, reason))),
                Err(error) if error.chain().any(<dyn std::error::Error + 'static>::is::<Interrupted>) => {
                    self.reporter.send(&Event::Note {
                        stage: stage.name.clone(),
                        message: "interrupted; the same command goes on from here".into(),
                    });
                    return Ok(Status::Interrupted);
                }
                Err(error) => return Err(error.context(format!("stage `{}` failed", stage.name))),
            }
        }
        match refused {
            Some((stage, reason)) => {
                Err(anyhow::Error::from(refusal(reason)).context(format!("stage `{}` failed", stage.name)))
            }
            None => Ok(Status::Done),
        }
    }

    /// Runs the stage if it has to; why its gate refuses the result, now or when it last ran.
    fn execute_stage(&self, stage: &StageSpec, models: &Models) -> Result<Option<String>> {
        let mut lock = PipelineLock::read(&self.folder.lock())?;
        let reasons = match self.decide(stage, models, &lock)? {
            Decision::Run(reasons) => reasons,
            Decision::UpToDate(reason) => {
                self.reporter.send(&Event::StageSkipped { stage: stage.name.clone(), reason });
                return Ok(lock.stages.remove(&stage.name).and_then(|locked| locked.refused));
            }
            Decision::Depends(_) | Decision::NotSelected => return Ok(None),
        };
        self.reporter.send(&Event::StageStarted { stage: stage.name.clone(), reasons });
        let started = Instant::now();
        let bound = self.bind(stage);
        let from = bound.components(models, &lock)?;
        // The old entry goes first: a kill from here on leaves a stage that has to run, never one that looks done.
        if lock.stages.remove(&stage.name).is_some() {
            lock.write(&self.folder.lock())?;
        }
        if self.forced(stage) {
            bound.discard()?;
        }
        let StageOutcome { summary, refused } = bound.execute(models, &from)?;
        let outputs = self.hash_outputs(&bound.outputs())?;
        let done = LockedStage { from, outputs, summary: summary.clone(), refused: refused.clone() };
        lock.stages.insert(stage.name.clone(), done);
        lock.write(&self.folder.lock())?;
        bound.clean();
        let seconds = started.elapsed().as_secs_f64();
        self.reporter.send(&Event::StageFinished { stage: stage.name.clone(), seconds, summary });
        Ok(refused)
    }

    fn decide(&self, stage: &StageSpec, models: &Models, lock: &PipelineLock) -> Result<Decision> {
        if self.forced(stage) {
            return Ok(Decision::Run(vec!["--force".into()]));
        }
        let bound = self.bind(stage);
        let now = bound.components(models, lock)?;
        let Some(locked) = lock.stages.get(&stage.name) else {
            return Ok(Decision::Run(vec![bound.unfinished()]));
        };
        let reasons = differences(&locked.from, &now);
        if !reasons.is_empty() {
            return Ok(Decision::Run(reasons));
        }
        for (output, hash) in &locked.outputs {
            let path = self.folder.root().join(output);
            if !path.exists() {
                return Ok(Decision::Run(vec![format!("{output} is missing")]));
            }
            if hash_path(&path)? != *hash {
                return Ok(Decision::Run(vec![format!("{output} was changed by hand")]));
            }
        }
        Ok(Decision::UpToDate(format!("inputs, configuration and outputs are unchanged ({})", locked.summary)))
    }

    fn forced(&self, stage: &StageSpec) -> bool {
        self.selection.force.iter().any(|name| name == &stage.name)
    }

    fn hash_outputs(&self, outputs: &[PathBuf]) -> Result<BTreeMap<String, String>> {
        outputs.iter().map(|path| Ok((self.folder.relative(path), hash_path(path)?))).collect()
    }

    fn selected(&self) -> Result<Vec<&str>> {
        let stages = self.stages()?;
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        let find = |wanted: &String| {
            names.iter().position(|name| name == wanted).ok_or_else(|| {
                Failure::usage(format!("there is no stage `{wanted}`"))
                    .hint(format!("stages here: {}", names.join(", ")))
            })
        };
        for name in &self.selection.force {
            find(name)?;
        }
        if let Some(only) = &self.selection.only {
            return Ok(vec![names[find(only)?]]);
        }
        let first = self.selection.from.as_ref().map_or(Ok(0), find)?;
        let last = self.selection.to.as_ref().map_or(Ok(names.len().saturating_sub(1)), find)?;
        Ok(names.into_iter().take(last + 1).skip(first).collect())
    }

    fn bind<'s>(&'s self, stage: &'s StageSpec) -> Bound<'s> {
        Bound::new(self, stage)
    }
}

/// The parts of a key that every computing stage shares: its own version and the choice of numerics.
pub(crate) fn numerics(components: &mut Components, version: u32, precision: Precision, form: WeightForm) {
    components.add("version", version.to_string());
    components.add("numerics", numerics_words(precision, form));
}

/// What models compute in, and what texts are written with where that is something else.
pub(crate) fn numerics_words(precision: Precision, texts: WeightForm) -> String {
    let instructions = espalier_kernels::arithmetic();
    match texts {
        WeightForm::Packed => format!("{precision} on {instructions}"),
        WeightForm::Blocks | WeightForm::Int8 => format!("{precision}, texts in int8, on {instructions}"),
    }
}
