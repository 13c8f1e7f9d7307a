//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use espalier_model::Model;
use espalier_nn::transformer::{FrozenTransformer, LoraModel};

use crate::checkpoint::{self, Checkpoint, RunIdentity, Schedule};
use crate::event::{TrainEvent, TrainPlan};
use crate::guard::{Guard, Trouble};
use crate::metrics::{LossFile, LossLine, SkippedLine};
use crate::optimizer::AdamW;
use crate::pack::Plan;
use crate::schedule::learning_rate;
use crate::start::Start;
use crate::step::{StepResult, step, suspects};
use crate::tokens::{Sequence, Sequences};
use crate::{TrainConfig, TrainError, base};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOutcome {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Steps in one pass over the data.
    pub steps_per_epoch: usize,
    /// Whether all steps are done and the adapter is written; otherwise the run was stopped and can be resumed.
    pub finished: bool,
    /// Loss of the last step that was taken.
    pub loss: Option<f64>,
    /// The PEFT folder.
    pub adapter: PathBuf,
    /// The adapter as GGUF; none for `DoRA`, which these files have no place for.
    pub adapter_gguf: Option<PathBuf>,
}

/// Trains a low-rank adapter of `model` on `data` into `directory`.
///
/// Writes `adapter/` (PEFT), `adapter.gguf` (not for `DoRA`), `loss.jsonl` and `checkpoints/`. A run that was interrupted
/// goes on from its last checkpoint and ends with the same bytes as an unbroken one; `stop` ends it after the current step,
/// with a checkpoint. A step whose loss is no number or jumps is not taken: see [`guard`](crate::guard).
///
/// # Errors
///
/// Settings or a model that cannot be trained on, a checkpoint of another run in the folder, losses that stay no number or
/// jump again and again, files that cannot be written.
pub fn train(
    model: &Model,
    data: &Sequences,
    config: &TrainConfig,
    directory: &Path,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(TrainEvent),
) -> Result<TrainOutcome, TrainError> {
    config.validate()?;
    let start = Start::new(config, model)?;
    let plan = Plan::new(data, config);
    if plan.steps() == 0 {
        let why = "the weights of the data leave no row in any epoch; raise them, or epochs";
        return Err(TrainError::Empty(why.to_owned()));
    }
    let identity = RunIdentity {
        model: model.sha256()?,
        data: data.hash(),
        settings: start.settings(config).settings(),
        instruction_set: espalier_nn::instruction_set().to_owned(),
    };
    let checkpoints = directory.join("checkpoints");
    let resumed = checkpoint::load_latest(&checkpoints, &identity)?;
    if resumed.is_none() {
        base::check(model)?;
    }
    let frozen = Arc::new(FrozenTransformer::load(model, config.precision, config.base_weights, config.max_sequence)?);
    let run = Run { config, steps: plan.steps(), data, plan, frozen, start, identity, checkpoints };
    let mut network = run.network()?;
    let mut state = resumed.unwrap_or_else(|| initial(&network));
    on_event(TrainEvent::Plan(run.describe(state.step, &network)));
    let mut losses = LossFile::open(directory.join("loss.jsonl"), state.step);
    run.go_on(&mut network, &mut state, &mut losses, stop, on_event)?;
    run.finish(model, &network, &losses, &state, directory, on_event)
}

/// The state before the first step.
fn initial(network: &LoraModel) -> Checkpoint {
    Checkpoint {
        step: 0,
        loss: None,
        parameters: network.parameters().to_vec(),
        optimizer: AdamW::new(network.parameters().len()),
        guard: Guard::default(),
    }
}

/// What does not change while a run goes on.
struct Run<'a> {
    config: &'a TrainConfig,
    /// Steps in all.
    steps: usize,
    data: &'a Sequences,
    plan: Plan,
    frozen: Arc<FrozenTransformer>,
    start: Start,
    identity: RunIdentity,
    checkpoints: PathBuf,
}

impl Run<'_> {
    /// The network with its first updates.
    fn network(&self) -> Result<LoraModel, TrainError> {
        self.start.network(self.config, Arc::clone(&self.frozen))
    }

    fn schedule(&self) -> Schedule {
        Schedule { every: self.config.checkpoint_every, keep: self.config.keep_checkpoints }
    }

    /// Takes the steps that are left, up to a stop.
    fn go_on(
        &self,
        network: &mut LoraModel,
        state: &mut Checkpoint,
        losses: &mut LossFile,
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(TrainEvent),
    ) -> Result<(), TrainError> {
        let mut epoch = (usize::MAX, Vec::new());
        let mut gradient = vec![0.0; state.parameters.len()];
        while state.step < self.steps && !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let (pass, place) = self.plan.place(state.step);
            if epoch.0 != pass {
                epoch = (pass, self.plan.epoch(pass));
            }
            if state.guard.skips(state.step) {
                state.step += 1;
                losses.push(&SkippedLine { step: state.step, skipped: true });
            } else {
                let (rows, micro_batches) = (&self.data.rows, &epoch.1[place]);
                network.parameters_mut().copy_from_slice(&state.parameters);
                let found = step(network, rows, micro_batches, &mut gradient, self.config.max_grad_norm)?;
                if let Some(trouble) = state.guard.judge(found.loss, found.grad_norm, self.config.spike_threshold) {
                    on_event(self.roll_back(state, losses, trouble, &found)?);
                    continue;
                }
                let line = self.update(state, &gradient, &found);
                losses.push(&line);
                on_event(step_event(&line, self.steps, started));
            }
            let scheduled = state.step.is_multiple_of(self.config.checkpoint_every);
            if scheduled || state.step == self.steps || stop.load(Ordering::Relaxed) {
                losses.write()?;
                checkpoint::save(&self.checkpoints, state, &self.identity, self.schedule())?;
                on_event(TrainEvent::Checkpoint { step: state.step });
            }
        }
        network.parameters_mut().copy_from_slice(&state.parameters);
        Ok(())
    }

    /// The step's update.
    fn update(&self, state: &mut Checkpoint, gradient: &[f32], found: &StepResult) -> LossLine {
        let rate = state.guard.learning_rate_factor() * learning_rate(self.config, state.step, self.steps);
        state.optimizer.update(&mut state.parameters, gradient, rate, self.config);
        state.guard.accept(found.loss);
        state.step += 1;
        state.loss = Some(found.loss);
        LossLine {
            step: state.step,
            loss: found.loss,
            learning_rate: rate,
            grad_norm: found.grad_norm,
            tokens: found.tokens,
            target_tokens: found.target_tokens,
        }
    }

    /// Goes back to the last checkpoint of the schedule, or to the beginning, in place of a step with trouble.
    fn roll_back(
        &self,
        state: &mut Checkpoint,
        losses: &mut LossFile,
        trouble: Trouble,
        found: &StepResult,
    ) -> Result<TrainEvent, TrainError> {
        let to = match checkpoint::load_scheduled(&self.checkpoints, &self.identity, self.schedule())? {
            Some(checkpoint) => checkpoint,
            None => initial(&self.network()?),
        };
        let at = state.step;
        let rows = suspects(self.data, &found.rows);
        let limit = self.config.max_rollbacks;
        let Some(guard) = state.guard.roll_back(at, to.step, &to.guard, limit) else {
            return Err(TrainError::Unstable { step: at + 1, trouble, rollbacks: state.guard.rollbacks(), rows });
        };
        let learning_rate_factor = guard.learning_rate_factor();
        *state = Checkpoint { guard, ..to };
        losses.truncate(state.step);
        Ok(TrainEvent::RolledBack { step: at + 1, to: state.step, trouble, learning_rate_factor, rows })
    }

    fn describe(&self, resumed_at: usize, network: &LoraModel) -> TrainPlan {
        TrainPlan {
            conversations: self.data.rows.len(),
            dropped: self.data.dropped,
            truncated: self.data.truncated,
            tokens: self.data.rows.iter().map(|row| row.tokens.len() - 1).sum(),
            target_tokens: self.data.rows.iter().map(Sequence::targets).sum(),
            steps_per_epoch: self.plan.steps_per_epoch(),
            steps: self.steps,
            resumed_at,
            parameters: network.parameters().len(),
            base_weights: self.frozen.base_weights,
            frozen_bytes: self.frozen.bytes(),
            precision: self.config.precision.to_string(),
            instruction_set: self.identity.instruction_set.clone(),
        }
    }

    /// Writes the adapter when all steps are done.
    fn finish(
        &self,
        model: &Model,
        network: &LoraModel,
        losses: &LossFile,
        state: &Checkpoint,
        directory: &Path,
        on_event: &mut dyn FnMut(TrainEvent),
    ) -> Result<TrainOutcome, TrainError> {
        let outcome = TrainOutcome {
            step: state.step,
            steps: self.steps,
            steps_per_epoch: self.plan.steps_per_epoch(),
            finished: state.step == self.steps,
            loss: state.loss,
            adapter: directory.join("adapter"),
            adapter_gguf: (!network.is_dora()).then(|| directory.join("adapter.gguf")),
        };
        if outcome.finished {
            losses.write()?;
            let mut adapter = network.to_adapter(&model.config().name);
            adapter.base_sha256 = Some(model.sha256()?);
            adapter.save_peft(&outcome.adapter, model.config())?;
            if let Some(path) = &outcome.adapter_gguf {
                adapter.save_gguf(path, model.config())?;
            }
            on_event(TrainEvent::Done { steps: self.steps, loss: state.loss });
        }
        Ok(outcome)
    }
}

fn step_event(line: &LossLine, steps: usize, started: Instant) -> TrainEvent {
    TrainEvent::Step {
        step: line.step,
        steps,
        loss: line.loss,
        learning_rate: line.learning_rate,
        grad_norm: line.grad_norm,
        tokens: line.tokens,
        tokens_per_second: line.tokens as f64 / started.elapsed().as_secs_f64(),
    }
}
