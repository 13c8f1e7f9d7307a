//! The graph of stages: its file, its order, what each stage depends on, and the lock that remembers what was done.

mod file;
mod key;
mod lock;
mod order;

pub use file::{FileError, PipelineFile, StageKind, StageSpec};
pub use key::{Components, differences};
pub use lock::{LockedStage, PipelineLock};
pub use order::{OrderError, ancestors, order};
