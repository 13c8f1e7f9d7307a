//! What can go wrong in an evaluation.

use std::io;
use std::path::{Path, PathBuf};

use espalier_dataset::DatasetError;
use espalier_inference::EngineError;

/// An error of this crate; the message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The engine could not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file of responses cannot be read or written.
    #[error(transparent)]
    Responses(#[from] DatasetError),
    /// The operating system refused a file.
    #[error("{}: cannot {action}: {source}; check that it exists, its permissions and the free space", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line of a data file that cannot be read.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A place of a task file that cannot be used.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    TaskFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A name that no task has.
    #[error("there is no task {name:?}; {hint}")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// What was perhaps meant.
        hint: String,
    },
    /// A model whose probabilities are not numbers.
    #[error(
        "task {task:?}: the probability of {text:?} is not a number: the model's weights are damaged, or overflow in this precision; \
         verify the file, or use --precision f32"
    )]
    NotANumber {
        /// The task.
        task: String,
        /// The beginning of the text that was scored.
        text: String,
    },
    /// A task that cannot be evaluated.
    #[error("task {task:?}: {problem}")]
    Task {
        /// Its name.
        task: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Multiple choice needs log-probabilities of given texts, which servers do not report for conversations.
    #[error(
        "task {task:?} has items with choices, which are decided by log-likelihood, but the engine is a server, which does not \
         report it in a conversation; evaluate with a local model, ask without the chat template, or take the choices out so that \
         answers are generated"
    )]
    NoLogLikelihood {
        /// The task.
        task: String,
    },
    /// The journal belongs to something else.
    #[error(
        "{}: the journal was written for another {what} ({found}, now {expected}); delete it to evaluate anew, or go back to \
         the {what} it was written for", path.display()
    )]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What differs: "task", "model".
        what: &'static str,
        /// What the journal says.
        found: String,
        /// What it would have to say.
        expected: String,
    },
    /// The caller stopped the run; the journal keeps what is done.
    #[error("interrupted after {done} of {total} items; run again with the same journal to go on")]
    Interrupted {
        /// Items with a result.
        done: usize,
        /// Items of the task.
        total: usize,
    },
    /// The engine returned without an answer for every item.
    #[error("the engine left {missing} of {total} items of task {task:?} without an answer; run again")]
    Unanswered {
        /// The task.
        task: String,
        /// Items without an answer.
        missing: usize,
        /// Items of the task.
        total: usize,
    },
    /// Two evaluations that are not of the same items under the same conditions.
    #[error(
        "{first:?} and {second:?} cannot be compared: {problem}; evaluate both on the same items, with the same prompts"
    )]
    NotComparable {
        /// Model of the first.
        first: String,
        /// Model of the second.
        second: String,
        /// What differs.
        problem: String,
    },
    /// Results that cannot be compared with others.
    #[error("{}: {problem}", path.display())]
    Results {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Too little text for one window.
    #[error("the text has {tokens} tokens, but a window needs {window}; give a longer text or a smaller window")]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
}

impl EvalError {
    /// What is wrong with results at `path`.
    pub(crate) fn results(path: &Path, problem: String) -> Self {
        Self::Results { path: path.to_owned(), problem }
    }

    /// A closure for `map_err` on input and output: `action` completes "cannot ...".
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), action, source }
    }
}
