//! `pipeline.lock`: what each stage was made from and what it made. Written after every stage, never half.

use super::Components;
use crate::content::write_atomically;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The memory of a run folder. It holds no clock and no absolute path, so that equal runs have equal locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineLock {
    /// Format of this file.
    pub espalier: u32,
    /// Stage name to what was done.
    pub stages: BTreeMap<String, LockedStage>,
}

/// One stage as it was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// What the outputs depend on.
    pub from: Components,
    /// Output path in the run folder to its content hash.
    pub outputs: BTreeMap<String, String>,
    /// The line of result that the stage ended with.
    pub summary: String,
    /// Why its gate refused the outputs, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl PipelineLock {
    /// Reads a lock file; a folder without one gives an empty lock.
    pub fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_yaml::from_str(&text).with_context(|| {
                format!(
                    "{} is not a lock file of this version\n  hint: remove it; every stage then runs again",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self { espalier: 1, ..Self::default() }),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the lock atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_yaml::to_string(self).context("cannot write the lock as YAML")?;
        write_atomically(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_survives_a_round_trip() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("pipeline.lock");
        let mut lock = PipelineLock::read(&path)?;
        let mut from = Components::default();
        from.add("config.rank", "16");
        lock.stages.insert("train".into(), LockedStage { from, summary: "ok: 3".into(), ..LockedStage::default() });
        lock.write(&path)?;
        assert_eq!(PipelineLock::read(&path)?, lock);
        std::fs::write(&path, "stages: [1]")?;
        assert!(format!("{:#}", PipelineLock::read(&path).unwrap_err()).contains("remove it"));
        Ok(())
    }
}
