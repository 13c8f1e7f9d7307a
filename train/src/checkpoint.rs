//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! `checkpoints/step-00000120/` holds `state.safetensors` (parameters and moments) and `state.json` (the step, the guard,
//! and what the run depends on). It is written as `step-00000120.part/`, to the disk, and renamed: a name without `.part` is
//! complete. The last ones are kept, and the last one of the schedule: what an interrupted run leaves besides is no place
//! that an unbroken one could go back to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use espalier_dataset::{rename_durably, write_atomically};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::config::hex;
use crate::guard::Guard;
use crate::optimizer::AdamW;
use crate::validation::Best;

/// What a run's result depends on: a run is resumed only under the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    /// SHA-256 of the base model.
    pub model: String,
    /// SHA-256 of the tokens and flags.
    pub data: String,
    /// Every setting that the result depends on.
    pub settings: BTreeMap<String, Value>,
    /// Instruction set of the products.
    pub instruction_set: String,
}

impl RunIdentity {
    /// What differs, in words; `None` when nothing does.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let mut words = Vec::new();
        if self.model != now.model {
            words.push("another base model".to_owned());
        }
        if self.data != now.data {
            words.push("other data (or another chat template)".to_owned());
        }
        let written = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "unknown".to_owned(),
        };
        let mut compare = |what: &str, then: String, now: String| {
            if then != now {
                words.push(format!("{what} {then} (now {now})"));
            }
        };
        let mut names: Vec<&String> = self.settings.keys().chain(now.settings.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            compare(name, written(self.settings.get(name)), written(now.settings.get(name)));
        }
        compare("instruction set", self.instruction_set.clone(), now.instruction_set.clone());
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: usize,
    /// Loss of the last step that was taken.
    pub loss: Option<f64>,
    /// All trainable values.
    pub parameters: Vec<f32>,
    /// The optimizer.
    pub optimizer: AdamW,
    /// What happened to steps that were not taken.
    pub guard: Guard,
    /// The best checkpoint so far, where rows are held out; it is kept.
    pub best: Option<Best>,
}

/// Which checkpoints a run writes and keeps.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Steps between two of them.
    pub every: usize,
    /// How many are kept.
    pub keep: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    step: usize,
    loss: Option<f64>,
    /// Updates of the optimizer: fewer than steps when some were passed over.
    updates: usize,
    guard: Guard,
    best: Option<Best>,
    run: RunIdentity,
    /// Of `state.safetensors`.
    sha256: String,
}

/// Writes a checkpoint into `directory` and deletes those that are not kept.
///
/// When it cannot be written (a full disk, say) the ones before it are untouched and what there is of it is removed.
pub fn save(
    directory: &Path,
    checkpoint: &Checkpoint,
    run: &RunIdentity,
    schedule: Schedule,
) -> Result<(), TrainError> {
    let target = directory.join(name(checkpoint.step));
    let temporary = directory.join(format!("{}.part", name(checkpoint.step)));
    for stale in [&temporary, &target] {
        if stale.exists() {
            fs::remove_dir_all(stale).map_err(TrainError::file(stale, "remove the older one"))?;
        }
    }
    if let Err(error) = write(&temporary, checkpoint, run) {
        // The space is given back; that this may fail too changes nothing.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    rename_durably(&temporary, &target).map_err(TrainError::file(&target, "rename the finished checkpoint to it"))?;
    remove_others(directory, schedule, checkpoint.best.as_ref().map(|best| best.step))
}

fn name(step: usize) -> String {
    format!("step-{step:08}")
}

/// The two files of a checkpoint, on the disk.
fn write(folder: &Path, checkpoint: &Checkpoint, run: &RunIdentity) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(TrainError::file(folder, "create it"))?;
    let count = [checkpoint.parameters.len()];
    let state = [
        ("parameters", &checkpoint.parameters),
        ("optimizer.first", &checkpoint.optimizer.first),
        ("optimizer.second", &checkpoint.optimizer.second),
    ];
    let path = folder.join("state.safetensors");
    let damaged = |error: safetensors::SafeTensorError| std::io::Error::other(error.to_string());
    // safetensors are little-endian, as every machine that this runs on.
    let views = state
        .iter()
        .map(|(name, values)| {
            let bytes = bytemuck::cast_slice(values.as_slice());
            Ok((*name, TensorView::new(Dtype::F32, count.to_vec(), bytes).map_err(damaged)?))
        })
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
        updates: checkpoint.optimizer.updates,
        guard: checkpoint.guard.clone(),
        best: checkpoint.best.clone(),
        run: run.clone(),
        sha256: hex(&Sha256::digest(&bytes)),
    };
    let json = serde_json::to_vec_pretty(&description).unwrap_or_default();
    write(&folder.join("state.json"), &json)
}

/// The latest complete checkpoint of `directory`, if any; one of another run is an error.
///
/// Unfinished ones (`.part`) are ignored; one that was damaged afterwards gives way to the one before it.
pub fn load_latest(directory: &Path, run: &RunIdentity) -> Result<Option<Checkpoint>, TrainError> {
    load(directory, run, |_| true)
}

/// The latest one that an unbroken run would have as well: where the guard goes back to.
pub fn load_scheduled(
    directory: &Path,
    run: &RunIdentity,
    schedule: Schedule,
) -> Result<Option<Checkpoint>, TrainError> {
    load(directory, run, |description| description.step.is_multiple_of(schedule.every))
}

/// The parameters after `step` steps.
pub fn load_parameters(directory: &Path, run: &RunIdentity, step: usize) -> Result<Option<Vec<f32>>, TrainError> {
    Ok(load(directory, run, |description| description.step == step)?.map(|checkpoint| checkpoint.parameters))
}

fn load(
    directory: &Path,
    run: &RunIdentity,
    wanted: impl Fn(&Description) -> bool,
) -> Result<Option<Checkpoint>, TrainError> {
    for path in complete(directory)?.into_iter().rev() {
        let Some((description, bytes)) = read(&path) else {
            continue;
        };
        if !wanted(&description) {
            continue;
        }
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
        Some(
            tensors
                .tensor(name)
                .ok()?
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        )
    };
    let optimizer =
        AdamW { first: values("optimizer.first")?, second: values("optimizer.second")?, updates: description.updates };
    let parameters = values("parameters")?;
    let (guard, best) = (description.guard.clone(), description.best.clone());
    Some(Checkpoint { step: description.step, loss: description.loss, parameters, optimizer, guard, best })
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

fn remove_others(directory: &Path, schedule: Schedule, best: Option<usize>) -> Result<(), TrainError> {
    let paths = complete(directory)?;
    let old = &paths[..paths.len().saturating_sub(schedule.keep)];
    let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<usize>().ok();
    let scheduled = |path: &&PathBuf| step(path).is_some_and(|step| step.is_multiple_of(schedule.every));
    let last_scheduled = paths.iter().rfind(scheduled);
    for path in old.iter().filter(|path| Some(*path) != last_scheduled && (best.is_none() || step(path) != best)) {
        fs::remove_dir_all(path).map_err(TrainError::file(path, "remove it"))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { every: 5, keep: 2 };

    fn run() -> RunIdentity {
        let word = |text: &str| text.to_owned();
        let settings = BTreeMap::from([(word("rank"), Value::from(16)), (word("precision"), Value::from("f32"))]);
        RunIdentity { model: word("m"), data: word("d"), settings, instruction_set: word("avx2") }
    }

    fn checkpoint(step: usize) -> Checkpoint {
        let optimizer =
            AdamW { first: vec![0.5, step as f32], second: vec![f32::MIN_POSITIVE, 2.0], updates: step - 1 };
        let mut guard = Guard::default();
        guard.accept(0.1 + step as f64 / 3.0);
        Checkpoint { step, loss: Some(1.25), parameters: vec![-0.0, 1e-30], optimizer, guard, best: None }
    }

    fn steps(directory: &Path) -> Vec<usize> {
        complete(directory).unwrap().iter().map(|path| read(path).unwrap().0.step).collect()
    }

    #[test]
    fn the_last_ones_are_kept_and_the_latest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_latest(folder.path(), &run()).unwrap().is_none());
        for step in [5, 10, 15] {
            save(folder.path(), &checkpoint(step), &run(), SCHEDULE).unwrap();
        }
        assert_eq!(steps(folder.path()), [10, 15]);
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(15)));
    }

    #[test]
    fn interruptions_never_push_out_the_last_one_of_the_schedule() {
        let folder = tempfile::tempdir().unwrap();
        for step in [5, 10, 11, 12, 13] {
            save(folder.path(), &checkpoint(step), &run(), SCHEDULE).unwrap();
        }
        assert_eq!(steps(folder.path()), [10, 12, 13]);
        assert_eq!(load_scheduled(folder.path(), &run(), SCHEDULE).unwrap(), Some(checkpoint(10)));
        save(folder.path(), &checkpoint(15), &run(), SCHEDULE).unwrap();
        assert_eq!(steps(folder.path()), [13, 15]);
    }

    #[test]
    fn the_best_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for step in [5, 10, 15, 20] {
            let best = Some(Best { step: 5.max(step / 15 * 15), loss: 0.1, accuracy: 0.0, since: 0 });
            save(folder.path(), &Checkpoint { best, ..checkpoint(step) }, &run(), SCHEDULE).unwrap();
            assert_eq!(steps(folder.path()).contains(&5), step < 15);
        }
        assert_eq!(load_parameters(folder.path(), &run(), 15).unwrap(), Some(checkpoint(15).parameters));
        assert_eq!(load_parameters(folder.path(), &run(), 5).unwrap(), None);
    }

    #[test]
    fn unfinished_and_damaged_ones_give_way() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &checkpoint(1), &run(), SCHEDULE).unwrap();
        save(folder.path(), &checkpoint(2), &run(), SCHEDULE).unwrap();
        fs::create_dir(folder.path().join("step-00000003.part")).unwrap();
        fs::write(folder.path().join("step-00000003.part/state.json"), "{").unwrap();
        let damaged = folder.path().join("step-00000002/state.safetensors");
        let bytes = fs::read(&damaged).unwrap();
        fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(1)));
        // A kill in the middle of writing the same step again leaves no trouble behind.
        save(folder.path(), &checkpoint(3), &run(), SCHEDULE).unwrap();
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(3)));
    }

    #[test]
    fn one_that_cannot_be_written_leaves_the_last_one_and_no_part() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &checkpoint(5), &run(), SCHEDULE).unwrap();
        // A file stands where the folder of the state would be made.
        fs::write(folder.path().join("step-00000010.part"), "").unwrap();
        assert!(save(folder.path(), &checkpoint(10), &run(), SCHEDULE).is_err());
        assert_eq!(load_latest(folder.path(), &run()).unwrap(), Some(checkpoint(5)));
    }

    #[test]
    fn another_run_is_refused_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &checkpoint(1), &run(), SCHEDULE).unwrap();
        let mut now = RunIdentity { instruction_set: "amx".to_owned(), data: "x".to_owned(), ..run() };
        now.settings.insert("rank".to_owned(), Value::from(8));
        let error = load_latest(folder.path(), &now).unwrap_err().to_string();
        assert!(
            error.contains("other data (or another chat template), rank 16 (now 8), instruction set avx2 (now amx)"),
            "{error}"
        );
    }
}
