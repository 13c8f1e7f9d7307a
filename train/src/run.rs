//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use espalier_model::Model;
use espalier_nn::transformer::{Base, DeviceTransformer, FrozenTransformer, Network};
use espalier_nn::{Device, DeviceName, NnError};
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, Checkpoint, RunIdentity, Schedule};
use crate::config::hex;
use crate::derived::derived;
use crate::event::{TrainEvent, TrainPlan};
use crate::forgetting::{Forgetting, Slice};
use crate::guard::{Guard, Trouble};
use crate::memory::{MemoryPlan, Needs, Resident};
use crate::metrics::{Groups, LossFile, LossLine, SkippedLine};
use crate::optimizer::AdamW;
use crate::pack::Plan;
use crate::run_data::{Divided, RunData, divide};
use crate::schedule::learning_rate;
use crate::start::Start;
use crate::step::{StepResult, step, suspects};
use crate::tokens::{Sequence, Sequences};
use crate::validation::{Best, validate};
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
    data: &RunData,
    config: &TrainConfig,
    directory: &Path,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(TrainEvent),
) -> Result<TrainOutcome, TrainError> {
    config.validate()?;
    let device = config.device.open().map_err(NnError::from)?;
    let start = Start::new(config, model)?;
    let divided = divide(data, config)?;
    let slice = data.general.as_ref().map(|general| Slice::new(general, config)).transpose()?;
    let memory = Needs::new(model, config, &start, data, &divided, slice.as_ref())?.choose(config)?;
    let checkpoints = directory.join("checkpoints");
    if !checkpoints.exists() {
        base::check(model)?;
    }
    let base = load(model, config, &device)?;
    let network = start.network(config, base.clone())?;
    let Divided { rows, held_out, repeated } = divided;
    let plan = Plan::new(&rows, config, memory.micro_batch_rows);
    if plan.steps() == 0 {
        let why = "the weights of the data leave no row in any epoch; raise them, or epochs";
        return Err(TrainError::Empty(why.to_owned()));
    }
    let mut settings = start.settings(config).settings();
    settings.insert("micro_batch_rows".to_owned(), memory.micro_batch_rows.into());
    if let Some(template) = &data.rows.chat_template {
        settings.insert("chat_template".to_owned(), hex(&Sha256::digest(template)).into());
    }
    let identity =
        RunIdentity { model: model.sha256()?, data: data.hash(), settings, instruction_set: computes_on(config) };
    let resumed = checkpoint::load_latest(&checkpoints, &identity)?;
    let mut network = network.with_recompute(memory.recomputed_layers);
    let mut state = resumed.unwrap_or_else(|| initial(&network));
    let steps = plan.steps();
    let forgetting = slice.as_ref().map(|slice| Forgetting::new(slice, &network, memory.micro_batch_rows));
    let run = Run {
        config,
        steps,
        data: &rows,
        held_out: &held_out,
        forgetting: forgetting.transpose()?,
        plan,
        memory,
        base,
        start,
        identity,
        checkpoints,
    };
    let derived = derived(config, &run.plan, run.held_out, slice.as_ref());
    on_event(TrainEvent::Plan(TrainPlan { repeated, derived, ..run.describe(state.step, &network) }));
    let mut losses = LossFile::open(directory.join("loss.jsonl"), state.step);
    if state.step == 0 {
        run.look(&network, &mut state, &mut losses, on_event)?;
    }
    run.go_on(&mut network, &mut state, &mut losses, stop, on_event)?;
    run.finish(model, &mut network, &losses, &state, directory, on_event)
}

/// The base where the settings want it.
fn load(model: &Model, config: &TrainConfig, device: &Device) -> Result<Base, TrainError> {
    let (precision, positions) = (config.precision, config.max_sequence);
    Ok(match config.device {
        DeviceName::Cpu => {
            Base::Cpu(Arc::new(FrozenTransformer::load(model, precision, config.base_weights, positions)?))
        }
        _ => Base::Device(Arc::new(DeviceTransformer::load(model, precision, positions, device)?)),
    })
}

/// What decides the bits of the products: the instruction set of the CPU, or the kind of the device.
fn computes_on(config: &TrainConfig) -> String {
    match config.device {
        DeviceName::Cpu | DeviceName::Flex => espalier_nn::instruction_set().to_owned(),
        DeviceName::Gpu(..) => config.device_kind(),
    }
}

/// The state before the first step.
fn initial(network: &Network) -> Checkpoint {
    Checkpoint {
        step: 0,
        loss: None,
        parameters: network.parameters().to_vec(),
        optimizer: AdamW::new(network.parameters().len()),
        guard: Guard::default(),
        best: None,
    }
}

/// What does not change while a run goes on.
struct Run<'a> {
    config: &'a TrainConfig,
    /// Steps in all.
    steps: usize,
    data: &'a Sequences,
    held_out: &'a Sequences,
    forgetting: Option<Forgetting>,
    plan: Plan,
    memory: MemoryPlan,
    base: Base,
    start: Start,
    identity: RunIdentity,
    checkpoints: PathBuf,
}

impl Run<'_> {
    /// The network with its first updates.
    fn network(&self) -> Result<Network, TrainError> {
        self.start.network(self.config, self.base.clone())
    }

    fn schedule(&self) -> Schedule {
        Schedule { every: self.config.checkpoint_every, keep: self.config.keep_checkpoints }
    }

    /// Takes the steps that are left, up to a stop.
    fn go_on(
        &self,
        network: &mut Network,
        state: &mut Checkpoint,
        losses: &mut LossFile,
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(TrainEvent),
    ) -> Result<(), TrainError> {
        let mut epoch = (usize::MAX, Vec::new());
        let mut gradient = vec![0.0; state.parameters.len()];
        while !self.is_over(state) && !stop.load(Ordering::Relaxed) {
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
                let found = step(network, rows, micro_batches, &mut gradient, self.config)?;
                if let Some(trouble) = state.guard.judge(found.loss, found.grad_norm, self.config.spike_threshold) {
                    on_event(self.roll_back(state, losses, trouble, &found)?);
                    continue;
                }
                let line = self.update(state, &gradient, &found);
                losses.push(&line);
                on_event(step_event(&line, self.steps, started));
            }
            if state.step.is_multiple_of(self.config.validation_every()) || state.step == self.steps {
                network.parameters_mut().copy_from_slice(&state.parameters);
                self.look(network, state, losses, on_event)?;
            }
            if self.is_checkpoint(state.step) || stop.load(Ordering::Relaxed) {
                losses.write()?;
                checkpoint::save(&self.checkpoints, state, &self.identity, self.schedule())?;
                on_event(TrainEvent::Checkpoint { step: state.step });
            }
        }
        network.parameters_mut().copy_from_slice(&state.parameters);
        Ok(())
    }

    /// Whether every run has a checkpoint after `step` steps, and not only one that was stopped there.
    fn is_checkpoint(&self, step: usize) -> bool {
        step.is_multiple_of(self.config.checkpoint_every) || step == self.steps
    }

    /// Whether all steps are done, or the held-out rows have not become better for long enough.
    fn is_over(&self, state: &Checkpoint) -> bool {
        let patient = |best: &Best| self.config.patience.is_none_or(|patience| best.since < patience);
        state.step == self.steps || !state.best.as_ref().is_none_or(patient)
    }

    /// Scores the held-out rows and measures the divergence from the base, where these are asked for. Neither changes anything
    /// of the state but which checkpoint is the best.
    fn look(
        &self,
        network: &Network,
        state: &mut Checkpoint,
        losses: &mut LossFile,
        on_event: &mut dyn FnMut(TrainEvent),
    ) -> Result<(), TrainError> {
        if !self.held_out.rows.is_empty() {
            let line = validate(network, self.held_out, self.memory.micro_batch_rows, state.step)?;
            losses.push(&line);
            // What was there before the first step is no result of the run.
            if state.step > 0 && self.is_checkpoint(state.step) {
                state.best = Some(Best::after(state.best.take(), &line, self.config.metric_for_best_model));
            }
            on_event(TrainEvent::Validated { line, best: state.best.clone() });
        }
        if let Some(forgetting) = &self.forgetting {
            let line = forgetting.measure(network, state.step)?;
            losses.push(&line);
            on_event(TrainEvent::Forgetting { line });
        }
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
            nll: found.parts.map(|parts| parts.nll),
            divergence: found.parts.map(|parts| parts.divergence),
            learning_rate: rate,
            grad_norm: found.grad_norm,
            tokens: found.tokens,
            target_tokens: found.target_tokens,
            sources: if self.data.sources.len() > 1 { self.by_source(found) } else { Groups::default() },
            leaves: self.by_leaf(found),
        }
    }

    fn by_source(&self, found: &StepResult) -> Groups {
        Groups::of(&found.rows, |row| Some(self.data.sources[self.data.rows[row].source].as_str()))
    }

    fn by_leaf(&self, found: &StepResult) -> Groups {
        Groups::of(&found.rows, |row| self.data.rows[row].leaf.map(|leaf| self.data.leaves[leaf].as_str()))
    }

    /// Goes back to the last checkpoint of the schedule, or to the beginning, in place of a step with trouble.
    fn roll_back(
        &self,
        state: &mut Checkpoint,
        losses: &mut LossFile,
        trouble: Trouble,
        found: &StepResult,
    ) -> Result<TrainEvent, TrainError> {
        // What is given up makes room for what is read.
        (state.parameters, state.optimizer) = (Vec::new(), AdamW::new(0));
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

    fn describe(&self, resumed_at: usize, network: &Network) -> TrainPlan {
        TrainPlan {
            conversations: self.data.rows.len(),
            taught: self.data.rows.iter().filter(|row| row.teacher.is_some()).count(),
            dropped: self.data.dropped,
            truncated: self.data.truncated,
            tokens: self.data.rows.iter().map(|row| row.tokens.len() - 1).sum(),
            target_tokens: self.data.rows.iter().map(Sequence::targets).sum(),
            steps_per_epoch: self.plan.steps_per_epoch(),
            steps: self.steps,
            resumed_at,
            parameters: network.parameters().len(),
            base_weights: self.config.base_weights,
            frozen_bytes: self.base.bytes(),
            precision: self.config.precision.to_string(),
            instruction_set: self.identity.instruction_set.clone(),
            device: self.config.device,
            held_out: self.held_out.rows.len(),
            repeated: None,
            memory: self.memory.clone(),
            derived: Vec::new(),
        }
    }

    /// Writes the adapter when all steps are done.
    fn finish(
        &self,
        model: &Model,
        network: &mut Network,
        losses: &LossFile,
        state: &Checkpoint,
        directory: &Path,
        on_event: &mut dyn FnMut(TrainEvent),
    ) -> Result<TrainOutcome, TrainError> {
        let outcome = TrainOutcome {
            step: state.step,
            steps: self.steps,
            steps_per_epoch: self.plan.steps_per_epoch(),
            finished: self.is_over(state),
            loss: state.loss,
            adapter: directory.join("adapter"),
            adapter_gguf: (!network.is_dora()).then(|| directory.join("adapter.gguf")),
        };
        if outcome.finished {
            losses.write()?;
            if let Some(best) = state.best.as_ref().filter(|best| best.step != state.step) {
                let parameters = checkpoint::load_parameters(&self.checkpoints, &self.identity, best.step)?;
                let gone = || TrainError::BestIsGone { step: best.step };
                network.parameters_mut().copy_from_slice(&parameters.ok_or_else(gone)?);
            }
            let mut adapter = network.to_adapter(&model.config().name);
            adapter.base_sha256 = Some(model.sha256()?);
            adapter.chat_template.clone_from(&self.data.chat_template);
            adapter.save_peft(&outcome.adapter, model.config())?;
            if let Some(path) = &outcome.adapter_gguf {
                adapter.save_gguf(path, model.config())?;
            }
            on_event(TrainEvent::Done {
                steps: state.step,
                loss: state.loss,
                best: state.best.clone(),
                memory: Resident::read(),
            });
        }
        Ok(outcome)
    }
}

fn step_event(line: &LossLine, steps: usize, started: Instant) -> TrainEvent {
    TrainEvent::Step {
        step: line.step,
        steps,
        loss: line.loss,
        divergence: line.divergence,
        learning_rate: line.learning_rate,
        grad_norm: line.grad_norm,
        tokens: line.tokens,
        target_tokens: line.target_tokens,
        memory: Resident::read(),
        tokens_per_second: line.tokens as f64 / started.elapsed().as_secs_f64(),
    }
}
