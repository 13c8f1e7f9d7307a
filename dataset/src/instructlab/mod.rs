//! What `InstructLab`'s tools read and write: lines for their two phases of training, recipes, and tasks of multiple choice.

mod auxiliary;
mod branch_task;

mod folder;
mod knowledge;
mod recipe;

pub use auxiliary::AuxiliaryInstructions;
pub use branch_task::{BranchTask, MultipleChoice, write_branch_tasks};

pub use folder::{FolderOptions, FolderSummary, SeedPair, write_folder};
pub use knowledge::KnowledgeForms;
pub use recipe::{Recipe, RecipeFile, RecipeMetadata, SamplingSize};
