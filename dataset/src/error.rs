//! What can go wrong with files of rows.

use std::io;
use std::path::{Path, PathBuf};

use crate::formats::Problem;

/// A failure, with the file it is about.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source} (check the path, its permissions and the free space)", path.display())]
    File {
        /// "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A Parquet file is damaged, or not one of ours.
    #[error("{} is not a table of rows: {reason} (generate it again)", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Rows cannot be grouped.
    #[error("the rows cannot be grouped: {reason}")]
    Grouping {
        /// Why.
        reason: String,
    },
    /// A file of training data cannot be used.
    #[error("{0}")]
    Problem(Problem),
    /// Texts cannot be compared by what they say.
    #[error("no vectors of texts: {0}")]
    Vectors(String),
    /// A line of a JSON-lines file cannot be read.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl DatasetError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_path_buf(), source }
    }

    /// A fault of a whole file.
    pub(crate) fn whole(path: &Path, what: &str) -> Self {
        Self::Problem(Problem { path: path.to_path_buf(), line: None, what: what.to_owned() })
    }

    pub(crate) fn table(path: &Path, reason: &impl ToString) -> Self {
        Self::Table { path: path.to_path_buf(), reason: reason.to_string() }
    }
}
