//! The loss curve on disk: a JSON line for each step, without clocks, so that equal runs write equal bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::step::RowLoss;

/// One line of `loss.jsonl`: a step that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossLine {
    /// Steps done.
    pub step: usize,
    /// Mean loss over the step's target tokens, before its update.
    pub loss: f64,
    /// The part of it that is the text's own, where a teacher took part: its mean over all target tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nll: Option<f64>,
    /// The part of it that is the divergence from the teacher: its mean over the target tokens that the teacher knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the network.
    pub tokens: usize,
    /// Tokens that were learned.
    pub target_tokens: usize,
    /// Mean loss by source, where there are several.
    #[serde(default, skip_serializing_if = "Groups::is_empty")]
    pub sources: Groups,
    /// Mean loss by leaf of the taxonomy.
    #[serde(default, skip_serializing_if = "Groups::is_empty")]
    pub leaves: Groups,
}

/// Another line of it: the held-out rows were scored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidationLine {
    /// Steps done.
    pub step: usize,
    /// Mean loss over the target tokens of the held-out rows.
    pub validation_loss: f64,
    /// How many these are.
    pub target_tokens: usize,
    /// Share of the rows whose target tokens all are the most probable ones.
    pub accuracy: f64,
    /// How many rows there are.
    pub rows: usize,
    /// Share of the target tokens that are the most probable ones.
    pub token_accuracy: f64,
    /// Loss and accuracy by source, where there are several.
    #[serde(default, skip_serializing_if = "Groups::is_empty")]
    pub sources: Groups<GroupScore>,
    /// The same by leaf of the taxonomy.
    #[serde(default, skip_serializing_if = "Groups::is_empty")]
    pub leaves: Groups<GroupScore>,
}

impl ValidationLine {
    /// How many rows are right.
    pub fn right(&self) -> usize {
        (self.accuracy * self.rows as f64).round() as usize
    }
}

/// Another line of it: the divergence from the base was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForgettingLine {
    /// Steps done.
    pub step: usize,
    /// Mean divergence of the predictions from those of the base on general text, in nats.
    pub forgetting: f64,
    /// Over how many tokens.
    pub tokens: usize,
}

/// Loss of a group of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupLoss {
    /// Mean over its target tokens, each of the same weight.
    pub loss: f64,
    /// How many these are.
    pub target_tokens: usize,
}

/// Loss and accuracy of a group of held-out rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupScore {
    /// Mean over its target tokens, each of the same weight.
    pub loss: f64,
    /// How many these are.
    pub target_tokens: usize,
    /// Share of its rows that are right.
    pub accuracy: f64,
    /// How many rows it has.
    pub rows: usize,
}

/// Figures by name of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Groups<T = GroupLoss>(pub BTreeMap<String, T>);

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    nll: f64,
    targets: usize,
    likeliest: usize,
    rows: usize,
    right: usize,
}

impl Tally {
    /// One row more.
    pub(crate) fn with(self, row: &RowLoss) -> Self {
        Self {
            nll: self.nll + row.nll,
            targets: self.targets + row.targets,
            likeliest: self.likeliest + row.likeliest,
            rows: self.rows + 1,
            right: self.right + usize::from(row.likeliest == row.targets),
        }
    }

    /// The sums of the rows of each name; those without are left out.
    fn by_name<'a>(losses: &[RowLoss], name: impl Fn(usize) -> Option<&'a str>) -> BTreeMap<String, Self> {
        let mut groups: BTreeMap<String, Self> = BTreeMap::new();
        for row in losses {
            if let Some(name) = name(row.row) {
                let group = groups.entry(name.to_owned()).or_default();
                *group = group.with(row);
            }
        }
        groups
    }

    fn loss(&self) -> GroupLoss {
        GroupLoss { loss: self.nll / self.targets.max(1) as f64, target_tokens: self.targets }
    }

    pub(crate) fn score(&self) -> GroupScore {
        let GroupLoss { loss, target_tokens } = self.loss();
        GroupScore { loss, target_tokens, accuracy: self.right as f64 / self.rows.max(1) as f64, rows: self.rows }
    }

    pub(crate) fn token_accuracy(&self) -> f64 {
        self.likeliest as f64 / self.targets.max(1) as f64
    }
}

impl Groups {
    /// The losses of the rows of each name; those without are left out.
    pub(crate) fn of<'a>(losses: &[RowLoss], name: impl Fn(usize) -> Option<&'a str>) -> Self {
        Self(Tally::by_name(losses, name).into_iter().map(|(name, tally)| (name, tally.loss())).collect())
    }
}

impl Groups<GroupScore> {
    /// The scores of the rows of each name; those without are left out.
    pub(crate) fn scores<'a>(losses: &[RowLoss], name: impl Fn(usize) -> Option<&'a str>) -> Self {
        Self(Tally::by_name(losses, name).into_iter().map(|(name, tally)| (name, tally.score())).collect())
    }
}

impl<T> Groups<T> {
    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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

    /// Adds a [`LossLine`], a [`SkippedLine`], a [`ValidationLine`] or a [`ForgettingLine`].
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
    read_lines(path)
}

/// Reads the curves of the held-out rows.
pub fn read_validations(path: &Path) -> Result<Vec<ValidationLine>, TrainError> {
    read_lines(path)
}

/// Reads the curve of the divergence from the base.
pub fn read_forgetting(path: &Path) -> Result<Vec<ForgettingLine>, TrainError> {
    read_lines(path)
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
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
            nll: None,
            divergence: None,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            tokens: 8,
            target_tokens: 4,
            sources: Groups::default(),
            leaves: Groups::default(),
        };
        let row = |row, nll, targets| RowLoss { row, nll, targets, likeliest: 2 };
        let rows = [row(0, 3.0, 2), row(1, 1.0, 2), row(2, 9.0, 1), row(3, 3.0, 3)];
        let leaf = |row: usize| (row != 2).then_some("a/b");
        assert_eq!(Groups::of(&rows, leaf).0["a/b"], GroupLoss { loss: 1.0, target_tokens: 7 });
        let by_leaf = Groups::scores(&rows, leaf);
        let score = GroupScore { loss: 1.0, target_tokens: 7, accuracy: 2.0 / 3.0, rows: 3 };
        assert_eq!(by_leaf.0["a/b"], score);
        let validation = ValidationLine { step: 1, validation_loss: 2.5, leaves: by_leaf, ..ValidationLine::default() };
        let forgetting = ForgettingLine { step: 1, forgetting: 0.25, tokens: 9 };
        let mut file = LossFile::open(path.clone(), 0);
        file.push(&line(1));
        file.push(&validation);
        file.push(&forgetting);
        file.push(&SkippedLine { step: 2, skipped: true });
        file.push(&line(3));
        file.text.push_str("{\"step\":2");
        file.write().unwrap();
        let mut again = LossFile::open(path.clone(), 2);
        assert_eq!(again.text.lines().count(), 4);
        again.push(&line(3));
        again.write().unwrap();
        assert_eq!(read_losses(&path).unwrap(), [line(1), line(3)]);
        assert_eq!(read_validations(&path).unwrap(), [validation]);
        assert_eq!(read_forgetting(&path).unwrap(), [forgetting]);
        again.truncate(1);
        assert_eq!(again.text.lines().count(), 3);
    }
}
