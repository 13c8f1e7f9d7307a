//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! `checkpoints/step-00000120/` holds `state.safetensors` (parameters and moments) and `state.json` (the step, and what the
//! run depends on). It is written as `step-00000120.part/`, to the disk, and renamed: a name without `.part` is complete.
//! The last two are kept.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::{rename_durably, write_atomically};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::config::hex;
use crate::optimizer::AdamW;

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// What a run's result depends on: a run is resumed only under the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    /// SHA-256 of the base model.
    pub model: String,
    /// SHA-256 of the tokens and flags.
    pub data: String,
    /// SHA-256 of the settings.
    pub config: String,
    /// Precision of the frozen products.
    pub precision: String,
    /// Instruction set that they ran on.
    pub instruction_set: String,
}

impl RunIdentity {
    /// What differs, in words; `None` when nothing does.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let differences = [
            ("another base model", self.model != now.model),
            ("other data (or another chat template)", self.data != now.data),
            ("other settings", self.config != now.config),
        ];
        let mut words: Vec<String> =
            differences.iter().filter(|(_, differs)| *differs).map(|(words, _)| (*words).to_owned()).collect();
        for (what, then, now) in [
            ("precision", &self.precision, &now.precision),
            ("instruction set", &self.instruction_set, &now.instruction_set),
        ] {
            if then != now {
                words.push(format!("{what} {then} (now {now})"));
            }
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: usize,
    /// Loss of the last of them.
    pub loss: f64,
    /// All trainable values.
    pub parameters: Vec<f32>,
    /// The optimizer.
    pub optimizer: AdamW,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    step: usize,
    loss: f64,
    run: RunIdentity,
    /// Of `state.safetensors`.
    sha256: String,
}

/// Writes a checkpoint into `directory` and deletes all but the last two.
pub fn save(directory: &Path, checkpoint: &Checkpoint, run: &RunIdentity) -> Result<(), TrainError> {
    let target = directory.join(format!("step-{:08}", checkpoint.step));
    let temporary = directory.join(format!("step-{:08}.part", checkpoint.step));
    for stale in [&temporary, &target] {
        if stale.exists() {
            fs::remove_dir_all(stale).map_err(TrainError::file(stale, "remove the older one"))?;
        }
    }
    fs::create_dir_all(&temporary).map_err(TrainError::file(&temporary, "create it"))?;
    let count = [checkpoint.parameters.len()];
    let state = [
        ("parameters", &checkpoint.parameters),
        ("optimizer.first", &checkpoint.optimizer.first),
        ("optimizer.second", &checkpoint.optimizer.second),
    ];
    let path = temporary.join("state.safetensors");
    let damaged = |error: safetensors::SafeTensorError| std::io::Error::other(error.to_string());
    let bytes: Vec<(&str, Vec<u8>)> = state
        .iter()
        .map(|(name, values)| (*name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::F32, count.to_vec(), bytes).map_err(damaged)?)))
        .collect::<Result<Vec<_>, std::io::Error>>()
        .map_err(TrainError::file(&path, "describe the state"))?;
    let bytes =
        safetensors::serialize(views, None).map_err(damaged).map_err(TrainError::file(&path, "describe the state"))?;
    let write = |path: &Path, bytes: &[u8]| {
        write_atomically(path, |file| file.write_all(bytes)).map_err(TrainError::file(path, "write it"))
    };
    write(&path, &bytes)?;
    let description = Description {
        step: checkpoint.step,
        loss: checkpoint.loss,
        run: run.clone(),
        sha256: hex(&Sha256::digest(&bytes)),
    };
    let json = serde_json::to_vec_pretty(&description).unwrap_or_default();
    write(&temporary.join("state.json"), &json)?;
    rename_durably(&temporary, &target).map_err(TrainError::file(&target, "rename the finished checkpoint to it"))?;
    remove_others(directory)
}

/// The latest complete checkpoint of `directory`, if any; one of another run is an error.
///
/// Unfinished ones (`.part`) are ignored; one that was damaged afterwards gives way to the one before it.
pub fn load_latest(directory: &Path, run: &RunIdentity) -> Result<Option<Checkpoint>, TrainError> {
    for path in complete(directory)?.into_iter().rev() {
        let Some((description, bytes)) = read(&path) else {
            continue;
        };
        if let Some(what) = description.run.difference(run) {
            return Err(TrainError::OtherRun { directory: directory.to_owned(), what });
        }
        if let Some(checkpoint) = decode(&description, &bytes) {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Option<(Description, Vec<u8>)> {
    let description: Description = serde_json::from_slice(&fs::read(path.join("state.json")).ok()?).ok()?;
    let bytes = fs::read(path.join("state.safetensors")).ok()?;
    (hex(&Sha256::digest(&bytes)) == description.sha256).then_some((description, bytes))
}

fn decode(description: &Description, bytes: &[u8]) -> Option<Checkpoint> {
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let values = |name: &str| -> Option<Vec<f32>> {
        let data = tensors.tensor(name).ok()?.data().to_vec();
        Some(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let optimizer =
        AdamW { first: values("optimizer.first")?, second: values("optimizer.second")?, updates: description.step };
    let parameters = values("parameters")?;
    Some(Checkpoint { step: description.step, loss: description.loss, parameters, optimizer })
}

/// Complete checkpoints, the oldest first.
fn complete(directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory).map_err(TrainError::file(directory, "list it"))?;
    let is_complete = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("step-").is_some_and(|step| step.len() == 8 && step.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_complete).collect();
    paths.sort();
    Ok(paths)
}

fn remove_others(directory: &Path) -> Result<(), TrainError> {
    let paths = complete(directory)?;
    for path in &paths[..paths.len().saturating_sub(KEPT)] {
        fs::remove_dir_all(path).map_err(TrainError::file(path, "remove it"))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run() -> RunIdentity {
        let word = |text: &str| text.to_owned();
        RunIdentity {
            model: word("m"),
            data: word("d"),
            config: word("c"),
            precision: word("bf16"),
            instruction_set: word("avx2"),
        }
    }

    fn checkpoint(step: usize) -> Checkpoint {
        let optimizer = AdamW { first: vec![0.5, step as f32], second: vec![f32::MIN_POSITIVE, 2.0], updates: step };
        Checkpoint { step, loss: 1.25, parameters: vec![-0.0, 1e-30], optimizer }
    }

    #[test]
    fn the_last_two_are_kept_and_the_latest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_latest(folder.path(), &run()).unwrap().is_none());
        for step in [5, 10, 15] {
            save(folder.path(), &checkpoint(step), &run()).unwrap();
        }
        assert_eq!(complete(folder.path()).unwrap().len(), 2);
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(15)));
    }

    #[test]
    fn unfinished_and_damaged_ones_give_way() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &checkpoint(1), &run()).unwrap();
        save(folder.path(), &checkpoint(2), &run()).unwrap();
        fs::create_dir(folder.path().join("step-00000003.part")).unwrap();
        fs::write(folder.path().join("step-00000003.part/state.json"), "{").unwrap();
        let damaged = folder.path().join("step-00000002/state.safetensors");
        let bytes = fs::read(&damaged).unwrap();
        fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(1)));
        // A kill in the middle of writing the same step again leaves no trouble behind.
        save(folder.path(), &checkpoint(3), &run()).unwrap();
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(3)));
    }

    #[test]
    fn another_run_is_refused_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &checkpoint(1), &run()).unwrap();
        let now = RunIdentity { instruction_set: "amx".to_owned(), data: "x".to_owned(), ..run() };
        let error = load_latest(folder.path(), &now).unwrap_err().to_string();
        assert!(error.contains("other data (or another chat template), instruction set avx2 (now amx)"), "{error}");
    }
}
