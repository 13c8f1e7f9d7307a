//! Rows of training data: what they hold, how they are kept, counted and handed on.
//!
//! A [`Row`] is one generated sample with its whole lineage: leaf, flow, slots, seeds, prompt, model, raw answer, verdict and
//! reason. Rejected rows are kept, so that a yield can be explained.
//!
//! - While generation runs, each finished row goes to a [`Journal`]; after a kill the next run reads them back.
//! - At the end, sorted rows go to Parquet ([`write_parquet`], or [`RowWriter`] as they come) and accepted ones to chat lines ([`write_messages_jsonl`]).
//!   Both files hold no clock, host or path: equal rows give equal bytes. Both are written beside their name, synced and
//!   renamed, so that a reader never sees half a file.
//! - What a teacher thinks of the tokens of rows lies beside them in a table of its own ([`write_teacher`]).
//! - [`Records`] reads training data, ours and that of other tools, in any [`Format`], a row at a time and with its line.
//! - [`Versions`] is a folder to which rows are only added and of which every version can be read again; [`RowSource`] is
//!   rows where they lie, and [`difference`] says what changed between two states.
//! - [`write_folder`] writes what `InstructLab`'s tools read, [`mix_recipe`] and [`mix`] mix by its recipes and by ours, and
//!   [`split`] holds rows out so that none of them shares a chunk with what is trained on.
//! - [`funnel`] counts what was generated, accepted and rejected for what reason; [`drop_duplicates`] rejects twins.
//! - [`quality`] has the checks of rows that need no model: near-duplicates first.
//!
//! ```
//! use espalier_dataset::{Row, Turn, Verdict, drop_duplicates, funnel};
//! let row = |index| Row {
//!     leaf: "dates".into(),
//!     index,
//!     turns: vec![Turn::new("user", "March 5, 2019?"), Turn::new("assistant", "2019-03-05")],
//!     verdict: Verdict::Accepted,
//!     ..Row::default()
//! };
//! let mut rows = [row(0), row(1)];
//! drop_duplicates(&mut rows);
//! let line = &funnel(&rows)[0];
//! assert_eq!((line.generated, line.accepted), (2, 1));
//! assert_eq!(line.rejected_by, [("duplicate".to_owned(), 1)]);
//! ```

mod atomic;
mod card;
mod convert;
mod draw;
mod duplicates;
mod error;
mod formats;
mod funnel;
mod grouping;
mod instructlab;
mod journal;
mod keyed;
mod lines;
mod messages;
mod mixing;
pub mod quality;
mod row;
mod statistics;
mod table;
mod teacher_file;
mod values;
mod versions;

pub use atomic::{rename_durably, write_atomically};
pub use card::data_card;
pub use convert::{Converted, OutputForm, convert};
pub use draw::draw_key;
pub use duplicates::{drop_duplicates, normalized};
pub use error::DatasetError;
pub use formats::{Content, Example, Format, Problem, Record, Records, TrainingLine, WeightedTurn};
pub use funnel::{Funnel, FunnelLine, funnel};
pub use grouping::{Group, GroupColumn, grouped};
pub use instructlab::{
    AuxiliaryInstructions, BranchTask, FolderOptions, FolderSummary, KnowledgeForms, MultipleChoice, Recipe,
    RecipeFile, RecipeMetadata, SamplingSize, SeedPair, write_branch_tasks, write_folder,
};
pub use journal::Journal;
pub use keyed::KeyedJournal;
pub use lines::{LineForm, LineSource};
pub use messages::write_messages_jsonl;
pub use mixing::{MixRecipe, MixSource, MixSummary, SourceSummary, SplitBy, SplitSummary, mix, mix_recipe, split};
pub use row::{Row, Score, Split, Turn, Verdict};
pub use statistics::{LengthSummary, Lengths, Statistics};
pub use table::{COLUMNS, Column, RowReader, RowWriter, read_parquet, row_schema, write_parquet};
pub use teacher_file::{TeacherOrigin, TeacherRow, read_teacher, write_teacher};
pub use values::read_parquet_values;
pub use versions::{Change, Difference, Origin, Part, RowSource, Rows, Version, Versions, difference};
