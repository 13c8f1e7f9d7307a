//! The graph of stages: its file, its order, what each stage depends on, and the lock that remembers what was done.

mod file;
mod key;
mod lock;
mod order;
mod read;
mod words;

pub use file::{FileError, PipelineFile, Place, StageKind, StagePlaces, StageSpec};
pub use key::{Components, differences};
pub use lock::{LockedStage, PipelineLock};
pub use order::{OrderError, ancestors, order};
pub use words::{Words, explain};
