//! The run folder: where each result of a run lies.

use std::path::{Path, PathBuf};

/// `runs/NAME`, or what `--run-dir` says.
#[derive(Debug, Clone)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// A run folder at a path.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lock that remembers what was done.
    pub fn lock(&self) -> PathBuf {
        self.root.join("pipeline.lock")
    }

    /// Held while a run works here.
    pub fn guard(&self) -> PathBuf {
        self.root.join(".running")
    }

    /// Events with their times.
    pub fn event_log(&self) -> PathBuf {
        self.root.join("logs/events.jsonl")
    }

    /// Journals and checkpoints of unfinished stages.
    pub fn work(&self, stage: &str) -> PathBuf {
        self.root.join(".work").join(stage)
    }

    /// Where a stage's outputs go: the run folder itself, or a folder of the stage's name when that is not its kind's.
    pub fn outputs(&self, stage: &str, kind: &str) -> PathBuf {
        if stage == kind { self.root.clone() } else { self.root.join(stage) }
    }

    /// A path as the lock writes it: relative, with forward slashes.
    pub fn relative(&self, path: &Path) -> String {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    }
}
