//! The loss curve on disk: a JSON line for each step, without clocks, so that equal runs write equal bytes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::write_atomically;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One line of `loss.jsonl`: a step that was taken.
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

/// Another line of it: a step whose rows were passed over, as the guard wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedLine {
    /// Steps done.
    pub step: usize,
    /// Always true.
    pub skipped: bool,
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
        let text = if step == 0 { String::new() } else { fs::read_to_string(&path).unwrap_or_default() };
        let mut file = Self { path, text };
        file.truncate(step);
        file
    }

    /// Keeps the lines up to `step`.
    pub(crate) fn truncate(&mut self, step: usize) {
        #[derive(Deserialize)]
        struct Step {
            step: usize,
        }
        let kept = |line: &&str| {
            line.ends_with('\n') && serde_json::from_str::<Step>(line).is_ok_and(|line| line.step <= step)
        };
        self.text = self.text.split_inclusive('\n').filter(kept).collect();
    }

    /// Adds a [`LossLine`] or a [`SkippedLine`].
    pub(crate) fn push(&mut self, line: &impl Serialize) {
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

/// Reads a loss curve; steps that were passed over are not in it.
pub fn read_losses(path: &Path) -> Result<Vec<LossLine>, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::file(path, "read it"))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn later_and_torn_lines_are_dropped_and_skipped_steps_are_no_losses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.jsonl");
        let line = |step| LossLine {
            step,
            loss: 0.1 * step as f64,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            tokens: 8,
            target_tokens: 4,
        };
        let mut file = LossFile::open(path.clone(), 0);
        file.push(&line(1));
        file.push(&SkippedLine { step: 2, skipped: true });
        file.push(&line(3));
        file.text.push_str("{\"step\":2");
        file.write().unwrap();
        let mut again = LossFile::open(path.clone(), 2);
        assert_eq!(again.text.lines().count(), 2);
        again.push(&line(3));
        again.write().unwrap();
        assert_eq!(read_losses(&path).unwrap(), [line(1), line(3)]);
        again.truncate(1);
        assert_eq!(again.text.lines().count(), 1);
    }
}
