//! The loss curve on disk: a JSON line for each step, without clocks, so that equal runs write equal bytes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::write_atomically;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One line of `loss.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossLine {
    /// Steps done.
    pub step: usize,
    /// Mean loss over the step's target tokens, before its update.
    pub loss: f64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the network.
    pub tokens: usize,
    /// Tokens that were learned.
    pub target_tokens: usize,
}

/// The file, with the lines that a resumed run keeps.
#[derive(Debug)]
pub(crate) struct LossFile {
    path: PathBuf,
    text: String,
}

impl LossFile {
    /// Keeps the lines up to `step` and drops later ones and a torn last one.
    pub(crate) fn open(path: PathBuf, step: usize) -> Self {
        let previous = if step == 0 { String::new() } else { fs::read_to_string(&path).unwrap_or_default() };
        let kept = |line: &&str| {
            line.ends_with('\n') && serde_json::from_str::<LossLine>(line).is_ok_and(|line| line.step <= step)
        };
        let text = previous.split_inclusive('\n').filter(kept).collect();
        Self { path, text }
    }

    pub(crate) fn push(&mut self, line: &LossLine) {
        // A struct of numbers always has a JSON form.
        self.text.push_str(&serde_json::to_string(line).unwrap_or_default());
        self.text.push('\n');
    }

    /// The whole file anew: it stays consistent with the checkpoint that follows, whenever the process dies.
    pub(crate) fn write(&self) -> Result<(), TrainError> {
        write_atomically(&self.path, |file| file.write_all(self.text.as_bytes()))
            .map_err(TrainError::file(&self.path, "write it"))
    }
}

/// Reads a loss curve.
pub fn read_losses(path: &Path) -> Result<Vec<LossLine>, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::file(path, "read it"))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
