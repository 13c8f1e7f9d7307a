//! Skills trees: `qna.yaml` files and their documents, read and validated.
//!
//! A *tree* is a folder; each folder below it that holds a `qna.yaml` is a *leaf*: one thing that a model is to learn.
//! A leaf is a freeform skill (question, answer), a grounded skill (context, question, answer) or knowledge (a document and
//! questions about parts of it).
//!
//! # Which forms are read
//! - Versions 1, 2 and 3 of the `InstructLab` form: keys that its schema refuses are errors here too, and with
//!   [`Mode::Strict`] so is all else that its own reader refuses. Documents in git are read from a clone on this machine, else
//!   named by a note and never fetched.
//! - Our own form, marked by `espalier: 1` in place of `version`. Beside seeds it may hold documents (files, patterns, text,
//!   clones), a template that questions are drawn from, a check of answers, a held-out test, and how its rows are made and
//!   mixed. docs/taxonomy.md has every key.
//!
//! [`fix`] mends files without a change of what they say, [`upgrade`] turns the other forms into ours.
//!
//! # Errors
//! [`read_tree`] looks at every file before it gives up: each [`Diagnostic`] says where, what and how to mend it.
//!
//! ```
//! # use std::fs;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path();
//! fs::write(path.join("qna.yaml"), "espalier: 1\ncreated_by: me\n")?;
//! let problems = espalier_taxonomy::read_tree(path).unwrap_err();
//! assert!(problems[0].to_string().contains("qna.yaml:1:1: error: "));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it does not do
//! It evaluates no template and no expression (`espalier-sdg` does, and reports with the places kept in [`Places`]), and it
//! opens no network connection.

mod attribution;
mod chunk;
mod conversation;
mod diagnostic;
mod difference;
pub mod document;
pub mod fix;
mod hash;
mod layout;
mod leaf;
pub mod license;
pub mod lint;
mod node;
mod parse;
mod read;
mod scalar;
mod tree;
pub mod upgrade;

pub use attribution::{Work, check_licenses};
pub use chunk::{Chunk, ChunkSettings, chunks};
pub use conversation::read_script;
pub use diagnostic::{Diagnostic, Severity};
pub use difference::{LeafDifference, LeafState, PartDifference, TreeDifference, TreeState};
pub use leaf::{
    Document, Exchange, Leaf, LeafKind, LeafVersion, Place, Places, QuestionTemplate, Seed, Slot, TestItem, Verify,
};
pub use read::Mode;
pub use tree::{Tree, leaf_files, read_tree, read_tree_with, tree_root};

/// YAML with places, and the reading of mappings whose unknown keys are refused: what every file of ours is read with.
pub mod yaml {
    pub use crate::node::{Key, Node, Value};
    pub use crate::parse::{SyntaxError, parse, parse_tagged};
    pub use crate::read::Report;
    pub use crate::read::fields::{Fields, distance, list, text};
}

/// JSON schema of the form `espalier: 1`, for editors.
pub const SCHEMA: &str = include_str!("../schema/espalier-1.schema.json");

/// What texts of a scaffold begin with: words for its author to write their own in place of.
pub const PLACEHOLDER: &str = "REPLACE: ";
