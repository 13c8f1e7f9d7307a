//! What a run tells while it goes on.

use espalier_nn::DeviceName;
use espalier_nn::transformer::BaseWeights;
use serde::Serialize;

use crate::guard::Trouble;
use crate::memory::{MemoryPlan, Resident};
use crate::metrics::{ForgettingLine, ValidationLine};
use crate::validation::Best;

/// Something that happened in a run. Only these events know a clock; files do not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent {
    /// Known before the first step.
    Plan(TrainPlan),
    /// An optimizer step is done.
    Step {
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Mean loss over the step's target tokens, before its update.
        loss: f64,
        /// Mean divergence from the teacher over the target tokens that it knows.
        #[serde(skip_serializing_if = "Option::is_none")]
        divergence: Option<f64>,
        /// Its learning rate.
        learning_rate: f64,
        /// Norm of its gradient before clipping.
        grad_norm: f64,
        /// Tokens that went through the network.
        tokens: usize,
        /// Tokens that were learned.
        target_tokens: usize,
        /// Tokens a second of this step.
        tokens_per_second: f64,
        /// Memory of the process, where the system tells it.
        memory: Option<Resident>,
    },
    /// The held-out rows were scored.
    Validated {
        /// Loss and accuracy of them, and of each leaf.
        line: ValidationLine,
        /// The best so far; none before the first checkpoint.
        best: Option<Best>,
    },
    /// The divergence from the base on general text was measured.
    Forgetting {
        /// The divergence.
        line: ForgettingLine,
    },
    /// A step was not taken: the run goes back to a checkpoint and passes over the rows of that step.
    RolledBack {
        /// The step that was not taken, counted from 1.
        step: usize,
        /// Steps done at the checkpoint.
        to: usize,
        /// What was wrong.
        trouble: Trouble,
        /// What the learning rate of the schedule is multiplied by from there on.
        learning_rate_factor: f64,
        /// The rows of the step, the dearest first.
        rows: String,
    },
    /// A checkpoint is on the disk.
    Checkpoint {
        /// Steps done.
        step: usize,
    },
    /// The run is over and the adapter written.
    Done {
        /// Steps done.
        steps: usize,
        /// Loss of the last step that was taken.
        loss: Option<f64>,
        /// The checkpoint that the adapter is of, where rows are held out.
        best: Option<Best>,
        /// Memory of the process, where the system tells it.
        memory: Option<Resident>,
    },
}

/// What a run is going to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainPlan {
    /// Conversations that are trained on.
    pub conversations: usize,
    /// Conversations of which a teacher's probabilities are known.
    pub taught: usize,
    /// Conversations left out because they were too long.
    pub dropped: usize,
    /// Conversations whose end was cut off.
    pub truncated: usize,
    /// Tokens of one pass over the data.
    pub tokens: usize,
    /// Tokens of one pass that are learned.
    pub target_tokens: usize,
    /// Optimizer steps of one pass.
    pub steps_per_epoch: usize,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Steps already done by the checkpoint that the run goes on from.
    pub resumed_at: usize,
    /// Trainable values.
    pub parameters: usize,
    /// Where the frozen weights stay.
    pub base_weights: BaseWeights,
    /// Memory of the frozen weights.
    pub frozen_bytes: usize,
    /// Precision of the frozen products.
    pub precision: String,
    /// Instruction set that they run on.
    pub instruction_set: String,
    /// Where it computes.
    pub device: DeviceName,
    /// Rows that are held out.
    pub held_out: usize,
    /// Rows that are not trained on as a held-out one says the same: how many, and the first.
    pub repeated: Option<String>,
    /// What it needs of memory.
    pub memory: MemoryPlan,
    /// Values that follow from others or from experience: name, value and reason.
    pub derived: Vec<Derived>,
}

/// A value that a person may wonder about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Derived {
    /// Name.
    pub name: &'static str,
    /// Value.
    pub value: String,
    /// Where it comes from.
    pub reason: String,
}
