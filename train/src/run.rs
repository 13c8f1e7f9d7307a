//! The training loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use espalier_dataset::Turn;
use espalier_model::Model;
use espalier_nn::transformer::{Batch, FrozenTransformer, LoraModel};

use crate::checkpoint::{self, Checkpoint, RunIdentity};
use crate::event::{TrainEvent, TrainPlan};
use crate::metrics::{LossFile, LossLine};
use crate::optimizer::{AdamW, clip};
use crate::pack::Plan;
use crate::schedule::learning_rate;
use crate::tokens::{Sequence, Sequences, encode};
use crate::{TrainConfig, TrainError};

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
    /// Loss of the last step.
    pub loss: f64,
    /// The PEFT folder.
    pub adapter: PathBuf,
    /// The adapter as GGUF.
    pub adapter_gguf: PathBuf,
}

/// Trains a low-rank adapter of `model` on `conversations` into `directory`.
///
/// Writes `adapter/` (PEFT), `adapter.gguf`, `loss.jsonl` and `checkpoints/`. A run that was interrupted goes on from its
/// last checkpoint and ends with the same bytes as an unbroken one; `stop` ends it after the current step, with a
/// checkpoint.
///
/// # Errors
///
/// Settings, conversations or a model that cannot be trained on, a checkpoint of another run in the folder, a loss that
/// is no number, files that cannot be written.
pub fn train(
    model: &Model,
    conversations: &[Vec<Turn>],
    config: &TrainConfig,
    directory: &Path,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(TrainEvent),
) -> Result<TrainOutcome, TrainError> {
    config.validate()?;
    let data = encode(model, conversations, config)?;
    let plan = Plan::new(&data.rows, config.tokens_per_step, config.max_sequence, config.seed);
    let steps = config.max_steps.unwrap_or(config.epochs * plan.steps_per_epoch());
    let identity = RunIdentity {
        model: model.sha256()?,
        data: data.hash(),
        config: config.hash(),
        precision: config.precision.to_string(),
        instruction_set: espalier_nn::instruction_set().to_owned(),
    };
    let checkpoints = directory.join("checkpoints");
    let resumed = checkpoint::load_latest(&checkpoints, &identity)?;
    let frozen = Arc::new(FrozenTransformer::load(model, config.precision, config.max_sequence)?);
    let mut network = LoraModel::new(frozen, config.lora(), config.seed)?;
    let mut state = resumed.unwrap_or_else(|| Checkpoint {
        step: 0,
        loss: f64::NAN,
        parameters: network.parameters().to_vec(),
        optimizer: AdamW::new(network.parameters().len()),
    });
    let mut losses = LossFile::open(directory.join("loss.jsonl"), state.step);
    on_event(TrainEvent::Plan(describe(&data, &plan, steps, state.step, &network, &identity)));

    let mut epoch = (usize::MAX, Vec::new());
    let mut gradient = vec![0.0; state.parameters.len()];
    while state.step < steps && !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let (pass, place) = (state.step / plan.steps_per_epoch(), state.step % plan.steps_per_epoch());
        if epoch.0 != pass {
            epoch = (pass, plan.epoch(pass));
        }
        let rate = learning_rate(config, state.step, steps);
        network.parameters_mut().copy_from_slice(&state.parameters);
        let line = step(&network, &data.rows, &epoch.1[place], &mut gradient, state.step + 1, rate, config)?;
        state.optimizer.update(&mut state.parameters, &gradient, rate, config);
        state.step += 1;
        state.loss = line.loss;
        losses.push(&line);
        on_event(step_event(&line, steps, started));
        if state.step.is_multiple_of(config.checkpoint_every) || state.step == steps || stop.load(Ordering::Relaxed) {
            losses.write()?;
            checkpoint::save(&checkpoints, &state, &identity)?;
            on_event(TrainEvent::Checkpoint { step: state.step });
        }
    }
    network.parameters_mut().copy_from_slice(&state.parameters);
    finish(model, &network, &losses, &state, [steps, plan.steps_per_epoch()], directory, on_event)
}

/// Loss and clipped gradient of one optimizer step.
fn step(
    network: &LoraModel,
    rows: &[Sequence],
    micro_batches: &[Vec<usize>],
    gradient: &mut [f32],
    number: usize,
    learning_rate: f64,
    config: &TrainConfig,
) -> Result<LossLine, TrainError> {
    let target_tokens: usize = micro_batches.iter().flatten().map(|&row| rows[row].targets()).sum();
    // Each target token of the step counts by its weight, whatever the micro-batch that it came in.
    let target_weight: f64 = micro_batches.iter().flatten().map(|&row| rows[row].target_weight()).sum();
    let factor = (1.0 / target_weight) as f32;
    gradient.fill(0.0);
    let (mut loss, mut tokens) = (0.0, 0);
    for micro_batch in micro_batches {
        let sequences = micro_batch.iter().map(|&row| (rows[row].tokens.as_slice(), rows[row].weights.as_slice()));
        let batch = Batch::pack(sequences, factor)?;
        tokens += batch.tokens.len();
        loss += network.loss_and_gradient(&batch, gradient)?.loss;
    }
    let grad_norm = clip(gradient, config.max_grad_norm);
    for (what, value) in [("loss", loss), ("gradient", grad_norm)] {
        if !value.is_finite() {
            return Err(TrainError::NotFinite { step: number, what });
        }
    }
    Ok(LossLine { step: number, loss, learning_rate, grad_norm, tokens, target_tokens })
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

fn describe(
    data: &Sequences,
    plan: &Plan,
    steps: usize,
    resumed_at: usize,
    network: &LoraModel,
    identity: &RunIdentity,
) -> TrainPlan {
    TrainPlan {
        conversations: data.rows.len(),
        dropped: data.dropped,
        truncated: data.truncated,
        tokens: data.rows.iter().map(|row| row.tokens.len() - 1).sum(),
        target_tokens: data.rows.iter().map(Sequence::targets).sum(),
        steps_per_epoch: plan.steps_per_epoch(),
        steps,
        resumed_at,
        parameters: network.parameters().len(),
        frozen_bytes: network.frozen().bytes(),
        precision: identity.precision.clone(),
        instruction_set: identity.instruction_set.clone(),
    }
}

/// Writes the adapter when all steps are done.
fn finish(
    model: &Model,
    network: &LoraModel,
    losses: &LossFile,
    state: &Checkpoint,
    [steps, steps_per_epoch]: [usize; 2],
    directory: &Path,
    on_event: &mut dyn FnMut(TrainEvent),
) -> Result<TrainOutcome, TrainError> {
    let outcome = TrainOutcome {
        step: state.step,
        steps,
        steps_per_epoch,
        finished: state.step == steps,
        loss: state.loss,
        adapter: directory.join("adapter"),
        adapter_gguf: directory.join("adapter.gguf"),
    };
    if outcome.finished {
        losses.write()?;
        let adapter = network.to_adapter(&model.config().name);
        adapter.save_peft(&outcome.adapter, model.config())?;
        adapter.save_gguf(&outcome.adapter_gguf, model.config())?;
        on_event(TrainEvent::Done { steps, loss: state.loss });
    }
    Ok(outcome)
}
