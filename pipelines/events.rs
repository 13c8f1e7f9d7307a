//! What a run says: typed events, made by stages that know no terminal, read by a person's progress bars, by a script as
//! JSON lines and by the log in the run folder.

use serde::Serialize;

/// One thing that happened. With `--json` each is one line on standard output.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A stage is up to date and does nothing.
    StageSkipped {
        /// Stage name.
        stage: String,
        /// Why nothing has to be done.
        reason: String,
    },
    /// A stage begins.
    StageStarted {
        /// Stage name.
        stage: String,
        /// Why it has to run.
        reasons: Vec<String>,
    },
    /// Work done so far in a stage.
    Progress {
        /// Stage name.
        stage: String,
        /// Which part of the stage this counts.
        part: String,
        /// Units done.
        done: u64,
        /// Units in all; zero when unknown.
        total: u64,
        /// What is counted: rows, steps, tensors, items, bytes.
        unit: String,
        /// A figure worth watching, such as the loss.
        detail: String,
    },
    /// A stage is done and its outputs stand under their final names.
    StageFinished {
        /// Stage name.
        stage: String,
        /// Wall time.
        seconds: f64,
        /// One line of result.
        summary: String,
    },
    /// Something worth knowing.
    Note {
        /// Stage name, or the command's.
        stage: String,
        /// The message.
        message: String,
    },
    /// Something that will probably disappoint.
    Warning {
        /// Stage name, or the command's.
        stage: String,
        /// The message.
        message: String,
    },
    /// Figures of a stage for scripts and the log: a plan, a step. A person sees them as notes and progress.
    Figures {
        /// Stage name, or the command's.
        stage: String,
        /// The figures; their key `event` says what they are.
        figures: serde_json::Value,
    },
    /// The last line of a command with `--json`.
    Result {
        /// The command's figures.
        result: serde_json::Value,
    },
}
